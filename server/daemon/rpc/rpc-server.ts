/**
 * The JSON-RPC front of the daemon: a Unix socket that only its owner can open, and the clients on it.
 * 1. The socket file has mode 0600 and lies in a folder of mode 0700 that exists before it: there is no moment in which others could connect.
 * 2. A socket left behind by a killed daemon is taken over; one that answers is refused.
 * 3. Connections without a key are few and short-lived: the oldest makes room for the newest.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import type { GhostHandlers } from "../../../protocol/ghost-api.ts";
import type { Clock, Ids } from "../../base/clock.ts";
import { systemCode, UserError } from "../../base/errors.ts";
import { preparePrivateFolder, removeFile, setFileMode } from "../../platform/filesystem.ts";
import type { Log } from "../../platform/log.ts";
import { type StandingPermit, THIS_MACHINE } from "../../platform/permit.ts";
import { bindMethods, type Caller } from "../bind-api.ts";
import type { Authenticate } from "./handshake.ts";
import { JsonSlicer } from "./json-slices.ts";
import { createJsonPool } from "./large-json.ts";
import { RPC_LIMITS, type RpcLimits } from "./limits.ts";
import { RpcConnection } from "./rpc-connection.ts";

export interface RpcServerOptions {
  readonly socketPath: string;
  /** Covers the socket as a listener (`net.http`), its file and its folder (`fs.write`). */
  readonly permit: StandingPermit;
  readonly authenticate: Authenticate;
  readonly handlers: GhostHandlers<Caller>;
  /** The daemon's version. */
  readonly version: string;
  /** The numeric user id of the process; the folder must belong to it. */
  readonly uid: number;
  readonly log: Log;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly limits?: Partial<RpcLimits>;
}

export interface RpcServer {
  /** Clients that have initialized. */
  readonly clients: number;
  /** All connections, those without a key included. */
  readonly connections: number;
  /**
   * Drains: takes no more connections, answers new requests with `daemon_stopping`, ends streams that have no end of their own, gives
   * open answers `drainMs` (5 s), ends what is left with `daemon_stopping`, and closes. Never rejects; a second call waits for the first.
   */
  close(): Promise<void>;
}

/** The longest path that fits into a socket address on every system (104 bytes with its final zero on the BSDs, 108 on Linux). */
const MAX_SOCKET_PATH_BYTES = 103;

/** Starts to listen. @throws UserError `folder_unusable`, `already_running` */
export async function startRpcServer(options: RpcServerOptions): Promise<RpcServer> {
  const limits: RpcLimits = { ...RPC_LIMITS, ...options.limits };
  const jsonPool = createJsonPool(options.clock);
  const slicer = new JsonSlicer(limits);
  const connections = new Set<RpcConnection>();
  const clients = () => connections.values().filter(({ isInitialized }) => isInitialized);
  let closing: Promise<void> | undefined;

  const server = createServer((socket) => {
    if (closing !== undefined) {
      socket.destroy();
      return;
    }
    const strangers = connections
      .values()
      .filter(({ isInitialized }) => !isInitialized)
      .toArray();
    if (strangers.length >= limits.maxUnauthenticated) strangers[0]?.destroy();
    const connection: RpcConnection = new RpcConnection(socket, {
      ...options,
      limits,
      jsonPool,
      slicer,
      bind: (caller) => bindMethods(options.handlers, caller, options),
      admit: () => clients().toArray().length < limits.maxClients,
      onClosed: () => connections.delete(connection),
    });
    connections.add(connection);
  });
  await listen(server, options);
  server.on("error", (error) => options.log.error({ event: "rpc.listener", error }));

  const close = async () => {
    const isClosed = new Promise<void>((resolve) => {
      server.close(() => resolve());
    });
    const timeUp = Promise.withResolvers<void>();
    using _timer = options.clock.after(limits.drainMs, timeUp.resolve);
    await Promise.race([Promise.all(Array.from(connections, (connection) => connection.stop())), timeUp.promise]);
    for (const connection of connections) connection.abortAll();
    // The replies of what was just aborted are written in the microtasks of this turn.
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    for (const connection of connections) connection.end();
    await isClosed;
    await jsonPool[Symbol.asyncDispose]();
  };
  return {
    get clients() {
      return clients().toArray().length;
    },
    get connections() {
      return connections.size;
    },
    close: () => (closing ??= close()),
  };
}

/** (1) (2) */
async function listen(server: Server, options: RpcServerOptions): Promise<void> {
  const { socketPath, permit, uid } = options;
  if (Buffer.byteLength(socketPath) > MAX_SOCKET_PATH_BYTES) {
    const message = `the socket's path is longer than ${MAX_SOCKET_PATH_BYTES} bytes: ${socketPath}`;
    throw new UserError("folder_unusable", message, { details: { path: socketPath } });
  }
  preparePrivateFolder(permit, dirname(socketPath), uid);
  const effect = {
    capability: "net.http",
    resource: { kind: "listener", address: socketPath },
    host: THIS_MACHINE,
  } as const;
  const spent = permit.spend(effect);
  try {
    await listenOnce(server, socketPath);
  } catch (error) {
    if (systemCode(error) !== "EADDRINUSE") throw unusable(error, socketPath);
    if (await answers(socketPath)) {
      const message = `another daemon already listens on ${socketPath}`;
      throw new UserError("already_running", message, { cause: error, details: { socket: socketPath } });
    }
    await removeFile(permit, socketPath);
    await listenOnce(server, socketPath).catch((failure: unknown) => Promise.reject(unusable(failure, socketPath)));
  }
  await setFileMode(permit, socketPath, 0o600);
  spent.settle({ kind: "done" });
}

function listenOnce(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

/** Whether anybody accepts connections at `path`. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket: Socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    // A full backlog (EAGAIN) is somebody who listens; only a refusal and a missing file are nobody.
    socket.once("error", (error) => resolve(!["ECONNREFUSED", "ENOENT"].includes(systemCode(error) ?? "")));
  });
}

function unusable(error: unknown, path: string): UserError {
  const code = systemCode(error) ?? "unknown error";
  return new UserError("folder_unusable", `cannot listen on ${path} (${code})`, { cause: error, details: { path } });
}

/**
 * The daemon's Unix socket as a JSON-RPC connection, for faces that run on Node.
 * What arrives is bounded and checked (message-stream.ts): whatever listens there, it can end the connection and nothing else.
 */
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { createMessageConnection, type Message } from "vscode-jsonrpc/node";
import { GhostApiError } from "../errors.ts";
import { type ConnectOptions, connectGhost, type GhostClient } from "../ghost-client.ts";
import { fromRpcError, toRpcError } from "../rpc-error.ts";
import { MAX_FRAME_BYTES, MAX_HEADER_BYTES } from "../stream.ts";
import { SocketReader, SocketWriter } from "./message-stream.ts";
import { checkPrivateSocket } from "./private-place.ts";
import type { RpcMessage } from "./rpc-message.ts";

export interface SocketOptions extends ConnectOptions {
  /** Whose daemon it must be; by default that of the user of this process. */
  readonly ownerUid?: number;
}

/**
 * Connects to the daemon's socket and initializes.
 * @throws GhostApiError `folder_unusable`, with nothing sent, when the socket or its folder is not the owner's alone (private-place.ts);
 * `daemon_unreachable` when nothing listens at `socketPath`; and what {@link connectGhost} throws.
 */
export async function connectSocket(socketPath: string, options: SocketOptions): Promise<GhostClient> {
  await checkPrivateSocket(socketPath, options.ownerUid);
  const socket = await open(socketPath);
  const reader: ClientReader = new ClientReader(socket, {
    limits: { maxHeaderBytes: MAX_HEADER_BYTES, maxFrameBytes: MAX_FRAME_BYTES },
    onViolation: ({ message }) => reader.fail(`the daemon does not speak this protocol: ${message}`),
    accept: (message) => reader.accept(message),
  });
  const connection = createMessageConnection(
    reader,
    new SocketWriter(socket, (message) => encode(message, reader)),
    undefined,
    {
      messageStrategy: {
        handleMessage(message, next) {
          const result = next(message);
          reader.noteDispatched();
          return result;
        },
      },
    },
  );
  connection.onDispose(() => {
    // Half a second for the last messages, for example a cancellation; a peer that does not read must not keep us.
    const timer = setTimeout(() => socket.destroy(), FLUSH_MS);
    socket.once("close", () => clearTimeout(timer));
  });
  connection.listen();
  return connectGhost(connection, options);
}

const FLUSH_MS = 500;
/** A second in all: a listener's queue is empty again within milliseconds, or the daemon is stuck. */
const MAX_CONNECT_ATTEMPTS = 7;
const CONNECT_PAUSE_MS = 50;

/** A request that is too large fails alone, here: sent, it would cost the connection. */
function encode(message: Message, reader: ClientReader): string | undefined {
  const json = JSON.stringify(message);
  // A text has at most three bytes a UTF-16 unit; most are far from the bound and need not be counted.
  if (json.length * 3 <= MAX_FRAME_BYTES || Buffer.byteLength(json) <= MAX_FRAME_BYTES) return json;
  const id = "id" in message ? message.id : null;
  const text = `the request is larger than the ${MAX_FRAME_BYTES} bytes that one message may hold`;
  const error = toRpcError({ code: "body_too_large", message: text, details: {} });
  const reply = { jsonrpc: "2.0", id, error };
  queueMicrotask(() => reader.inject(reply));
  return undefined;
}

/**
 * vscode-jsonrpc queues messages, and drops the queue when the connection ends. What the daemon said before it left counts, so here the end
 * waits until everything before it has been dispatched.
 */
class ClientReader extends SocketReader {
  #undispatched = 0;
  #end: (() => void) | undefined;

  fail(message: string): void {
    this.fireError(new GhostApiError({ code: "protocol_violation", message, details: {} }));
  }

  /** An error reply without an id is about the connection: the daemon refuses it, and says why. */
  accept(message: RpcMessage): boolean {
    if (message.kind === "response" && message.id === null && message.error !== undefined) {
      this.fireError(fromRpcError(message.error));
      return false;
    }
    this.#undispatched += 1;
    return true;
  }

  noteDispatched(): void {
    this.#undispatched -= 1;
    if (this.#undispatched > 0) return;
    const end = this.#end;
    this.#end = undefined;
    end?.();
  }

  override inject(message: Message): void {
    this.#undispatched += 1;
    super.inject(message);
  }

  protected override fireClose(): void {
    this.#whenDispatched(() => super.fireClose());
  }

  protected override fireError(error: unknown): void {
    this.#whenDispatched(() => super.fireError(error));
  }

  /** The first end counts: what follows it is its consequence. */
  #whenDispatched(end: () => void): void {
    if (this.#undispatched <= 0) end();
    else this.#end ??= end;
  }
}

async function open(socketPath: string): Promise<Socket> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await openOnce(socketPath);
    } catch (cause) {
      // The daemon is there and has more callers waiting than its listener holds.
      if (attempt < MAX_CONNECT_ATTEMPTS && cause instanceof Error && "code" in cause && cause.code === "EAGAIN") {
        await sleep(attempt * CONNECT_PAUSE_MS);
        continue;
      }
      const message = `no daemon answers at ${socketPath}`;
      throw new GhostApiError({ code: "daemon_unreachable", message, details: { socket: socketPath } }, { cause });
    }
  }
}

function openOnce(socketPath: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      socket.on("error", () => {}); // The reader reports it; without a listener it would end the process after the reader is gone.
      resolve(socket);
    });
  });
}

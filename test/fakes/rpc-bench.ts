/** A running JSON-RPC front on a socket of its own, with the test's handlers behind it. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { userIdSchema } from "../../protocol/ids.ts";
import { DisposableStore } from "../../server/base/disposable.ts";
import type { RpcLimits } from "../../server/daemon/rpc/limits.ts";
import { type RpcServer, startRpcServer } from "../../server/daemon/rpc/rpc-server.ts";
import { StandingPermit } from "../../server/platform/permit-mint.ts";
import { systemClock, systemIds } from "../../server/platform/system-clock.ts";
import { connectRaw, initializeMessage, type RawClient } from "./raw-rpc.ts";
import { WireProbe } from "./wire-handlers.ts";

export const FACE_KEY = "the-face-credential-of-this-test";

export interface RpcBench extends AsyncDisposable {
  readonly server: RpcServer;
  readonly socketPath: string;
  readonly probe: WireProbe;
  raw(): Promise<RawClient>;
  /** A raw client that has initialized. */
  ready(): Promise<RawClient>;
}

export async function startRpcBench(limits: Partial<RpcLimits> = {}): Promise<RpcBench> {
  const store = new DisposableStore();
  const folder = await mkdtemp(join(tmpdir(), "ghost-rpc-"));
  store.defer(() => rm(folder, { recursive: true }));
  const socketPath = join(folder, "run", "ghostd-1.sock");
  const probe = new WireProbe();
  const server = await serveRpc(socketPath, probe, limits);
  store.defer(() => server.close());
  const raw = async () => store.use(await connectRaw(socketPath));
  return {
    server,
    socketPath,
    probe,
    raw,
    async ready() {
      const client = await raw();
      client.send(initializeMessage(FACE_KEY));
      assert.ok((await client.next())?.result);
      return client;
    },
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

export function serveRpc(socketPath: string, probe: WireProbe, limits: Partial<RpcLimits> = {}): Promise<RpcServer> {
  const folder = join(socketPath, "..");
  return startRpcServer({
    socketPath,
    permit: new StandingPermit("test", [
      { capability: "net.http", resource: { kind: "listener", address: socketPath } },
      { capability: "fs.write", resource: { kind: "path", path: folder } },
    ]),
    authenticate: (key) => (key === FACE_KEY ? { userId: userIdSchema.parse("local") } : undefined),
    handlers: probe.handlers,
    version: "1.2.3",
    uid: process.getuid?.() ?? -1,
    log: probe.log,
    clock: systemClock,
    ids: systemIds,
    limits: { drainMs: 100, ...limits },
  });
}

export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await nextTurn();
}

export const list = (id: number | string) => ({ jsonrpc: "2.0", id, method: "ghost/session/list", params: {} });
export const logs = (id: number, credit: number, token = "t") => ({
  jsonrpc: "2.0",
  id,
  method: "ghost/daemon/logs",
  params: { partialResultToken: token, credit },
});

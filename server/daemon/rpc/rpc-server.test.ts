/** The JSON-RPC front on a real socket: its file, its handshake, its requests, its streams, its end. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { GhostApiError } from "../../../protocol/errors.ts";
import { connectSocket } from "../../../protocol/node/socket-transport.ts";
import { frame, initializeMessage, type RawClient } from "../../../test/fakes/raw-rpc.ts";
import { FACE_KEY, list, logs, serveRpc, startRpcBench, until } from "../../../test/fakes/rpc-bench.ts";
import { WireProbe } from "../../../test/fakes/wire-handlers.ts";
import { UserError } from "../../base/errors.ts";

const never = new AbortController().signal;

describe("the socket", () => {
  it("has mode 0600 in a folder of mode 0700, whatever the umask", async () => {
    const before = process.umask(0);
    try {
      await using bench = await startRpcBench();
      assert.equal((await stat(bench.socketPath)).mode & 0o777, 0o600);
      assert.equal((await stat(join(bench.socketPath, ".."))).mode & 0o777, 0o700);
    } finally {
      process.umask(before);
    }
  });

  it("closes a folder that was open to others before it listens there", async () => {
    const folder = await mkdtemp(join(tmpdir(), "ghost-rpc-"));
    const run = join(folder, "run");
    await mkdir(run, { mode: 0o755 });
    await chmod(run, 0o755);
    const server = await serveRpc(join(run, "s.sock"), new WireProbe());
    assert.equal((await stat(run)).mode & 0o777, 0o700);
    await server.close();
    await rm(folder, { recursive: true });
  });

  it("takes over what a killed daemon left, and is refused where one answers", async () => {
    const folder = await mkdtemp(join(tmpdir(), "ghost-rpc-"));
    const socketPath = join(folder, "s.sock");
    const script = `require("net").createServer().listen(${JSON.stringify(socketPath)}, () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", script]);
    assert.ok(existsSync(socketPath), "the killed process must have left its socket");
    const server = await serveRpc(socketPath, new WireProbe());
    await assert.rejects(
      serveRpc(socketPath, new WireProbe()),
      (error) => error instanceof UserError && error.code === "already_running",
    );
    (await connectSocket(socketPath, { key: FACE_KEY, clientName: "test" }))[Symbol.dispose]();
    await server.close();
    assert.equal(existsSync(socketPath), false);
    await rm(folder, { recursive: true });
  });

  it("refuses a path that no socket address can hold", async () => {
    const socketPath = join(tmpdir(), "x".repeat(120), "s.sock");
    await assert.rejects(
      serveRpc(socketPath, new WireProbe()),
      (error) => error instanceof UserError && error.code === "folder_unusable",
    );
  });
});

describe("the handshake", () => {
  it("answers nothing but `initialize` before it, and drops notifications", async () => {
    await using bench = await startRpcBench();
    const client = await bench.raw();
    client.send({ jsonrpc: "2.0", method: "ghost/stream/credit", params: { token: "t", credit: 1 } });
    client.send(list(1));
    const refused = await client.next();
    assert.equal(refused?.error?.code, -32_002);
    assert.equal(refused?.error?.data?.code, "not_initialized");
    client.send(initializeMessage(FACE_KEY, { id: 2 }));
    const result = JSON.stringify((await client.next())?.result);
    assert.match(result, /"version":"1.2.3"/);
    assert.match(result, /"protocol":1/);
    client.send(list(3));
    assert.deepEqual((await client.next())?.result, { sessions: [] });
    assert.equal(bench.server.clients, 1);
  });

  it("refuses a wrong key and closes", async () => {
    await using bench = await startRpcBench();
    const client = await bench.raw();
    client.send(initializeMessage("wrong"));
    client.send(list(1));
    assert.equal((await client.next())?.error?.data?.code, "unauthenticated");
    await client.closed;
    assert.equal(bench.probe.seen.length, 0);
    await assert.rejects(
      connectSocket(bench.socketPath, { key: "wrong", clientName: "test" }),
      (error) => error instanceof GhostApiError && error.code === "unauthenticated",
    );
  });

  it("picks the highest version both speak, and names both ranges where there is none", async () => {
    await using bench = await startRpcBench();
    const newer = await bench.raw();
    newer.send(initializeMessage(FACE_KEY, { min: 1, max: 7 }));
    assert.match(JSON.stringify((await newer.next())?.result), /"protocol":1/);
    const foreign = await bench.raw();
    foreign.send(initializeMessage(FACE_KEY, { min: 2, max: 7 }));
    const { error } = (await foreign.next()) ?? {};
    assert.equal(error?.data?.code, "protocol_unsupported");
    assert.match(error?.message ?? "", /2 to 7.*1 to 1/);
    await foreign.closed;
  });

  it("names the field of a handshake that is wrong", async () => {
    await using bench = await startRpcBench();
    const client = await bench.raw();
    client.send({
      jsonrpc: "2.0",
      id: 1,
      method: "initialize",
      params: { initializationOptions: { ghost: { key: 7 } } },
    });
    const { error } = (await client.next()) ?? {};
    assert.equal(error?.data?.code, "invalid_params");
    assert.match(String(error?.data?.details["field"]), /^initializationOptions\.ghost\./);
    await client.closed;
  });

  it("refuses a second `initialize`, and keeps the client", async () => {
    await using bench = await startRpcBench();
    const client = await bench.ready();
    client.send(initializeMessage(FACE_KEY, { id: 1 }));
    assert.equal((await client.next())?.error?.data?.code, "protocol_violation");
    client.send(list(2));
    assert.ok((await client.next())?.result);
  });

  it("answers `shutdown`, then nothing more, and closes on `exit`", async () => {
    await using bench = await startRpcBench();
    const client = await bench.ready();
    client.send({ jsonrpc: "2.0", id: 1, method: "shutdown" });
    const reply = await client.next();
    assert.deepEqual([reply?.id, reply?.result], [1, null]);
    client.send(list(2));
    assert.equal((await client.next())?.error?.data?.code, "protocol_violation");
    client.send({ jsonrpc: "2.0", method: "exit" });
    await client.closed;
    (await bench.ready()).send(list(1));
  });

  it("closes a connection that does not initialize in time", async () => {
    await using bench = await startRpcBench({ initializeMs: 50 });
    const client = await bench.raw();
    assert.equal((await client.next())?.error?.data?.code, "protocol_violation");
    await client.closed;
  });

  it("drops the oldest stranger when there are too many, and no client", async () => {
    await using bench = await startRpcBench({ maxUnauthenticated: 3 });
    const known = await bench.ready();
    const strangers = [await bench.raw(), await bench.raw(), await bench.raw()];
    await until(() => bench.server.connections === 4);
    await bench.raw();
    await strangers[0]?.closed;
    assert.equal(bench.server.connections, 4);
    known.send(list(1));
    assert.ok((await known.next())?.result);
  });

  it("survives a thousand half-open connections and still lets its user in", async () => {
    await using bench = await startRpcBench();
    for (let round = 0; round < 100; round += 1) {
      await Promise.all(Array.from({ length: 10 }, () => bench.raw()));
      // The listener accepts one connection a turn; without a pause its queue would be full first.
      for (let turn = 0; turn < 15; turn += 1) await nextTurn();
    }
    (await bench.ready()).send(list(1));
    assert.ok(bench.server.connections <= 34, `${bench.server.connections} connections are held`);
  });

  it("refuses clients beyond its limit as `overloaded`", async () => {
    await using bench = await startRpcBench({ maxClients: 1 });
    await bench.ready();
    const second = await bench.raw();
    second.send(initializeMessage(FACE_KEY));
    assert.equal((await second.next())?.error?.data?.code, "overloaded");
    await second.closed;
  });
});

describe("requests", () => {
  it("an unknown method is MethodNotFound with the nearest names", async () => {
    await using bench = await startRpcBench();
    const client = await bench.ready();
    client.send({ jsonrpc: "2.0", id: 1, method: "ghost/session/lits" });
    const { error } = (await client.next()) ?? {};
    assert.equal(error?.code, -32_601);
    assert.equal(error?.data?.code, "method_unknown");
    assert.ok(String(error?.data?.details["nearest"]).includes("ghost/session/list"));
  });

  it("an unexpected failure answers its own request, without a stack, and is logged", async () => {
    await using bench = await startRpcBench();
    const client = await bench.ready();
    bench.probe.throwNext(new RangeError("secret-text"));
    client.send(list(1));
    client.send(list(2));
    const replies = [await client.next(), await client.next()];
    const failed = replies.find((reply) => reply?.id === 1);
    assert.equal(failed?.error?.data?.code, "internal");
    assert.doesNotMatch(JSON.stringify(failed), /secret-text|\.ts:/);
    assert.ok(replies.find((reply) => reply?.id === 2)?.result);
    assert.equal(bench.probe.logged.at(-1)?.event, "request.bug");
  });

  it("$/cancelRequest aborts the handler, once; nonsense in it is ignored", async () => {
    await using bench = await startRpcBench();
    bench.probe.holdRequests = true;
    const client = await bench.ready();
    client.send(list("a"));
    await bench.probe.called();
    for (const params of [null, {}, { id: {} }, { id: "unknown" }, { id: "a" }, { id: "a" }]) {
      client.send({ jsonrpc: "2.0", method: "$/cancelRequest", params });
    }
    const { error } = (await client.next()) ?? {};
    assert.deepEqual([error?.code, error?.data?.code], [-32_800, "cancelled"]);
    await bench.probe.aborted();
    client.send({ jsonrpc: "2.0", method: "$/cancelRequest", params: { id: "a" } });
    client.send({ jsonrpc: "2.0", id: 2, method: "x" });
    assert.equal((await client.next())?.error?.data?.code, "method_unknown");
  });

  it("a cancellation that overtakes its request's dispatch cancels it", async () => {
    await using bench = await startRpcBench();
    bench.probe.holdRequests = true;
    const client = await bench.ready();
    const cancel = { jsonrpc: "2.0", method: "$/cancelRequest", params: { id: 1 } };
    client.sendText(Buffer.concat([frame(JSON.stringify(list(1))), frame(JSON.stringify(cancel))]));
    assert.equal((await client.next())?.error?.data?.code, "cancelled");
  });

  it("more open requests than allowed are refused at once, and there is room again after an answer", async () => {
    await using bench = await startRpcBench({ maxOpenRequests: 3 });
    bench.probe.holdRequests = true;
    const client = await bench.ready();
    for (const id of [1, 2, 3, 4]) client.send(list(id));
    const refused = await client.next();
    assert.deepEqual([refused?.id, refused?.error?.data?.code], [4, "overloaded"]);
    client.send({ jsonrpc: "2.0", method: "$/cancelRequest", params: { id: 2 } });
    assert.equal((await client.next())?.id, 2);
    bench.probe.holdRequests = false;
    client.send(list(5));
    assert.ok((await client.next())?.result);
  });

  it("two open requests with one id break the protocol", async () => {
    await using bench = await startRpcBench();
    bench.probe.holdRequests = true;
    const client = await bench.ready();
    client.send(list(1));
    client.send(list(1));
    assert.equal((await client.next())?.error?.data?.code, "protocol_violation");
    await client.closed;
    await bench.probe.aborted();
  });

  it("a client that is gone aborts all its work at once, also when it only ends its half", async () => {
    for (const leave of [(client: RawClient) => client.socket.destroy(), (client: RawClient) => client.socket.end()]) {
      await using bench = await startRpcBench();
      bench.probe.holdRequests = true;
      const client = await bench.ready();
      client.send(list(1));
      await bench.probe.called();
      leave(client);
      await bench.probe.aborted();
      await until(() => bench.server.connections === 0);
    }
  });

  it("a flood of messages is read no faster than it is answered", async () => {
    await using bench = await startRpcBench({ maxUndispatched: 4, maxOpenRequests: 50 });
    const client = await bench.ready();
    client.sendText(Buffer.concat(Array.from({ length: 3000 }, (_, id) => frame(JSON.stringify(list(id + 1))))));
    for (let answered = 0; answered < 3000; answered += 1) assert.ok((await client.next())?.result);
  });
});

describe("streams", () => {
  const endless = async function* () {
    for (let item = 0; ; item += 1) yield `${item}`;
  };
  const lines = (reply: unknown): readonly string[] =>
    Array.from(JSON.stringify(reply).matchAll(/"line":"(\w+)"/g), ([, line]) => line ?? "");

  it("send no more than the credit, go on when more is granted, and batch what is ready", async () => {
    await using bench = await startRpcBench({ maxBatchItems: 4 });
    bench.probe.source = endless;
    const client = await bench.ready();
    client.send(logs(1, 10));
    const got = [await client.next(), await client.next(), await client.next()].map(lines);
    assert.deepEqual(got, [
      ["0", "1", "2", "3"],
      ["4", "5", "6", "7"],
      ["8", "9"],
    ]);
    for (let turn = 0; turn < 50; turn += 1) await nextTurn();
    assert.equal(bench.probe.pulled, 10);
    client.send({ jsonrpc: "2.0", method: "ghost/stream/credit", params: { token: "t", credit: 2 } });
    assert.deepEqual(lines(await client.next()), ["10", "11"]);
    assert.equal(bench.probe.pulled, 12);
    client.send({ jsonrpc: "2.0", method: "$/cancelRequest", params: { id: 1 } });
    assert.equal((await client.next())?.error?.data?.code, "cancelled");
    await bench.probe.finished();
  });

  it("need a token and credit, and a token of their own", async () => {
    await using bench = await startRpcBench();
    bench.probe.source = endless;
    const client = await bench.ready();
    client.send({ jsonrpc: "2.0", id: 1, method: "ghost/daemon/logs", params: {} });
    assert.equal((await client.next())?.error?.data?.details["field"], "partialResultToken");
    client.send(logs(2, 1));
    assert.deepEqual(lines(await client.next()), ["0"]);
    client.send(logs(3, 1));
    assert.equal((await client.next())?.error?.data?.code, "protocol_violation");
  });

  it("are bounded in number", async () => {
    await using bench = await startRpcBench({ maxOpenStreams: 2 });
    bench.probe.source = endless;
    const client = await bench.ready();
    for (const id of [1, 2, 3]) client.send(logs(id, 1, `t${id}`));
    const codes = [await client.next(), await client.next(), await client.next()].map(
      (reply) => reply?.error?.data?.code,
    );
    assert.deepEqual(
      codes.filter((code) => code !== undefined),
      ["overloaded"],
    );
  });

  it("wait for a client that does not read, and stop with it", async () => {
    await using bench = await startRpcBench({ pauseStreamsBytes: 100_000 });
    const line = "x".repeat(10_000);
    bench.probe.source = async function* () {
      for (;;) yield line;
    };
    const client = await bench.ready();
    client.socket.pause();
    client.send(logs(1, 4096));
    let before = -1;
    while (before !== bench.probe.pulled || before === 0) {
      before = bench.probe.pulled;
      for (let turn = 0; turn < 200; turn += 1) await nextTurn();
    }
    assert.ok(before < 1000, `${before} items of 10 kB were pulled for a client that reads nothing`);
    client.socket.destroy();
    await bench.probe.finished();
  });

  it("a client that asks and never reads is disconnected before it fills the memory", async () => {
    await using bench = await startRpcBench({
      maxUnsentBytes: 1_000_000,
      pauseStreamsBytes: 10_000_000,
      maxOpenRequests: 10_000,
    });
    bench.probe.source = async function* () {
      for (;;) yield "x".repeat(50_000);
    };
    const client = await bench.ready();
    client.socket.pause();
    client.send(logs(1, 4096));
    await bench.probe.aborted();
    await until(() => bench.server.connections === 0);
    assert.ok(bench.probe.logged.some(({ event }) => event === "rpc.unread"));
  });
});

describe("stopping", () => {
  it("ends endless streams, lets open answers finish, refuses new requests, and then closes", async () => {
    await using bench = await startRpcBench({ drainMs: 5000 });
    const answer = Promise.withResolvers<void>();
    bench.probe.source = async function* () {
      yield "one";
      await new Promise(() => {});
    };
    const watcher = await bench.ready();
    watcher.send(logs(1, 5));
    await watcher.next();
    const asker = await bench.ready();
    bench.probe.listAfter = answer.promise;
    asker.send(list(1));
    await until(() => bench.probe.seen.some(({ method }) => method === "session.list"));
    const closing = bench.server.close();
    assert.equal((await watcher.next())?.error?.data?.code, "daemon_stopping");
    asker.send(list(2));
    const refused = await asker.next();
    assert.deepEqual([refused?.id, refused?.error?.data?.code], [2, "daemon_stopping"]);
    answer.resolve();
    assert.ok((await asker.next())?.result);
    await closing;
    await asker.closed;
    await assert.rejects(
      connectSocket(bench.socketPath, { key: FACE_KEY, clientName: "late" }),
      (error) => error instanceof GhostApiError && error.code === "daemon_unreachable",
    );
  });

  it("fails what does not finish in time with `daemon_stopping`", async () => {
    await using bench = await startRpcBench({ drainMs: 50 });
    bench.probe.holdRequests = true;
    using client = await connectSocket(bench.socketPath, { key: FACE_KEY, clientName: "test" });
    const open = client.api.session.list({}, never);
    const failed = assert.rejects(open, (error) => error instanceof GhostApiError && error.code === "daemon_stopping");
    await bench.probe.called();
    await bench.server.close();
    await failed;
    await client.closed;
  });
});

/**
 * GhostApi behaves the same wherever it is called from: every case below runs against each implementation.
 * A transport serves the handlers it is given and hands out clients of them.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { GhostApiError } from "../protocol/errors.ts";
import type { GhostApi, GhostHandlers } from "../protocol/ghost-api.ts";
import { clientIdSchema, modelRefSchema, userIdSchema } from "../protocol/ids.ts";
import { connectSocket } from "../protocol/node/socket-transport.ts";
import { INITIAL_STREAM_CREDIT } from "../protocol/stream.ts";
import { DisposableStore } from "../server/base/disposable.ts";
import { BugError, OperationalError, UserError } from "../server/base/errors.ts";
import { bindGhostApi, type Caller } from "../server/daemon/bind-api.ts";
import { startRpcServer } from "../server/daemon/rpc/rpc-server.ts";
import { StandingPermit } from "../server/platform/permit-mint.ts";
import { systemClock, systemIds } from "../server/platform/system-clock.ts";
import { WireProbe } from "./fakes/wire-handlers.ts";

interface Served extends AsyncDisposable {
  connect(clientName: string): Promise<{ readonly api: GhostApi } & Disposable>;
  /** How many items a handler may be pulled ahead of its reader. */
  readonly maxAhead: number;
}
interface Transport {
  readonly name: string;
  serve(handlers: GhostHandlers<Caller>, probe: WireProbe): Promise<Served>;
}

const USER = userIdSchema.parse("local");
const KEY = "the-face-credential-of-this-test";

const inProcess: Transport = {
  name: "in process",
  async serve(handlers, probe) {
    return {
      maxAhead: 1,
      async connect(clientName) {
        const clientId = clientIdSchema.parse(systemIds.next("cli"));
        const options = { log: probe.log, ids: systemIds, validateResults: true };
        return {
          api: bindGhostApi(handlers, { userId: USER, clientId, clientName }, options),
          [Symbol.dispose]: () => {},
        };
      },
      async [Symbol.asyncDispose]() {},
    };
  },
};

const overSocket: Transport = {
  name: "over a Unix socket",
  async serve(handlers, probe) {
    const folder = await mkdtemp(join(tmpdir(), "ghost-wire-"));
    const socketPath = join(folder, "run", "ghostd-1.sock");
    const server = await startRpcServer({
      socketPath,
      permit: new StandingPermit("wire test", [
        { capability: "net.http", resource: { kind: "listener", address: socketPath } },
        { capability: "fs.write", resource: { kind: "path", path: join(folder, "run") } },
      ]),
      authenticate: (key) => (key === KEY ? { userId: USER } : undefined),
      handlers,
      version: "0.0.0",
      uid: process.getuid?.() ?? -1,
      log: probe.log,
      clock: systemClock,
      ids: systemIds,
      limits: { drainMs: 200 },
    });
    return {
      maxAhead: INITIAL_STREAM_CREDIT,
      connect: (clientName) => connectSocket(socketPath, { key: KEY, clientName }),
      async [Symbol.asyncDispose]() {
        await server.close();
        await rm(folder, { recursive: true });
      },
    };
  },
};

const transports: readonly Transport[] = [inProcess, overSocket];
const never = new AbortController().signal;

for (const transport of transports) {
  describe(`GhostApi ${transport.name}`, () => {
    const start = async () => {
      const probe = new WireProbe();
      const store = new DisposableStore();
      const served = store.use(await transport.serve(probe.handlers, probe));
      const connect = async (name = "wire-test") => store.use(await served.connect(name)).api;
      return {
        probe,
        connect,
        api: await connect(),
        maxAhead: served.maxAhead,
        [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
      };
    };

    it("answers a request with what the handler returned, and tells the handler who called", async () => {
      await using wire = await start();
      const result = await wire.api.session.list({}, never);
      assert.deepEqual(result, { sessions: [] });
      assert.deepEqual(wire.probe.seen.at(-1)?.params, { limit: 50 }, "defaults are filled in before the handler");
      assert.equal(wire.probe.seen.at(-1)?.caller.clientName, "wire-test");
      assert.equal(wire.probe.seen.at(-1)?.caller.userId, "local");
    });

    it("names the field of a parameter that is wrong, and never calls the handler", async () => {
      await using wire = await start();
      const error = await failure(wire.api.session.list({ limit: -1 }, never));
      assert.equal(error.code, "invalid_params");
      assert.equal(error.details["field"], "limit");
      const streamError = await failure(collect(wire.api.completion.create({ prefix: "a", stop: ["b", ""] }, never)));
      assert.equal(streamError.code, "invalid_params");
      assert.equal(streamError.details["field"], "stop.1");
      assert.equal(wire.probe.seen.length, 0);
    });

    it("carries an error's code, message, details and retryAfterMs", async () => {
      await using wire = await start();
      wire.probe.throwNext(
        new OperationalError("upstream_rate_limited", "slow down, please", {
          details: { provider: "ollama", tries: 3, hosts: ["a", "b"], isLast: false, none: null },
          retryAfterMs: 1500,
        }),
      );
      const error = await failure(wire.api.session.list({}, never));
      assert.equal(error.code, "upstream_rate_limited");
      assert.equal(error.message, "slow down, please");
      assert.deepEqual(error.details, { provider: "ollama", tries: 3, hosts: ["a", "b"], isLast: false, none: null });
      assert.equal(error.retryAfterMs, 1500);
      assert.match(error.advice, /retry-after/);
      wire.probe.throwNext(new UserError("session_not_found", "no such session"));
      assert.equal((await failure(wire.api.session.list({}, never))).code, "session_not_found");
    });

    it("turns what nobody expected into `internal` without a word of it, and logs it under the id that is shown", async () => {
      await using wire = await start();
      for (const thrown of [
        new TypeError("secret-text at /etc/passwd"),
        new BugError("internal", "secret-text"),
        "secret-text",
      ]) {
        wire.probe.throwNext(thrown);
        const error = await failure(wire.api.session.list({}, never));
        assert.equal(error.code, "internal");
        assert.doesNotMatch(JSON.stringify([error.message, error.details]), /secret-text|passwd|\.ts/);
        const logged = wire.probe.logged.at(-1);
        assert.equal(logged?.["event"], "request.bug");
        assert.equal(logged?.["incident"], error.details["incident"]);
        assert.match(String(logged?.["error"]), /secret-text/);
      }
    });

    it("brings a stream's items in order, and its end", async () => {
      await using wire = await start();
      wire.probe.source = async function* () {
        for (let item = 0; item < 1000; item += 1) yield `${item}`;
      };
      const lines = await collect(wire.api.daemon.logs({}, never));
      assert.deepEqual(
        lines.map(({ line }) => line),
        Array.from({ length: 1000 }, (_, item) => `${item}`),
      );
    });

    it("brings 100,000 items without losing one", async () => {
      await using wire = await start();
      wire.probe.source = async function* () {
        for (let item = 0; item < 100_000; item += 1) yield `${item}`;
      };
      let expected = 0;
      for await (const { line } of wire.api.daemon.logs({}, never)) {
        assert.equal(line, `${expected}`);
        expected += 1;
      }
      assert.equal(expected, 100_000);
    });

    it("brings an item that comes alone at once, without waiting for the next", async () => {
      await using wire = await start();
      const more = Promise.withResolvers<void>();
      wire.probe.source = async function* () {
        yield "first";
        await more.promise;
        yield "second";
      };
      const items = wire.api.daemon.logs({}, never)[Symbol.asyncIterator]();
      assert.deepEqual(await items.next(), { value: { line: "first" }, done: false });
      more.resolve();
      assert.deepEqual(await items.next(), { value: { line: "second" }, done: false });
      assert.equal((await items.next()).done, true);
    });

    it("brings everything that came before an error in mid-stream, then the error", async () => {
      await using wire = await start();
      wire.probe.source = async function* () {
        yield "one";
        yield "two";
        throw new OperationalError("upstream_failed", "it broke off", { details: { after: 2 } });
      };
      const lines: string[] = [];
      const error = await failure(
        (async () => {
          for await (const { line } of wire.api.daemon.logs({}, never)) lines.push(line);
        })(),
      );
      assert.deepEqual(lines, ["one", "two"]);
      assert.equal(error.code, "upstream_failed");
      assert.deepEqual(error.details, { after: 2 });
    });

    it("cancels the handler when the reader leaves the loop early", async () => {
      await using wire = await start();
      wire.probe.source = endless;
      for await (const { line } of wire.api.daemon.logs({}, never)) if (line === "5") break;
      await wire.probe.aborted();
      await wire.probe.finished();
    });

    it("cancels a stream that is waiting, at once and with `cancelled`", async () => {
      await using wire = await start();
      const isWaiting = Promise.withResolvers<void>();
      wire.probe.source = async function* (signal) {
        yield "one";
        isWaiting.resolve();
        await once(signal, "abort");
        throw new OperationalError("upstream_failed", "this must not be shown");
      };
      const abort = new AbortController();
      const items = wire.api.daemon.logs({}, abort.signal)[Symbol.asyncIterator]();
      await items.next();
      const pending = items.next();
      await isWaiting.promise;
      abort.abort();
      assert.equal((await failure(pending)).code, "cancelled");
      assert.equal((await items.next()).done, true, "an iterator that threw is over");
      await wire.probe.aborted();
    });

    it("cancels a request that hangs, even one that does not listen to its signal", async () => {
      await using wire = await start();
      wire.probe.holdRequests = true;
      const abort = new AbortController();
      const pending = wire.api.session.list({}, abort.signal);
      await wire.probe.called();
      abort.abort();
      assert.equal((await failure(pending)).code, "cancelled");
      await wire.probe.aborted();
    });

    it("calls nothing for a signal that is aborted already", async () => {
      await using wire = await start();
      const signal = AbortSignal.abort();
      assert.equal((await failure(wire.api.session.list({}, signal))).code, "cancelled");
      assert.equal((await failure(collect(wire.api.daemon.logs({}, signal)))).code, "cancelled");
      assert.equal(wire.probe.seen.length, 0);
    });

    it("lets a slow reader slow the handler: it is pulled no further ahead than the credit", async () => {
      await using wire = await start();
      wire.probe.source = endless;
      const items = wire.api.daemon.logs({}, never)[Symbol.asyncIterator]();
      for (let read = 1; read <= 1000; read += 1) {
        await items.next();
        if (read % 100 === 0) for (let turn = 0; turn < 20; turn += 1) await nextTurn();
        const ahead = wire.probe.pulled - read;
        assert.ok(ahead <= wire.maxAhead, `the handler is ${ahead} items ahead`);
      }
      await items.return?.();
      await wire.probe.aborted();
    });

    it("keeps two clients apart: one failing and leaving does not touch the other", async () => {
      await using wire = await start();
      const other = await wire.connect("second");
      wire.probe.source = endless;
      const items = wire.api.daemon.logs({}, never)[Symbol.asyncIterator]();
      await items.next();
      assert.equal((await failure(other.session.list({ limit: 0 }, never))).code, "invalid_params");
      for await (const _ of other.daemon.logs({}, never)) break;
      await wire.probe.aborted();
      for (let read = 0; read < 600; read += 1) assert.equal((await items.next()).done, false);
      await other.session.list({}, never);
      assert.equal(wire.probe.seen.at(-1)?.caller.clientName, "second");
      await items.return?.();
    });

    it("answers many requests and streams of one client at the same time", async () => {
      await using wire = await start();
      wire.probe.source = async function* () {
        for (let item = 0; item < 50; item += 1) {
          yield `${item}`;
          await nextTurn();
        }
      };
      const streams = Array.from({ length: 20 }, () => collect(wire.api.daemon.logs({}, never)));
      const requests = Array.from({ length: 100 }, () => wire.api.session.list({}, never));
      for (const lines of await Promise.all(streams)) assert.equal(lines.length, 50);
      assert.equal((await Promise.all(requests)).length, 100);
    });

    it("carries large texts in every script, unchanged in both directions", async () => {
      await using wire = await start();
      const text = `${'naïve 漢字 😀\u0000\u2028\n"\\'.repeat(60_000)}\ud83d\ude00`;
      const updates = await collect(wire.api.chat.send({ text, model: "echo" }, never));
      assert.deepEqual(updates[0], { kind: "text", text });
      const small = await collect(wire.api.chat.send({ text: "é", model: modelRefSchema.parse("echo") }, never));
      assert.deepEqual(small[0], { kind: "text", text: "é" });
    });
  });
}

async function* endless(): AsyncGenerator<string> {
  for (let item = 0; ; item += 1) yield `${item}`;
}

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function failure(work: Promise<unknown>): Promise<GhostApiError> {
  const thrown = await work.then(
    () => assert.fail("it did not fail"),
    (error: unknown) => error,
  );
  assert.ok(thrown instanceof GhostApiError, `not a GhostApiError: ${String(thrown)}`);
  return thrown;
}

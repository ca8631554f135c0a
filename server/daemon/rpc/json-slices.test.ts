/** Large results and items leave in slices: the same text, and nobody else waits for it. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { GhostApiError } from "../../../protocol/errors.ts";
import { sessionIdSchema } from "../../../protocol/ids.ts";
import { connectSocket } from "../../../protocol/node/socket-transport.ts";
import type { SessionSummary } from "../../../protocol/session.ts";
import { FACE_KEY, list, logs, startRpcBench } from "../../../test/fakes/rpc-bench.ts";
import { OperationalError } from "../../base/errors.ts";
import { JsonSlicer } from "./json-slices.ts";

const never = new AbortController().signal;
const UNITS = 64;
const slicerOf = (maxFrameBytes = 1_000_000) => new JsonSlicer({ inlineResultBytes: UNITS, maxFrameBytes });

const values: readonly (readonly [name: string, value: unknown])[] = [
  ["a long text", "word ".repeat(200)],
  ["a text of nothing but escapes", '\u0000"\\\n'.repeat(100)],
  ["surrogate pairs at every boundary", `x${"😀".repeat(200)}`],
  ["lone surrogates", "\ud800".repeat(150) + "\udc00".repeat(150)],
  ["many small values", Array.from({ length: 300 }, (_, index) => (index % 3 === 0 ? null : index * 1.5))],
  [
    "an object of many keys",
    Object.fromEntries(Array.from({ length: 200 }, (_, index) => [`"${index}`, index % 2 === 0])),
  ],
  [
    "things in things",
    { a: [{ b: { c: ["x".repeat(500), [], {}, [[["deep"]]]] } }], d: "", e: 0, f: [[], ["y".repeat(70)]] },
  ],
  [
    "what JSON leaves out",
    { a: undefined, b: [undefined, "x".repeat(100)], c: { d: undefined }, e: "z".repeat(100), f: undefined },
  ],
  ["nothing but what JSON leaves out", { a: undefined, ["k".repeat(500)]: undefined }],
];

describe("slices of JSON", () => {
  for (const [name, value] of values) {
    it(`${name}: together what JSON.stringify makes, each from a bounded part`, async () => {
      const slicer = slicerOf();
      assert.ok(slicer.isLarge(value));
      const { slices, sizeBytes } = await slicer.slice(value, never);
      const whole = Buffer.concat(slices);
      assert.equal(whole.toString("utf8"), JSON.stringify(value));
      assert.equal(sizeBytes, whole.length);
      // A unit is written in at most six bytes (`\u0000`), and a slice holds at most twice its units and some punctuation.
      for (const slice of slices) assert.ok(slice.length <= 6 * 2 * UNITS + 16, `${slice.length} bytes`);
    });
  }

  it("small values are not large, whatever their kind", () => {
    for (const value of [null, undefined, 7, "short", [1, 2], { a: "b" }])
      assert.equal(slicerOf().isLarge(value), false);
  });

  it("the loop turns after each slice, and one value is sliced at a time", async () => {
    const slicer = slicerOf();
    let turns = 0;
    let isOver = false;
    const turn = () => {
      turns += 1;
      if (!isOver) setImmediate(turn);
    };
    setImmediate(turn);
    const value = "x".repeat(40 * UNITS);
    const [first, second] = await Promise.all([slicer.slice(value, never), slicer.slice(value, never)]);
    isOver = true;
    const count = first.slices.length + second.slices.length;
    assert.ok(first.slices.length >= 40);
    assert.ok(turns >= count - 4, `${count} slices in ${turns} turns`);
  });

  it("stops when nobody wants the text any more, and when it is too long; the next one is made all the same", async () => {
    const slicer = slicerOf(10 * UNITS);
    const stop = new AbortController();
    const long = slicer.slice("x".repeat(9 * UNITS), stop.signal);
    const tooLong = slicer.slice("x".repeat(1000 * UNITS), never);
    const next = slicer.slice("x".repeat(9 * UNITS), never);
    stop.abort(new OperationalError("cancelled", "gone"));
    await assert.rejects(long, { code: "cancelled" });
    await assert.rejects(tooLong, { code: "body_too_large" });
    assert.equal((await next).sizeBytes, 9 * UNITS + 2);
  });
});

const session = (title: string): SessionSummary => ({
  id: sessionIdSchema.parse("ses_1"),
  title,
  client: "test",
  createdAtMs: 1,
  updatedAtMs: 2,
  threads: 3,
  messages: 4,
});

describe("large replies", () => {
  it("a large result arrives whole, and requests that came after it are answered before", async () => {
    await using bench = await startRpcBench();
    bench.probe.sessions = Array.from({ length: 2000 }, (_, index) => session(`é漢😀 ${index}`.repeat(60)));
    const [client, other] = [await bench.ready(), await bench.ready()];
    client.send(list(1));
    client.send({ jsonrpc: "2.0", id: 2, method: "x" });
    assert.equal((await client.next())?.id, 2);
    other.send({ jsonrpc: "2.0", id: 3, method: "x" });
    assert.equal((await other.next())?.id, 3);
    assert.deepEqual(await client.next(), { jsonrpc: "2.0", id: 1, result: { sessions: bench.probe.sessions } });
  });

  it("a large item of a stream arrives whole and in its order", async () => {
    await using bench = await startRpcBench({ inlineResultBytes: 1000 });
    const lines = ["first", "x".repeat(300_000), "third", "y".repeat(2000), "last"];
    bench.probe.source = async function* () {
      yield* lines;
    };
    const client = await bench.ready();
    client.send(logs(1, 100));
    const seen: unknown[] = [];
    for (let reply = await client.next(); reply?.method === "$/progress"; reply = await client.next()) {
      const { params } = reply;
      assert.ok(typeof params === "object" && params !== null && "value" in params);
      seen.push(params.value);
    }
    const item = (line = "") => ({ line });
    assert.deepEqual(seen, [
      { items: [item(lines[0])] },
      { items: [item(lines[1])] },
      { items: [item(lines[2])] },
      { items: [item(lines[3])] },
      { items: [item(lines[4])] },
    ]);
  });

  it("a result larger than a message fails its own request, and costs no more than the text up to there", async () => {
    await using bench = await startRpcBench({ inlineResultBytes: 1000, maxFrameBytes: 100_000 });
    using client = await connectSocket(bench.socketPath, { key: FACE_KEY, clientName: "test" });
    bench.probe.sessions = Array.from({ length: 1000 }, () => session("x".repeat(200)));
    await assert.rejects(
      client.api.session.list({}, never),
      (error) => error instanceof GhostApiError && error.code === "body_too_large",
    );
    bench.probe.sessions = bench.probe.sessions.slice(0, 10);
    assert.equal((await client.api.session.list({}, never)).sessions.length, 10);
  });

  it("a cancelled request whose result is being written ends as cancelled", async () => {
    await using bench = await startRpcBench();
    bench.probe.sessions = Array.from({ length: 3000 }, () => session("x".repeat(1000)));
    const client = await bench.ready();
    client.send(list(1));
    client.send({ jsonrpc: "2.0", method: "$/cancelRequest", params: { id: 1 } });
    assert.equal((await client.next())?.error?.data?.code, "cancelled");
  });
});

/** The Responses API over a WebSocket, through the real daemon: as codex and OpenAI's SDK use it, and as nobody should. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";
import { z } from "zod";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { call, configFor } from "../support/http.ts";
import { responseOf, textOfResponse } from "../support/responses.ts";
import { Peer } from "../support/responses-peer.ts";

let host: OpenAiHost;
let daemon: TestDaemon;

before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
  daemon = await startTestDaemon({ config: configFor(host.baseUrl) });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  assert.deepEqual(host.violations, []);
});

const said = () =>
  z
    .looseObject({ messages: z.array(z.looseObject({ role: z.string(), content: z.unknown() })) })
    .parse(JSON.parse(host.requests.at(-1)?.bodyText ?? "{}"))
    .messages.map(({ role, content }) => [role, content]);
const posts = () => host.requests.filter(({ method }) => method === "POST");
const unknown = { status: 400, code: "previous_response_not_found", param: "previous_response_id" };

test("OpenAI's SDK asks twice on one connection, and the second goes on from the first", async () => {
  const client = new OpenAI({ baseURL: `${daemon.http}/v1`, apiKey: daemon.modelKey });
  const socket = new ResponsesWS(client);
  try {
    const ask = async (input: string, previous?: string) => {
      const completed = new Promise<{ readonly id: string }>((resolve, reject) => {
        socket.once("response.completed", ({ response }) => resolve(response));
        socket.once("error", reject);
      });
      const more = previous === undefined ? {} : { previous_response_id: previous };
      socket.send({ type: "response.create", model: "up/m", store: false, input, ...more });
      return await completed;
    };
    host.playOnce({ tokens: ["one"] });
    const first = await ask("first");
    host.playOnce({ tokens: ["two"] });
    await ask("second", first.id);
    assert.deepEqual(said(), [
      ["user", "first"],
      ["assistant", "one"],
      ["user", "second"],
    ]);
  } finally {
    socket.close();
  }
});

test("codex warms up without a model, then sends only what is new", async () => {
  using peer = await Peer.open(daemon, { "openai-beta": "responses_websockets=2026-02-06" });
  const body = z
    .looseObject({ input: z.array(z.unknown()), tools: z.array(z.unknown()) })
    .parse(JSON.parse(readFileSync("test/fixtures/clients/codex-request.json", "utf8")));
  const before = posts().length;
  peer.create({ ...body, generate: false });
  const warm = responseOf((await peer.answer()).at(-1)?.["response"]);
  assert.deepEqual([warm.status, warm.output, posts().length], ["completed", [], before]);
  host.playOnce({ tokens: 0, toolCalls: [{ id: "call_9", name: "mcp__files__list", arguments: ["{}"] }] });
  peer.create({ ...body, input: [], previous_response_id: warm.id });
  const called = await peer.whole();
  assert.deepEqual([called.output[0]?.name, called.output[0]?.namespace], ["list", "mcp__files"]);
  assert.equal(said().length, 6);
  const note = z.object({ model: z.string(), dropped: z.array(z.string()) }).parse(called["x_ghost"]);
  assert.equal(note.model, "up/m");
  assert.ok(note.dropped.includes("hosted tools"), note.dropped.join());
  host.playOnce({ tokens: ["done"] });
  const output = { type: "function_call_output", call_id: "call_9", output: "cart.ts" };
  peer.create({ ...body, input: [output], previous_response_id: called.id });
  assert.equal(textOfResponse(await peer.whole()), "done");
  assert.deepEqual([said().length, said().at(-1)], [8, ["tool", "cart.ts"]]);
});

test("who has no key, the wrong one, or a foreign page is refused before the upgrade", async () => {
  const cases: readonly [headers: Record<string, string>, status: number][] = [
    [{ authorization: "" }, 401],
    [{ authorization: "Bearer wrong" }, 401],
    [{ authorization: `Bearer ${daemon.faceKey}` }, 403],
    [{ origin: "https://evil.example" }, 403],
    [{ host: "evil.example" }, 403],
  ];
  for (const [headers, status] of cases) {
    const { socket } = new Peer(daemon, headers);
    const failed: unknown[] = await once(socket, "error");
    assert.match(String(failed[0]), new RegExp(`${status}`));
  }
});

test("what store false leaves is known to its connection only, and only the latest of it", async () => {
  using peer = await Peer.open(daemon);
  peer.create({ input: "a" });
  const first = await peer.whole();
  peer.create({ input: "b", previous_response_id: first.id });
  const second = await peer.whole();
  peer.create({ input: "c", previous_response_id: first.id });
  assert.deepEqual(await peer.error(), unknown);
  using other = await Peer.open(daemon);
  other.create({ input: "c", previous_response_id: second.id });
  assert.deepEqual(await other.error(), unknown);
  peer.create({ input: "c", previous_response_id: second.id });
  await peer.whole();
  assert.equal((await call(daemon, `/v1/responses/${second.id}`)).status, 404);
});

test("what is kept is known everywhere, with what only the connection knew before it", async () => {
  using peer = await Peer.open(daemon);
  host.playOnce({ tokens: ["one"] });
  peer.create({ input: "first" });
  const first = await peer.whole();
  host.playOnce({ tokens: ["two"] });
  peer.create({ input: "second", previous_response_id: first.id, store: true });
  const second = await peer.whole();
  peer.socket.close();
  const body = { model: "up/m", input: "third", previous_response_id: second.id };
  assert.equal((await call(daemon, "/v1/responses", { body })).status, 200);
  assert.deepEqual(
    said().map(([, content]) => content),
    ["first", "one", "second", "two", "third"],
  );
});

test("a continuation that fails makes the response that it went on from unknown", async () => {
  using peer = await Peer.open(daemon);
  peer.create({ input: "a" });
  const first = await peer.whole();
  host.playOnce({ status: { code: 400, body: "json", message: "no" } });
  peer.create({ input: "b", previous_response_id: first.id });
  assert.equal((await peer.error()).status, 400);
  peer.create({ input: "b", previous_response_id: first.id });
  assert.deepEqual(await peer.error(), unknown);
});

test("without streams, answers come one after the other", async () => {
  using peer = await Peer.open(daemon);
  const before = posts().length;
  for (const text of ["a", "b", "c"]) {
    host.playOnce({ tokens: [text, text], msPerToken: 5 });
    peer.create({ input: text });
  }
  for (const text of ["a", "b", "c"]) assert.equal(textOfResponse(await peer.whole()), text + text);
  assert.equal(posts().length, before + 3);
});

test("streams do not wait for each other, keep their own order, and are named on every event", async () => {
  using peer = await Peer.open(daemon);
  const before = posts().length;
  host.playOnce({ tokens: ["slow"], fault: { kind: "hang", afterTokens: 1 } });
  peer.create({ input: "slow", stream_id: "s.1" });
  await peer.until((frames) => frames.some(({ type }) => type === "response.output_text.delta"));
  peer.create({ input: "waits", stream_id: "s.1" });
  for (const text of ["x", "y"]) {
    host.playOnce({ tokens: [text] });
    peer.create({ input: text, stream_id: "f-2" });
  }
  assert.equal(textOfResponse(await peer.whole("f-2")), "x");
  assert.equal(textOfResponse(await peer.whole("f-2")), "y");
  assert.equal(posts().length, before + 3, "the frame behind the slow answer has not begun");
  peer.create({ input: "z", previous_response_id: "resp_nobody", stream_id: "f-2" });
  assert.deepEqual(await peer.error("f-2"), unknown);
  assert.ok(peer.frames.length > 0 && peer.frames.every(({ stream_id }) => stream_id === "s.1"));
});

test("closing the socket stops every model behind it", async () => {
  using peer = await Peer.open(daemon);
  for (const stream_id of ["a", "b"]) {
    host.playOnce({ tokens: 100_000, msPerToken: 5 });
    peer.create({ input: "x", stream_id });
  }
  await host.until(() => host.openRequests === 2, "both answers have begun");
  peer.socket.close();
  await host.until(
    () =>
      posts()
        .slice(-2)
        .every(({ state }) => state === "closed-by-peer"),
    "both are stopped",
  );
});

test("an answer that breaks says so in its events, and the connection goes on", async () => {
  using peer = await Peer.open(daemon);
  host.playOnce({ tokens: ["a", "b"], fault: { kind: "cut", afterTokens: 1, where: "between-frames", how: "reset" } });
  peer.create({ input: "x" });
  await peer.until((frames) => frames.some(({ type }) => type === "response.failed"));
  const events = peer.frames.splice(0);
  assert.deepEqual([events.at(-2)?.type, events.at(-1)?.type], ["error", "response.failed"]);
  peer.create({ input: "y" });
  assert.equal((await peer.whole()).status, "completed");
});

test("nonsense is answered with an error, and the connection goes on", async () => {
  using peer = await Peer.open(daemon);
  const cases: readonly [frame: string, code: string, param: string | null][] = [
    ["{", "invalid_json", null],
    ["[]", "invalid_json", null],
    ["", "invalid_json", null],
    ['{"\\u12', "invalid_json", null],
    ['{"type":"\\x"}', "invalid_json", null],
    ['{"type":7}', "invalid_json", null],
    ['{"model":"up/m"}', "invalid_json", null],
    ['{"type":"response.create","model":"up/m","input":"x"', "invalid_json", null],
    ['{"type":"session.update"}', "invalid_params", "type"],
    ['{"type":"response.create","input":"x"}', "invalid_params", "model"],
    ['{"type":"response.create","model":"up/m","input":"x","background":true}', "invalid_params", "background"],
    ['{"type":"response.create","model":"up/m","input":"x","stream_id":"no spaces"}', "invalid_params", "stream_id"],
    ['{"type":"response.create","model":"nobody/has-this","input":"x"}', "model_not_found", null],
    ['{"type":"response.create","model":"nobody/has-this","input":"x","generate":false}', "model_not_found", null],
  ];
  for (const [frame, code, param] of cases) {
    peer.socket.send(frame);
    const error = await peer.error();
    assert.deepEqual([error.code, error.param], [code, param], frame);
  }
  peer.send({ type: "response.steer", previous_response_id: "resp_1", input: "stop" });
  const [steered] = await peer.answer();
  assert.deepEqual([steered?.type, steered?.error?.code], ["response.steer.failed", "steering_not_supported"]);
  peer.create({ input: "y", stream: true });
  assert.equal((await peer.whole()).status, "completed");
  peer.socket.send(Buffer.from("{}"));
  assert.equal(await peer.closed, 1003);
});

test("who sends faster than it is answered is told so, and what was taken is answered", async () => {
  using peer = await Peer.open(daemon);
  host.playOnce({ tokens: ["a"], fault: { kind: "hang", afterTokens: 1 } });
  for (let count = 0; count < 70; count += 1) peer.create({ input: "x", stream_id: "one" });
  await peer.until((frames) => frames.some(({ type }) => type === "error"));
  const refused = peer.frames.find(({ type }) => type === "error");
  assert.deepEqual([refused?.status, refused?.error?.code], [503, "overloaded"]);
  await host.until(() => host.openRequests === 1, "the first is being answered");
});

test("more streams than there may be are refused by OpenAI's code", async () => {
  using peer = await Peer.open(daemon);
  for (let lane = 0; lane < 33; lane += 1) {
    if (lane < 32) host.playOnce({ tokens: 2, fault: { kind: "hang", afterTokens: 1 } });
    peer.create({ input: "x", stream_id: `l${lane}` });
  }
  await peer.until((frames) => frames.some(({ type }) => type === "error"));
  await host.until(() => host.openRequests === 32, "all others have begun");
  const refused = peer.frames.find(({ type }) => type === "error");
  assert.deepEqual([refused?.stream_id, refused?.error?.code], ["l32", "websocket_stream_limit_reached"]);
});

test("a reader that does not read stops the upstream's flow, and gets everything once it reads", async () => {
  using peer = await Peer.open(daemon);
  host.playOnce({ tokens: Array.from({ length: 300 }, () => "z".repeat(100_000)) });
  peer.create({ input: "x" });
  await peer.until((frames) => frames.some(({ type }) => type === "response.output_text.delta"));
  peer.socket.pause();
  let before = -1;
  for (let same = 0; same < 5; ) {
    await sleep(100);
    const now = posts().at(-1)?.connectionBytesWritten ?? 0;
    same = now === before && now > 0 ? same + 1 : 0;
    before = now;
  }
  assert.ok(before < 20_000_000, `${before} bytes were taken although nobody read`);
  peer.socket.resume();
  assert.equal(textOfResponse(await peer.whole()).length, 30_000_000);
});

test("a stopping daemon lets open answers finish, takes no new ones, and closes", async () => {
  await using own = await startTestDaemon({ config: configFor(host.baseUrl) });
  using peer = await Peer.open(own);
  host.playOnce({ tokens: 20, msPerToken: 50 });
  peer.create({ input: "x" });
  await peer.until((frames) => frames.some(({ type }) => type === "response.output_text.delta"));
  process.kill(own.pid, "SIGTERM");
  while ((await call(own, "/v1/models")).status !== 503);
  peer.create({ input: "y", stream_id: "late" });
  assert.equal((await peer.error("late")).code, "daemon_stopping");
  assert.equal((await peer.whole()).status, "completed");
  assert.equal(await peer.closed, 1001);
  assert.deepEqual(await own.exited, { code: 0, signal: null });
});

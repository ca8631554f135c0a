/** Every answer leaves one line in the log, however it ends and through whichever door it was asked for. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { z } from "zod";
import type { GhostClient } from "../../protocol/ghost-client.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { call, configFor } from "../support/http.ts";

let host: OpenAiHost;
let daemon: TestDaemon;
let face: GhostClient;
before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
  daemon = await startTestDaemon({ config: configFor(host.baseUrl, '[routing.aliases]\nmine = ["up/m"]\n') });
  face = await daemon.connect("desk");
});
after(async () => {
  face[Symbol.dispose]();
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  assert.deepEqual(host.violations, []);
});

const lineSchema = z.looseObject({ event: z.string(), level: z.string() });
const number = z.number().nonnegative();
const endedSchema = z.strictObject({
  at: z.string(),
  level: z.literal("info"),
  event: z.literal("answer.ended"),
  answer: z.string().startsWith("ans_"),
  client: z.string(),
  target: z.string(),
  model: z.string().optional(),
  state: z.string(),
  code: z.string().optional(),
  firstFrameMs: number.optional(),
  durationMs: number,
  promptTokens: number.optional(),
  completionTokens: number.optional(),
});
type Ended = z.infer<typeof endedSchema>;

/** What `work` adds to the log: exactly one line of an answer's end. */
async function lineOf(work: () => Promise<unknown>): Promise<Ended> {
  const before = (await ended()).length;
  await work();
  let lines = await ended();
  // An answer that was left ends when its upstream has let go.
  while (lines.length === before) lines = await ended();
  assert.equal(lines.length, before + 1);
  return lines.at(-1) ?? assert.fail();
}

async function ended(): Promise<readonly Ended[]> {
  const lines: Ended[] = [];
  for await (const { line } of face.api.daemon.logs({ lines: 10_000 }, AbortSignal.timeout(20_000))) {
    const value: unknown = JSON.parse(line);
    if (lineSchema.parse(value).event === "answer.ended") lines.push(endedSchema.parse(value));
  }
  return lines;
}

const messages = [{ role: "user", content: "hello" }];
const http = (more: object = {}, signal?: AbortSignal) =>
  call(daemon, "/v1/chat/completions", {
    body: { model: "up/m", messages, stream: true, ...more },
    ...(signal === undefined ? {} : { signal }),
  });

test("a whole answer: who asked for what, who answered, the times, and the tokens where the server tells them", async () => {
  host.playOnce({ tokens: Array.from({ length: 20 }, () => "word "), msPerToken: 5 });
  const line = await lineOf(() => http({ model: "mine", stream_options: { include_usage: true } }));
  assert.deepEqual([line.target, line.model, line.state, line.code], ["mine", "up/m", "complete", undefined]);
  assert.ok((line.firstFrameMs ?? -1) > 0 && line.durationMs > (line.firstFrameMs ?? Number.POSITIVE_INFINITY) + 50);
  assert.equal(line.completionTokens, 20);
  assert.ok((line.promptTokens ?? 0) > 0);
  const silent = await lineOf(() => http());
  assert.equal(silent.state, "complete");
});

test("a face's chat and a completion have one each, under the name of the face", async () => {
  const drain = async (updates: AsyncIterable<unknown>) => {
    for await (const _ of updates);
  };
  const signal = AbortSignal.timeout(20_000);
  const chat = await lineOf(() => drain(face.api.chat.send({ text: "hi", model: "up/m" }, signal)));
  assert.deepEqual([chat.client, chat.target, chat.state], ["desk", "up/m", "complete"]);
  const code = await lineOf(() =>
    drain(face.api.completion.create({ prefix: "let a", model: "embedded/tiny-code-fim" }, signal)),
  );
  assert.deepEqual([code.client, code.model, code.state], ["desk", "embedded/tiny-code-fim", "complete"]);
  assert.ok((code.completionTokens ?? 0) > 0);
});

test("what fails before its first word, what is cut, and what is left: each says so", async () => {
  host.playOnce({ status: { code: 401, body: "json", message: "no" } });
  const refused = await lineOf(() => http());
  assert.deepEqual(
    [refused.state, refused.code, refused.model, refused.firstFrameMs],
    ["failed", "upstream_auth", undefined, undefined],
  );
  host.playOnce({
    tokens: ["a ", "b "],
    fault: { kind: "cut", afterTokens: 1, where: "between-frames", how: "reset" },
  });
  const cut = await lineOf(() => http());
  assert.deepEqual([cut.state, cut.model], ["failed", "up/m"]);
  assert.match(cut.code ?? "", /^upstream_/);
  host.playOnce({ tokens: ["a ", "b "], fault: { kind: "hang", afterTokens: 1 } });
  const leave = new AbortController();
  const left = await lineOf(async () => {
    const reply = http({}, leave.signal);
    await host.until(() => host.openRequests === 1, "the request");
    leave.abort();
    await reply.catch(() => {}); // Its own abort.
  });
  assert.deepEqual([left.state, left.code], ["cancelled", undefined]);
});

test("a request that is refused before it is an answer leaves none", async () => {
  const before = (await ended()).length;
  assert.equal((await http({ model: "nobody/nothing" })).status, 404);
  assert.equal((await http({ messages: "no list" })).status, 400);
  assert.equal((await ended()).length, before);
});

/** Servers that answer a stream by one JSON object, or a plain question by a stream: the client gets the form that it asked for, with all of the text. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { type CannedHost, startCannedHost } from "../fakes/canned-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { configFor } from "../support/http.ts";

let host: CannedHost;
let daemon: TestDaemon;
let client: OpenAI;
before(async () => {
  host = await startCannedHost({ data: [{ id: "m" }] });
  daemon = await startTestDaemon({ config: configFor(`${host.origin}/v1`) });
  client = new OpenAI({ baseURL: `${daemon.http}/v1`, apiKey: daemon.modelKey, maxRetries: 0 });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 };
const head = { id: "x", created: 1, model: "m" };
const chunk = (choice: object) =>
  `data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", choices: [{ index: 0, ...choice }] })}\n\n`;
const chat = { model: "up/m", messages: [{ role: "user" as const, content: "hi" }] };

test("a stream that is answered by one object is a stream for its client", async () => {
  const message = { role: "assistant", content: "all of it" };
  const answer = { ...head, choices: [{ index: 0, message, finish_reason: "length" }], usage };
  host.play({ contentType: "application/json", pieces: [JSON.stringify({ ...answer, object: "chat.completion" })] });
  const seen: unknown[] = [];
  const stream = await client.chat.completions.create({
    ...chat,
    stream: true,
    stream_options: { include_usage: true },
  });
  for await (const { choices, usage: told } of stream) {
    const [choice] = choices;
    seen.push(choice === undefined ? told?.total_tokens : (choice.finish_reason ?? choice.delta.content));
  }
  assert.deepEqual(seen, ["all of it", "length", 5]);
  const choice = { index: 0, text: "all of it", finish_reason: "stop" };
  host.play({ contentType: "application/json", pieces: [JSON.stringify({ ...head, choices: [choice] })] });
  let text = "";
  for await (const { choices } of await client.completions.create({ model: "up/m", prompt: "hi", stream: true }))
    text += choices[0]?.text;
  assert.equal(text, "all of it");
});

test("of several choices, one that has ended does not make the answer whole", async () => {
  const say = (index: number, content: string, finish_reason: string | null = null) =>
    chunk({ index, delta: content === "" ? {} : { content }, finish_reason });
  const pieces = [say(0, "one"), say(1, "an"), say(0, "", "stop"), say(1, "other"), say(1, "", "stop")];
  const read = async () => {
    const texts = ["", ""];
    const stream = await client.chat.completions.create({ ...chat, n: 2, stream: true });
    for await (const { choices } of stream)
      for (const { index, delta } of choices) texts[index] = `${texts[index]}${delta.content ?? ""}`;
    return texts;
  };
  host.play({ contentType: "text/event-stream", pieces: [...pieces, "data: [DONE]\n\n"] });
  assert.deepEqual(await read(), ["one", "another"]);
  host.play({ contentType: "text/event-stream", pieces: pieces.slice(0, 3) });
  await assert.rejects(read(), /ended its answer in the middle/);
});

test("a plain question that is answered by a stream gets one object", async () => {
  const pieces = [
    chunk({ delta: { role: "assistant", content: "all " }, finish_reason: null }),
    chunk({ delta: { content: "of it" }, finish_reason: null }),
    chunk({ delta: {}, finish_reason: "stop" }),
    "data: [DONE]\n\n",
  ];
  host.play({ contentType: "text/event-stream", pieces });
  const { choices } = await client.chat.completions.create(chat);
  assert.deepEqual([choices[0]?.message.content, choices[0]?.finish_reason], ["all of it", "stop"]);
  host.play({ contentType: "text/event-stream", pieces: pieces.slice(0, 2) });
  await assert.rejects(client.chat.completions.create(chat), /ended its answer in the middle/);
});

test("a plain question that is answered without end fails, and its upstream is left", async () => {
  const piece = chunk({ delta: { content: "x".repeat(1024 * 1024) }, finish_reason: null });
  host.play({ contentType: "text/event-stream", pieces: Array(80).fill(piece), isBreathless: true, end: "hang" });
  await assert.rejects(client.chat.completions.create(chat), /more than 67108864 bytes/);
  await host.untilLeft();
});

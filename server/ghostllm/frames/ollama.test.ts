import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { GhostError } from "../../base/errors.ts";
import type { StreamEvent } from "../stream.ts";
import { decodeOllama, OllamaFrames, ollamaErrorText } from "./ollama.ts";

const ndjson = (...lines: readonly unknown[]) => Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
const says = (content: string, more: object = {}) => ({
  model: "m",
  message: { role: "assistant", content, ...more },
  done: false,
});
const done = (more: object = {}) => ({
  model: "m",
  message: { role: "assistant", content: "" },
  done: true,
  done_reason: "stop",
  prompt_eval_count: 5,
  eval_count: 2,
  ...more,
});
const call = (name: string, more: object = {}) => ({ function: { name, arguments: { path: "a.ts" } }, ...more });
const usage: StreamEvent = { kind: "usage", usage: { promptTokens: 5, completionTokens: 2 } };
const finish = (reason: "stop" | "length" | "toolCalls" | "unknown"): StreamEvent => ({ kind: "finish", reason });
const failure = (message: string): StreamEvent => ({
  kind: "error",
  error: { code: "upstream_failed", message, details: {} },
});

const cases: readonly [name: string, input: Buffer, expected: readonly StreamEvent[]][] = [
  ["text of a chat", ndjson(says("Hi"), says("")), [{ kind: "text", text: "Hi" }]],
  ["text of a completion", ndjson({ response: "x = 1", done: false }), [{ kind: "text", text: "x = 1" }]],
  ["thinking of a chat", ndjson(says("", { thinking: "hm" })), [{ kind: "reasoning", text: "hm" }]],
  [
    "thinking of a completion",
    ndjson({ response: "", thinking: "hm", done: false }),
    [{ kind: "reasoning", text: "hm" }],
  ],
  ["the end with its counts", ndjson(done()), [usage, finish("stop")]],
  [
    "counts that are absent stay unknown",
    ndjson({ done: true, done_reason: "stop" }),
    [{ kind: "usage", usage: {} }, finish("stop")],
  ],
  ["an answer cut by its limit", ndjson(done({ done_reason: "length" })), [usage, finish("length")]],
  ["an end without an answer", ndjson(done({ done_reason: "load" })), [usage, finish("unknown")]],
  [
    "content in the last line",
    ndjson(done({ message: { content: "!" } })),
    [{ kind: "text", text: "!" }, usage, finish("stop")],
  ],
  [
    "tool calls in the last line",
    ndjson(done({ message: { content: "", tool_calls: [call("read", { id: "c1" })] } })),
    [
      { kind: "toolCall", index: 0, callId: "c1", name: "read", arguments: '{"path":"a.ts"}' },
      usage,
      finish("toolCalls"),
    ],
  ],
  [
    "CRLF and empty lines",
    Buffer.from('{"response":"a"}\r\n\r\n\n{"response":"b"}\r\n'),
    [
      { kind: "text", text: "a" },
      { kind: "text", text: "b" },
    ],
  ],
  [
    "an error line, and nothing after it",
    ndjson(says("a"), { error: "CUDA error" }, says("b")),
    [{ kind: "text", text: "a" }, failure("the Ollama host broke off the answer: CUDA error")],
  ],
  [
    "an error line with an object",
    ndjson({ error: { message: "gone" } }),
    [failure("the Ollama host broke off the answer: gone")],
  ],
  ["a line that is not JSON", Buffer.from("<html>\n"), [failure("the Ollama host sent a line that is not JSON")]],
  ["a line of another shape", ndjson(["a"]), [failure("the Ollama host sent a line of an unknown shape")]],
  [
    "a line that is not UTF-8",
    Buffer.from([...Buffer.from('{"response":"'), 0xff, ...Buffer.from('"}\n')]),
    [failure("the Ollama host sent a line that is not UTF-8")],
  ],
  ["nothing after the end", ndjson(done(), says("late")), [usage, finish("stop")]],
];

for (const [name, input, expected] of cases) {
  test(`decoding ${name}`, () => {
    assert.deepEqual(decodeOllama(input), expected);
  });
}

function read(chunks: readonly Buffer[]): {
  readonly events: readonly StreamEvent[];
  readonly bytes: Buffer;
  readonly frames: OllamaFrames;
} {
  let ids = 0;
  const frames = new OllamaFrames(() => `call_made${++ids}`);
  const out = chunks.flatMap((chunk) => frames.push(chunk) ?? []);
  return {
    events: out.flatMap((frame) => frame.events()),
    bytes: Buffer.concat(out.map((frame) => frame.bytes)),
    frames,
  };
}

/** Neighbouring pieces of the same text are one, wherever the reads were cut. */
function joined(events: readonly StreamEvent[]): readonly StreamEvent[] {
  return events.reduce<StreamEvent[]>((all, event) => {
    const last = all.at(-1);
    if (event.kind === "text" && last?.kind === "text")
      all[all.length - 1] = { kind: "text", text: last.text + event.text };
    else all.push(event);
    return all;
  }, []);
}

const answer = ndjson(
  says("", { thinking: "Über „alles“ 🤔" }),
  says("naïve 東京 "),
  says('🦉\n"done":true'),
  says("", { tool_calls: [call("read"), call("write", { id: "own" })] }),
  says("", { tool_calls: [call("list")] }),
  done(),
);

test("a cut at any byte changes nothing", () => {
  const whole = read([answer]);
  assert.equal(whole.frames.state, "done");
  for (let at = 1; at < answer.length; at += 1) {
    const cut = read([answer.subarray(0, at), answer.subarray(at)]);
    assert.deepEqual(joined(cut.events), joined(whole.events), `cut at byte ${at}`);
    assert.deepEqual(cut.bytes, whole.bytes, `cut at byte ${at}`);
  }
});

test("any number of cuts anywhere change nothing", () => {
  const whole = read([answer]);
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 1, max: answer.length - 1 }), { maxLength: 60 }), (cuts) => {
      const at = [0, ...cuts.sort((a, b) => a - b), answer.length];
      const chunks = at.slice(1).map((end, index) => answer.subarray(at[index], end));
      const cut = read(chunks);
      assert.deepEqual(cut.bytes, whole.bytes);
      assert.deepEqual(joined(cut.events), joined(whole.events));
    }),
  );
});

test("the bytes of the frames decode to the same events again", () => {
  const { events, bytes } = read([answer]);
  assert.deepEqual(joined(decodeOllama(bytes)), joined(events));
});

test("tool calls get ids and positions of their own, over all lines, and the end says so", () => {
  const { events } = read([answer]);
  const calls = events.flatMap((event) => (event.kind === "toolCall" ? [[event.index, event.callId, event.name]] : []));
  assert.deepEqual(calls, [
    [0, "call_made1", "read"],
    [1, "own", "write"],
    [2, "call_made2", "list"],
  ]);
  assert.deepEqual(events.at(-1), finish("toolCalls"));
});

test("lines without tool calls keep their bytes", () => {
  const input = Buffer.from('{ "response" : "a" }\r\n{"response":"b","done":false}\n');
  assert.deepEqual(read([input]).bytes, input);
});

const endings: readonly [string, Buffer, RegExp][] = [
  ["before any line", Buffer.alloc(0), /without its last line/],
  ["after some text", ndjson(says("a")), /without its last line/],
  ["in the middle of a line", Buffer.from('{"message":{"content":"a"},"done":tr'), /in the middle of a line/],
  ["in a last line without its newline", ndjson(done()).subarray(0, -1), /in the middle of a line/],
];
for (const [name, input, message] of endings) {
  test(`an answer that ends ${name} has failed`, () => {
    const { frames } = read([input]);
    assert.throws(
      () => frames.end(),
      (error) => error instanceof GhostError && error.code === "upstream_failed" && message.test(error.message),
    );
  });
}

test("an answer that was whole, or failed in band, may end", () => {
  for (const input of [ndjson(done()), ndjson({ error: "x" })]) read([input]).frames.end();
});

test("a line without end does not fill the memory", () => {
  const frames = new OllamaFrames(() => "");
  const piece = Buffer.alloc(1024 * 1024, "x");
  assert.throws(() => {
    for (let index = 0; index < 64; index += 1) frames.push(piece);
  }, GhostError);
});

test("llama-server's JSON inside an error text is unwrapped, and control characters do not get through", () => {
  assert.equal(ollamaErrorText(JSON.stringify({ error: { code: 400, message: "too long" } })), "too long");
  assert.equal(ollamaErrorText("a\u001b[31m\nb"), "a [31m b");
  assert.equal(ollamaErrorText("x".repeat(1000)).length, 301);
});

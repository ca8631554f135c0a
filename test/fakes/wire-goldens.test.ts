/** The streams of test/fixtures/wire: each provider's own client reads them, and the fakes write nothing else. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { describe, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { GoogleGenAI } from "@google/genai";
import OpenAI from "openai";
import { startAnthropicHost } from "./anthropic-host.ts";
import { type AnswerBlock, type CloudScript, textScript } from "./cloud-script.ts";
import { startGeminiHost } from "./gemini-host.ts";
import { portOf } from "./openai-host-fast.ts";
import { rawPost } from "./raw-post.ts";
import { startResponsesHost } from "./responses-host.ts";

const ROOT = new URL("../fixtures/wire/", import.meta.url);
const BONJOUR = textScript("Bonjour", ", à bientôt", " 🌍!");
const HALF = textScript("The first", " half", "!");
/** Fields that say what something is: they are the same, where others only have the same type. */
const KIND_FIELDS = new Set(["type", "object", "role", "status", "stop_reason", "finishReason", "code", "reason"]);

interface WireEvent {
  readonly event: string | undefined;
  readonly data: unknown;
}

/** A golden, and how a fake is brought to write the same. */
interface Golden {
  readonly file: string;
  readonly script: CloudScript;
  readonly body?: object;
  /** The text that the provider's client gets out of it, or the error. */
  readonly reads: string | RegExp;
}

function bytesOf(folder: string, file: string): Buffer {
  return readFileSync(new URL(`${folder}/${file}`, ROOT));
}

/** `event: a\ndata: {"b":1}\n\n` → `[{event: "a", data: {b: 1}}]`; pings left out. */
function eventsOf(stream: string): readonly WireEvent[] {
  const frames = stream.split(/\r?\n\r?\n/).filter((frame) => frame.includes("data: "));
  return frames
    .map((frame) => ({
      event: /^event: (.*)$/m.exec(frame)?.[1],
      data: JSON.parse(/^data: (.*)$/m.exec(frame)?.[1] ?? "null"),
    }))
    .filter(({ event }) => event !== "ping");
}

/** The body of a chunked answer. */
function bodyOf(answer: Buffer): string {
  const chunks: Buffer[] = [];
  let at = answer.indexOf("\r\n\r\n") + 4;
  for (;;) {
    const end = answer.indexOf("\r\n", at);
    const size = Number.parseInt(answer.toString("latin1", at, end), 16);
    if (!(size > 0)) return Buffer.concat(chunks).toString();
    chunks.push(answer.subarray(end + 2, end + 2 + size));
    at = end + 2 + size + 2;
  }
}

/** Where `actual` lacks something of `expected`: every field is there, with a value of the same type. */
function lacking(expected: unknown, actual: unknown, path = ""): readonly string[] {
  if (typeof expected !== "object" || expected === null) {
    const field = path.slice(path.lastIndexOf(".") + 1);
    const isSame = KIND_FIELDS.has(field) ? expected === actual : typeof expected === typeof actual;
    return isSame ? [] : [`${path}: ${JSON.stringify(expected)} is ${JSON.stringify(actual)}`];
  }
  if (typeof actual !== "object" || actual === null || Array.isArray(expected) !== Array.isArray(actual)) {
    return [`${path} is ${JSON.stringify(actual)}`];
  }
  const own = new Map<string, unknown>(Object.entries(actual));
  return Object.entries(expected).flatMap(([key, value]) =>
    own.has(key) ? lacking(value, own.get(key), `${path}.${key}`) : [`${path}.${key} is missing`],
  );
}

async function holdAgainst(folder: string, golden: Golden, asked: { port: number; path: string; headers: object }) {
  const expected = eventsOf(bytesOf(folder, golden.file).toString());
  const { bytes } = await rawPost(asked.port, asked.path, golden.body ?? {}, { ...asked.headers });
  const actual = eventsOf(bodyOf(bytes));
  assert.deepEqual(
    actual.map(({ event }) => event),
    expected.map(({ event }) => event),
    golden.file,
  );
  assert.deepEqual(
    expected.flatMap(({ data }, index) => lacking(data, actual[index]?.data, `${index}`)),
    [],
    golden.file,
  );
}

/** Serves one golden to whoever asks, and hands its address to `read`. */
async function served<T>(folder: string, file: string, read: (baseUrl: string) => Promise<T>): Promise<T> {
  const server = createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(bytesOf(folder, file));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    return await read(`http://127.0.0.1:${portOf(server)}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

async function assertReads(reading: Promise<string>, { reads, file }: Golden): Promise<void> {
  if (typeof reads === "string") assert.equal(await reading, reads, file);
  else await assert.rejects(reading, reads, file);
}

const LOOK: AnswerBlock = { kind: "text", deltas: ["I'll look", " at both."], phase: "commentary" };
const weather = (...pieces: readonly string[]): AnswerBlock => ({
  kind: "tool-call",
  name: "get_weather",
  arguments: pieces,
});
const now = (...pieces: readonly string[]): AnswerBlock => ({
  kind: "tool-call",
  name: "get_time",
  arguments: pieces,
});

describe("Anthropic", () => {
  const body = { model: "claude-opus-5-5", max_tokens: 100, stream: true, messages: [{ role: "user", content: "x" }] };
  const summarized = { ...body, thinking: { type: "adaptive", display: "summarized" } };
  const refusal = { kind: "refusal", deltas: ["Sure, to"], category: "cyber", explanation: "no" } as const;
  const goldens: readonly Golden[] = [
    { file: "text.sse", script: BONJOUR, body, reads: "Bonjour, à bientôt 🌍! end_turn" },
    {
      file: "thinking-tools.sse",
      script: {
        blocks: [
          { kind: "reasoning", deltas: ["The user wants", " it."] },
          LOOK,
          weather('{"location": "Par', 'is"}'),
          now(),
        ],
      },
      body: summarized,
      reads:
        '(The user wants the weather in two places.)I\'ll look at both.get_weather{"location":"Paris"}get_time{} tool_use',
    },
    { file: "refusal.sse", script: { blocks: [refusal] }, body, reads: "Sure, to refusal" },
    {
      file: "overloaded.sse",
      script: { ...HALF, fault: { kind: "error-in-band", afterTokens: 2, error: { type: "overloaded_error" } } },
      body,
      reads: /overloaded_error/,
    },
    {
      file: "omitted-thinking-max-tokens.sse",
      script: { blocks: [{ kind: "reasoning", deltas: ["x"] }, ...(textScript("Part", "ly").blocks ?? [])] },
      body: { ...body, max_tokens: 1 },
      reads: "()Part max_tokens",
    },
  ];

  test("the client reads each stream, and the fake writes the same", async () => {
    assert.deepEqual(goldens.map(({ file }) => file).toSorted(), readdirSync(new URL("anthropic", ROOT)).toSorted());
    await using host = await startAnthropicHost();
    for (const golden of goldens) {
      host.playOnce(golden.script);
      const headers = { "anthropic-version": "2026-10-21" };
      await holdAgainst("anthropic", golden, { port: host.port, path: "/v1/messages", headers });
      const reading = served("anthropic", golden.file, async (baseURL) => {
        const client = new Anthropic({ baseURL, apiKey: "none", maxRetries: 0 });
        const message = await client.messages
          .stream({ model: "m", max_tokens: 1, messages: [{ role: "user", content: "x" }] })
          .finalMessage();
        const parts = message.content.map((block) => {
          if (block.type === "thinking") return `(${block.thinking})`;
          if (block.type === "tool_use") return `${block.name}${JSON.stringify(block.input)}`;
          return block.type === "text" ? block.text : block.type;
        });
        return `${parts.join("")} ${message.stop_reason}`;
      });
      await assertReads(reading, golden);
    }
    assert.deepEqual([host.violations, host.refusals], [[], []]);
  });
});

describe("Responses", () => {
  const body = { model: "gpt-5.6-sol", stream: true, input: "x" };
  const closed = (...names: readonly string[]) => ({
    type: "object",
    properties: Object.fromEntries(names.map((name) => [name, { type: "string" }])),
    required: names,
    additionalProperties: false,
  });
  const tools = [
    { type: "function", name: "get_weather", description: "x", parameters: closed("location"), strict: true },
    { type: "function", name: "get_time", parameters: closed(), strict: true },
  ];
  const reasoned = {
    ...body,
    store: false,
    tools,
    reasoning: { effort: "medium", summary: "auto" },
    include: ["reasoning.encrypted_content"],
  };
  const custom = { type: "custom", name: "apply_patch", description: "x", format: { type: "text" } };
  const patch: AnswerBlock = { kind: "tool-call", name: "apply_patch", arguments: ["*** Begin", "*** End"] };
  const fault = (error: object, as: "error" | "failed"): CloudScript => ({
    ...HALF,
    fault: { kind: "error-in-band", afterTokens: 2, error, as },
  });
  const goldens: readonly Golden[] = [
    { file: "text.sse", script: BONJOUR, body, reads: "Bonjour, à bientôt 🌍! completed" },
    {
      file: "reasoning-tools.sse",
      script: {
        blocks: [
          { kind: "reasoning", deltas: ["**Plan**", "."] },
          LOOK,
          weather('{"location":', '"Paris"}'),
          now("{}"),
        ],
      },
      body: reasoned,
      reads: '(**Planning**\n\nTwo places.)I\'ll look at both.get_weather{"location":"Paris"}get_time{} completed',
    },
    {
      file: "refusal.sse",
      script: { blocks: [{ kind: "refusal", deltas: ["I can't", " help."] }] },
      body,
      reads: "I can't help with that. completed",
    },
    {
      file: "incomplete.sse",
      script: { ...textScript("Once upon", " a"), finishReason: "max_output_tokens" },
      body: { ...body, max_output_tokens: 16 },
      reads: "Once upon a incomplete",
    },
    { file: "failed.sse", script: fault({ errorCode: "server_error" }, "failed"), body, reads: " failed" },
    { file: "error.sse", script: fault({}, "error"), body, reads: /overloaded/ },
    {
      file: "custom-tool.sse",
      script: { blocks: [patch] },
      body: { ...body, tools: [custom] },
      reads: "apply_patch*** Begin Patch\n*** End Patch\n completed",
    },
  ];
  const xai: Golden = {
    file: "xai-text.sse",
    script: textScript("Hello", " there."),
    body: { ...body, model: "grok-4.7" },
    reads: "Hello there. completed",
  };

  async function read(golden: Golden): Promise<string> {
    return served("responses", golden.file, async (baseURL) => {
      const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
      let last: OpenAI.Responses.Response | undefined;
      for await (const event of await client.responses.create({ model: "m", input: "x", stream: true })) {
        if ("response" in event) last = event.response;
      }
      const parts = (last?.output ?? []).flatMap((item) => {
        if (item.type === "reasoning") return item.summary.map(({ text }) => `(${text})`);
        if (item.type === "function_call") return [`${item.name}${item.arguments}`];
        if (item.type === "custom_tool_call") return [`${item.name}${item.input}`];
        if (item.type !== "message") return [item.type];
        return item.content.map((part) => (part.type === "output_text" ? part.text : part.refusal));
      });
      return `${parts.join("")} ${last?.status}`;
    });
  }

  test("the client reads each stream, and the fakes write the same", async () => {
    const files = [...goldens, xai].map(({ file }) => file);
    assert.deepEqual(files.toSorted(), readdirSync(new URL("responses", ROOT)).toSorted());
    await using host = await startResponsesHost();
    await using grok = await startResponsesHost({ flavour: "xai" });
    for (const golden of [...goldens, xai]) {
      const own = golden === xai ? grok : host;
      own.playOnce(golden.script);
      await holdAgainst("responses", golden, { port: own.port, path: "/v1/responses", headers: {} });
      await assertReads(read(golden), golden);
    }
    assert.deepEqual([host.violations, host.refusals, grok.violations, grok.refusals], [[], [], [], []]);
  });
});

describe("Gemini", () => {
  const body = { contents: [{ role: "user", parts: [{ text: "x" }] }] };
  const thinking = { ...body, generationConfig: { thinkingConfig: { includeThoughts: true } } };
  const unavailable = { kind: "error-in-band", afterTokens: 2, error: {} } as const;
  const goldens: readonly (Golden & { readonly model?: string })[] = [
    { file: "text.sse", script: BONJOUR, body, reads: "Bonjour, à bientôt 🌍! STOP" },
    {
      file: "thoughts-tools.sse",
      script: {
        blocks: [
          { kind: "reasoning", deltas: ["**Plan**", "."] },
          { kind: "text", deltas: ["I'll look."] },
          weather('{"location":"Paris"}'),
          now(),
        ],
        usage: { inputTokens: 10, cachedTokens: 5, outputTokens: 9, reasoningTokens: 2 },
      },
      body: thinking,
      reads: '(**Planning**\n\n)(Two places.)I\'ll look at both.get_weather{"location":"Paris"}get_time{} STOP',
    },
    {
      file: "signed-text.sse",
      script: { blocks: [{ kind: "text", deltas: ["Bonjour"], isSigned: true }] },
      body,
      reads: "Bonjour[signed] STOP",
    },
    {
      file: "blocked.sse",
      script: { blocks: [{ kind: "refusal", deltas: [], category: "PROHIBITED_CONTENT" }] },
      body,
      reads: " PROHIBITED_CONTENT",
    },
    { file: "safety.sse", script: { blocks: [{ kind: "refusal", deltas: ["I "] }] }, body, reads: "I  SAFETY" },
    { file: "unavailable.sse", script: { ...HALF, fault: unavailable }, body, reads: /UNAVAILABLE/ },
    {
      file: "continuation.sse",
      script: {
        ...textScript("Chapter", " one", " ends"),
        checkpoints: [{ afterTokens: 2, token: "QQ==" }],
        continuationToken: "Qg==",
      },
      body,
      reads: "Chapter one ends CONTINUATION",
      model: "gemini-4-argon",
    },
  ];

  async function read(golden: Golden): Promise<string> {
    return served("gemini", golden.file, async (baseUrl) => {
      const client = new GoogleGenAI({ apiKey: "none", httpOptions: { baseUrl } });
      const config = { automaticContinuation: false };
      const stream = await client.models.generateContentStream({ model: "gemini-m", contents: "x", config });
      let text = "";
      let end: string | undefined;
      for await (const { candidates, promptFeedback } of stream) {
        end = candidates?.[0]?.finishReason ?? promptFeedback?.blockReason ?? end;
        for (const part of candidates?.[0]?.content?.parts ?? []) {
          if (part.functionCall) text += `${part.functionCall.name}${JSON.stringify(part.functionCall.args)}`;
          else if (part.thoughtSignature) text += `${part.text}[signed]`;
          else text += part.thought === true ? `(${part.text})` : part.text;
        }
      }
      return `${text} ${end}`;
    });
  }

  test("the client reads each stream, and the fake writes the same", async () => {
    assert.deepEqual(goldens.map(({ file }) => file).toSorted(), readdirSync(new URL("gemini", ROOT)).toSorted());
    await using host = await startGeminiHost();
    for (const golden of goldens) {
      host.playOnce(golden.script);
      const path = `/v1beta/models/${golden.model ?? "gemini-3.8-flash"}:streamGenerateContent?alt=sse`;
      await holdAgainst("gemini", golden, { port: host.port, path, headers: {} });
      await assertReads(read(golden), golden);
    }
    assert.deepEqual([host.violations, host.refusals], [[], []]);
  });
});

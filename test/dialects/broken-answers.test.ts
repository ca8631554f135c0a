/**
 * Answers that break at every place where they can: behind each event of each kind of upstream, by an end of the body, a cut connection, or an error in the
 * stream. No client of any dialect may take what is left for a whole answer, and none sees a word twice.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type CannedAnswer, type CannedHost, startCannedHost } from "../fakes/canned-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { type ApiReply, call } from "../support/http.ts";

const KEY = "sk-test-0123456789abcdef";
const TEXT = "Grüße, 🦊!";
const HALVES = ["Grüße, ", "🦊!"] as const;
const ARGUMENTS = ['{"city":"Kö', 'ln"}'] as const;

interface Server {
  readonly name: string;
  readonly model: string;
  /** What its list of models is, and where it stands in ghost.toml. */
  readonly list: unknown;
  readonly section: (origin: string) => string;
  readonly events: readonly string[];
  /** So many events are a whole answer; any less are not. */
  readonly wholeFrom: number;
  readonly error: string;
}

const data = (value: unknown) => `data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`;
const typed = (type: string, more: object) => `event: ${type}\n${data({ type, ...more })}`;
const place = (index: number) => ({ output_index: index, item_id: `item_${index}`, content_index: 0 });
const chunk = (delta: object, finish: string | null = null) =>
  data({
    id: "x",
    object: "chat.completion.chunk",
    created: 1,
    model: "m",
    choices: [{ index: 0, delta, finish_reason: finish }],
  });
const candidate = (part: object | undefined, more: object = {}) =>
  data({
    candidates: [{ content: { role: "model", parts: part === undefined ? [] : [part] }, index: 0, ...more }],
    responseId: "r",
  });
const toolDelta = (more: object) => chunk({ tool_calls: [{ index: 0, ...more }] });
const response = (status: string, output: readonly object[] = []) => ({
  response: {
    id: "resp_1",
    object: "response",
    status,
    model: "gpt-5.6-sol",
    error: null,
    incomplete_details: null,
    output,
  },
});
const item = { type: "message", id: "item_0", role: "assistant", status: "completed" };
const called = { type: "function_call", id: "item_1", call_id: "call_1", name: "get_weather", status: "completed" };

const SERVERS: readonly Server[] = [
  {
    name: "a chat server",
    model: "up/m",
    list: { data: [{ id: "m" }] },
    section: (origin) => `[providers.compatible.up]\nbase_url = "${origin}/v1"`,
    events: [
      chunk({ role: "assistant", content: "" }),
      chunk({ content: HALVES[0] }),
      chunk({ content: HALVES[1] }),
      toolDelta({ id: "call_1", type: "function", function: { name: "get_weather", arguments: "" } }),
      toolDelta({ function: { arguments: ARGUMENTS[0] } }),
      toolDelta({ function: { arguments: ARGUMENTS[1] } }),
      chunk({}, "tool_calls"),
      data({
        id: "x",
        object: "chat.completion.chunk",
        created: 1,
        model: "m",
        choices: [],
        usage: { prompt_tokens: 1, completion_tokens: 2 },
      }),
      data("[DONE]"),
    ],
    wholeFrom: 7,
    error: data({ error: { message: "overloaded", type: "server_error", param: null, code: null } }),
  },
  {
    name: "OpenAI",
    model: "openai/gpt-5.6-sol",
    list: { data: [{ id: "gpt-5.6-sol" }] },
    section: (origin) => `[providers.openai]\nbase_url = "${origin}/v1"`,
    events: [
      typed("response.created", response("in_progress")),
      typed("response.output_item.added", { output_index: 0, item: { ...item, status: "in_progress", content: [] } }),
      typed("response.output_text.delta", { ...place(0), delta: HALVES[0] }),
      typed("response.output_text.delta", { ...place(0), delta: HALVES[1] }),
      typed("response.output_text.done", { ...place(0), text: TEXT }),
      typed("response.output_item.done", {
        output_index: 0,
        item: { ...item, content: [{ type: "output_text", text: TEXT }] },
      }),
      typed("response.output_item.added", { output_index: 1, item: { ...called, arguments: "" } }),
      typed("response.function_call_arguments.delta", { ...place(1), delta: ARGUMENTS[0] }),
      typed("response.function_call_arguments.delta", { ...place(1), delta: ARGUMENTS[1] }),
      typed("response.function_call_arguments.done", { ...place(1), arguments: ARGUMENTS.join("") }),
      typed("response.output_item.done", { output_index: 1, item: { ...called, arguments: ARGUMENTS.join("") } }),
      typed("response.completed", response("completed", [item, { ...called, arguments: ARGUMENTS.join("") }])),
    ],
    wholeFrom: 12,
    error: typed("error", { code: "server_error", message: "overloaded", param: null }),
  },
  {
    name: "Anthropic",
    model: "anthropic/claude-opus-4-6",
    list: { data: [{ id: "claude-opus-4-6" }], has_more: false, last_id: null },
    section: (origin) => `[providers.anthropic]\nbase_url = "${origin}/v1"`,
    events: [
      typed("message_start", {
        message: {
          id: "msg_1",
          type: "message",
          role: "assistant",
          content: [],
          usage: { input_tokens: 1, output_tokens: 1 },
        },
      }),
      typed("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
      typed("content_block_delta", { index: 0, delta: { type: "text_delta", text: HALVES[0] } }),
      typed("content_block_delta", { index: 0, delta: { type: "text_delta", text: HALVES[1] } }),
      typed("content_block_stop", { index: 0 }),
      typed("content_block_start", {
        index: 1,
        content_block: { type: "tool_use", id: "toolu_1", name: "get_weather", input: {} },
      }),
      typed("content_block_delta", { index: 1, delta: { type: "input_json_delta", partial_json: ARGUMENTS[0] } }),
      typed("content_block_delta", { index: 1, delta: { type: "input_json_delta", partial_json: ARGUMENTS[1] } }),
      typed("content_block_stop", { index: 1 }),
      typed("message_delta", { delta: { stop_reason: "tool_use", stop_sequence: null }, usage: { output_tokens: 9 } }),
      typed("message_stop", {}),
    ],
    wholeFrom: 11,
    error: typed("error", { error: { type: "overloaded_error", message: "Overloaded" } }),
  },
  {
    name: "Gemini",
    model: "gemini/gemini-2.5-flash",
    list: { models: [{ name: "models/gemini-2.5-flash", supportedGenerationMethods: ["generateContent"] }] },
    section: (origin) => `[providers.gemini]\nbase_url = "${origin}/v1beta"`,
    events: [
      candidate({ text: HALVES[0] }),
      candidate({ text: HALVES[1] }),
      candidate({ functionCall: { id: "call_1", name: "get_weather", args: JSON.parse(ARGUMENTS.join("")) } }),
      candidate(undefined, { finishReason: "STOP" }),
    ],
    wholeFrom: 4,
    error: data({ error: { code: 503, message: "overloaded", status: "UNAVAILABLE" } }),
  },
];

const PARAMETERS = { type: "object", properties: { city: { type: "string" } } };
const FUNCTION = { name: "get_weather", parameters: PARAMETERS };

interface Client {
  readonly name: string;
  ask(model: string, stream: boolean, words?: string): Promise<ApiReply>;
  /** In a stream: what only a whole answer has. */
  readonly end: RegExp;
  /** The pieces of text, in a group. */
  readonly text: RegExp;
}

const CLIENTS: readonly Client[] = [
  {
    name: "chat completions",
    ask: (model, stream, words = "hi") =>
      call(daemon, "/v1/chat/completions", {
        body: {
          model,
          stream,
          messages: [{ role: "user", content: words }],
          tools: [{ type: "function", function: FUNCTION }],
        },
      }),
    end: /^data: \[DONE\]|"finish_reason":\s*"/m,
    text: /"content":("(?:[^"\\]|\\.)*")/g,
  },
  {
    name: "Responses",
    ask: (model, stream, words = "hi") =>
      call(daemon, "/v1/responses", {
        body: { model, stream, store: false, input: words, tools: [{ type: "function", strict: false, ...FUNCTION }] },
      }),
    end: /^event: response\.(completed|incomplete)/m,
    text: /"type":"response.output_text.delta".*?"delta":("(?:[^"\\]|\\.)*")/g,
  },
  {
    name: "Messages",
    ask: (model, stream, words = "hi") =>
      call(daemon, "/v1/messages", {
        body: {
          model,
          stream,
          max_tokens: 99,
          messages: [{ role: "user", content: words }],
          tools: [{ name: FUNCTION.name, input_schema: PARAMETERS }],
        },
      }),
    end: /^event: message_stop/m,
    text: /"type":"text_delta","text":("(?:[^"\\]|\\.)*")/g,
  },
  {
    name: "Gemini",
    ask: (model, stream, words = "hi") =>
      call(daemon, `/v1beta/models/${model}:${stream ? "streamGenerateContent?alt=sse" : "generateContent"}`, {
        body: {
          contents: [{ role: "user", parts: [{ text: words }] }],
          tools: [{ functionDeclarations: [{ name: FUNCTION.name, parametersJsonSchema: PARAMETERS }] }],
        },
        headers: { "x-goog-api-key": daemon.modelKey },
        key: null,
      }),
    end: /"finishReason":/,
    text: /"text":("(?:[^"\\]|\\.)*")/g,
  },
  {
    name: "Ollama",
    ask: (model, stream, words = "hi") =>
      call({ http: ollama, modelKey: "" }, "/api/chat", {
        body: {
          model,
          stream,
          messages: [{ role: "user", content: words }],
          tools: [{ type: "function", function: FUNCTION }],
        },
        key: null,
      }),
    end: /"done":true/,
    text: /"content":("(?:[^"\\]|\\.)*")/g,
  },
];

let hosts: readonly CannedHost[];
let daemon: TestDaemon;
let ollama: string;

before(async () => {
  hosts = await Promise.all(SERVERS.map(({ list }) => startCannedHost(list)));
  const config = [
    "[http.ollama]\nenabled = true\nport = 0\nallow_cloud = true",
    "[providers.ollama]\ndiscover = false",
    ...SERVERS.map(({ section }, index) => section(hosts[index]?.origin ?? "")),
  ].join("\n");
  daemon = await startTestDaemon({
    config,
    env: { OPENAI_API_KEY: KEY, ANTHROPIC_API_KEY: KEY, GEMINI_API_KEY: KEY },
  });
  const line = daemon.logs().find((entry) => entry["event"] === "ollama_http.listening");
  ollama = `http://127.0.0.1:${String(line?.["port"])}`;
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  for (const host of hosts) await host[Symbol.asyncDispose]();
});

const SSE = "text/event-stream";
const textOf = ({ text }: ApiReply, client: Client): string =>
  [...text.matchAll(client.text)].map(([, json = '""']) => String(JSON.parse(json))).join("");

function assertBroken(client: Client, reply: ApiReply, where: string): void {
  assert.doesNotMatch(reply.text, client.end, `${where}\n${reply.text}`);
  if (reply.status !== 200) {
    assert.ok(reply.status >= 500, `${where}: ${reply.status}\n${reply.text}`);
    return;
  }
  assert.ok(reply.isCut, `${where}: the stream ended as a whole one does\n${reply.text}`);
  const said = textOf(reply, client);
  assert.ok(TEXT.startsWith(said), `${where}: ${JSON.stringify(said)}`);
}

/** What may follow the first `count` events that is no end. */
function breaks(server: Server, count: number): readonly (readonly [how: string, answer: CannedAnswer])[] {
  const pieces = server.events.slice(0, count);
  const next = Buffer.from(server.events[count] ?? "");
  const half = next.subarray(0, Math.floor(next.length / 2));
  return [
    ["the end of the body", { contentType: SSE, pieces }],
    ["a cut connection", { contentType: SSE, pieces, end: "reset" }],
    ["half of the next event", { contentType: SSE, pieces: [...pieces, half] }],
    ["an error, and the rest", { contentType: SSE, pieces: [...pieces, server.error, ...server.events.slice(count)] }],
  ];
}

for (const [index, server] of SERVERS.entries()) {
  for (const client of CLIENTS) {
    test(`what ${server.name} breaks off is no whole answer for a client of ${client.name}, wherever it breaks`, async () => {
      const host = hosts[index];
      assert.ok(host !== undefined);
      for (let count = 0; count < server.wholeFrom; count += 1) {
        for (const [how, answer] of breaks(server, count)) {
          host.play(answer);
          const reply = await client.ask(server.model, true);
          assertBroken(client, reply, `${how} behind ${count} events`);
        }
        host.play({ contentType: SSE, pieces: server.events.slice(0, count) });
        const whole = await client.ask(server.model, false);
        assert.ok(whole.status >= 500, `not streamed, behind ${count} events: ${whole.status} ${whole.text}`);
      }
      for (let count = server.wholeFrom; count <= server.events.length; count += 1) {
        host.play({ contentType: SSE, pieces: server.events.slice(0, count) });
        const reply = await client.ask(server.model, true);
        assert.match(reply.text, client.end, reply.text);
        assert.deepEqual([reply.isCut, textOf(reply, client)], [false, TEXT], reply.text);
      }
    });
  }
}

for (const [index, server] of SERVERS.entries()) {
  test(`${server.name} may cut its bytes anywhere, end lines by CRLF, and say what nobody knows`, async () => {
    const host = hosts[index];
    assert.ok(host !== undefined);
    const odd = [": a comment\n\n", "id: 7\nretry: 100\n\n", typed("not.yet.known", { index: 99, output_index: 99 })];
    const noisy = server.events.flatMap((one, at) => [
      at % 2 === 0 ? odd.slice(0, 2).join("") : (odd[at % 3] ?? ""),
      one,
    ]);
    const isTyped = server.name === "OpenAI" || server.name === "Anthropic";
    const all = Buffer.from(
      (isTyped ? noisy : noisy.filter((one) => !one.includes("not.yet"))).join("").replaceAll("\n", "\r\n"),
    );
    const pieces = [...all].map((byte) => Buffer.from([byte]));
    for (const client of CLIENTS) {
      host.play({ contentType: SSE, pieces, isBreathless: true });
      const reply = await client.ask(server.model, true);
      assert.deepEqual([reply.isCut, textOf(reply, client)], [false, TEXT], reply.text);
      assert.match(reply.text, client.end);
      assert.match(reply.text, /get_weather/);
    }
  });
}

for (const [index, server] of SERVERS.entries()) {
  test(`a question of four megabytes reaches ${server.name}, and one megabyte in one piece comes back, for clients of every dialect`, async () => {
    const host = hosts[index];
    assert.ok(host !== undefined);
    const big = "Füchse! ".repeat(125_000);
    const pieces = server.events.map((one) => one.replaceAll(HALVES[0], big));
    for (const client of CLIENTS) {
      host.play({ contentType: SSE, pieces });
      const question = `${"Gänse? ".repeat(550_000)}(end)`;
      const reply = await client.ask(server.model, true, question);
      assert.equal(reply.status, 200, `${client.name}: ${reply.text.slice(0, 500)}`);
      assert.ok(host.bodies.at(-1)?.includes(question), `${client.name}: the question was cut`);
      assert.ok(textOf(reply, client) === big + HALVES[1], `${client.name}: the answer is not what was said`);
      assert.match(reply.text, client.end);
    }
  });
}

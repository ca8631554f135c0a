/**
 * One conversation of tool calls that goes from maker to maker and back, by clients of several dialects: each maker gets its own seals back, byte for byte and
 * in their places, and never another's.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { z } from "zod";
import { type CannedHost, startCannedHost } from "../fakes/canned-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { call } from "../support/http.ts";

const KEY = "sk-test-0123456789abcdef";
const SSE = "text/event-stream";
const data = (value: object) => `data: ${JSON.stringify(value)}\n\n`;
const typed = (type: string, more: object) => `event: ${type}\n${data({ type, ...more })}`;

interface Maker {
  readonly model: string;
  readonly list: object;
  readonly section: (origin: string) => string;
  /** The stream of its `turn`-th answer: thinking that it seals, and one call with the id `call_TURN`. */
  readonly pieces: (turn: number) => readonly string[];
  /** What of that it must get back. */
  readonly seals: (turn: number) => readonly string[];
}

const MAKERS: readonly Maker[] = [
  {
    model: "openai/gpt-5.6-sol",
    list: { data: [{ id: "gpt-5.6-sol" }] },
    section: (origin) => `[providers.openai]\nbase_url = "${origin}/v1"`,
    pieces(turn) {
      const summary = [{ type: "summary_text", text: "gpt thinks" }];
      const thought = { type: "reasoning", id: `rs_${turn}`, summary, encrypted_content: `GPT/${turn}+==` };
      const called = {
        type: "function_call",
        id: `fc_${turn}`,
        call_id: `call_${turn}`,
        name: "f",
        status: "completed",
      };
      const whole = { ...called, arguments: '{"n":1}' };
      const response = {
        id: `resp_${turn}`,
        object: "response",
        status: "completed",
        error: null,
        output: [thought, whole],
      };
      const delta = { output_index: 0, item_id: thought.id, summary_index: 0, delta: "gpt thinks" };
      return [
        typed("response.output_item.added", {
          output_index: 0,
          item: { ...thought, summary: [], encrypted_content: null },
        }),
        typed("response.reasoning_summary_text.delta", delta),
        typed("response.output_item.done", { output_index: 0, item: thought }),
        typed("response.output_item.added", { output_index: 1, item: { ...called, arguments: "" } }),
        typed("response.output_item.done", { output_index: 1, item: whole }),
        typed("response.completed", { response }),
      ];
    },
    seals: (turn) => [`"encrypted_content":"GPT/${turn}+=="`, `"id":"rs_${turn}"`],
  },
  {
    model: "anthropic/claude-opus-5-5",
    list: { data: [{ id: "claude-opus-5-5" }], has_more: false },
    section: (origin) => `[providers.anthropic]\nbase_url = "${origin}/v1"`,
    pieces: (turn) => [
      typed("message_start", { message: { id: "msg_1", usage: { input_tokens: 1, output_tokens: 1 } } }),
      typed("content_block_start", { index: 0, content_block: { type: "thinking", thinking: "", signature: "" } }),
      typed("content_block_delta", { index: 0, delta: { type: "thinking_delta", thinking: "claude " } }),
      typed("content_block_delta", { index: 0, delta: { type: "thinking_delta", thinking: "thinks" } }),
      typed("content_block_delta", { index: 0, delta: { type: "signature_delta", signature: `CLAUDE/${turn}+==` } }),
      typed("content_block_stop", { index: 0 }),
      typed("content_block_start", {
        index: 1,
        content_block: { type: "redacted_thinking", data: `REDACTED/${turn}` },
      }),
      typed("content_block_stop", { index: 1 }),
      typed("content_block_start", {
        index: 2,
        content_block: { type: "tool_use", id: `call_${turn}`, name: "f", input: {} },
      }),
      typed("content_block_delta", { index: 2, delta: { type: "input_json_delta", partial_json: '{"n":2}' } }),
      typed("content_block_stop", { index: 2 }),
      typed("message_delta", { delta: { stop_reason: "tool_use" }, usage: { output_tokens: 5 } }),
      typed("message_stop", {}),
    ],
    seals: (turn) => [
      `{"type":"thinking","thinking":"claude thinks","signature":"CLAUDE/${turn}+=="},{"type":"redacted_thinking","data":"REDACTED/${turn}"},{"type":"tool_use","id":"call_${turn}"`,
    ],
  },
  {
    model: "gemini/gemini-3.8-flash",
    list: { models: [{ name: "models/gemini-3.8-flash", supportedGenerationMethods: ["generateContent"] }] },
    section: (origin) => `[providers.gemini]\nbase_url = "${origin}/v1beta"`,
    pieces(turn) {
      const part = (value: object) => data({ candidates: [{ content: { role: "model", parts: [value] }, index: 0 }] });
      const functionCall = { id: `call_${turn}`, name: "f", args: { n: 3 } };
      return [
        part({ text: "gemini thinks", thought: true }),
        part({ functionCall, thoughtSignature: `GEMINI/${turn}+==` }),
        data({ candidates: [{ content: { role: "model", parts: [] }, index: 0, finishReason: "STOP" }] }),
      ];
    },
    seals: (turn) => [
      `"functionCall":{"id":"call_${turn}","name":"f","args":{"n":3}},"thoughtSignature":"GEMINI/${turn}+=="`,
    ],
  },
];

/** Every maker after every other, and each again. */
const ORDER = [0, 1, 2, 0, 2, 1, 0, 1] as const;
const ALL_SEALS = /GPT\/|CLAUDE\/|REDACTED\/|GEMINI\/|ghost1:/g;

let hosts: readonly CannedHost[];
let daemon: TestDaemon;

before(async () => {
  hosts = await Promise.all(MAKERS.map(({ list }) => startCannedHost(list)));
  const sections = MAKERS.map(({ section }, index) => section(hosts[index]?.origin ?? ""));
  const config = ["[providers.ollama]\ndiscover = false", ...sections].join("\n");
  daemon = await startTestDaemon({
    config,
    env: { OPENAI_API_KEY: KEY, ANTHROPIC_API_KEY: KEY, GEMINI_API_KEY: KEY },
  });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  for (const host of hosts) await host[Symbol.asyncDispose]();
});

/** A client that has asked before. `ask` brings the result of the last call, if there was one. */
interface Client {
  ask(model: string, turn: number): Promise<void>;
}

const PARAMETERS = { type: "object", properties: { n: { type: "number" } } };
const loose = z.looseObject({});

function eventsOf(text: string): readonly z.infer<typeof loose>[] {
  return [...text.matchAll(/^data: (\{.*)$/gm)].map(([, json = "{}"]) => loose.parse(JSON.parse(json)));
}

const CLIENTS: Readonly<Record<string, () => Client>> = {
  /** Its history is kept for it. */
  "Responses with previous_response_id"() {
    const response = z.looseObject({ id: z.string() });
    let previous: string | undefined;
    return {
      async ask(model, turn) {
        const input = turn === 0 ? "go" : [{ type: "function_call_output", call_id: `call_${turn - 1}`, output: "r" }];
        const tools = [{ type: "function", name: "f", parameters: PARAMETERS, strict: false }];
        const more = previous === undefined ? {} : { previous_response_id: previous };
        const body = { model, stream: true, input, tools, reasoning: { effort: "high", summary: "auto" }, ...more };
        const { text } = await call(daemon, "/v1/responses", { body });
        assert.match(text, /event: response\.completed/);
        previous = response.parse(eventsOf(text).at(-1)?.["response"]).id;
      },
    };
  },
  /** It keeps all items itself. */
  "Responses without a store"() {
    const response = z.looseObject({ output: z.array(loose) });
    const input: object[] = [{ role: "user", content: "go" }];
    return {
      async ask(model, turn) {
        if (turn > 0) input.push({ type: "function_call_output", call_id: `call_${turn - 1}`, output: "r" });
        const tools = [{ type: "function", name: "f", parameters: PARAMETERS, strict: false }];
        const body = { model, stream: true, store: false, include: ["reasoning.encrypted_content"], input, tools };
        const { text } = await call(daemon, "/v1/responses", {
          body: { ...body, reasoning: { effort: "high", summary: "auto" } },
        });
        assert.match(text, /event: response\.completed/);
        input.push(...response.parse(eventsOf(text).at(-1)?.["response"]).output);
      },
    };
  },
  /** It sends back every block as it got it. */
  Messages() {
    const answer = z.looseObject({ content: z.array(loose) });
    const messages: object[] = [{ role: "user", content: "go" }];
    return {
      async ask(model, turn) {
        const result = { type: "tool_result", tool_use_id: `call_${turn - 1}`, content: "r" };
        if (turn > 0) messages.push({ role: "user", content: [result] });
        const thinking = { type: "adaptive", display: "summarized" };
        const tools = [{ name: "f", input_schema: PARAMETERS }];
        const body = { model, stream: true, max_tokens: 9_000, messages, tools, thinking };
        const headers = { "anthropic-version": "2023-06-01" };
        const { text } = await call(daemon, "/v1/messages", { body, headers });
        assert.match(text, /event: message_stop/);
        messages.push({ role: "assistant", content: blocksOf(text) });
        answer.parse(messages.at(-1));
      },
    };
  },
  /** It knows no field for thinking: what is signed is kept for it. */
  "chat completions"() {
    const messages: object[] = [{ role: "user", content: "go" }];
    return {
      async ask(model, turn) {
        if (turn > 0) messages.push({ role: "tool", tool_call_id: `call_${turn - 1}`, content: "r" });
        const tools = [{ type: "function", function: { name: "f", parameters: PARAMETERS } }];
        const { text } = await call(daemon, "/v1/chat/completions", { body: { model, stream: true, messages, tools } });
        assert.match(text, /data: \[DONE\]/);
        const called = { name: "f", arguments: '{"n":1}' };
        messages.push({
          role: "assistant",
          content: null,
          tool_calls: [{ id: `call_${turn}`, type: "function", function: called }],
        });
      },
    };
  },
};

const words = (value: unknown): string => (typeof value === "string" ? value : "");

/** The blocks of a stream of Messages, as SDKs put them together. */
function blocksOf(text: string): readonly object[] {
  const blocks: Record<string, unknown>[] = [];
  const inputs: string[] = [];
  for (const { type, index, content_block: start, delta } of eventsOf(text)) {
    const at = Number(index);
    if (type === "content_block_start") blocks[at] = { ...loose.parse(start) };
    const block = blocks[at];
    if (type !== "content_block_delta" || block === undefined) continue;
    const piece = loose.parse(delta);
    for (const field of ["text", "thinking", "signature"]) {
      if (typeof piece[field] === "string") block[field] = words(block[field]) + piece[field];
    }
    inputs[at] = (inputs[at] ?? "") + words(piece["partial_json"]);
  }
  return blocks.map(({ caller: _caller, ...block }, at) =>
    block["type"] === "tool_use" ? { ...block, input: JSON.parse(inputs[at] ?? "{}") } : block,
  );
}

for (const [name, open] of Object.entries(CLIENTS)) {
  test(`${name}: each maker gets its own seals back as they were, and nobody else's`, async () => {
    const client = open();
    for (const [turn, index] of ORDER.entries()) {
      const [maker, host] = [MAKERS[index], hosts[index]];
      assert.ok(maker !== undefined && host !== undefined);
      host.play({ contentType: SSE, pieces: maker.pieces(turn) });
      await client.ask(maker.model, turn);
      const sent = host.bodies.at(-1) ?? "";
      const own = ORDER.slice(0, turn).flatMap((other, before_) => (other === index ? [before_] : []));
      // Chat clients say their own arguments.
      const body = name === "chat completions" ? sent.replaceAll('"args":{"n":1}', '"args":{"n":3}') : sent;
      for (const seal of own.flatMap((earlier) => maker.seals(earlier)))
        assert.ok(body.includes(seal), `turn ${turn} to ${maker.model} lacks ${seal}\n${sent}`);
      const expected = own.flatMap((earlier) => maker.seals(earlier).join("").match(ALL_SEALS) ?? []);
      assert.deepEqual(sent.match(ALL_SEALS) ?? [], expected, `turn ${turn} to ${maker.model}\n${sent}`);
    }
  });
}

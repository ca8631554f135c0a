/**
 * Clients of every dialect, reduced to what the matrix asks for: raw requests on the wire, and answers read as the dialect's specification has them.
 * The official SDKs have tests of their own beside this.
 */
import assert from "node:assert/strict";
import { AnswerFold } from "../../server/ghostllm/frames/answer-fold.ts";
import { decodeAnthropic } from "../../server/ghostllm/frames/anthropic.ts";
import { decodeGemini } from "../../server/ghostllm/frames/gemini.ts";
import { decodeOllama } from "../../server/ghostllm/frames/ollama.ts";
import { decodeOpenAi } from "../../server/ghostllm/frames/openai.ts";
import { decodeResponses } from "../../server/ghostllm/frames/responses.ts";
import type { StreamEvent } from "../../server/ghostllm/stream.ts";
import { type ApiReply, call } from "../support/http.ts";
import type { ClientName } from "./cells.ts";

export interface ToolResult {
  readonly callId: string;
  readonly name: string;
  readonly text: string;
}

export interface Question {
  readonly model: string;
  readonly text: string;
  readonly stream: boolean;
  readonly withTools?: boolean;
  /** A base64 PNG. */
  readonly image?: string;
  readonly schema?: object;
  /** An earlier answer of this client with calls, and what its tools gave back. */
  readonly after?: { readonly answer: ClientAnswer; readonly results: readonly ToolResult[] };
}

export interface ClientAnswer {
  readonly status: number;
  readonly text: string;
  readonly calls: readonly { readonly id: string; readonly name: string; readonly arguments: unknown }[];
  readonly finish: string | undefined;
  /** The dialect's own sign of a whole answer was there, and nothing was cut. */
  readonly isWhole: boolean;
  readonly reply: ApiReply;
  /** The assistant's turn as this client would send it back: of answers that were not streamed. */
  readonly turn: unknown;
}

export interface Client {
  readonly name: ClientName;
  ask(daemon: Daemon, question: Question): Promise<ClientAnswer>;
  /** The message of an error in the dialect's own shape. */
  errorOf(reply: ApiReply): string;
}

/** `ollama`: where the keyless Ollama front listens. */
export interface Daemon {
  readonly http: string;
  readonly modelKey: string;
  readonly ollama: string;
}

const WEATHER = {
  name: "get_weather",
  description: "The weather of a city.",
  parameters: { type: "object", properties: { city: { type: "string" } }, additionalProperties: false },
};
const TIME = { name: "get_time", description: "The time.", parameters: { type: "object", properties: {} } };
const TOOLS = [WEATHER, TIME];

type Json = Readonly<Record<string, unknown>>;

/** Part of a JSON body by its path; undefined where it is not. */
function at(value: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>(
    (inner, key) => (typeof inner === "object" && inner !== null ? Reflect.get(inner, key) : undefined),
    value,
  );
}

const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
const words = (value: unknown): string => (typeof value === "string" ? value : "");

function answerOf(
  reply: ApiReply,
  events: readonly StreamEvent[],
  more: { isWhole: boolean; turn?: unknown },
): ClientAnswer {
  const fold = new AnswerFold().addAll(events);
  const calls = fold.blocks.flatMap((block) =>
    block.kind === "toolCall"
      ? [{ id: block.callId, name: block.name, arguments: JSON.parse(block.arguments === "" ? "{}" : block.arguments) }]
      : [],
  );
  return {
    status: reply.status,
    text: fold.blocks.flatMap((block) => (block.kind === "text" ? [block.text] : [])).join(""),
    calls,
    finish: fold.reason,
    isWhole: more.isWhole && !reply.isCut && fold.error === undefined,
    reply,
    turn: more.turn,
  };
}

const chat: Client = {
  name: "chat completions",
  async ask(daemon, question) {
    const image = question.image === undefined ? [] : [imageUrl(question.image)];
    const after = question.after;
    const body = {
      model: question.model,
      stream: question.stream,
      max_tokens: 64,
      messages: [
        { role: "user", content: [{ type: "text", text: question.text }, ...image] },
        ...(after === undefined
          ? []
          : [
              after.answer.turn,
              ...after.results.map(({ callId, text }) => ({ role: "tool", tool_call_id: callId, content: text })),
            ]),
      ],
      ...(question.withTools === true ? { tools: TOOLS.map((tool) => ({ type: "function", function: tool })) } : {}),
      ...(question.schema === undefined
        ? {}
        : { response_format: { type: "json_schema", json_schema: { name: "answer", schema: question.schema } } }),
    };
    const reply = await call(daemon, "/v1/chat/completions", { body });
    const isWhole = question.stream ? reply.text.trimEnd().endsWith("data: [DONE]") : reply.status === 200;
    const events = reply.status === 200 ? decodeOpenAi(Buffer.from(reply.text)) : [];
    return answerOf(reply, events, { isWhole, turn: at(reply.json, "choices", 0, "message") });
  },
  errorOf: (reply) => words(at(reply.json, "error", "message")),
};

const imageUrl = (image: string) => ({ type: "image_url", image_url: { url: `data:image/png;base64,${image}` } });

const responses: Client = {
  name: "Responses",
  async ask(daemon, question) {
    const image =
      question.image === undefined
        ? []
        : [{ type: "input_image", image_url: `data:image/png;base64,${question.image}`, detail: "auto" }];
    const after = question.after;
    const body = {
      model: question.model,
      stream: question.stream,
      store: false,
      include: ["reasoning.encrypted_content"],
      max_output_tokens: 64,
      input: [
        { role: "user", content: [{ type: "input_text", text: question.text }, ...image] },
        ...(after === undefined
          ? []
          : [
              ...list(after.answer.turn),
              ...after.results.map(({ callId, text }) => ({
                type: "function_call_output",
                call_id: callId,
                output: text,
              })),
            ]),
      ],
      ...(question.withTools === true
        ? { tools: TOOLS.map((tool) => ({ type: "function", ...tool, strict: false })) }
        : {}),
      ...(question.schema === undefined
        ? {}
        : { text: { format: { type: "json_schema", name: "answer", schema: question.schema } } }),
    };
    const reply = await call(daemon, "/v1/responses", { body });
    const isWhole = question.stream
      ? /"type":\s*"response\.(completed|incomplete)"/.test(reply.text)
      : at(reply.json, "status") === "completed" || at(reply.json, "status") === "incomplete";
    const events = reply.status === 200 ? decodeResponses(Buffer.from(reply.text)) : [];
    return answerOf(reply, events, { isWhole, turn: at(reply.json, "output") });
  },
  errorOf: (reply) => words(at(reply.json, "error", "message")),
};

const messages: Client = {
  name: "Messages",
  async ask(daemon, question) {
    const image =
      question.image === undefined
        ? []
        : [{ type: "image", source: { type: "base64", media_type: "image/png", data: question.image } }];
    const after = question.after;
    const body = {
      model: question.model,
      stream: question.stream,
      max_tokens: 2048,
      messages: [
        { role: "user", content: [{ type: "text", text: question.text }, ...image] },
        ...(after === undefined
          ? []
          : [
              { role: "assistant", content: after.answer.turn },
              {
                role: "user",
                content: after.results.map(({ callId, text }) => ({
                  type: "tool_result",
                  tool_use_id: callId,
                  content: text,
                })),
              },
            ]),
      ],
      ...(question.withTools === true
        ? { tools: TOOLS.map(({ parameters, ...tool }) => ({ ...tool, input_schema: parameters })) }
        : {}),
      ...(question.schema === undefined
        ? {}
        : { output_config: { format: { type: "json_schema", schema: question.schema } } }),
    };
    const headers = { "anthropic-version": "2023-06-01" };
    const reply = await call(daemon, "/v1/messages", { body, headers });
    const isWhole = question.stream ? reply.text.includes("event: message_stop") : reply.status === 200;
    const events = reply.status === 200 ? decodeAnthropic(Buffer.from(reply.text)) : [];
    return answerOf(reply, events, { isWhole, turn: at(reply.json, "content") });
  },
  errorOf(reply) {
    assert.equal(at(reply.json, "type"), "error");
    return words(at(reply.json, "error", "message"));
  },
};

const gemini: Client = {
  name: "Gemini",
  async ask(daemon, question) {
    const image = question.image === undefined ? [] : [{ inlineData: { mimeType: "image/png", data: question.image } }];
    const after = question.after;
    const body = {
      contents: [
        { role: "user", parts: [{ text: question.text }, ...image] },
        ...(after === undefined
          ? []
          : [
              after.answer.turn,
              {
                role: "user",
                parts: after.results.map(({ callId, name, text }) => ({
                  functionResponse: { id: callId, name, response: { output: text } },
                })),
              },
            ]),
      ],
      ...(question.withTools === true
        ? {
            tools: [
              {
                functionDeclarations: TOOLS.map(({ parameters, ...tool }) => ({
                  ...tool,
                  parametersJsonSchema: parameters,
                })),
              },
            ],
          }
        : {}),
      generationConfig: {
        maxOutputTokens: 2048,
        ...(question.schema === undefined
          ? {}
          : { responseMimeType: "application/json", responseJsonSchema: question.schema }),
      },
    };
    const method = question.stream ? "streamGenerateContent?alt=sse" : "generateContent";
    const headers = { "x-goog-api-key": daemon.modelKey };
    const reply = await call(daemon, `/v1beta/models/${question.model}:${method}`, { body, headers, key: null });
    const isWhole = /"finishReason":/.test(reply.text);
    const events = reply.status === 200 ? decodeGemini(Buffer.from(reply.text)) : [];
    return answerOf(reply, events, { isWhole, turn: at(reply.json, "candidates", 0, "content") });
  },
  errorOf(reply) {
    assert.equal(at(reply.json, "error", "code"), reply.status);
    return words(at(reply.json, "error", "message"));
  },
};

const ollama: Client = {
  name: "Ollama",
  async ask(daemon, question) {
    const after = question.after;
    const body: Json = {
      model: question.model,
      stream: question.stream,
      options: { num_predict: 64 },
      messages: [
        { role: "user", content: question.text, ...(question.image === undefined ? {} : { images: [question.image] }) },
        ...(after === undefined
          ? []
          : [
              after.answer.turn,
              ...after.results.map(({ name, text, callId }) => ({
                role: "tool",
                content: text,
                tool_name: name,
                tool_call_id: callId,
              })),
            ]),
      ],
      ...(question.withTools === true ? { tools: TOOLS.map((tool) => ({ type: "function", function: tool })) } : {}),
      ...(question.schema === undefined ? {} : { format: question.schema }),
    };
    const reply = await call({ http: daemon.ollama, modelKey: "" }, "/api/chat", { body, key: null });
    const isWhole = /"done":\s*true/.test(reply.text);
    const events = reply.status === 200 ? decodeOllama(Buffer.from(reply.text)) : [];
    return answerOf(reply, events, { isWhole, turn: at(reply.json, "message") });
  },
  errorOf: (reply) => words(at(reply.json, "error")),
};

export const clients: readonly Client[] = [chat, responses, messages, gemini, ollama];

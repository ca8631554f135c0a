/** What the fake Ollama host says: deterministic text, tool calls, thinking, JSON that fits a format, vectors, and token counts. */
import { createHash } from "node:crypto";
import type { FakeToolCall, Json, WireRequest } from "./ollama-wire.ts";
import { isObject } from "./ollama-wire.ts";

export interface FakeAnswer {
  readonly text?: string;
  readonly thinking?: string;
  readonly toolCalls?: readonly FakeToolCall[];
}

/** One token is a word with the white space before it. Real tokenizers differ; all counts of the fake are in this unit. */
function tokenize(text: string): readonly string[] {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}

export function countPromptTokens(prompt: string): number {
  return tokenize(prompt).length;
}

/** The whole prompt as the model would see it. */
export function renderPrompt(request: WireRequest): string {
  if (request.route === "embed") return request.input.join("\n");
  if (request.route === "generate") return [request.system, request.prompt, request.suffix].filter(Boolean).join("\n");
  return request.messages.map((message) => `<${message.role}> ${message.content}`).join("\n");
}

const WORDS = ["the", "river", "carries", "light", "over", "stones", "and", "nobody", "asks", "where", "it", "goes"];
const DEFAULT_TOKENS = 12;

/** Words chosen by a hash of the prompt: the same request always gets the same answer. */
export function defaultAnswer(request: WireRequest): string {
  const hash = createHash("sha256").update(renderPrompt(request)).digest();
  const words = Array.from({ length: DEFAULT_TOKENS }, (_, index) => WORDS[(hash[index] ?? 0) % WORDS.length] ?? "the");
  return words.join(" ");
}

/** The smallest value that a JSON schema of the simple kind allows. */
function exampleOf(schema: Json): unknown {
  if (Array.isArray(schema["enum"])) return schema["enum"][0];
  switch (schema["type"]) {
    case "object": {
      const properties = isObject(schema["properties"]) ? schema["properties"] : {};
      return Object.fromEntries(
        Object.entries(properties).map(([name, property]) => [name, isObject(property) ? exampleOf(property) : null]),
      );
    }
    case "array":
      return isObject(schema["items"]) ? [exampleOf(schema["items"])] : [];
    case "integer":
    case "number":
      return 1;
    case "boolean":
      return true;
    case "string":
      return "text";
    default:
      return null;
  }
}

export interface Plan {
  readonly thinking: readonly string[];
  readonly tokens: readonly string[];
  readonly toolCalls: readonly FakeToolCall[];
  readonly doneReason: "stop" | "length";
}

/** Applies format, stop strings and `num_predict` to what the model wants to say. */
export function planAnswer(request: WireRequest, scripted: string | FakeAnswer, numCtx: number, thinks: boolean): Plan {
  const wanted: FakeAnswer = typeof scripted === "string" ? { text: scripted } : scripted;
  let text = wanted.text ?? "";
  if (request.format === "json") text = isJson(text) ? text : JSON.stringify({ answer: text });
  else if (request.format !== undefined) text = JSON.stringify(exampleOf(request.format));
  for (const stop of request.options.stop) {
    const at = text.indexOf(stop);
    if (at >= 0) text = text.slice(0, at);
  }
  const asked = request.options.numPredict ?? -1;
  const limit = asked < 0 ? numCtx * 10 : asked;
  const thinking = thinks ? tokenize(wanted.thinking ?? "hmm let me see") : [];
  const tokens = tokenize(text);
  const room = Math.max(0, limit - thinking.length);
  return {
    thinking: thinking.slice(0, limit),
    tokens: tokens.slice(0, room),
    toolCalls: wanted.toolCalls ?? [],
    doneReason: thinking.length + tokens.length > limit ? "length" : "stop",
  };
}

/** More than 30 equal tokens in a row, compared trimmed, and Ollama stops without a word. Returns how many tokens it still sends. */
export function repetitionLimit(tokens: readonly string[]): number {
  let run = 0;
  for (const [index, token] of tokens.entries()) {
    run = index > 0 && token.trim() === tokens[index - 1]?.trim() ? run + 1 : 1;
    if (run > 30) return index;
  }
  return Number.POSITIVE_INFINITY;
}

/** A unit vector from a hash of the text. */
export function embed(text: string, dimensions: number): readonly number[] {
  const vector: number[] = [];
  for (let index = 0; vector.length < dimensions; index += 1) {
    const digest = createHash("sha256").update(`${index}:${text}`).digest();
    for (const byte of digest) if (vector.length < dimensions) vector.push(byte / 127.5 - 1);
  }
  const norm = Math.hypot(...vector);
  return vector.map((value) => value / norm);
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

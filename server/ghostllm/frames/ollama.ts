/**
 * Ollama's NDJSON as frames (https://github.com/ollama/ollama/blob/main/docs/api.md): chat and generate lines in, stream events out.
 * 1. Only whole lines leave the reader, so a cut at any byte, also inside a UTF-8 sequence, changes nothing.
 * 2. An answer is whole only when a `done: true` line was seen; every other end is a failure.
 * 3. A frame's bytes say all that its events say: ids and positions of tool calls that Ollama leaves out are written into the line,
 *    so that `decodeOllama` gives the same events when the transcript is replayed.
 */
import { isUtf8 } from "node:buffer";
import { z } from "zod";
import type { FinishReason } from "../../../protocol/chat.ts";
import { OperationalError } from "../../base/errors.ts";
import type { Frame, StreamEvent } from "../stream.ts";

/** The longest line we wait for. The last line of a generate answer lists its whole context as numbers; an endless line would fill the memory. */
const MAX_LINE_BYTES = 8 * 1024 * 1024;
/** Ollama counts from 0 and sends no answer with more; a longer list is nonsense from elsewhere. */
const MAX_TOOL_CALLS = 1024;
const NEWLINE = 0x0a;

const count = z.int().nonnegative().nullish().catch(undefined);
const toolCall = z.looseObject({
  id: z.string().nullish(),
  function: z.looseObject({
    index: z.int().nonnegative().nullish().catch(undefined),
    name: z.string(),
    arguments: z.record(z.string(), z.unknown()).nullish(),
  }),
});
const ollamaLine = z.looseObject({
  message: z
    .looseObject({
      content: z.string().nullish(),
      thinking: z.string().nullish(),
      tool_calls: z.array(toolCall).max(MAX_TOOL_CALLS).nullish(),
    })
    .nullish(),
  response: z.string().nullish(),
  thinking: z.string().nullish(),
  done: z.boolean().nullish(),
  done_reason: z.string().nullish(),
  prompt_eval_count: count,
  eval_count: count,
  error: z.union([z.string(), z.looseObject({ message: z.string() })]).nullish(),
});
type OllamaLine = z.infer<typeof ollamaLine>;

/**
 * The events in a run of whole lines:
 * `{"message":{"role":"assistant","content":"Hi"},"done":false}\n` → `[{kind: "text", text: "Hi"}]`.
 * A line that is not JSON, not UTF-8, or an error line yields an `error` event, and nothing follows.
 */
export function decodeOllama(bytes: Buffer): readonly StreamEvent[] {
  const events: StreamEvent[] = [];
  for (const line of linesOf(bytes)) {
    const parsed = parseLine(line);
    if (typeof parsed === "string") {
      events.push({ kind: "error", error: { code: "upstream_failed", message: parsed, details: {} } });
      break;
    }
    pushEvents(events, parsed);
    if (parsed.done === true) break;
  }
  return events;
}

/** Reads one answer: bytes as they come in, frames of whole lines out. */
export class OllamaFrames {
  readonly #newCallId: () => string;
  readonly #lines = new LineSplitter();
  #toolCalls = 0;
  #state: "open" | "done" | "failed" = "open";

  /** @param newCallId names the tool calls to which Ollama gives no id. */
  constructor(newCallId: () => string) {
    this.#newCallId = newCallId;
  }

  /** `done` after a `done: true` line, `failed` after a frame with an error event; nothing is read beyond either. */
  get state(): "open" | "done" | "failed" {
    return this.#state;
  }

  /** @returns undefined when no line has come to its end yet. @throws OperationalError `upstream_failed` for a line without end. */
  push(chunk: Buffer): Frame | undefined {
    if (this.#state !== "open") return undefined;
    const whole = this.#lines.push(chunk);
    if (whole === undefined) return undefined;
    const bytes = this.#complete(whole);
    const events = decodeOllama(bytes);
    const last = events.at(-1)?.kind;
    if (last === "error") this.#state = "failed";
    else if (last === "finish") this.#state = "done";
    return { dialect: "ollama", bytes, events: () => events };
  }

  /** To be called where the bytes end. @throws OperationalError `upstream_failed` unless the answer was whole (2). */
  end(): void {
    if (this.#state !== "open") return;
    const why = this.#lines.heldBytes > 0 ? "in the middle of a line" : "without its last line";
    throw new OperationalError(
      "upstream_failed",
      `the Ollama host ended the answer ${why}; it does so when a model repeats itself or its runner dies`,
    );
  }

  /** Writes what is missing into lines about tool calls (3); all other bytes stay as they are. */
  #complete(whole: Buffer): Buffer {
    if (this.#toolCalls === 0 && !whole.includes('"tool_calls"')) return whole;
    const out: Buffer[] = [];
    for (const line of linesOf(whole)) {
      const parsed = parseLine(line);
      const changed = typeof parsed === "string" ? undefined : this.#withToolCalls(parsed);
      out.push(changed === undefined ? line : Buffer.from(JSON.stringify(changed)), Buffer.from("\n"));
    }
    return Buffer.concat(out);
  }

  #withToolCalls(line: OllamaLine): OllamaLine | undefined {
    const calls = line.message?.tool_calls ?? [];
    if (calls.length > 0) {
      const named = calls.map((call) => ({
        ...call,
        id: call.id || this.#newCallId(),
        function: { ...call.function, index: this.#toolCalls++ },
      }));
      return { ...line, message: { ...line.message, tool_calls: named } };
    }
    // Ollama says "stop" all the same; the line alone would not show that the answer called tools.
    return line.done === true && line.done_reason === "stop" && this.#toolCalls > 0
      ? { ...line, done_reason: "tool_calls" }
      : undefined;
  }
}

/** Cuts bytes into runs of whole lines, at the last newline of each read. */
class LineSplitter {
  #held: Buffer[] = [];
  #heldBytes = 0;

  get heldBytes(): number {
    return this.#heldBytes;
  }

  push(chunk: Buffer): Buffer | undefined {
    const end = chunk.lastIndexOf(NEWLINE) + 1;
    if (end === 0) {
      this.#hold(chunk);
      return undefined;
    }
    const head = chunk.subarray(0, end);
    const whole = this.#held.length === 0 ? head : Buffer.concat([...this.#held, head]);
    this.#held = [];
    this.#heldBytes = 0;
    if (end < chunk.length) this.#hold(chunk.subarray(end));
    return whole;
  }

  #hold(chunk: Buffer): void {
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    if (this.#heldBytes > MAX_LINE_BYTES) {
      throw new OperationalError("upstream_failed", `the Ollama host sent a line of more than ${MAX_LINE_BYTES} bytes`);
    }
  }
}

/** The lines without their ends (LF or CRLF), empty ones left out. */
function* linesOf(bytes: Buffer): Generator<Buffer> {
  for (let start = 0; start < bytes.length; ) {
    const newline = bytes.indexOf(NEWLINE, start);
    const end = newline === -1 ? bytes.length : newline;
    const line = bytes.subarray(start, bytes[end - 1] === 0x0d ? end - 1 : end);
    if (line.length > 0) yield line;
    start = end + 1;
  }
}

/** The line's content, or what is wrong with it in one sentence. */
function parseLine(line: Buffer): OllamaLine | string {
  if (!isUtf8(line)) return "the Ollama host sent a line that is not UTF-8";
  let value: unknown;
  try {
    value = JSON.parse(line.toString("utf8"));
  } catch {
    return "the Ollama host sent a line that is not JSON";
  }
  const parsed = ollamaLine.safeParse(value);
  if (!parsed.success) return "the Ollama host sent a line of an unknown shape";
  const { error } = parsed.data;
  if (error === undefined || error === null) return parsed.data;
  return `the Ollama host broke off the answer: ${ollamaErrorText(typeof error === "string" ? error : error.message)}`;
}

function pushEvents(events: StreamEvent[], line: OllamaLine): void {
  const reasoning = line.message?.thinking ?? line.thinking ?? "";
  if (reasoning !== "") events.push({ kind: "reasoning", text: reasoning });
  const text = line.message?.content ?? line.response ?? "";
  if (text !== "") events.push({ kind: "text", text });
  const calls = line.message?.tool_calls ?? [];
  for (const [position, call] of calls.entries()) {
    const index = call.function.index ?? position;
    events.push({
      kind: "toolCall",
      index,
      callId: call.id || `call_${index}`,
      name: call.function.name,
      arguments: JSON.stringify(call.function.arguments ?? {}),
    });
  }
  if (line.done !== true) return;
  events.push({
    kind: "usage",
    usage: {
      ...(typeof line.prompt_eval_count === "number" ? { promptTokens: line.prompt_eval_count } : {}),
      ...(typeof line.eval_count === "number" ? { completionTokens: line.eval_count } : {}),
    },
  });
  events.push({ kind: "finish", reason: finishReason(line.done_reason, calls.length > 0) });
}

function finishReason(reason: string | null | undefined, hasToolCalls: boolean): FinishReason {
  if (reason === "length") return "length";
  if (reason === "tool_calls" || (reason === "stop" && hasToolCalls)) return "toolCalls";
  return reason === "stop" ? "stop" : "unknown";
}

/** The longest text of another server that we repeat in a message of ours. */
const MAX_ERROR_CHARACTERS = 300;

/** The sentence in an error text of Ollama: newer versions pass on llama-server's JSON as text. Made safe for one line. */
export function ollamaErrorText(text: string): string {
  const inner = z.looseObject({ error: z.looseObject({ message: z.string() }) });
  let sentence = text;
  try {
    const parsed = inner.safeParse(JSON.parse(text));
    if (parsed.success) sentence = parsed.data.error.message;
  } catch {
    // Not JSON: it is the sentence itself.
  }
  const line = sentence.replace(/[\p{Cc}\s]+/gu, " ").trim();
  return line.length > MAX_ERROR_CHARACTERS ? `${line.slice(0, MAX_ERROR_CHARACTERS)}…` : line;
}

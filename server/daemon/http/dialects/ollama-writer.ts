/**
 * Answers in Ollama's own form: JSON objects, one a line, the last with `done: true` and the counts.
 * 1. Calls go out whole, with their arguments as an object, as Ollama's clients read them.
 * 2. A count that nobody knows is absent, as Ollama leaves out what is 0; a duration is in nanoseconds.
 */
import type { FinishReason } from "../../../../protocol/chat.ts";
import type { ModelRef } from "../../../../protocol/ids.ts";
import type { Usage } from "../../../../protocol/usage.ts";
import type { Clock } from "../../../base/clock.ts";
import type { GhostError } from "../../../base/errors.ts";
import { AnswerFold, argumentsOf } from "../../../ghostllm/frames/answer-fold.ts";
import type { Frame } from "../../../ghostllm/stream.ts";
import { isoTime } from "../../../platform/iso-time.ts";
import { errorBody } from "../errors.ts";
import type { StreamWriter } from "./serve.ts";

export interface OllamaWriting {
  readonly route: "chat" | "generate";
  readonly model: ModelRef;
  readonly showsThinking: boolean;
  readonly clock: Clock;
  /** `clock.monotonic()` when the request came. */
  readonly startedAtMs: number;
}

export function createOllamaWriter(writing: OllamaWriting): StreamWriter {
  return new LineWriter(writing);
}

/** The one object of an answer that is not streamed. */
export function renderOllama(writing: OllamaWriting, fold: AnswerFold): string {
  const said = (kind: "text" | "refusal" | "reasoning") =>
    fold.blocks.flatMap((block) => (block.kind === kind ? [block.text] : [])).join("");
  const body = contentOf(writing, {
    text: said("text") + said("refusal"),
    thinking: writing.showsThinking ? said("reasoning") : "",
    calls: callsOf(fold),
  });
  return JSON.stringify({
    ...headOf(writing),
    ...body,
    ...endOf(writing, { ...fold, reason: fold.reason }, undefined),
  });
}

/** What answers a request that only loads a model. */
export function renderLoad(writing: OllamaWriting, reason: "load" | "unload"): string {
  return JSON.stringify({
    ...headOf(writing),
    ...contentOf(writing, { text: "", thinking: "", calls: [] }),
    done: true,
    done_reason: reason,
  });
}

class LineWriter implements StreamWriter {
  readonly #writing: OllamaWriting;
  /** Of the calls only: texts leave at once. */
  readonly #fold = new AnswerFold();
  #firstAtMs: number | undefined;

  constructor(writing: OllamaWriting) {
    this.#writing = writing;
  }

  write(frame: Frame): Buffer {
    let lines = "";
    for (const event of frame.events()) {
      if (event.kind === "toolCall" || event.kind === "usage" || event.kind === "finish") this.#fold.add(event);
      else if (event.kind === "text" || event.kind === "refusal") lines += this.#line(event.text, "");
      else if (event.kind === "reasoning" && this.#writing.showsThinking) lines += this.#line("", event.text);
    }
    return Buffer.from(lines);
  }

  end(): Buffer {
    const calls = callsOf(this.#fold);
    const last = calls.length === 0 ? "" : this.#render({ text: "", thinking: "", calls }, { done: false });
    const { usage, reason } = this.#fold;
    const end = endOf(this.#writing, { usage, reason }, this.#firstAtMs);
    return Buffer.from(last + this.#render({ text: "", thinking: "", calls: [] }, end));
  }

  fail(error: GhostError): Buffer {
    return Buffer.from(`${errorBody(error, "ollama")}\n`);
  }

  #line(text: string, thinking: string): string {
    if (text === "" && thinking === "") return "";
    this.#firstAtMs ??= this.#writing.clock.monotonic();
    return this.#render({ text, thinking, calls: [] }, { done: false });
  }

  #render(content: Content, end: object): string {
    return `${JSON.stringify({ ...headOf(this.#writing), ...contentOf(this.#writing, content), ...end })}\n`;
  }
}

interface Content {
  readonly text: string;
  readonly thinking: string;
  readonly calls: readonly object[];
}

function headOf({ model, clock }: OllamaWriting): object {
  return { model, created_at: isoTime(clock.now()) };
}

function contentOf({ route }: OllamaWriting, { text, thinking, calls }: Content): object {
  const thoughts = thinking === "" ? {} : { thinking };
  if (route === "generate") return { response: text, ...thoughts };
  const toolCalls = calls.length === 0 ? {} : { tool_calls: calls };
  return { message: { role: "assistant", content: text, ...thoughts, ...toolCalls } };
}

function callsOf(fold: AnswerFold): readonly object[] {
  return fold.blocks
    .flatMap((block) => (block.kind === "toolCall" ? [block] : []))
    .map(({ callId, name, arguments: text }, index) => ({
      ...(callId === "" ? {} : { id: callId }),
      function: { index, name, arguments: objectOf(text) },
    }));
}

/** Arguments that are no JSON object are given in one, in the model's own words, rather than lost. */
function objectOf(text: string): object {
  try {
    const parsed: unknown = JSON.parse(argumentsOf(text));
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) return parsed;
  } catch {
    // The model wrote no JSON.
  }
  return { arguments: text };
}

const DONE_REASONS: Record<FinishReason, string> = {
  stop: "stop",
  length: "length",
  toolCalls: "stop",
  contentFilter: "stop",
  unknown: "stop",
};
const NANOSECONDS_PER_MS = 1_000_000;

function endOf(
  { clock, startedAtMs }: OllamaWriting,
  { usage, reason }: { readonly usage: Usage | undefined; readonly reason: FinishReason | undefined },
  firstAtMs: number | undefined,
): object {
  const now = clock.monotonic();
  const duration = (from: number, to: number) => Math.max(1, Math.round((to - from) * NANOSECONDS_PER_MS));
  return {
    done: true,
    done_reason: DONE_REASONS[reason ?? "unknown"],
    total_duration: duration(startedAtMs, now),
    ...(usage?.promptTokens === undefined ? {} : { prompt_eval_count: usage.promptTokens }),
    ...(firstAtMs === undefined ? {} : { prompt_eval_duration: duration(startedAtMs, firstAtMs) }),
    ...(usage?.completionTokens === undefined ? {} : { eval_count: usage.completionTokens }),
    ...(firstAtMs === undefined ? {} : { eval_duration: duration(firstAtMs, now) }),
  };
}

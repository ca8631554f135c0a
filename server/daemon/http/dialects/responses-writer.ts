/**
 * Answers in the events of OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses-streaming), for SSE, WebSocket and whole bodies.
 * 1. Every event has the next `sequence_number`, from 0; ids of items follow from the response's id and their place, so that the same answer can be
 *    written again event by event.
 * 2. Only what is whole is called done: a client runs the calls that it is told are done. A call whose JSON broke off is an error, or, where the model ran
 *    out of tokens, incomplete.
 * 3. A seal that its maker wants back is always in its item, so that also a client which keeps its history itself can go on with any model.
 */
import type { FinishReason } from "../../../../protocol/chat.ts";
import type { ErrorCode } from "../../../../protocol/errors.ts";
import type { Usage } from "../../../../protocol/usage.ts";
import type { GhostError } from "../../../base/errors.ts";
import { type AnswerBlock, argumentsOf, brokenCall, isWholeCall } from "../../../ghostllm/frames/answer-fold.ts";
import type { BlockStep, OpenBlock } from "../../../ghostllm/frames/block-sequence.ts";
import { readSeal } from "../../../ghostllm/frames/responses.ts";
import { errorText } from "../errors.ts";
import { customInput } from "./openai-writer.ts";

export interface ResponseHead {
  /** `resp_…` */
  readonly id: string;
  readonly model: string;
  readonly createdAtMs: number;
  /** What the request asked for, said again: members of a JSON object, without braces. */
  readonly echo: string;
  /** `Opaque.data` as text for the client. */
  sealReasoning(data: string): string;
  sealCall(callId: string, data: string): string;
}

/** Takes one event: its type, and its JSON text, which says the type again. */
export type EventSink = (type: string, json: string) => void;

export interface WholeResponse {
  readonly id: string;
  /** The response as JSON. */
  readonly text: string;
  /** The lengths of the deltas of each block, to say them again; absent for a relayed answer. */
  readonly pieces?: readonly (readonly number[])[];
}

interface Ending {
  readonly status: "completed" | "incomplete";
  readonly completedAtMs: number;
  readonly usage: Usage | undefined;
  /** Of an incomplete one. */
  readonly why?: string;
}

const q = JSON.stringify;
const seconds = (ms: number): number => Math.floor(ms / 1000);

/** Codes that agents look for by name. */
const FAILURE_CODES: Partial<Record<ErrorCode, string>> = {
  context_too_long: "context_length_exceeded",
  upstream_rate_limited: "rate_limit_exceeded",
  upstream_quota: "insufficient_quota",
  upstream_overloaded: "server_is_overloaded",
  upstream_filtered: "invalid_prompt",
};

interface OpenItem {
  readonly index: number;
  readonly id: string;
}

/** Of a message: its parts that are done, and the text of the open one. */
interface OpenMessage extends OpenItem {
  readonly phase: string | undefined;
  readonly parts: string[];
  text: string;
}

export class ResponseEvents {
  readonly #head: ResponseHead;
  readonly #sink: EventSink;
  readonly #output: string[] = [];
  /** Of each text, call and thought; see `stepsOf`. */
  readonly #pieces: number[][] = [];
  /** Of the message that comes next. */
  #phase: string | undefined;
  /** A thought is an item from its first words, or from its seal. */
  #isThinking = false;
  #sequence = 0;
  #items = 0;
  #message: OpenMessage | undefined;
  #item: OpenItem = { index: 0, id: "" };
  #isBegun = false;

  constructor(head: ResponseHead, sink: EventSink) {
    this.#head = head;
    this.#sink = sink;
  }

  get pieces(): readonly (readonly number[])[] {
    return this.#pieces;
  }

  begin(): void {
    if (this.#isBegun) return;
    this.#isBegun = true;
    const response = this.inProgress();
    this.#emit("response.created", `"response":${response}`);
    this.#emit("response.in_progress", `"response":${response}`);
  }

  /** The response as it stands, as JSON. */
  inProgress(): string {
    return this.#response(`"status":"in_progress","completed_at":null,"error":null,"incomplete_details":null`, null);
  }

  /** `isCutShort`: the model had no more tokens for what is closed here. */
  step(step: BlockStep, { isCutShort = false }: { readonly isCutShort?: boolean } = {}): void {
    this.begin();
    switch (step.step) {
      case "open":
        return this.#open(step.block);
      case "delta":
        return this.#delta(step.block, step.text);
      case "close":
        return this.#close(step.block, step.text, step.opaque, isCutShort ? "incomplete" : "completed");
    }
  }

  /** The last event, with all of the answer. */
  finish(ending: Ending): WholeResponse {
    this.begin();
    this.#closeMessage(ending.status);
    const { status, completedAtMs, why } = ending;
    const end = `"completed_at":${status === "completed" ? seconds(completedAtMs) : null}`;
    const details = why === undefined ? "null" : `{"reason":${q(why)}}`;
    const text = this.#response(
      `"status":"${status}",${end},"error":null,"incomplete_details":${details}`,
      ending.usage ?? null,
    );
    this.#emit(`response.${status}`, `"response":${text}`);
    return { id: this.#head.id, text, pieces: this.#pieces };
  }

  /** The last event of one that was written before. */
  finishAs(text: string, status: Ending["status"]): void {
    this.begin();
    this.#closeMessage(status);
    this.#emit(`response.${status}`, `"response":${text}`);
  }

  /** The last events of a broken answer: what was said is kept, and nothing of it is called done (2). */
  fail(error: GhostError): void {
    this.begin();
    const { code, message } = failureOf(error);
    this.#emit("error", `"code":${q(code)},"message":${q(message)},"param":null`);
    const open = this.#message;
    if (open !== undefined) {
      const parts = open.text === "" ? open.parts : [...open.parts, textPart(open.text)];
      this.#output.push(messageItem(open, "incomplete", parts));
    }
    const why = `{"code":${q(code)},"message":${q(message)}}`;
    const text = this.#response(`"status":"failed","completed_at":null,"error":${why},"incomplete_details":null`, null);
    this.#emit("response.failed", `"response":${text}`);
  }

  /** An item that is there at once. */
  wholeItem(item: (id: string) => string, prefix: string): void {
    this.begin();
    this.#closeMessage("completed");
    this.#item = this.#nextItem(prefix);
    const text = item(this.#item.id);
    this.#emit("response.output_item.added", `"output_index":${this.#item.index},"item":${text}`);
    this.#itemDone(text);
  }

  #open(block: OpenBlock): void {
    if (block.kind === "reasoning") return;
    this.#pieces.push([]);
    if (block.kind !== "toolCall") {
      const open = this.#message ?? this.#openMessage();
      const part = block.kind === "text" ? textPart("") : refusalPart("");
      this.#emit("response.content_part.added", `${this.#contentPlace(open)},"part":${part}`);
      return;
    }
    this.#closeMessage("completed");
    this.#item = this.#nextItem(block.isCustom === true ? "ctc" : "fc");
    const { id, index } = this.#item;
    const item = callItem(id, block, "", "in_progress");
    this.#emit("response.output_item.added", `"output_index":${index},"item":${item}`);
  }

  #delta(block: OpenBlock, text: string): void {
    if (block.kind === "reasoning") this.#think();
    this.#pieces.at(-1)?.push(text.length);
    const open = this.#message;
    switch (block.kind) {
      case "text":
      case "refusal": {
        if (open === undefined) return;
        open.text += text;
        const isText = block.kind === "text";
        const delta = `${this.#contentPlace(open)},"delta":${q(text)}`;
        return isText
          ? this.#emit("response.output_text.delta", `${delta},"logprobs":[]`)
          : this.#emit("response.refusal.delta", delta);
      }
      case "reasoning":
        return this.#emit("response.reasoning_summary_text.delta", `${this.#summaryPlace()},"delta":${q(text)}`);
      case "toolCall":
        // A free-form tool's text stands inside JSON until that is complete.
        if (block.isCustom === true) return;
        return this.#emit("response.function_call_arguments.delta", `${this.#itemPlace()},"delta":${q(text)}`);
    }
  }

  #close(block: OpenBlock, text: string, opaque: string | undefined, status: "completed" | "incomplete"): void {
    switch (block.kind) {
      case "text":
      case "refusal":
        return this.#closePart(block.kind, text);
      case "reasoning":
        return this.#closeReasoning(text, opaque);
      case "toolCall":
        this.#closeCall(block, text, status);
        if (opaque === undefined) return;
        this.wholeItem((id) => reasoningItem(id, [], this.#head.sealCall(block.callId, opaque)), "rs");
    }
  }

  #closePart(kind: "text" | "refusal", text: string): void {
    const open = this.#message;
    if (open === undefined) return;
    const place = this.#contentPlace(open);
    const part = kind === "text" ? textPart(text) : refusalPart(text);
    if (kind === "text") this.#emit("response.output_text.done", `${place},"text":${q(text)},"logprobs":[]`);
    else this.#emit("response.refusal.done", `${place},"refusal":${q(text)}`);
    this.#emit("response.content_part.done", `${place},"part":${part}`);
    open.parts.push(part);
    open.text = "";
  }

  #think(): void {
    if (this.#isThinking) return;
    this.#isThinking = true;
    this.#pieces.push([]);
    this.#closeMessage("completed");
    this.#item = this.#nextItem("rs");
    const { id, index } = this.#item;
    this.#emit("response.output_item.added", `"output_index":${index},"item":${reasoningItem(id, [], undefined)}`);
    const part = `"part":{"type":"summary_text","text":""}`;
    this.#emit("response.reasoning_summary_part.added", `${this.#summaryPlace()},${part}`);
  }

  #closeReasoning(text: string, opaque: string | undefined): void {
    const seal = opaque === undefined ? undefined : readSeal(opaque);
    if (seal?.kind === "phase" && !this.#isThinking) {
      this.#phase = seal.phase;
      return;
    }
    const sealed = opaque === undefined ? undefined : this.#head.sealReasoning(opaque);
    if (!this.#isThinking) {
      if (sealed !== undefined) this.wholeItem((id) => reasoningItem(id, [], sealed), "rs");
      return;
    }
    this.#isThinking = false;
    this.#emit("response.reasoning_summary_text.done", `${this.#summaryPlace()},"text":${q(text)}`);
    const part = `"part":{"type":"summary_text","text":${q(text)}}`;
    this.#emit("response.reasoning_summary_part.done", `${this.#summaryPlace()},${part}`);
    const texts = seal?.kind === "reasoning" ? (seal.summary ?? [text]) : [text];
    this.#itemDone(reasoningItem(this.#item.id, texts, sealed));
  }

  #closeCall(block: Extract<OpenBlock, { kind: "toolCall" }>, json: string, status: "completed" | "incomplete"): void {
    if (status === "completed" && !isWholeCall(json)) throw brokenCall(block.name);
    if (block.isCustom === true) {
      const input = customInput(json);
      if (input !== "") this.#emit("response.custom_tool_call_input.delta", `${this.#itemPlace()},"delta":${q(input)}`);
      this.#emit("response.custom_tool_call_input.done", `${this.#itemPlace()},"input":${q(input)}`);
      return this.#itemDone(callItem(this.#item.id, block, input, status));
    }
    const text = argumentsOf(json);
    const done = `${this.#itemPlace()},"name":${q(block.name)},"arguments":${q(text)}`;
    this.#emit("response.function_call_arguments.done", done);
    this.#itemDone(callItem(this.#item.id, block, text, status));
  }

  #openMessage(): OpenMessage {
    const open = { ...this.#nextItem("msg"), phase: this.#phase, parts: [], text: "" };
    this.#message = open;
    this.#phase = undefined;
    const item = messageItem(open, "in_progress", []);
    this.#emit("response.output_item.added", `"output_index":${open.index},"item":${item}`);
    return open;
  }

  #closeMessage(status: "completed" | "incomplete"): void {
    const open = this.#message;
    if (open === undefined) return;
    this.#message = undefined;
    this.#item = open;
    this.#itemDone(messageItem(open, status, open.parts));
  }

  #itemDone(item: string): void {
    this.#output.push(item);
    this.#emit("response.output_item.done", `"output_index":${this.#item.index},"item":${item}`);
  }

  #nextItem(prefix: string): OpenItem {
    const index = this.#items;
    this.#items += 1;
    return { index, id: `${prefix}_${this.#head.id.replace(/^resp_/, "")}_${index}` };
  }

  #itemPlace(): string {
    return `"item_id":${q(this.#item.id)},"output_index":${this.#item.index}`;
  }

  #summaryPlace(): string {
    return `${this.#itemPlace()},"summary_index":0`;
  }

  #contentPlace({ id, index, parts }: OpenMessage): string {
    return `"item_id":${q(id)},"output_index":${index},"content_index":${parts.length}`;
  }

  #emit(type: string, fields: string): void {
    const number = this.#sequence;
    this.#sequence += 1;
    this.#sink(type, `{"type":"${type}","sequence_number":${number},${fields}}`);
  }

  #response(state: string, usage: Usage | null): string {
    const { id, model, createdAtMs, echo } = this.#head;
    const head = `"id":${q(id)},"object":"response","created_at":${seconds(createdAtMs)},${state},"model":${q(model)}`;
    return `{${head},"output":[${this.#output.join(",")}],"usage":${responseUsage(usage)},${echo}}`;
  }
}

function textPart(text: string): string {
  return `{"type":"output_text","annotations":[],"logprobs":[],"text":${q(text)}}`;
}

function refusalPart(text: string): string {
  return `{"type":"refusal","refusal":${q(text)}}`;
}

function messageItem({ id, phase }: OpenMessage, status: string, parts: readonly string[]): string {
  const more = phase === undefined ? "" : `,"phase":${q(phase)}`;
  return `{"id":${q(id)},"type":"message","status":"${status}","role":"assistant"${more},"content":[${parts.join(",")}]}`;
}

function reasoningItem(id: string, texts: readonly string[], sealed: string | undefined): string {
  const summary = q(texts.map((text) => ({ type: "summary_text", text })));
  return `{"id":${q(id)},"type":"reasoning","summary":${summary},"encrypted_content":${q(sealed ?? null)}}`;
}

function callItem(
  id: string,
  { callId, name, namespace, isCustom }: Extract<OpenBlock, { kind: "toolCall" }>,
  text: string,
  status: string,
): string {
  const group = namespace === undefined ? "" : `,"namespace":${q(namespace)}`;
  // Who gave no id to its call gets one that stays with the item.
  const called = `"id":${q(id)},"call_id":${q(callId === "" ? `call_${id}` : callId)},"name":${q(name)}${group}`;
  return isCustom === true
    ? `{${called},"type":"custom_tool_call","status":"${status}","input":${q(text)}}`
    : `{${called},"type":"function_call","status":"${status}","arguments":${q(text)}}`;
}

/** OpenAI's counts are numbers: who does not know them says null for all. A part that nobody told apart is 0 of a known whole. */
export function responseUsage(usage: Usage | null): string {
  const { promptTokens, completionTokens } = usage ?? {};
  if (promptTokens === undefined || completionTokens === undefined) return "null";
  const input = { cached_tokens: usage?.cachedTokens ?? 0, cache_write_tokens: usage?.cacheWriteTokens ?? 0 };
  return q({
    input_tokens: promptTokens,
    input_tokens_details: input,
    output_tokens: completionTokens,
    output_tokens_details: { reasoning_tokens: usage?.reasoningTokens ?? 0 },
    total_tokens: promptTokens + completionTokens,
  });
}

export function failureOf(error: GhostError): { readonly code: string; readonly message: string } {
  return { code: FAILURE_CODES[error.code] ?? "server_error", message: errorText(error) };
}

/** How a reason to stop ends the response. */
export function endingOf(reason: FinishReason | undefined): Pick<Ending, "status" | "why"> {
  switch (reason) {
    case "length":
      return { status: "incomplete", why: "max_output_tokens" };
    case "contentFilter":
      return { status: "incomplete", why: "content_filter" };
    case "stop":
    case "toolCalls":
    case "unknown":
    case undefined:
      return { status: "completed" };
  }
}

/** Blocks that are whole, as the steps in which they came; `pieces` are the lengths of the deltas of each text, call and thought. */
export function stepsOf(
  blocks: readonly AnswerBlock[],
  pieces: readonly (readonly number[])[] | null = null,
): readonly BlockStep[] {
  let place = 0;
  return blocks.flatMap((block, number): readonly BlockStep[] => {
    const open: OpenBlock = block.kind === "toolCall" ? block : { kind: block.kind };
    const text = block.kind === "toolCall" ? block.arguments : block.text;
    const opaque = block.kind === "reasoning" || block.kind === "toolCall" ? block.opaque : undefined;
    const isListed = block.kind !== "reasoning" || text !== "";
    const deltas = isListed ? cut(text, pieces?.[place]) : [];
    if (isListed) place += 1;
    return [
      { step: "open", number, block: open },
      ...deltas.map((piece) => ({ step: "delta", number, block: open, text: piece }) as const),
      { step: "close", number, block: open, text, opaque },
    ];
  });
}

function cut(text: string, lengths: readonly number[] | undefined): readonly string[] {
  if (text === "" || lengths?.length === 0) return [];
  if (lengths === undefined || lengths.reduce((sum, length) => sum + length, 0) !== text.length) return [text];
  let at = 0;
  return lengths.map((length) => {
    at += length;
    return text.slice(at - length, at);
  });
}

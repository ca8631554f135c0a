/**
 * Events of any upstream as blocks that follow one another: the form of Anthropic's Messages and OpenAI's Responses, where a block is opened, filled and
 * closed before the next begins.
 * 1. Text leaves in the call in which it came, unless a tool call is still open.
 * 2. Calls whose deltas interleave come out one after the other: what belongs to another block waits until the open call's JSON is complete, or the end.
 * 3. Nothing is lost or doubled: arguments that an upstream repeats at their end are given once.
 */
import type { FinishReason } from "../../../protocol/chat.ts";
import type { Usage } from "../../../protocol/usage.ts";
import type { StreamEvent } from "../stream.ts";
import { normalReason } from "./answer-fold.ts";

export type OpenBlock =
  | { readonly kind: "text" }
  | { readonly kind: "refusal" }
  | { readonly kind: "reasoning" }
  | {
      readonly kind: "toolCall";
      readonly callId: string;
      readonly name: string;
      readonly namespace?: string;
      readonly isCustom?: boolean;
    };

export type BlockStep =
  /** `number` counts the blocks of the answer from 0. */
  | { readonly step: "open"; readonly number: number; readonly block: OpenBlock }
  /** Text, or the next piece of a call's JSON; never empty. */
  | { readonly step: "delta"; readonly number: number; readonly block: OpenBlock; readonly text: string }
  /** `text` is all of the block's deltas together. */
  | {
      readonly step: "close";
      readonly number: number;
      readonly block: OpenBlock;
      readonly text: string;
      /** What its maker wants back with it (`Opaque.data`). */
      readonly opaque: string | undefined;
    };

interface Current {
  readonly block: OpenBlock;
  readonly number: number;
  /** A call's index, or the number of a block of thinking. */
  readonly key: number | undefined;
  text: string;
  opaque: string | undefined;
  readonly json: JsonProgress;
}

export class BlockSequence {
  #current: Current | undefined;
  #count = 0;
  #calls = 0;
  #waiting: StreamEvent[] = [];
  /** Calls that were closed: what is repeated of them is dropped. */
  readonly #closed = new Set<number>();
  #reason: FinishReason | undefined;
  usage: Usage | undefined;

  /** Undefined while the upstream has not said. */
  get reason(): FinishReason | undefined {
    return normalReason(this.#reason, this.#calls > 0);
  }

  add(event: StreamEvent): readonly BlockStep[] {
    if (event.kind === "usage") {
      this.usage = { ...this.usage, ...event.usage };
      return [];
    }
    if (event.kind === "finish") this.#reason = event.reason;
    if (event.kind === "finish" || event.kind === "error") return [];
    const steps: BlockStep[] = [];
    this.#take(event, steps);
    return steps;
  }

  /** What was still waiting, and the end of the last block. */
  end(): readonly BlockStep[] {
    const steps: BlockStep[] = [];
    this.#close(steps);
    while (this.#waiting.length > 0) {
      this.#replay(steps);
      this.#close(steps);
    }
    return steps;
  }

  #take(event: Content, steps: BlockStep[]): void {
    const current = this.#current;
    if (current !== undefined && belongsTo(current, event)) {
      this.#fill(current, event, steps);
      return;
    }
    if (event.kind === "toolCall" && this.#closed.has(event.index)) return;
    if (current?.block.kind === "toolCall" && !current.json.isComplete) {
      this.#waiting.push(event);
      return;
    }
    this.#close(steps);
    if (this.#waiting.length > 0) {
      this.#waiting.push(event);
      this.#replay(steps);
      return;
    }
    // Pieces of a call that was never opened belong to a tool on the provider's own side.
    if (event.kind === "toolCall" && event.name === undefined && event.callId === undefined) return;
    this.#fill(this.#open(event, steps), event, steps);
  }

  #replay(steps: BlockStep[]): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const event of waiting) if (isContent(event)) this.#take(event, steps);
  }

  #open(event: Content, steps: BlockStep[]): Current {
    const block = blockOf(event);
    const number = this.#count;
    this.#count += 1;
    if (block.kind === "toolCall") this.#calls += 1;
    steps.push({ step: "open", number, block });
    this.#current = { block, number, key: keyOf(event), text: "", opaque: undefined, json: new JsonProgress() };
    return this.#current;
  }

  #fill(current: Current, event: Content, steps: BlockStep[]): void {
    if (event.kind === "reasoning" || event.kind === "toolCall") current.opaque = event.opaque ?? current.opaque;
    let text = event.kind === "toolCall" ? event.arguments : event.text;
    if (event.kind === "toolCall" && event.isWhole === true) {
      text = text.startsWith(current.text) ? text.slice(current.text.length) : "";
    }
    if (text !== "") {
      current.text += text;
      current.json.feed(text);
      steps.push({ step: "delta", number: current.number, block: current.block, text });
    }
    if (event.kind === "toolCall" && event.isWhole === true) current.json.finish();
    const isSealed = event.kind === "reasoning" && event.opaque !== undefined;
    // Who waited for this call's end is let in at once (1).
    const isAwaited = current.block.kind === "toolCall" && current.json.isComplete && this.#waiting.length > 0;
    if (isSealed || isAwaited) this.#close(steps);
    if (isAwaited) this.#replay(steps);
  }

  #close(steps: BlockStep[]): void {
    const current = this.#current;
    if (current === undefined) return;
    this.#current = undefined;
    if (current.block.kind === "toolCall" && current.key !== undefined) this.#closed.add(current.key);
    const { number, block, text, opaque } = current;
    steps.push({ step: "close", number, block, text, opaque });
  }
}

type Content = Extract<StreamEvent, { kind: "text" | "refusal" | "reasoning" | "toolCall" }>;

function isContent(event: StreamEvent): event is Content {
  return event.kind !== "usage" && event.kind !== "finish" && event.kind !== "error";
}

function keyOf(event: Content): number | undefined {
  if (event.kind === "toolCall") return event.index;
  return event.kind === "reasoning" ? event.block : undefined;
}

function belongsTo(current: Current, event: Content): boolean {
  return current.block.kind === event.kind && current.key === keyOf(event);
}

function blockOf(event: Content): OpenBlock {
  if (event.kind !== "toolCall") return { kind: event.kind };
  return {
    kind: "toolCall",
    callId: event.callId ?? "",
    name: event.name ?? "",
    ...(event.namespace === undefined ? {} : { namespace: event.namespace }),
    ...(event.isCustom === undefined ? {} : { isCustom: event.isCustom }),
  };
}

/** Follows JSON text piece by piece and knows when its outermost object has ended. */
class JsonProgress {
  #depth = 0;
  #isInString = false;
  #isEscaped = false;
  isComplete = false;

  feed(text: string): void {
    for (let at = 0; at < text.length && !this.isComplete; at += 1) {
      const character = text[at];
      if (this.#isEscaped) this.#isEscaped = false;
      else if (this.#isInString) {
        if (character === "\\") this.#isEscaped = true;
        else if (character === '"') this.#isInString = false;
      } else if (character === '"') this.#isInString = true;
      else if (character === "{" || character === "[") this.#depth += 1;
      else if (character === "}" || character === "]") {
        this.#depth -= 1;
        this.isComplete = this.#depth <= 0;
      }
    }
  }

  finish(): void {
    this.isComplete = true;
  }
}

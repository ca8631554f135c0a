/**
 * A whole answer out of its events, block by block in the order in which they began: for answers that are not streamed, and for what a later turn must
 * give back to its maker. Pure.
 */
import type { FinishReason } from "../../../protocol/chat.ts";
import type { WireError } from "../../../protocol/errors.ts";
import type { Usage } from "../../../protocol/usage.ts";
import { OperationalError } from "../../base/errors.ts";
import type { Part, StreamEvent } from "../stream.ts";
import { parseJson } from "./json.ts";

export interface ToolCallBlock {
  readonly kind: "toolCall";
  readonly index: number;
  callId: string;
  name: string;
  namespace?: string;
  isCustom?: boolean;
  arguments: string;
  opaque?: string;
}

export type AnswerBlock =
  | { readonly kind: "text"; text: string }
  | { readonly kind: "refusal"; text: string }
  | { readonly kind: "reasoning"; readonly block: number | undefined; text: string; opaque?: string }
  | ToolCallBlock;

export class AnswerFold {
  readonly blocks: AnswerBlock[] = [];
  usage: Usage | undefined;
  error: WireError | undefined;
  #reason: FinishReason | undefined;

  /** Calls were made: then that is why it stopped, whatever the upstream called it. Undefined while the upstream has not said. */
  get reason(): FinishReason | undefined {
    return normalReason(
      this.#reason,
      this.blocks.some(({ kind }) => kind === "toolCall"),
    );
  }

  add(event: StreamEvent): void {
    switch (event.kind) {
      case "text":
      case "refusal": {
        const last = this.blocks.at(-1);
        if (last?.kind === event.kind) last.text += event.text;
        else this.blocks.push({ kind: event.kind, text: event.text });
        return;
      }
      case "reasoning":
        return this.#addReasoning(event);
      case "toolCall":
        return this.#addCall(event);
      case "usage":
        this.usage = { ...this.usage, ...event.usage };
        return;
      case "finish":
        this.#reason = event.reason;
        return;
      case "error":
        this.error = event.error;
        return;
    }
  }

  addAll(events: readonly StreamEvent[]): this {
    for (const event of events) this.add(event);
    return this;
  }

  /** The assistant's message; what is opaque is stamped with its maker. */
  parts(maker: string): readonly Part[] {
    return this.blocks.map((block): Part => {
      switch (block.kind) {
        case "text":
        case "refusal":
          return { kind: "text", text: block.text };
        case "reasoning":
          return {
            kind: "reasoning",
            text: block.text,
            ...(block.opaque === undefined ? {} : { opaque: { maker, data: block.opaque } }),
          };
        case "toolCall": {
          const { kind, callId, name, namespace, isCustom, opaque } = block;
          return {
            kind,
            callId,
            name,
            arguments: block.arguments,
            ...(namespace === undefined ? {} : { namespace }),
            ...(isCustom === undefined ? {} : { isCustom }),
            ...(opaque === undefined ? {} : { opaque: { maker, data: opaque } }),
          };
        }
      }
    });
  }

  #addReasoning({ text, block, opaque }: Extract<StreamEvent, { kind: "reasoning" }>): void {
    const last = this.blocks.at(-1);
    const isOpen = last?.kind === "reasoning" && last.opaque === undefined && last.block === block;
    const target = isOpen ? last : undefined;
    if (target === undefined) {
      this.blocks.push({ kind: "reasoning", block, text, ...(opaque === undefined ? {} : { opaque }) });
      return;
    }
    target.text += text;
    if (opaque !== undefined) target.opaque = opaque;
  }

  #addCall(event: Extract<StreamEvent, { kind: "toolCall" }>): void {
    const known = this.blocks.find((block) => block.kind === "toolCall" && block.index === event.index);
    // Pieces of a call that was never opened belong to a tool on the provider's own side.
    if (known === undefined && event.name === undefined && event.callId === undefined) return;
    const call: ToolCallBlock =
      known?.kind === "toolCall"
        ? known
        : { kind: "toolCall", index: event.index, callId: "", name: "", arguments: "" };
    if (known === undefined) this.blocks.push(call);
    call.callId ||= event.callId ?? "";
    call.name ||= event.name ?? "";
    if (event.namespace !== undefined) call.namespace = event.namespace;
    if (event.isCustom !== undefined) call.isCustom = event.isCustom;
    if (event.opaque !== undefined) call.opaque = event.opaque;
    if (event.isWhole !== true) call.arguments += event.arguments;
    else if (event.arguments !== "") call.arguments = event.arguments;
  }
}

/** Upstreams say "stop" after tool calls too (Gemini, Ollama, some compatible servers): clients wait for the other word. */
export function normalReason(reason: FinishReason | undefined, hasCalls: boolean): FinishReason | undefined {
  return hasCalls && (reason === "stop" || reason === "unknown") ? "toolCalls" : reason;
}

/** Absent arguments mean none. */
export const argumentsOf = (text: string): string => (text.trim() === "" ? "{}" : text);

/** Whether the arguments are there to their end: a call that its model broke off is none, and nobody may run it. */
export const isWholeCall = (text: string): boolean => parseJson(argumentsOf(text)) !== undefined;

export function brokenCall(name: string): OperationalError {
  return new OperationalError("upstream_failed", `the model broke off the arguments of its call of "${name}"`);
}

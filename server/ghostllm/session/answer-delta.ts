/**
 * What a model said, as a sum of pieces: deltas of one answer can be joined in any grouping, so that an answer may be stored piece by piece
 * and put together again.
 */
import { z } from "zod";
import type { FinishReason } from "../../../protocol/chat.ts";
import type { WireError } from "../../../protocol/errors.ts";
import type { Usage } from "../../../protocol/usage.ts";
import type { Part, StreamEvent } from "../stream.ts";

const callSchema = z.object({
  index: z.int(),
  callId: z.string(),
  name: z.string(),
  arguments: z.string(),
  /** These are all arguments, whatever came before. */
  isWhole: z.boolean().optional(),
});
export const deltaSchema = z.object({ text: z.string(), reasoning: z.string(), calls: z.array(callSchema) });
/** A piece of an answer: text, reasoning and pieces of tool calls by their position. */
export type Delta = z.infer<typeof deltaSchema>;

export const emptyDelta = (): Delta => ({ text: "", reasoning: "", calls: [] });

export function isEmptyDelta(delta: Delta): boolean {
  return delta.text === "" && delta.reasoning === "" && delta.calls.length === 0;
}

/** Roughly its size in memory. */
export function deltaLength(delta: Delta): number {
  let length = delta.text.length + delta.reasoning.length;
  for (const call of delta.calls) length += call.arguments.length;
  return length;
}

/** The deltas one after the other as one. */
export function joinDeltas(deltas: readonly Delta[]): Delta {
  const joined = emptyDelta();
  for (const delta of deltas) {
    joined.text += delta.text;
    joined.reasoning += delta.reasoning;
    for (const call of delta.calls) addCall(joined, call);
  }
  return joined;
}

/** What an answer's events have said besides its text. */
export interface Findings {
  usage?: Usage;
  reason?: FinishReason;
  error?: WireError;
}

/** Adds an event to what was said before; the number of characters that were added. */
export function addEvent(delta: Delta, findings: Findings, event: StreamEvent): number {
  switch (event.kind) {
    case "text":
    case "refusal":
      delta.text += event.text;
      return event.text.length;
    case "reasoning":
      delta.reasoning += event.text;
      return event.text.length;
    case "toolCall":
      addCall(delta, {
        index: event.index,
        callId: event.callId ?? "",
        name: event.name ?? "",
        arguments: event.arguments,
        ...(event.isWhole === undefined ? {} : { isWhole: event.isWhole }),
      });
      return event.arguments.length;
    case "usage":
      findings.usage = { ...findings.usage, ...event.usage };
      return 0;
    case "finish":
      findings.reason = event.reason;
      return 0;
    case "error":
      findings.error = event.error;
      return 0;
  }
}

/** The parts of the assistant's message, in the order in which `Message` has them. */
export function deltaParts(delta: Delta): readonly Part[] {
  const calls = delta.calls
    // A call without id and name is the input of a tool on the provider's own side.
    .filter(({ callId, name }) => callId !== "" || name !== "")
    .toSorted((a, b) => a.index - b.index)
    .map((call): Part => ({ kind: "toolCall", callId: call.callId, name: call.name, arguments: call.arguments }));
  return delta.text === "" ? calls : [{ kind: "text", text: delta.text }, ...calls];
}

function addCall(delta: Delta, piece: Delta["calls"][number]): void {
  const known = delta.calls.find((call) => call.index === piece.index);
  if (known === undefined) {
    delta.calls.push({ ...piece });
    return;
  }
  known.callId ||= piece.callId;
  known.name ||= piece.name;
  if (piece.isWhole !== true) known.arguments += piece.arguments;
  else if (piece.arguments !== "") known.arguments = piece.arguments;
}

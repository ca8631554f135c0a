/**
 * Conversations for servers that refuse a call without its result, or a result without its call: clients of other dialects break calls off, and cut their
 * histories short. Pure.
 * 1. What has both keeps its place and its words.
 * 2. A call without a result gets one, right behind it, that says so; a result without a call is what the user shows.
 */
import type { Message, Part } from "../stream.ts";

type Call = Extract<Part, { kind: "toolCall" }>;
type Result = Extract<Part, { kind: "toolResult" }>;

/** The same array where nothing is missing. */
export function withPairedCalls(messages: readonly Message[]): readonly Message[] {
  const { unanswered, uncalled } = findUnpaired(messages);
  if (unanswered.size === 0 && uncalled.size === 0) return messages;
  return messages.flatMap(({ role, parts }): readonly Message[] => {
    const broken = parts.flatMap((part) => (part.kind === "toolCall" && unanswered.has(part) ? [brokenOff(part)] : []));
    const shown = parts.flatMap((part) => (part.kind === "toolResult" && uncalled.has(part) ? asText(part) : []));
    const kept = parts.filter((part) => part.kind !== "toolResult" || !uncalled.has(part));
    return [
      ...(kept.length === 0 && parts.length > 0 ? [] : [{ role, parts: kept }]),
      ...(broken.length === 0 ? [] : [{ role: "tool", parts: broken } as const]),
      ...(shown.length === 0 ? [] : [{ role: "user", parts: shown } as const]),
    ];
  });
}

/** By id and order: some makers count anew with each answer. */
function findUnpaired(messages: readonly Message[]) {
  const open = new Map<string, Call[]>();
  const uncalled = new Set<Result>();
  for (const part of messages.flatMap(({ parts }) => parts)) {
    if (part.kind === "toolCall") open.set(part.callId, [...(open.get(part.callId) ?? []), part]);
    else if (part.kind === "toolResult" && open.get(part.callId)?.shift() === undefined) uncalled.add(part);
  }
  return { unanswered: new Set([...open.values()].flat()), uncalled };
}

function brokenOff({ callId }: Call): Result {
  return { kind: "toolResult", callId, text: "It was broken off: there is no result.", isError: true };
}

function asText({ text, images = [] }: Result): readonly Part[] {
  const said = { kind: "text", text: `<tool_result>\n${text}\n</tool_result>` } as const;
  return [said, ...images.map((url) => ({ kind: "image", url }) as const)];
}

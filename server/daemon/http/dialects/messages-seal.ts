/**
 * What makers of models want back, in the two fields that clients of Anthropic's dialect keep: `thinking.signature` and `redacted_thinking.data`.
 * 1. Anthropic's own stand there as they are; everybody else's are marked (`OPAQUE_MARK`), so that a body which holds one is never relayed to Anthropic.
 * 2. Thinking that its maker did not sign is marked, too: Anthropic would refuse it.
 * 3. What a call needs back stands in a block of its own before the call, since a call has no field for it.
 */
import { z } from "zod";
import { type AnthropicSeal, readSeal } from "../../../ghostllm/frames/anthropic.ts";
import { OPAQUE_MARK, openOpaque, sealOpaque } from "../../../ghostllm/frames/opaque.ts";
import type { Opaque } from "../../../ghostllm/stream.ts";

/** The provider whose seals are the dialect's own. `Opaque.data` of it is the JSON of an `AnthropicSeal`. */
const ANTHROPIC = "anthropic";

/** Begins the data of a call's seal: no provider's own, which is JSON. */
const CALL = "call ";
const callSeal = z.object({ callId: z.string(), data: z.string() });

/** The field in which a seal goes to the client. Where its block has text, it is a signature. */
export function toWireSeal(maker: string, data: string | undefined, hasText: boolean): AnthropicSeal {
  const own = maker === ANTHROPIC && data !== undefined ? readSeal(data) : undefined;
  if (own !== undefined) return own;
  const text = sealOpaque({ maker, data: data ?? "" });
  return hasText ? { signature: text } : { redacted: text };
}

export function sealForCall(callId: string, data: string): string {
  return CALL + JSON.stringify({ callId, data });
}

export const isSealOfOurs = (text: string): boolean => text.startsWith(OPAQUE_MARK);

export type OpenedSeal =
  | { readonly kind: "thinking"; readonly opaque: Opaque | undefined }
  | { readonly kind: "call"; readonly callId: string; readonly opaque: Opaque };

/** The inverse of both, for a field that a client sent back. */
export function openSeal(seal: AnthropicSeal): OpenedSeal {
  const text = "signature" in seal ? seal.signature : seal.redacted;
  const opened = openOpaque(text);
  if (opened === undefined) {
    const isNone = text === "" || isSealOfOurs(text);
    return { kind: "thinking", opaque: isNone ? undefined : { maker: ANTHROPIC, data: JSON.stringify(seal) } };
  }
  const { maker, data } = opened;
  const call = data.startsWith(CALL) ? parseCall(data.slice(CALL.length)) : undefined;
  if (call !== undefined) return { kind: "call", callId: call.callId, opaque: { maker, data: call.data } };
  return { kind: "thinking", opaque: data === "" ? undefined : opened };
}

function parseCall(json: string): z.infer<typeof callSeal> | undefined {
  try {
    return callSeal.safeParse(JSON.parse(json)).data;
  } catch {
    return undefined; // Damaged by the client.
  }
}

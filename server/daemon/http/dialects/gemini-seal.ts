/**
 * What makers of models want back, in the one field that clients of Gemini's dialect keep: a part's `thoughtSignature`. Pure.
 * 1. Gemini's own stand there as they came, on the kind of part on which they came; everybody else's are marked (`OPAQUE_MARK`), so that a body which
 *    holds one is never relayed to Gemini.
 * 2. Thinking that the client did not ask to see travels inside its seal: some makers want the text back with it.
 * 3. Gemini wants a signature on the first call of a turn, whoever made it; for calls of other makers there is a documented placeholder
 *    (https://ai.google.dev/gemini-api/docs/thought-signatures), which nobody but Gemini is shown again.
 */
import { z } from "zod";
import { type GeminiSeal, readSeal } from "../../../ghostllm/frames/gemini.ts";
import { parseJson } from "../../../ghostllm/frames/json.ts";
import { OPAQUE_MARK, openOpaque, sealOpaque } from "../../../ghostllm/frames/opaque.ts";
import type { Opaque } from "../../../ghostllm/stream.ts";

/** The provider whose seals are the dialect's own. `Opaque.data` of it is the JSON of a `GeminiSeal`. */
export const GEMINI = "gemini";
export const PLACEHOLDER = "skip_thought_signature_validator";

/** Begins the data of thinking that is not shown: no provider's own, which is JSON. */
const HIDDEN = "hidden ";
const hiddenThought = z.object({ text: z.string(), data: z.string() });

/** Gemini's own seal, or undefined for that of another maker. */
export function ownSeal(maker: string, data: string): GeminiSeal | undefined {
  return maker === GEMINI ? readSeal(data) : undefined;
}

/** As a `thoughtSignature`; `hidden`: the thinking that belongs to it and is not shown. */
export function toSignature(maker: string, data: string, hidden = ""): string {
  const own = ownSeal(maker, data);
  if (own !== undefined) return own.signature;
  return sealOpaque({ maker, data: hidden === "" ? data : HIDDEN + JSON.stringify({ text: hidden, data }) });
}

export interface OpenedSignature {
  readonly opaque: Opaque;
  /** Thinking that the client was not shown. */
  readonly hidden: string;
}

/** The inverse, for a part that a client sent back; undefined for a signature that says nothing. */
export function openSignature(signature: string | null | undefined, on: GeminiSeal["on"]): OpenedSignature | undefined {
  if (signature === null || signature === undefined || signature === "" || signature === PLACEHOLDER) return undefined;
  if (!signature.startsWith(OPAQUE_MARK)) {
    const seal: GeminiSeal = { signature, on };
    return { opaque: { maker: GEMINI, data: JSON.stringify(seal) }, hidden: "" };
  }
  const opened = openOpaque(signature);
  if (opened === undefined) return undefined;
  const { maker, data } = opened;
  const hidden = data.startsWith(HIDDEN)
    ? hiddenThought.safeParse(parseJson(data.slice(HIDDEN.length))).data
    : undefined;
  return hidden === undefined
    ? { opaque: opened, hidden: "" }
    : { opaque: { maker, data: hidden.data }, hidden: hidden.text };
}

/**
 * What only its maker can read, on its way through clients that know another maker's form of it: the text that they keep and send back says whose it is.
 * A client that got thinking of Claude by OpenAI's dialect returns it in `encrypted_content`; one that got GPT's by Anthropic's returns it in `signature`.
 */
import { z } from "zod";
import type { Opaque } from "../stream.ts";

/** Begins every such text. No provider's own begins so: theirs are base64. A body that holds it is translated, never relayed. */
export const OPAQUE_MARK = "ghost1:";

const sealed = z.object({ maker: z.string(), data: z.string() });

/** As text of letters, digits and `:+/=` only. */
export function sealOpaque(opaque: Opaque): string {
  return OPAQUE_MARK + Buffer.from(JSON.stringify(opaque)).toString("base64");
}

/** The inverse; undefined for a text that is not ours, which then is the dialect's own maker's, or damaged. */
export function openOpaque(text: string): Opaque | undefined {
  if (!text.startsWith(OPAQUE_MARK)) return undefined;
  try {
    const parsed = sealed.safeParse(JSON.parse(Buffer.from(text.slice(OPAQUE_MARK.length), "base64").toString("utf8")));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined; // Damaged by the client: it is left out, as that of another maker would be.
  }
}

/**
 * The signatures of thinking that a fake of Anthropic's API has issued, and whether what comes back is what it issued.
 * A model that binds its thinking signs a block over `system`, the tools and all earlier messages; where `cache_control` sits is no part of that.
 */
import { createHash } from "node:crypto";
import type { ApiBlock, CountTokensBody } from "./anthropic-host-body.ts";
import { factsOf } from "./anthropic-host-models.ts";

interface Issued {
  readonly model: string;
  readonly text: string;
  readonly prefix: string;
}

export class IssuedThinking {
  readonly #issued = new Map<string, Issued>();

  /** Signs the text of one thinking block of the answer to `body`. */
  issue(body: CountTokensBody, text: string): string {
    const prefix = prefixHash(body, body.messages.length);
    const number = this.#issued.size + 1;
    const signature = createHash("sha256").update(`${number} ${prefix} ${text}`).digest("base64");
    this.#issued.set(signature, { model: body.model, text, prefix });
    return signature;
  }

  /** What is wrong with a block that message `index` of `body` brings back. */
  check(
    body: CountTokensBody,
    block: Extract<ApiBlock, { type: "thinking" | "redacted_thinking" }>,
    index: number,
  ): "unknown" | "other-conversation" | undefined {
    const signature = block.type === "thinking" ? block.signature : block.data;
    const issued = this.#issued.get(signature);
    if (issued === undefined) return "unknown";
    if (block.type === "thinking" && block.thinking !== issued.text) return "unknown";
    // What another Claude thought is dropped, not checked.
    if (issued.model !== body.model || !factsOf(body.model).bindsThinking) return undefined;
    return issued.prefix === prefixHash(body, index) ? undefined : "other-conversation";
  }
}

/** One value for all that came before message `end`, in whatever form it was written. */
function prefixHash(body: CountTokensBody, end: number): string {
  const content = (value: CountTokensBody["messages"][number]["content"]) =>
    typeof value === "string" ? [{ type: "text", text: value }] : value;
  const prefix = {
    system: body.system === undefined ? [] : content(body.system),
    tools: body.tools ?? [],
    messages: body.messages.slice(0, end).map(({ role, content: value }) => ({ role, content: content(value) })),
  };
  const text = JSON.stringify(prefix, (key, value: unknown) => (key === "cache_control" ? undefined : value));
  return createHash("sha256").update(text).digest("hex");
}

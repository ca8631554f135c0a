/** How many tokens a prompt has, about, where nobody can count them; whoever tells it says that it is an estimate (`x-ghost-estimated: true`). */
import type { ChatRequest, Message } from "../../../ghostllm/stream.ts";

/** English text and code have about this many bytes a token with all common tokenizers. */
const BYTES_PER_TOKEN = 4;
/** The most that Anthropic counts for an image of the size it recommends. */
const TOKENS_PER_IMAGE = 1_600;

/** Bytes of all texts, calls and tools by four, and 1,600 for each image; files are not counted. */
export async function estimateTokens(request: ChatRequest): Promise<number> {
  let bytes = request.tools.length === 0 ? 0 : Buffer.byteLength(JSON.stringify(request.tools));
  let images = 0;
  for (const { parts } of await request.messages()) {
    for (const part of parts) {
      bytes += Buffer.byteLength(textIn(part));
      images += part.kind === "image" ? 1 : part.kind === "toolResult" ? (part.images?.length ?? 0) : 0;
    }
  }
  return Math.ceil(bytes / BYTES_PER_TOKEN) + images * TOKENS_PER_IMAGE;
}

function textIn(part: Message["parts"][number]): string {
  switch (part.kind) {
    case "text":
    case "reasoning":
    case "toolResult":
      return part.text;
    case "toolCall":
      return part.name + part.arguments;
    case "image":
    case "file":
      return "";
  }
}

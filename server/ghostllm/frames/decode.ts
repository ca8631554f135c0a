/** Frames back into events, by dialect: the transcript replays what was spooled with it. */
import type { Dialect, StreamEvent } from "../stream.ts";
import { decodeAnthropic } from "./anthropic.ts";
import { decodeGemini } from "./gemini.ts";
import { decodeOllama } from "./ollama.ts";
import { decodeOpenAi } from "./openai.ts";
import { decodeResponses } from "./responses.ts";

export function decodeFrame(dialect: Dialect, bytes: Buffer): readonly StreamEvent[] {
  switch (dialect) {
    case "openai-chat":
    case "openai-completion":
      return decodeOpenAi(bytes);
    case "ollama":
      return decodeOllama(bytes);
    case "openai-responses":
      return decodeResponses(bytes);
    case "anthropic-messages":
      return decodeAnthropic(bytes);
    case "gemini":
      return decodeGemini(bytes);
    case "events":
      return [];
  }
}

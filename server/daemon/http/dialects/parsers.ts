/** Every client dialect's chat requests: one line each, used on the main loop for small bodies and in a worker for large ones. */
import type { ParsedChat } from "./chat-facts.ts";
import { GEMINI_MEMBERS, type GeminiOwn, parseGemini } from "./gemini-request.ts";
import { MESSAGES_MEMBERS, type MessagesOwn, parseMessages } from "./messages-request.ts";
import { OLLAMA_MEMBERS, type OllamaOwn, parseOllama } from "./ollama-request.ts";
import { OPENAI_MEMBERS, type OpenAiOwn, parseChat } from "./openai-request.ts";
import { parseResponses, RESPONSES_MEMBERS, type ResponsesOwn } from "./responses-request.ts";

/** What each dialect keeps for its own writer. */
export interface ChatOwn {
  readonly "openai-chat": OpenAiOwn;
  readonly "anthropic-messages": MessagesOwn;
  readonly "openai-responses": ResponsesOwn;
  readonly gemini: GeminiOwn;
  readonly ollama: OllamaOwn;
}
export type ChatDialect = keyof ChatOwn;

export interface ChatParser<Own> {
  /** @throws UserError `invalid_json` | `invalid_params` */
  parse(body: Buffer): ParsedChat<Own>;
  /** The top-level members that are set before a body is relayed. */
  readonly members: readonly string[];
}

export const CHAT_PARSERS: { readonly [Name in ChatDialect]: ChatParser<ChatOwn[Name]> } = {
  "openai-chat": { parse: parseChat, members: OPENAI_MEMBERS },
  "anthropic-messages": { parse: parseMessages, members: MESSAGES_MEMBERS },
  "openai-responses": { parse: parseResponses, members: RESPONSES_MEMBERS },
  gemini: { parse: parseGemini, members: GEMINI_MEMBERS },
  ollama: { parse: parseOllama, members: OLLAMA_MEMBERS },
};

export const isChatDialect = (name: string): name is ChatDialect => name in CHAT_PARSERS;

/**
 * Tokens to text, one by one.
 * 1. A token is turned into text together with those before it: some vocabularies lose the leading space of a lone one.
 * 2. A character whose bytes are spread over tokens appears once it is whole; the pieces joined are the text of all tokens.
 */
import type { Token } from "node-llama-cpp";

/** A character has at most 4 bytes, so at most 4 tokens; an end that is still broken then will never become one. */
const MAX_BROKEN_TOKENS = 4;
/** How much of the past a vocabulary may look at: node-llama-cpp itself uses 3 tokens. */
const CONTEXT_TOKENS = 3;
const REPLACEMENT = "\uFFFD";

export class TokenText {
  readonly #detokenize: (tokens: readonly Token[], before: readonly Token[]) => string;
  #before: readonly Token[];
  /** Since the last place where a token ended together with a character: tokens may begin or end inside one. */
  #held: Token[] = [];
  /** How many characters of the held tokens' text are out already. */
  #sent = 0;
  /** Tokens since something came out. */
  #broken = 0;

  constructor(detokenize: (tokens: readonly Token[], before: readonly Token[]) => string, prompt: readonly Token[]) {
    this.#detokenize = detokenize;
    this.#before = prompt.slice(-CONTEXT_TOKENS);
  }

  /** The text that became certain with this token: perhaps none. */
  push(token: Token): string {
    this.#held.push(token);
    this.#broken += 1;
    const text = this.#detokenize(this.#held, this.#before);
    if (!text.endsWith(REPLACEMENT)) return this.#release(text);
    const certain = text.slice(this.#sent, -REPLACEMENT.length);
    if (certain === "" && this.#broken >= MAX_BROKEN_TOKENS) return this.#release(text);
    this.#sent += certain.length;
    if (certain !== "") this.#broken = 1;
    return certain;
  }

  /** The rest, with a replacement character where a character stayed incomplete. */
  end(): string {
    return this.#held.length === 0 ? "" : this.#release(this.#detokenize(this.#held, this.#before));
  }

  #release(text: string): string {
    const rest = text.slice(this.#sent);
    this.#before = [...this.#before, ...this.#held].slice(-CONTEXT_TOKENS);
    this.#held = [];
    this.#sent = 0;
    this.#broken = 0;
    return rest;
  }
}

/**
 * Ends an answer before the first stop string, whatever pieces it arrives in.
 * The stop string that is complete first wins (then the one that began first), so that the cut does not depend on how tokens split the text.
 */
export class StopMatcher {
  readonly #stops: readonly string[];
  #held = "";
  #stopped = false;

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== "");
  }

  get stopped(): boolean {
    return this.#stopped;
  }

  /** Adds a piece and returns what is certain not to belong to a stop string. `push("foo\n/")` with the stop `\n//` returns `foo`. */
  push(piece: string): string {
    if (this.#stopped) return "";
    const text = this.#held + piece;
    const cut = this.#findFirst(text);
    if (cut !== undefined) {
      this.#stopped = true;
      this.#held = "";
      return text.slice(0, cut);
    }
    const heldLength = this.#partialLength(text);
    this.#held = text.slice(text.length - heldLength);
    return text.slice(0, text.length - heldLength);
  }

  /** The answer is over: what was held back belongs to it after all. */
  end(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }

  #findFirst(text: string): number | undefined {
    let best: { readonly start: number; readonly end: number } | undefined;
    for (const stop of this.#stops) {
      const start = text.indexOf(stop);
      if (start < 0) continue;
      const end = start + stop.length;
      if (best === undefined || end < best.end || (end === best.end && start < best.start)) best = { start, end };
    }
    return best?.start;
  }

  /** The length of the longest end of `text` with which a stop string begins. */
  #partialLength(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length -= 1) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}

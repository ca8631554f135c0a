/** Makes the text around a cursor fit a number of tokens by dropping whole lines from its far ends. Pure: the caller counts the tokens. */

export interface FitOptions {
  readonly prefix: string;
  readonly suffix: string;
  /** Tokens for both together. */
  readonly budget: number;
  count(text: string): number;
}

export interface Fitted {
  readonly prefix: string;
  readonly suffix: string;
  readonly droppedCharacters: number;
}

/** What comes after the cursor matters less: it gets at most this share where both are too long. */
const SUFFIX_SHARE = 0.25;
/** Lines counted alone may need fewer tokens than together; each round takes the excess off the budget. More rounds were never seen to be needed. */
const MAX_ROUNDS = 8;
/** A first guess for a line that is too long by itself, in characters a token. */
const GUESS_CHARACTERS = 8;

/** Undefined when nothing fits. */
export function fitAroundCursor(options: FitOptions): Fitted | undefined {
  const { prefix, suffix, count } = options;
  let budget = options.budget;
  for (let round = 0; round < MAX_ROUNDS && budget > 0; round += 1) {
    const keptPrefixAtMost = takeLines(prefix, "end", budget, count);
    const prefixNeeds = keptPrefixAtMost.length === prefix.length ? count(prefix) : budget;
    const suffixBudget = Math.max(budget - prefixNeeds, Math.floor(budget * SUFFIX_SHARE));
    const share = takeLines(suffix, "start", suffixBudget, count);
    const keptPrefix = takeLines(prefix, "end", budget - count(share), count);
    // Whole lines leave a rest, which may do for another line of the suffix.
    const keptSuffix = takeLines(suffix, "start", budget - count(keptPrefix), count);
    const total = count(keptPrefix) + count(keptSuffix);
    if (total <= options.budget) {
      const droppedCharacters = prefix.length + suffix.length - keptPrefix.length - keptSuffix.length;
      return { prefix: keptPrefix, suffix: keptSuffix, droppedCharacters };
    }
    budget -= total - options.budget;
  }
  return undefined;
}

/** The whole lines next to one end of `text` that fit; a part of the nearest line where not even that fits. */
function takeLines(text: string, near: "start" | "end", budget: number, count: (text: string) => number): string {
  let kept = "";
  let used = 0;
  while (kept.length < text.length) {
    const line = near === "end" ? lastLine(text, text.length - kept.length) : firstLine(text, kept.length);
    used += count(line);
    if (used > budget) return kept === "" ? takeCharacters(line, near, budget, count) : kept;
    kept = near === "end" ? line + kept : kept + line;
  }
  return kept;
}

function lastLine(text: string, end: number): string {
  return text.slice(end < 2 ? 0 : text.lastIndexOf("\n", end - 2) + 1, end);
}

function firstLine(text: string, start: number): string {
  const lineBreak = text.indexOf("\n", start);
  return text.slice(start, lineBreak < 0 ? text.length : lineBreak + 1);
}

function takeCharacters(line: string, near: "start" | "end", budget: number, count: (text: string) => number): string {
  let length = Math.min(line.length, budget * GUESS_CHARACTERS);
  while (length > 0) {
    const part = near === "end" ? line.slice(line.length - length) : line.slice(0, length);
    // Half of a surrogate pair is no text.
    const whole = part.toWellFormed() === part ? part : near === "end" ? part.slice(1) : part.slice(0, -1);
    if (count(whole) <= budget) return whole;
    length = Math.floor(length / 2);
  }
  return "";
}

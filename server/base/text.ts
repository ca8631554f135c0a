/** Small text helpers without a machine behind them. */

/** Nothing of ours has a longer name; to look for what resembles such a word would hold up everybody. */
const MAX_WORD_LENGTH = 256;
/** In a shorter text, that it is contained in another says nothing. */
const MIN_CONTAINED_LENGTH = 3;

/**
 * The entries of `known` that resemble `word`, best first: what an error message suggests.
 * Distance is Damerau-Levenshtein (optimal string alignment), at most a third of the longer word's length, and any entry that contains the word.
 */
export function nearest(word: string, known: Iterable<string>, limit = 3): readonly string[] {
  if (word.length > MAX_WORD_LENGTH) return [];
  const lower = word.toLowerCase();
  const scored: { readonly entry: string; readonly score: number }[] = [];
  for (const entry of new Set(known)) {
    const candidate = entry.toLowerCase();
    const score = isContained(lower, candidate)
      ? Number(lower !== candidate)
      : editDistance(lower, candidate, Math.max(1, Math.floor(Math.max(lower.length, candidate.length) / 3)));
    if (score !== undefined) scored.push({ entry, score });
  }
  scored.sort((a, b) => a.score - b.score || a.entry.localeCompare(b.entry));
  return scored.slice(0, limit).map(({ entry }) => entry);
}

function isContained(a: string, b: string): boolean {
  return Math.min(a.length, b.length) >= MIN_CONTAINED_LENGTH && (a.includes(b) || b.includes(a));
}

/**
 * Optimal string alignment distance: insertions, deletions, substitutions, and swaps of neighbours, each costing 1. Undefined where it is above `limit`,
 * which is found out without looking at all of both.
 */
function editDistance(a: string, b: string, limit = Math.max(a.length, b.length)): number | undefined {
  if (Math.abs(a.length - b.length) > limit) return undefined;
  let beforePrevious = new Uint32Array(b.length + 1);
  let previous = Uint32Array.from(beforePrevious.keys());
  let current = new Uint32Array(b.length + 1);
  let leastBefore = 0;
  for (let row = 1; row <= a.length; row += 1) {
    current[0] = row;
    let least = row;
    for (let column = 1; column <= b.length; column += 1) {
      const substitution = a[row - 1] === b[column - 1] ? 0 : 1;
      let best = Math.min(
        (previous[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (previous[column - 1] ?? 0) + substitution,
      );
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        best = Math.min(best, (beforePrevious[column - 2] ?? 0) + 1);
      }
      current[column] = best;
      least = Math.min(least, best);
    }
    // A swap reaches back over one row, so that only two rows say that there is no way any more.
    if (least > limit && leastBefore > limit) return undefined;
    leastBefore = least;
    [beforePrevious, previous, current] = [previous, current, beforePrevious];
  }
  const distance = previous[b.length] ?? 0;
  return distance > limit ? undefined : distance;
}

/** " Did you mean `x` or `y`?" or nothing. */
export function suggestion(word: string, known: Iterable<string>): string {
  const matches = nearest(word, known).map((entry) => `\`${entry}\``);
  return matches.length === 0 ? "" : ` Did you mean ${matches.join(" or ")}?`;
}

/** `1536` → `1.5 KiB`. */
export function formatBytes(sizeBytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = sizeBytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit] ?? "B"}`;
}

/** Makes text from outside safe for one terminal line: control characters become visible escapes. */
export function escapeControls(text: string): string {
  // oxlint-disable-next-line no-control-regex -- matching control characters is the purpose.
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

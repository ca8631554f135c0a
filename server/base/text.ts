/** Small text helpers without a machine behind them. */

/**
 * The entries of `known` that resemble `word`, best first: what an error message suggests.
 * Distance is Damerau-Levenshtein (optimal string alignment), at most a third of the longer word's length, and any entry that contains the word.
 */
export function nearest(word: string, known: Iterable<string>, limit = 3): readonly string[] {
  const lower = word.toLowerCase();
  const scored: { readonly entry: string; readonly score: number }[] = [];
  for (const entry of known) {
    const candidate = entry.toLowerCase();
    const distance = editDistance(lower, candidate);
    const contains = lower.length >= 3 && (candidate.includes(lower) || lower.includes(candidate));
    if (contains || distance <= Math.max(1, Math.floor(Math.max(lower.length, candidate.length) / 3))) {
      scored.push({ entry, score: contains ? Math.min(distance, 1) : distance });
    }
  }
  scored.sort((a, b) => a.score - b.score || a.entry.localeCompare(b.entry));
  return scored.slice(0, limit).map(({ entry }) => entry);
}

/** Optimal string alignment distance: insertions, deletions, substitutions, and swaps of neighbours, each costing 1. */
export function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row += 1) {
    const current = [row];
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
      current.push(best);
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[b.length] ?? 0;
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

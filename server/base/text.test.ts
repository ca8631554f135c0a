import assert from "node:assert/strict";
import { test } from "node:test";
import { nearest } from "./text.ts";

const cases: readonly [word: string, known: readonly string[], expected: readonly string[]][] = [
  ["modle", ["model", "models", "mode", "embedding"], ["mode", "model", "models"]],
  ["coder", ["codr", "ollama/coder@host", "cedar"], ["codr", "ollama/coder@host"]],
  ["Coder", ["coder"], ["coder"]],
  ["ab", ["ba", "a", "abcdefgh"], ["a", "ba"]],
  // A path holds a slash, whatever it is.
  ["/v1/nothing", ["/", "/v1/models", "/healthz"], []],
  ["/v1/model", ["/", "/v1/models", "/v1/models"], ["/v1/models"]],
  ["completely-different", ["model"], []],
  ["m".repeat(257), ["m".repeat(256)], []],
  ["m".repeat(256), [`${"m".repeat(255)}n`, "m"], [`${"m".repeat(255)}n`]],
];
for (const [word, known, expected] of cases) {
  test(`what resembles ${word.slice(0, 20)} among ${known.join(" ").slice(0, 40)}`, () => {
    assert.deepEqual(nearest(word, known), expected);
  });
}

test("a distance is found as one finds it without looking for a short way", () => {
  const letters = "abc";
  const words = Array.from({ length: 200 }, (_, seed) =>
    Array.from({ length: 3 + (seed % 5) }, (_letter, at) => letters[(seed * (at + 3) + (seed >> at)) % 3]).join(""),
  );
  let compared = 0;
  for (const a of words) {
    for (const b of words) {
      if (a.includes(b) || b.includes(a)) continue;
      const isNear = plainDistance(a, b) <= Math.max(1, Math.floor(Math.max(a.length, b.length) / 3));
      assert.equal(nearest(a, [b]).length, isNear ? 1 : 0, `${a} ${b}`);
      compared += 1;
    }
  }
  assert.ok(compared > 1_000);
});

/** The definition, row by row. */
function plainDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, column) => column)];
  for (let row = 1; row <= a.length; row += 1) {
    const cells = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const at = (up: number, left: number) => (up === 0 ? cells : rows[row - up])?.[column - left] ?? 0;
      const isSwap = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      const replaced = at(1, 1) + (a[row - 1] === b[column - 1] ? 0 : 1);
      cells.push(Math.min(at(1, 0) + 1, at(0, 1) + 1, replaced, isSwap ? at(2, 2) + 1 : Number.POSITIVE_INFINITY));
    }
    rows.push(cells);
  }
  return rows[a.length]?.[b.length] ?? 0;
}

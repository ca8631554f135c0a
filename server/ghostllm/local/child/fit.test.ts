import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { fitAroundCursor } from "./fit.ts";

/** One token a character: the numbers below are easy to see. */
const count = (text: string) => text.length;

const cases: readonly (readonly [
  what: string,
  prefix: string,
  suffix: string,
  budget: number,
  expected: readonly [string, string, number],
])[] = [
  ["what fits stays whole", "a\nb\n", "c\n", 10, ["a\nb\n", "c\n", 0]],
  ["whole lines go from the far end of the prefix", "1111\n2222\n33", "", 8, ["2222\n33", "", 5]],
  ["whole lines go from the far end of the suffix", "12", "aaa\nbbb\nccc", 10, ["12", "aaa\nbbb\n", 3]],
  ["the prefix is dearer than the suffix", "1111\n2222\n33", "aaa\nbbb\n", 12, ["1111\n2222\n33".slice(5), "aaa\n", 9]],
  ["a line that is too long by itself is cut", "x".repeat(100), "", 10, ["x".repeat(10), "", 90]],
];
for (const [what, prefix, suffix, budget, [keptPrefix, keptSuffix, droppedCharacters]] of cases) {
  test(what, () => {
    assert.deepEqual(fitAroundCursor({ prefix, suffix, budget, count }), {
      prefix: keptPrefix,
      suffix: keptSuffix,
      droppedCharacters,
    });
  });
}

test("nothing fits into nothing", () =>
  assert.equal(fitAroundCursor({ prefix: "a", suffix: "", budget: 0, count }), undefined));

test("what is kept fits, touches the cursor, and adds up with what was dropped", () => {
  const text = fc.array(fc.constantFrom("a", "b", "\n", "\u{1F600}"), { maxLength: 80 }).map((list) => list.join(""));
  // Tokens that merge over line breaks: the whole needs fewer than its lines.
  const merging = (value: string) => Math.ceil(value.length / 3);
  fc.assert(
    fc.property(text, text, fc.integer({ min: 4, max: 40 }), (prefix, suffix, budget) => {
      const fitted = fitAroundCursor({ prefix, suffix, budget, count: merging });
      assert.ok(fitted !== undefined);
      assert.ok(prefix.endsWith(fitted.prefix) && suffix.startsWith(fitted.suffix));
      assert.ok(merging(fitted.prefix) + merging(fitted.suffix) <= budget);
      assert.ok(fitted.prefix.isWellFormed() && fitted.suffix.isWellFormed());
      assert.equal(
        fitted.droppedCharacters,
        prefix.length + suffix.length - fitted.prefix.length - fitted.suffix.length,
      );
    }),
  );
});

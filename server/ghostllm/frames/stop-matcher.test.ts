import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { StopMatcher } from "./stop-matcher.ts";

function run(
  pieces: readonly string[],
  stops: readonly string[],
): { readonly sent: readonly string[]; readonly stopped: boolean } {
  const matcher = new StopMatcher(stops);
  const sent = pieces.map((piece) => matcher.push(piece));
  if (!matcher.stopped) sent.push(matcher.end());
  return { sent: sent.filter((piece) => piece !== ""), stopped: matcher.stopped };
}

const cases: readonly (readonly [
  what: string,
  pieces: readonly string[],
  stops: readonly string[],
  sent: readonly string[],
  stopped: boolean,
])[] = [
  ["nothing to stop at", ["a", "b"], [], ["a", "b"], false],
  ["the text before the stop string is kept", ["foo\nbar"], ["\n"], ["foo"], true],
  ["a stop string over three pieces is cut exactly", ["ab<", "en", "d>cd"], ["<end>"], ["ab"], true],
  ["what only began like a stop string comes out", ["ab<", "en", "c"], ["<end>"], ["ab", "<enc"], false],
  ["what was held at the end comes out", ["ab<", "en"], ["<end>"], ["ab", "<en"], false],
  ["the first complete one wins", ["xabc"], ["abc", "b"], ["xa"], true],
  ["of two that end together, the longer wins", ["xab"], ["b", "ab"], ["x"], true],
  ["overlapping beginnings are found", ["aaab"], ["aab"], ["a"], true],
  ["an empty stop string is none", ["abc"], [""], ["abc"], false],
];
for (const [what, pieces, stops, sent, stopped] of cases) {
  test(what, () => assert.deepEqual(run(pieces, stops), { sent, stopped }));
}

test("however a text is split, the same comes out", () => {
  const letters = fc.array(fc.constantFrom("a", "b", "\n"), { maxLength: 30 });
  const stop = fc.array(fc.constantFrom("a", "b", "\n"), { minLength: 1, maxLength: 4 }).map((list) => list.join(""));
  fc.assert(
    fc.property(
      letters,
      fc.array(stop, { maxLength: 3 }),
      fc.array(fc.nat({ max: 5 }), { maxLength: 30 }),
      (text, stops, cuts) => {
        const pieces: string[] = [];
        let rest = text.join("");
        for (const cut of cuts) {
          pieces.push(rest.slice(0, cut));
          rest = rest.slice(cut);
        }
        const split = run([...pieces, rest], stops);
        const single = run([...text], stops);
        assert.equal(split.sent.join(""), single.sent.join(""));
        assert.equal(split.stopped, single.stopped);
      },
    ),
  );
});

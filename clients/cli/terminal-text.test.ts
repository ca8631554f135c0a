import assert from "node:assert/strict";
import { test } from "node:test";
import { escapeJson, escapeLine, escapeText, formatBytes, formatDuration, wrap } from "./terminal-text.ts";

test("control sequences become visible, and newlines and tabs stay", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["plain text, ümläut 🐢", "plain text, ümläut 🐢"],
    ["a\n\tb", "a\n\tb"],
    ["dos\r\nline", "dos\nline"],
    ["over\rwrite", "over\\x0dwrite"],
    ["\u001b[2J\u001b]52;c;aGk=\u0007", "\\x1b[2J\\x1b]52;c;aGk=\\x07"],
    ["\u009b31m", "\\x9b31m"],
    ["back\bspace\u007f", "back\\x08space\\x7f"],
    ["admin\u202e)(", "admin\\u{202e})("],
    ["a\u200eb\u200fc\u061cd\u200be", "a\\u{200e}b\\u{200f}c\\u{61c}d\\u{200b}e"],
    ["family 👩‍💻", "family 👩‍💻"],
  ];
  for (const [input, expected] of cases) assert.equal(escapeText(input), expected);
});

test("in one line, newlines and tabs are escaped too", () => {
  assert.equal(escapeLine("a\nb\tc\r\n\u001b[A"), "a\\nb\\tc\\x0d\\n\\x1b[A");
});

test("JSON for a terminal holds no control, and the same value", () => {
  const value = { text: "\u009b31m\u007f\u202e\u200b\u001b\n ü 🐢" };
  const shown = escapeJson(JSON.stringify(value, null, 2));
  assert.equal(shown, '{\n  "text": "\\u009b31m\\u007f\\u202e\\u200b\\u001b\\n ü 🐢"\n}');
  assert.deepEqual(JSON.parse(shown), value);
});

test("sizes and durations read naturally at every scale", () => {
  assert.deepEqual([0, 1023, 1536, 3 * 1024 ** 3].map(formatBytes), ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
  assert.deepEqual([4, 999, 2400, 132_000, 7_260_000].map(formatDuration), [
    "4 ms",
    "999 ms",
    "2.4 s",
    "2 min 12 s",
    "2 h 1 min",
  ]);
});

test("a sentence is broken at spaces, and a word that is too long stays whole", () => {
  assert.deepEqual(wrap("one two three", 7), ["one two", "three"]);
  assert.deepEqual(wrap("a veryverylongword b", 6), ["a", "veryverylongword", "b"]);
});

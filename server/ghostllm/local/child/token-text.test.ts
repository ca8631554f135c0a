import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Token } from "node-llama-cpp";
import { z } from "zod";
import { TokenText } from "./token-text.ts";

const token = z.custom<Token>((value) => typeof value === "number");

/** A vocabulary in which every token is some bytes; a blank at the very beginning of what it sees is lost, as in SPM vocabularies. */
function vocabulary(pieces: readonly Buffer[]) {
  const bytes = (tokens: readonly Token[]) =>
    Buffer.concat(tokens.map((id) => pieces[id] ?? Buffer.alloc(0))).toString("utf8");
  return (tokens: readonly Token[], before: readonly Token[]) =>
    before.length === 0 ? bytes(tokens).replace(/^ /, "") : bytes([...before, ...tokens]).slice(bytes(before).length);
}

function run(pieces: readonly Buffer[], promptLength: number): string[] {
  const ids = pieces.map((_, id) => token.parse(id));
  const text = new TokenText(vocabulary(pieces), ids.slice(0, promptLength));
  return [...ids.slice(promptLength).map((id) => text.push(id)), text.end()].filter((piece) => piece !== "");
}

test("a word keeps its leading blank", () => {
  assert.deepEqual(run([Buffer.from("One day,"), Buffer.from(" she"), Buffer.from(" ran")], 1), [" she", " ran"]);
});

test("a character over three tokens appears once, whole", () => {
  const bytes = Buffer.from("€");
  const pieces = [
    Buffer.from("a"),
    Buffer.from("x"),
    ...[...bytes].map((byte) => Buffer.from([byte])),
    Buffer.from("y"),
  ];
  assert.deepEqual(run(pieces, 1), ["x", "€", "y"]);
});

test("bytes that never become a character come out as replacement characters and hold nothing up", () => {
  const pieces = ["a", "", "b"]
    .map((text) => Buffer.from(text))
    .concat(Array.from({ length: 9 }, () => Buffer.from([0x80])));
  assert.match(run(pieces, 1).join(""), /^b\uFFFD{9}$/);
});

test("however characters are split into tokens, the same text comes out", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: "grapheme", maxLength: 20 }),
      fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 60 }),
      (text, sizes) => {
        const bytes = Buffer.from(text);
        const pieces = [Buffer.from("|")];
        let position = 0;
        for (const size of [...sizes, bytes.length + 1]) {
          pieces.push(bytes.subarray(position, position + size));
          position = Math.min(bytes.length, position + size);
        }
        assert.equal(run(pieces, 1).join(""), text);
      },
    ),
  );
});

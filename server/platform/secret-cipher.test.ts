import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { Secret } from "../base/secret.ts";
import { CIPHER_KEY_BYTES, NONCE_BYTES, seal, unseal } from "./secret-cipher.ts";

const key = randomBytes(CIPHER_KEY_BYTES);
const secret = new Secret("sk-ß-secret-0123456789");
const box = seal(key, randomBytes(NONCE_BYTES), "for anthropic", secret);

test("what was sealed opens with its key, for what it is for, and shows nothing", () => {
  assert.equal(unseal(key, "for anthropic", box)?.reveal(), secret.reveal());
  assert.doesNotMatch(JSON.stringify(box), /secret/);
});

test("two sealings of one secret have nothing in common", () => {
  const again = seal(key, randomBytes(NONCE_BYTES), "for anthropic", secret);
  assert.notEqual(again.nonce, box.nonce);
  assert.notEqual(again.sealed.slice(0, 8), box.sealed.slice(0, 8));
});

const flipped = (text: string) => (text.startsWith("A") ? "B" : "A") + text.slice(1);
const CASES: readonly [what: string, key: Buffer, context: string, box: typeof box][] = [
  ["another key", randomBytes(CIPHER_KEY_BYTES), "for anthropic", box],
  ["another purpose", key, "for openai", box],
  ["a changed text", key, "for anthropic", { ...box, sealed: flipped(box.sealed) }],
  ["a changed nonce", key, "for anthropic", { ...box, nonce: flipped(box.nonce) }],
  ["a cut text", key, "for anthropic", { ...box, sealed: box.sealed.slice(0, 10) }],
  ["a cut nonce", key, "for anthropic", { ...box, nonce: "" }],
  ["nothing", key, "for anthropic", { nonce: "", sealed: "" }],
];
for (const [what, otherKey, context, other] of CASES) {
  test(`${what} opens nothing`, () => assert.equal(unseal(otherKey, context, other), undefined));
}

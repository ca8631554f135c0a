import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../../base/errors.ts";
import { type ByteSource, readGgufFacts } from "./gguf.ts";

const tiny = readFileSync(new URL("../../../models/tiny-code-fim.gguf", import.meta.url));

function source(bytes: Buffer): ByteSource {
  return { sizeBytes: bytes.length, read: async (position, length) => bytes.subarray(position, position + length) };
}

test("the built-in weights say what they can do", async () => {
  const { description, ...facts } = await readGgufFacts(source(tiny), "tiny");
  assert.match(description ?? "", /3\.4M-parameter/);
  assert.deepEqual(facts, {
    architecture: "llama",
    contextLength: 512,
    hasChatTemplate: true,
    hasInfillTokens: true,
    name: "tiny-code-fim",
  });
});

test("a header that spans many reads is read all the same", async () => {
  const inDrops: ByteSource = {
    sizeBytes: tiny.length,
    read: async (position, length) => tiny.subarray(position, position + Math.min(length, 4096)),
  };
  assert.equal((await readGgufFacts(inDrops, "tiny")).contextLength, 512);
});

const broken: readonly (readonly [what: string, bytes: Buffer, says: RegExp])[] = [
  ["an empty file", Buffer.alloc(0), /ends in the middle/],
  ["a web page", Buffer.from("<html><body>Not found</body></html>"), /does not begin with "GGUF"/],
  ["an old version", patched((bytes) => bytes.writeUInt32LE(1, 4)), /version is 1/],
  ["no tensors", patched((bytes) => bytes.writeBigUInt64LE(0n, 8)), /no tensors/],
  ["a length beyond the file", patched((bytes) => bytes.writeBigUInt64LE(1n << 60n, 16)), /claims a length/],
  ["a file cut in its header", tiny.subarray(0, 30_000), /ends in the middle|claims/],
  ["a file cut in its tensors", tiny.subarray(0, tiny.length / 2), /cut off/],
];
for (const [what, bytes, says] of broken) {
  test(`${what} is refused as weights_corrupt`, async () => {
    await assert.rejects(readGgufFacts(source(bytes), "x.gguf"), (error: unknown) => {
      assert.ok(error instanceof UserError);
      assert.equal(error.code, "weights_corrupt");
      assert.match(error.message, says);
      return true;
    });
  });
}

test("no damage to the header makes the reader hang or throw anything else", async () => {
  const head = tiny.subarray(0, 64 * 1024);
  const runs = { numRuns: 300 };
  await fc.assert(
    fc.asyncProperty(
      fc.nat({ max: 2000 }),
      fc.uint8Array({ minLength: 1, maxLength: 16 }),
      async (position, damage) => {
        const bytes = Buffer.from(head);
        bytes.set(damage, position);
        await readGgufFacts({ sizeBytes: tiny.length, read: source(bytes).read }, "x").catch((error: unknown) => {
          assert.ok(error instanceof UserError && error.code === "weights_corrupt", String(error));
        });
      },
    ),
    runs,
  );
});

function patched(patch: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.from(tiny);
  patch(bytes);
  return bytes;
}

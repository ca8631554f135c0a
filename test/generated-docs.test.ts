/** Documents that are rendered from code say what the code says. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { generatedDocuments } from "../tools/generated-documents.ts";
import { root } from "../tools/source-files.ts";

assert.ok(generatedDocuments.length > 0);

for (const { path, render } of generatedDocuments) {
  test(`${path} is what the code renders`, async () => {
    const written = readFileSync(join(root, path), "utf8");
    assert.equal(written, await render(), `${path} has drifted: run \`npm run generate\` and read what changed`);
    assert.ok(written.length > 500, "it says something");
  });
}

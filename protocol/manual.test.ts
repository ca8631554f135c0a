import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { it } from "node:test";
import { methodsByName } from "./ghost-api.ts";
import { renderProtocolManual } from "./manual.ts";

it("docs/protocol.md is what the schemas say", async () => {
  const written = await readFile(new URL("../docs/protocol.md", import.meta.url), "utf8");
  assert.equal(written, renderProtocolManual(), "run `npm run generate`");
});

it("the manual has every method, and no shape that it could not name", () => {
  const manual = renderProtocolManual();
  assert.ok(methodsByName.size >= 15);
  for (const name of methodsByName.keys()) assert.ok(manual.includes(`#### \`${name}\``), name);
  assert.doesNotMatch(manual, /__schema\d|undefined/);
  assert.equal(renderProtocolManual(), manual);
});

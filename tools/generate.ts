/** `npm run generate`: writes the documents that are rendered from code and says which of them changed. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { generatedDocuments } from "./generated-documents.ts";
import { root } from "./source-files.ts";

for (const { path, render } of generatedDocuments) {
  const file = join(root, path);
  const before = existsSync(file) ? readFileSync(file, "utf8") : "";
  const after = await render();
  if (before !== after) writeFileSync(file, after);
  process.stdout.write(`${before === after ? "unchanged" : "written  "}  ${path}\n`);
}

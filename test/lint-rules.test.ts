/** The lint rules are on, for the files that they are for: a fixture names on each line the rule that must find it, and nothing else may be found. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { root } from "../tools/source-files.ts";

const report = z.object({
  number_of_files: z.number(),
  diagnostics: z.array(
    z.object({
      code: z.string(),
      filename: z.string(),
      labels: z.array(z.object({ span: z.object({ line: z.number() }) })),
    }),
  ),
});

test("each forbidden thing is found by its rule, and allowed things are not", () => {
  const { number_of_files: count, diagnostics } = lint("test/fixtures/lint", {});
  assert.equal(count, 2);
  const expected = readFileSync(join(root, "test/fixtures/lint/server/ghostllm/forbidden.ts"), "utf8")
    .split("\n")
    .flatMap((line, index) => {
      const rule = / \/\/ ([a-z-]+)$/.exec(line)?.[1];
      return rule === undefined ? [] : [`server/ghostllm/forbidden.ts:${index + 1} ${rule}`];
    });
  assert.ok(expected.length >= 18);
  const found = diagnostics.map(
    ({ code, filename, labels }) => `${filename}:${labels[0]?.span.line} ${/\((.*)\)/.exec(code)?.[1]}`,
  );
  assert.deepEqual(found.toSorted(), expected.toSorted());
});

test("a file of more than 600 lines and a function of more than 70 are found", () => {
  const lines = (count: number, name: string) =>
    `export function ${name}(): void {\n${'  "".trim();\n'.repeat(count)}}\n`;
  const { diagnostics } = lint(undefined, {
    "server/base/long.ts": lines(601, "long"),
    "server/base/short.ts": lines(60, "short"),
  });
  const rules = diagnostics.map(({ filename, code }) => `${filename} ${code}`);
  assert.deepEqual(rules.toSorted(), [
    "server/base/long.ts eslint(max-lines)",
    "server/base/long.ts eslint(max-lines-per-function)",
  ]);
});

function lint(fixture: string | undefined, files: Readonly<Record<string, string>>): z.infer<typeof report> {
  const folder = mkdtempSync(join(tmpdir(), "ghost-lint-"));
  try {
    if (fixture !== undefined) cpSync(join(root, fixture), folder, { recursive: true });

    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), text);
    }
    for (const name of [".oxlintrc.json", "tsconfig.json", "package.json"])
      copyFileSync(join(root, name), join(folder, name));
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
    const { stdout } = spawnSync(join(root, "node_modules/.bin/oxlint"), ["-f", "json", "."], {
      encoding: "utf8",
      cwd: folder,
    });
    return report.parse(JSON.parse(stdout));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

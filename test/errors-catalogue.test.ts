/** The catalogue of errors, docs/errors.md and the code that throws say the same. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { errorCatalogue } from "../protocol/errors.ts";
import { BugError, OperationalError, UserError } from "../server/base/errors.ts";
import { root, sourceFiles } from "../tools/source-files.ts";

/** Codes whose part of the product is not there yet. This list only shrinks: a code that is in use must leave it. */
const notYetThrown: ReadonlySet<string> = new Set([]);

const codes = Object.keys(errorCatalogue);
const sources = sourceFiles(["ts"])
  .filter(
    (path) => /^(server|clients|protocol)\//.test(path) && !path.endsWith(".test.ts") && path !== "protocol/errors.ts",
  )
  .map((path) => ({ path, text: withoutComments(readFileSync(join(root, path), "utf8")) }));

test("docs/errors.md lists exactly the codes of the catalogue, each with its status, meaning and advice", () => {
  const rows = readFileSync(join(root, "docs/errors.md"), "utf8")
    .split("\n")
    .map((line) => /^\| `(?<code>\w+)` \| (?<http>\d+) \| (?<meaning>.*) \| (?<advice>.*) \|$/.exec(line)?.groups)
    .filter((row) => row !== undefined);
  assert.equal(rows.length, codes.length);
  assert.deepEqual(new Set(rows.map((row) => row["code"])), new Set(codes));
  for (const [code, entry] of Object.entries(errorCatalogue)) {
    const row = rows.find((candidate) => candidate["code"] === code);
    assert.deepEqual(
      [row?.["http"], row?.["meaning"], row?.["advice"]],
      [String(entry.http), entry.meaning, entry.advice],
      code,
    );
  }
});

test("every code of the catalogue is used by the code, and what is listed as not yet thrown is not", () => {
  assert.ok(sources.length > 20, "the sources were found");
  const used = (code: string) => sources.some(({ text }) => new RegExp(`(?<!kind: |family: )"${code}"`).test(text));
  assert.deepEqual(
    codes.filter((code) => !used(code) && !notYetThrown.has(code)),
    [],
    "codes that nothing throws",
  );
  assert.deepEqual(
    codes.filter((code) => used(code) && notYetThrown.has(code)),
    [],
    "codes to take off the list",
  );
});

test("an error is thrown with the class of its code's family", () => {
  const classOf = { user: "UserError", operational: "OperationalError", bug: "BugError" };
  let found = 0;
  for (const { path, text } of sources) {
    for (const match of text.matchAll(/new (UserError|OperationalError|BugError)\(\s*"(\w+)"/g)) {
      const entry = Object.entries(errorCatalogue).find(([code]) => code === match[2])?.[1];
      assert.equal(entry === undefined ? "no such code" : classOf[entry.family], match[1], `${path}: ${match[0]}`);
      found += 1;
    }
  }
  assert.ok(found > 20, `only ${found} throws were found`);
});

test("each class says its family", () => {
  assert.equal(new UserError("usage", "x").family, errorCatalogue.usage.family);
  assert.equal(new OperationalError("overloaded", "x").family, errorCatalogue.overloaded.family);
  assert.equal(new BugError("internal", "x").family, errorCatalogue.internal.family);
});

test("meaning and advice are sentences, and the status is an error's", () => {
  for (const [code, { http, meaning, advice }] of Object.entries(errorCatalogue)) {
    assert.match(code, /^[a-z]+(_[a-z]+)*$/);
    assert.match(meaning, /^[A-Z].*\.$/, code);
    assert.match(advice, /\.$/, code);
    assert.ok(http >= 400 && http <= 599, code);
  }
});

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*$/gm, "");
}

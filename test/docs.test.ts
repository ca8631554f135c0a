/** What the documents name exists: files they link to or name, commands of `ghost`, settings. */
import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { parseRuleFile } from "../server/ghostwarden/rule-file.ts";
import { loadConfig } from "../server/platform/config/load.ts";
import { root } from "../tools/source-files.ts";
import { runGhost } from "./support/cli.ts";

const documents = ["README.md", "CHANGELOG.md", ...globSync("docs/**/*.md", { cwd: root })].toSorted();
const textOf = (path: string): string => readFileSync(join(root, path), "utf8");
assert.ok(documents.length >= 20);

for (const path of documents) {
  test(`${path}: its links lead somewhere`, () => {
    for (const [, target = ""] of textOf(path).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g))
      assert.ok(existsSync(join(root, dirname(path), target)), target);
    for (const [, anchor = ""] of textOf(path).matchAll(/\]\(#([^)]+)\)/g)) {
      const headings = [...textOf(path).matchAll(/^#+ (.+)$/gm)].map(({ 1: heading = "" }) => anchorOf(heading));
      assert.ok(headings.includes(anchor), `no heading #${anchor}`);
    }
  });

  test(`${path}: the files of this repository that it names exist`, () => {
    // Also without the `server/` before it.
    for (const [, name = ""] of textOf(path).matchAll(/`((?:[\w-]+\/)+[\w.*-]+\.ts)`/g))
      assert.ok(globSync([name, `server/**/${name}`], { cwd: root }).length > 0, name);
  });
}

/** As GitHub makes them. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\w -]/g, "")
    .replaceAll(" ", "-");
}

test("every command of `ghost` that a document shows is one", async () => {
  const shown = documents.flatMap((path) =>
    [
      ...textOf(path).matchAll(/(?:^|[`(]|npx )ghost ([a-z]+)(?: (?=(?:set|test|rm|pull|show|explain)\b)([a-z]+))?/gm),
    ].map(({ 1: command = "", 2: action }) => (action === undefined ? command : `${command} ${action}`)),
  );
  const commands = [...new Set(shown)].toSorted();
  assert.ok(commands.length >= 12, commands.join());
  for (const command of commands) {
    const { code, stdout } = await runGhost([...command.split(" "), "--help"], {
      env: { PATH: process.env["PATH"] ?? "" },
    });
    assert.equal(code, 0, `ghost ${command}`);
    assert.match(stdout, new RegExp(`^Usage: (?:npx )?ghost ${command}\\b`));
  }
});

test("the settings of the README and of the change log can be read", () => {
  const blocks = ["README.md", "CHANGELOG.md"].flatMap((path) => [
    ...textOf(path).matchAll(/^ *```toml\n([^]*?)^ *```$/gm),
  ]);
  assert.ok(blocks.length >= 6, `${blocks.length} blocks`);
  for (const { 1: text = "" } of blocks) {
    if (/^\[capabilities\]/m.test(text)) parseRuleFile(text, "warden.toml");
    else loadConfig({ text, file: "ghost.toml", overrides: {} });
  }
});

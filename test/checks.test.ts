/** The checks themselves: a run that examined nothing fails, and every program behind `npm run` is there. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { root } from "../tools/source-files.ts";
import { describeMissing, missingTools } from "../tools/system-tools.ts";

test("a test run that finds no file fails and says so", () => {
  const { status, stderr } = runTool("tools/test.ts", "no-such-test-file");
  assert.equal(status, 1);
  assert.match(stderr, /no test file found for no-such-test-file/);
});

test("a check that does not exist is refused with the list of those that do", () => {
  const { status, stderr } = runTool("tools/verify.ts", "lnit");
  assert.equal(status, 2);
  assert.match(stderr, /no such step: lnit; there are format, lint, types, unused, tests/);
});

test("a missing system tool is named with what it is for and the commands that install it", () => {
  const missing = missingTools("systems", "/nonexistent");
  assert.ok(missing.length >= 4);
  assert.match(
    describeMissing(missing).join("\n"),
    /tmux: needed for[\s\S]*pacman -S --needed .*tmux[\s\S]*apt install .*tmux/,
  );
});

test("CI installs every system tool that a stage needs", () => {
  const script = readFileSync(join(root, ".ci/run"), "utf8");
  const listed = /^packages=\((?<names>.*)\)$/m.exec(script)?.groups?.["names"]?.split(" ") ?? [];
  for (const tool of missingTools("systems", "/nonexistent")) assert.ok(listed.includes(tool.debian), tool.debian);
  assert.match(script, /^npm test$/m);
});

test("every npm script and every command of the package names a file that exists, and sets up first where it needs packages", () => {
  const shape = z.object({ scripts: z.record(z.string(), z.string()), bin: z.record(z.string(), z.string()) });
  const { scripts, bin } = shape.parse(JSON.parse(readFileSync(join(root, "package.json"), "utf8")));
  const files = [
    ...Object.values(scripts).flatMap((script) => script.match(/\S+\.(ts|mjs)/g) ?? []),
    ...Object.values(bin),
  ];
  assert.ok(files.length >= 10);
  assert.deepEqual(
    files.filter((file) => !existsSync(join(root, file))),
    [],
  );
  for (const name of ["start", "test", "test:systems", "test:full", "verify", "bench"]) {
    assert.equal(scripts[`pre${name}`], "node tools/setup.mjs", name);
  }
});

function runTool(
  tool: string,
  ...args: readonly string[]
): { readonly status: number | null; readonly stderr: string } {
  return spawnSync(process.execPath, [join(root, tool), ...args], { encoding: "utf8", cwd: root });
}

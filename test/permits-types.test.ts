/** No effect without consent is a type error (I4): what must not compile does not, and platform/ asks for a permit wherever it touches the machine. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { root, sourceFiles } from "../tools/source-files.ts";

const fixture = join(root, "test/fixtures/types/permits.ts");

test("forging, copying or leaving out a permit is a type error, each for the reason given", () => {
  const expected = readFileSync(fixture, "utf8")
    .split("\n")
    .flatMap((line, index) => {
      const code = /\/\/ @expect (TS\d+) /.exec(line)?.[1];
      return code === undefined ? [] : [`${index + 1} ${code}`];
    });
  assert.ok(expected.length >= 9);
  assert.deepEqual(compile(fixture), expected);
});

/** Exported functions of platform/ files with effects that need no permit of their own, and why. */
const withoutPermit: Readonly<Record<string, string>> = {
  storageError: "translates an error",
  fileError: "translates an error",
  readBody: "reads the answer to a request that was permitted",
  header: "looks into that answer",
  createHttpClient: "only makes the client; each request takes a permit",
  openConnection: "is for sqlite.ts alone, which takes the permit",
  isCorruption: "classifies an error",
  createWorkerPool: "threads get bytes and have no permits",
  serveWorker: "is the other end of such a thread",
  createClaudeProgram: "the place that it is given is a permit with its folder and command",
  createCopilotRuntime: "likewise",
  findCopilotExecutable: "looks where npm put a package of ours",
  systemEnvironment: "is handed out by main alone; it reads no file",
};

test("every function of platform/ that can touch the machine takes a permit first", () => {
  const effects = /from "(node:(fs|fs\/promises|child_process|net|http|https|worker_threads|os)|undici|sqlite3)"/;
  const found = sourceFiles(["ts"])
    .filter((path) => path.startsWith("server/platform/") && !path.endsWith(".test.ts"))
    .map((path) => readFileSync(join(root, path), "utf8"))
    .filter((text) => effects.test(text))
    .flatMap((text) => [...text.matchAll(/^export (?:async )?function\*? (\w+)(?:<[^(]*>)?\(\s*(?:\w+: (\w+))?/gm)])
    .map((match) => ({ name: match[1] ?? "", first: match[2] ?? "nothing" }));
  assert.ok(found.length >= 10, `only ${found.length} functions were found`);
  const free = found.filter(({ first }) => !/^(Any|Standing)?Permit$/.test(first)).map(({ name }) => name);
  assert.deepEqual(
    free.filter((name) => !(name in withoutPermit)),
    [],
    "these take no permit",
  );
  assert.deepEqual(
    Object.keys(withoutPermit).filter((name) => !free.includes(name)),
    [],
    "these are excused for nothing",
  );
});

/** `LINE CODE` of each error that tsc finds in one file under the settings of this repository. */
function compile(file: string): readonly string[] {
  const folder = mkdtempSync(join(tmpdir(), "ghost-types-"));
  try {
    const config = join(folder, "tsconfig.json");
    const settings = {
      extends: join(root, "tsconfig.json"),
      compilerOptions: {
        incremental: false,
        tsBuildInfoFile: null,
        noEmit: true,
        typeRoots: [join(root, "node_modules/@types")],
      },
      include: [],
      files: [file],
    };
    writeFileSync(config, JSON.stringify(settings));
    const { stdout, error } = spawnSync(join(root, "node_modules/.bin/tsc"), ["-p", config, "--pretty", "false"], {
      encoding: "utf8",
      cwd: root,
    });
    assert.equal(error, undefined);
    return stdout.split("\n").flatMap((line) => {
      const match = /permits\.ts\((\d+),\d+\): error (TS\d+):/.exec(line);
      return match === null ? [] : [`${match[1]} ${match[2]}`];
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

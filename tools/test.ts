/**
 * The runner behind `npm test` (all that needs no root), `npm run test:systems` (root), `npm run test:agents` (real coding agents, large downloads) and
 * `npm run test:full` (random suites at full length).
 * Words after `--` choose the test files whose path holds one of them: `npm test -- wire`.
 *
 * 1. A run that found or executed no test fails; on CI one that skipped a test fails too.
 * 2. Every test file is a process of its own, with a time limit for each test.
 * 3. The last lines on stdout are node's own summary.
 */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { installAgents } from "./agents.mjs";
import { describeMissing, missingTools } from "./system-tools.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Longer than any test takes on two busy cores; without it one that hangs would hold CI until its own end. */
const TEST_TIMEOUT_MS = 300_000;
/** Random suites at full length take ten times as long. */
const FULL_TEST_TIMEOUT_MS = 1_800_000;
/** Test files wait more than they compute, so two at a time pay off on any machine; more than four disturb each other's clocks. */
const FILES_AT_ONCE = Math.min(4, Math.max(2, availableParallelism()));

/** Set where this process is the one that has loopback only. */
const OFFLINE = "GHOST_TEST_OFFLINE";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    systems: { type: "boolean", default: false },
    agents: { type: "boolean", default: false },
    full: { type: "boolean", default: false },
  },
});
const isCi = process.env["CI"] === "true";

process.exitCode = await main();

async function main(): Promise<number> {
  const stage = values.systems ? "systems" : "test";
  if (values.agents) {
    const missing = installAgents();
    if (missing !== undefined) return fail(missing);
    const code = runOffline();
    if (code !== undefined) return code;
  }
  if (stage === "systems" && process.getuid?.() !== 0) {
    return fail(
      "the systems stage mounts file systems and changes users: run it as root (a container is a good place)",
    );
  }
  const missing = missingTools(stage, process.env["PATH"] ?? "");
  if (missing.length > 0) {
    process.stderr.write(["", "NOT INSTALLED HERE:", ...describeMissing(missing), ""].join("\n"));
    if (isCi) return fail("CI must not run with tools missing");
    process.stderr.write("The tests that need them are skipped.\n\n");
  }
  const files = testFiles(values.agents ? "agents" : stage).filter(
    (file) => positionals.length === 0 || positionals.some((word) => file.includes(word)),
  );
  if (files.length === 0)
    return fail(`no test file found${positionals.length > 0 ? ` for ${positionals.join(", ")}` : ""}`);
  return await execute(files);
}

function testFiles(stage: "test" | "systems" | "agents"): readonly string[] {
  const isIgnored = (name: string) => name === "node_modules" || name === "fixtures" || name.startsWith(".");
  return globSync("**/*.test.ts", { cwd: root, exclude: isIgnored })
    .filter((file) => stageOf(file) === stage)
    .toSorted();
}

function stageOf(file: string): "test" | "systems" | "agents" {
  return file.startsWith("test/systems/") ? "systems" : file.startsWith("test/agents/") ? "agents" : "test";
}

/** Agents like to call home: they run on a network that has nothing but loopback. Undefined where this is that network, or none can be made. */
function runOffline(): number | undefined {
  if (process.env[OFFLINE] === "1") return undefined;
  const asRoot = process.getuid?.() === 0 ? [] : ["--map-root-user"];
  const wrap = ["--net", ...asRoot, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"];
  if (spawnSync("unshare", [...wrap, "true"]).status !== 0) {
    process.stderr.write("No network of its own can be made here (unshare --net): the agents run on this machine's.\n");
    return undefined;
  }
  const again = [process.execPath, ...process.argv.slice(1)];
  const env = { ...process.env, [OFFLINE]: "1" };
  return spawnSync("unshare", [...wrap, ...again], { stdio: "inherit", env }).status ?? 1;
}

async function execute(files: readonly string[]): Promise<number> {
  if (values.full) process.env["GHOST_TEST_FULL"] = "1";
  const stream = run({
    files: [...files],
    cwd: root,
    // The systems stage shares the machine's users and mounts, one file at a time.
    concurrency: values.systems || values.agents ? 1 : FILES_AT_ONCE,
    timeout: values.full ? FULL_TEST_TIMEOUT_MS : TEST_TIMEOUT_MS,
  });
  let counts = { tests: 0, passed: 0, failed: 0, cancelled: 0, skipped: 0, todo: 0 };
  let isClean = true;
  stream.on("test:fail", (event) => {
    if (event.todo === undefined || event.todo === false) isClean = false;
  });
  stream.on("test:summary", (summary) => {
    if (summary.file === undefined) counts = { ...counts, ...summary.counts };
  });
  await new Promise<void>((resolve, reject) => {
    stream.compose(spec).on("end", resolve).on("error", reject).pipe(process.stdout);
  });
  if (counts.tests === 0 || counts.passed + counts.failed === 0) return fail("no test was executed");
  if (isCi && counts.skipped + counts.todo > 0)
    return fail(`${counts.skipped + counts.todo} tests were skipped, which CI forbids`);
  return isClean && counts.failed === 0 && counts.cancelled === 0 ? 0 : 1;
}

function fail(why: string): number {
  process.stderr.write(`\ntest run failed: ${why}\n`);
  return 1;
}

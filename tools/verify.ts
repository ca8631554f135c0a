/**
 * `npm run verify`: every check of this repository, with one table at the end. Words choose steps (`npm run verify -- lint types`); `--fast` (or
 * `--no-tests`) leaves the tests out.
 *
 * A check that examined nothing must fail: each tool's own count of files is held against the files in the tree.
 */
import { spawn } from "node:child_process";
import { delimiter, join } from "node:path";
import { parseArgs, stripVTControlCharacters } from "node:util";
import { root, sourceFiles } from "./source-files.ts";

interface Step {
  readonly name: string;
  readonly what: string;
  readonly command: readonly [string, ...string[]];
  /** How many files the tool says it examined; undefined when it does not say, which is a failure. */
  readonly examined: (output: string) => number | undefined;
  /** How many there are at least. */
  readonly expected: () => number;
  /** Progress and results are the output's whole point: show it while it comes. */
  readonly live?: boolean;
}

interface Outcome {
  readonly step: Step;
  readonly problem: string | undefined;
  readonly examined: number | undefined;
  readonly seconds: number;
}

const steps: readonly Step[] = [
  {
    name: "format",
    what: "Biome",
    command: ["biome", "format", "--max-diagnostics=20", "."],
    examined: (output) => countIn(output, /Checked (\d+) files?/),
    expected: () => sourceFiles(["ts", "mjs"]).length,
  },
  {
    name: "lint",
    what: "oxlint, with type-aware rules",
    command: ["oxlint", "."],
    examined: (output) => countIn(output, /on (\d+) files? with \d+ rules/),
    expected: () => sourceFiles(["ts", "mjs"]).length,
  },
  {
    name: "types",
    what: "tsc",
    command: ["tsc", "-p", ".", "--listFiles"],
    examined: (output) =>
      output.split("\n").filter((line) => line.startsWith(root) && !line.includes("/node_modules/")).length,
    expected: () => sourceFiles(["ts", "mjs"]).length,
  },
  {
    name: "unused",
    what: "knip: files, exports and packages that nothing uses",
    command: ["knip", "--performance", "--no-progress", "--treat-config-hints-as-errors"],
    examined: (output) => countIn(output, /^parseFile +(\d+)/m),
    expected: () => sourceFiles(["ts"]).length,
  },
  {
    name: "tests",
    what: "npm test",
    command: ["node", join(root, "tools", "test.ts")],
    examined: (output) => countIn(output, /^ℹ tests (\d+)$/m),
    expected: () => sourceFiles(["test.ts"]).filter((file) => !file.startsWith("test/systems/")).length,
    live: true,
  },
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { fast: { type: "boolean", default: false }, "no-tests": { type: "boolean", default: false } },
});

process.exitCode = await main();

async function main(): Promise<number> {
  const unknown = positionals.filter((word) => !steps.some((step) => step.name === word));
  if (unknown.length > 0) {
    process.stderr.write(
      `no such step: ${unknown.join(", ")}; there are ${steps.map((step) => step.name).join(", ")}\n`,
    );
    return 2;
  }
  const withoutTests = values.fast || values["no-tests"];
  const chosen = steps.filter((step) =>
    positionals.length > 0 ? positionals.includes(step.name) : !(withoutTests && step.name === "tests"),
  );
  const outcomes: Outcome[] = [];
  for (const step of chosen) outcomes.push(await runStep(step));
  process.stdout.write(`\n${outcomes.map(tableRow).join("\n")}\n`);
  return outcomes.every((outcome) => outcome.problem === undefined) ? 0 : 1;
}

async function runStep(step: Step): Promise<Outcome> {
  process.stdout.write(`${step.name}: ${step.what} …\n`);
  const started = performance.now();
  const { code, output } = await capture(step);
  const seconds = (performance.now() - started) / 1000;
  if (code !== 0 && step.live !== true) process.stdout.write(`${withoutListings(output)}\n`);
  const examined = step.examined(output);
  return { step, problem: judge(step, code, examined), examined, seconds };
}

function judge(step: Step, code: number, examined: number | undefined): string | undefined {
  if (code !== 0) return "found problems (above)";
  if (examined === undefined) return "did not say what it examined";
  const expected = step.expected();
  if (expected === 0) return "there is nothing to examine";
  return examined < expected ? `examined only ${examined} of at least ${expected}` : undefined;
}

function capture(step: Step): Promise<{ readonly code: number; readonly output: string }> {
  const [command, ...args] = step.command;
  const path = [join(root, "node_modules", ".bin"), process.env["PATH"] ?? ""].join(delimiter);
  const child = spawn(command, args, {
    cwd: root,
    env: { ...process.env, PATH: path },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const chunks: Buffer[] = [];
  const keep = (chunk: Buffer) => {
    chunks.push(chunk);
    if (step.live === true) process.stdout.write(chunk);
  };
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      const output = stripVTControlCharacters(Buffer.concat(chunks).toString("utf8"));
      resolve({ code: code ?? 1, output });
    });
  });
}

/** tsc's list of files is for counting only. */
function withoutListings(output: string): string {
  return output
    .split("\n")
    .filter((line) => !(line.startsWith("/") && /\.(d\.)?[cm]?[tj]s$/.test(line)))
    .join("\n")
    .trimEnd();
}

function countIn(output: string, pattern: RegExp): number | undefined {
  const found = pattern.exec(output)?.[1];
  return found === undefined ? undefined : Number(found);
}

function tableRow({ step, problem, examined, seconds }: Outcome): string {
  const unit = step.name === "tests" ? "tests" : "files";
  const cells = [
    step.name.padEnd(8),
    `${seconds.toFixed(1).padStart(6)} s`,
    `${String(examined ?? "?").padStart(5)} ${unit}`,
  ];
  return `${problem === undefined ? "ok  " : "FAIL"}  ${cells.join("  ")}${problem === undefined ? "" : `  ${problem}`}`;
}

#!/usr/bin/env node
/**
 * `ghost`. Plain JavaScript that any Node understands: where the one it runs on is too old for the program, it hands over to the Node that npm
 * installed beside it, and it explains itself when that is missing. The syntax stays at that of Node 12.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(dirname(dirname(here)));
const program = join(here, "..", "main.ts");

/** From 24.12 on, Node runs TypeScript without a warning. */
const MIN_MAJOR = 24;
const MIN_MINOR = 12;

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
const isRecent = major > MIN_MAJOR || (major === MIN_MAJOR && minor >= MIN_MINOR);
const isSetUp = existsSync(join(root, "node_modules", "commander"));

if (!isSetUp) {
  explain(`GhostStack is not set up yet: its packages are missing in ${root}.`);
} else if (isRecent) {
  import("../main.ts").catch((error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exitCode = 1;
  });
} else {
  const pinned = [join("node", "bin", "node"), join(".bin", "node")]
    .map((name) => join(root, "node_modules", name))
    .find((file) => existsSync(file));
  if (pinned === undefined) {
    explain(`Node ${process.versions.node} is too old for ghost, and the Node that comes with it is missing.`);
  } else {
    handOver(pinned);
  }
}

/** @param {string} problem */
function explain(problem) {
  process.stderr.write(`ghost: ${problem}\n  Run \`npm run setup\` in ${root}, then try again.\n`);
  process.exitCode = 1;
}

/** @param {string} node */
function handOver(node) {
  const child = spawn(node, [program, ...process.argv.slice(2)], { stdio: "inherit" });
  // Ctrl-C on a terminal reaches both processes; a signal sent to this one alone must be passed on.
  const isOnTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
  process.on("SIGINT", () => {
    if (!isOnTerminal) child.kill("SIGINT");
  });
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  process.on("SIGHUP", () => child.kill("SIGHUP"));
  child.on("error", (error) => explain(`${node} does not start: ${error.message}`));
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code === null ? 1 : code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

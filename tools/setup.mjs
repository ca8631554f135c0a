/**
 * Makes a fresh clone ready to run; behind `prestart`, `pretest` and their like. Plain JavaScript without dependencies, because nothing is installed yet.
 *
 * 1. What is there and right is not touched: the answer then takes a few milliseconds and nothing is printed.
 * 2. Packages come without their install scripts; the two that need one (`node`, `sqlite3`) get it here, so that every npm from 9 on does the same.
 * 3. Something moves on the screen the whole time, and a failure says in plain words what is missing and which command mends it.
 * 4. Two set-ups at once: the second waits for the first (setup/lock.mjs).
 *
 * The syntax stays at that of Node 12, here and in setup/, so that an old Node still gets to print its message.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { SetupFailure, diagnose, permissionAdvice } from "./setup/advice.mjs";
import {
  countUnpacked,
  describePlatform,
  inspect,
  nodeWorks,
  sqliteFile,
  sqliteWorks,
  writeStamp,
} from "./setup/inspect.mjs";
import { acquireLock } from "./setup/lock.mjs";
import { findNpm, runStep } from "./setup/run-step.mjs";

/** @typedef {Pick<import("./setup/run-step.mjs").Step, "root" | "path" | "logFile" | "lock">} Common what all steps share */

/** Below this, npm's own programs and the packages' build tools do not run. */
const MIN_NODE_MAJOR = 18;

/**
 * @param {string} root the repository
 * @returns {Promise<void>}
 */
export async function setUp(root) {
  checkNodeVersion();
  if (inspect(root).ready) return;
  const lock = await acquireLock(root);
  try {
    const found = inspect(root);
    if (!found.ready) await install(root, found, lock);
  } finally {
    lock.release();
  }
}

function checkNodeVersion() {
  const major = Number(process.versions.node.split(".")[0]);
  if (major >= MIN_NODE_MAJOR) return;
  throw new SetupFailure(
    `Node ${process.versions.node} is too old: GhostStack needs Node ${MIN_NODE_MAJOR} or newer.`,
    [
      "  Arch:            sudo pacman -S nodejs npm",
      "  Debian, Ubuntu:  sudo apt install nodejs npm   (if that is still too old: https://nodejs.org/en/download)",
    ],
  );
}

/**
 * @param {string} root
 * @param {import("./setup/inspect.mjs").Inspection} found
 * @param {import("./setup/lock.mjs").Lock} lock
 */
async function install(root, found, lock) {
  const npm = findNpm(root);
  if (npm === undefined) {
    throw new SetupFailure("npm is not installed (or not on PATH).", [
      "  Arch:            sudo pacman -S npm",
      "  Debian, Ubuntu:  sudo apt install npm",
    ]);
  }
  const logFile = join(root, ".cache", "setup.log");
  const started = Date.now();
  say(`Setting up GhostStack in ${root}: ${found.why}.`);
  writeFileSync(logFile, "");
  /** @type {Common} */
  const common = { root, path: npm.path, logFile, lock };

  if (!found.packages) {
    const total = countUnpacked(root).total;
    const flags = [
      "--ignore-scripts",
      "--include=dev",
      "--include=optional",
      "--no-audit",
      "--no-fund",
      "--no-progress",
    ];
    await mustSucceed({
      ...common,
      title: `[1/3] installing ${total} packages with npm`,
      program: npm.command,
      args: [...npm.prefix, "ci", ...flags],
      status: () => `${countUnpacked(root).present} of ${total} there`,
    });
  }
  if (!nodeWorks(root)) await installNode(npm, common);
  if (!sqliteWorks(root)) await installSqlite(common);
  writeStamp(root);
  say(`Set-up done in ${Math.round((Date.now() - started) / 1000)} s.`);
}

/**
 * The npm package `node` fetches the program for this platform in its install script.
 * @param {import("./setup/run-step.mjs").Npm} npm
 * @param {Common} common
 */
async function installNode(npm, common) {
  const title = "[2/3] fetching the Node that GhostStack runs on";
  const args = [...npm.prefix, "rebuild", "node", "--ignore-scripts=false", "--foreground-scripts"];
  await mustSucceed({ ...common, title, program: npm.command, args, status: () => "about 45 MB" });
  if (nodeWorks(common.root)) return;
  throw new SetupFailure("The npm package `node` is installed, but its program does not run on this machine.", [
    `  ${describePlatform()}; node_modules/.bin/node should print a version of 24.12 or newer.`,
    "  If npm is set to run no install scripts, allow the one of the package `node`; .cache/setup.log has what npm said.",
    "  Otherwise remove the folder node_modules and run the same command again.",
  ]);
}

/**
 * sqlite3 fetches its native part, or compiles it where that cannot be had. A compiled one is kept in .cache/, so that the next `npm ci` costs seconds.
 * Both run on the pinned Node with the project's own tools: the node-gyp of an older npm knows neither this Node nor a new Python.
 * @param {Common} common
 */
async function installSqlite(common) {
  const { root } = common;
  const built = join(root, sqliteFile);
  const kept = join(root, ".cache", `sqlite3-${sqliteVersion(root)}-${describePlatform()}.node`);
  if (existsSync(kept)) {
    mkdirSync(dirname(built), { recursive: true });
    copyFileSync(kept, built);
    if (sqliteWorks(root)) return say("[3/3] SQLite: the copy built earlier (.cache/) still fits.");
  }
  const modules = join(root, "node_modules");
  const step = { ...common, program: join(modules, ".bin", "node"), cwd: join(modules, "sqlite3") };
  const fetched = await runStep({
    ...step,
    title: "[3/3] fetching SQLite's native part",
    args: [join(modules, "prebuild-install", "bin.js"), "-r", "napi"],
    status: () => "",
    mayFail: true,
  });
  if (fetched.code !== 0 || !sqliteWorks(root)) {
    await mustSucceed({
      ...step,
      title: "[3/3] compiling SQLite here instead, 1 to 3 minutes",
      args: [join(modules, "node-gyp", "bin", "node-gyp.js"), "rebuild"],
      status: () => "still building",
    });
  }
  if (!sqliteWorks(root)) {
    throw new SetupFailure(
      "SQLite's native part was built, but does not load.",
      diagnose(readFileSync(common.logFile, "utf8")),
    );
  }
  copyFileSync(built, kept);
}

/** @param {string} root @returns {string} */
function sqliteVersion(root) {
  return JSON.parse(readFileSync(join(root, "node_modules", "sqlite3", "package.json"), "utf8")).version;
}

/** @param {import("./setup/run-step.mjs").Step} step */
async function mustSucceed(step) {
  const outcome = await runStep(step);
  if (outcome.code === 0) return;
  throw new SetupFailure(`${step.title}: it ${outcome.reason}.`, [
    ...outcome.tail.map((line) => `  | ${line}`),
    "",
    ...diagnose(outcome.text),
    `  The whole output is in ${step.logFile}.`,
  ]);
}

/** @param {string} line */
function say(line) {
  process.stderr.write(`${line}\n`);
}

const here = fileURLToPath(import.meta.url);
if (process.argv[1] !== undefined && resolve(process.argv[1]) === here) {
  const root = dirname(dirname(here));
  setUp(root).catch((error) => {
    const failure =
      error.code === "EACCES" || error.code === "EPERM" || error.code === "EROFS"
        ? permissionAdvice(root, error)
        : error;
    if (!(failure instanceof SetupFailure)) throw failure;
    say(`\nSet-up failed: ${failure.message}`);
    for (const line of failure.advice) say(line);
    process.exitCode = 1;
  });
}

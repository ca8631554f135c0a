/**
 * Runs one command with something on the screen the whole time: a live line on a terminal, a line every 10 s elsewhere.
 * Its output goes to the log file; its end is returned for the message about a failure.
 */
import { spawn } from "node:child_process";
import { appendFileSync, existsSync, realpathSync } from "node:fs";
import { basename, delimiter, dirname, join } from "node:path";
import process from "node:process";
import { searchPath, which } from "./advice.mjs";

const LIVE_EVERY_MS = 500;
const LINE_EVERY_MS = 10000;
const TAIL_LINES = 25;
/** Enough to find the cause in; npm and node-gyp print far less unless something loops. */
const MAX_TEXT = 1024 * 1024;

/** @typedef {{ readonly command: string, readonly prefix: readonly string[], readonly path: string }} Npm */
/**
 * @typedef {object} Step
 * @property {string} root
 * @property {string} path PATH for the command
 * @property {string} title
 * @property {string} program
 * @property {readonly string[]} args
 * @property {string} [cwd]
 * @property {string} logFile
 * @property {import("./lock.mjs").Lock} lock
 * @property {() => string} status what to show beside the elapsed time
 * @property {boolean} [mayFail] whether there is another way
 */

/**
 * The npm that runs us, else the one on PATH. It must not run on the pinned Node, which `npm ci` is about to remove.
 * @param {string} root
 * @returns {Npm | undefined}
 */
export function findNpm(root) {
  const path = searchPath()
    .split(delimiter)
    .filter(
      (folder) => !folder.startsWith(join(root, "node_modules")) && !folder.endsWith(join("node_modules", ".bin")),
    )
    .join(delimiter);
  const { npm_execpath: script, npm_node_execpath: node } = process.env;
  if (script !== undefined && basename(script) === "npm-cli.js" && existsSync(script)) {
    if (node !== undefined && existsSync(node) && !realpathSync(node).startsWith(root))
      return { command: node, prefix: [script], path };
  }
  const command = which("npm", path);
  return command === undefined ? undefined : { command, prefix: [], path };
}

/**
 * @param {Step} step
 * @returns {Promise<{ code: number, reason: string, text: string, tail: readonly string[] }>}
 */
export function runStep(step) {
  const started = Date.now();
  const elapsed = () => `${Math.round((Date.now() - started) / 1000)} s`;
  const stopShowing = show(step, elapsed);
  appendFileSync(step.logFile, `\n# ${step.program} ${step.args.join(" ")}\n`);
  return new Promise((done, fail) => {
    // A group of its own, so that one signal also ends the compilers it started.
    const child = spawn(step.program, [...step.args], {
      cwd: step.cwd === undefined ? step.root : step.cwd,
      env: environment(step.path),
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    step.lock.noteChild(child.pid);
    const stopForwarding = forwardSignals(child);
    let text = "";
    /** @param {Buffer} chunk */
    const keep = (chunk) => {
      appendFileSync(step.logFile, chunk);
      text = (text + chunk.toString("utf8")).slice(-MAX_TEXT);
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    child.on("error", (error) => {
      stopShowing("failed");
      stopForwarding();
      fail(error);
    });
    child.on("close", (code, signal) => {
      stopForwarding();
      step.lock.noteChild(undefined);
      stopShowing(
        code === 0 ? `done (${elapsed()})` : `${step.mayFail ? "not to be had here" : "failed"} (${elapsed()})`,
      );
      const tail = text
        .split("\n")
        .filter((line) => line.trim() !== "")
        .slice(-TAIL_LINES);
      done({
        code: code === null ? 1 : code,
        reason: signal === null ? `ended with ${code}` : `was ended by ${signal}`,
        text,
        tail,
      });
    });
  });
}

/** @param {string} path @returns {NodeJS.ProcessEnv} */
function environment(path) {
  // The caller's own flags for Node and its test runner are not meant for npm.
  const { NODE_OPTIONS: _options, NODE_TEST_CONTEXT: _context, ...inherited } = process.env;
  /** @type {NodeJS.ProcessEnv & { npm_config_nodedir?: string }} */
  const env = { ...inherited, PATH: path, NODE_LLAMA_CPP_SKIP_DOWNLOAD: "true" };
  // N-API is the same in every Node: headers that lie beside the machine's Node save a download.
  const node = which("node", path);
  if (env.npm_config_nodedir === undefined && node !== undefined) {
    const prefix = dirname(dirname(realpathSync(node)));
    if (existsSync(join(prefix, "include", "node", "node_api.h"))) env.npm_config_nodedir = prefix;
  }
  return env;
}

/** @param {Step} step @param {() => string} elapsed @returns {(end: string) => void} */
function show(step, elapsed) {
  const out = process.stderr;
  const line = () => {
    const status = step.status();
    return `${step.title}${status === "" ? "" : `: ${status}`} (${elapsed()})`;
  };
  if (!out.isTTY) out.write(`${step.title} …\n`);
  const timer = setInterval(
    () => out.write(out.isTTY ? `\r\u001b[K${line().slice(0, Math.max(20, out.columns - 1))}` : `  … ${line()}\n`),
    out.isTTY ? LIVE_EVERY_MS : LINE_EVERY_MS,
  );
  return (end) => {
    clearInterval(timer);
    out.write(`${out.isTTY ? "\r\u001b[K" : ""}${step.title}: ${end}\n`);
  };
}

/** @param {import("node:child_process").ChildProcess} child @returns {() => void} */
function forwardSignals(child) {
  /** @type {NodeJS.Signals[]} */
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
  /** @param {NodeJS.Signals} signal */
  const forward = (signal) => {
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, signal);
    } catch (error) {
      return; // it has ended by itself
    }
  };
  for (const signal of signals) process.on(signal, forward);
  return () => {
    for (const signal of signals) process.off(signal, forward);
  };
}

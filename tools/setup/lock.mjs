/**
 * One set-up at a time in one checkout: a folder `.cache/setup.lock` that names its holder.
 * 1. It appears whole: made under another name, then renamed; renaming onto a folder that is not empty fails.
 * 2. A holder that was killed does not block: its lock is renamed away under a name that only this very lock can get, so that two waiters cannot both
 *    take it, and nobody can take a fresh one by mistake.
 * 3. A killed set-up may leave an npm at work; its process is named in the lock too and waited for.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

/** How often a waiter looks again. */
const POLL_MS = 300;
/** How often it says what it is waiting for. */
const SAY_EVERY_MS = 10000;
/** Longer than the slowest set-up seen (a slow line, then compiling SQLite on one core); without it a waiter could hang for ever. */
const MAX_WAIT_MS = 30 * 60 * 1000;

/** @typedef {{ release(): void, noteChild(pid: number | undefined): void }} Lock */
/** @typedef {{ pid: number, startedAt: string, token: string, child?: { pid: number, startedAt: string } }} Holder */

/**
 * @param {string} root
 * @returns {Promise<Lock>}
 */
export async function acquireLock(root) {
  const folder = join(root, ".cache");
  mkdirSync(folder, { recursive: true });
  const path = join(folder, "setup.lock");
  const started = Date.now();
  let saidAt = 0;
  for (;;) {
    const lock = tryAcquire(path);
    if (lock !== undefined) return lock;
    const holder = readHolder(path);
    if (holder === undefined) continue; // released just now
    const busy = [holder].concat(holder.child === undefined ? [] : [{ ...holder.child, token: "" }]).find(isAlive);
    if (busy === undefined) {
      removeStale(path, holder);
      continue;
    }
    if (Date.now() - started > MAX_WAIT_MS) {
      throw new Error(
        `another set-up (process ${busy.pid}) has held ${path} for too long; end it, then run this again`,
      );
    }
    if (Date.now() - saidAt > SAY_EVERY_MS) {
      saidAt = Date.now();
      process.stderr.write(`Another set-up of this folder is at work (process ${busy.pid}); waiting for it.\n`);
    }
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}

/** @param {string} path @returns {Lock | undefined} */
function tryAcquire(path) {
  const token = `${process.pid}-${Date.now()}-${Math.random().toString(36).slice(2)}`;
  /** @type {Holder} */
  const holder = { pid: process.pid, startedAt: startOf(process.pid), token };
  const draft = `${path}.new-${token}`;
  mkdirSync(draft);
  writeFileSync(join(draft, "holder.json"), JSON.stringify(holder));
  try {
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    if (isTaken(error)) return undefined;
    throw error;
  }
  return {
    release: () => rmSync(path, { recursive: true, force: true }),
    noteChild(pid) {
      const child = pid === undefined ? {} : { child: { pid, startedAt: startOf(pid) } };
      writeFileSync(join(path, "holder.json.new"), JSON.stringify({ ...holder, ...child }));
      renameSync(join(path, "holder.json.new"), join(path, "holder.json"));
    },
  };
}

/** @param {string} path @param {Holder} holder */
function removeStale(path, holder) {
  try {
    // The target stays behind as the mark that this lock was taken over (2); it is a folder with one small file.
    renameSync(path, `${path}.stale-${holder.token}`);
  } catch (error) {
    if (!isTaken(error) && codeOf(error) !== "ENOENT") throw error;
  }
}

/** @param {string} path @returns {Holder | undefined} */
function readHolder(path) {
  try {
    return JSON.parse(readFileSync(join(path, "holder.json"), "utf8"));
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** @param {{ pid: number, startedAt: string }} holder a number that now names another process counts as dead */
function isAlive(holder) {
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if (codeOf(error) === "ESRCH") return false;
  }
  return startOf(holder.pid) === holder.startedAt;
}

/** When a process started, in the kernel's ticks; empty where /proc does not exist. @param {number} pid */
function startOf(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field is the program's name in parentheses and may hold anything; the start is the 20th field after it (proc_pid_stat(5), field 22).
    return String(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
  } catch (error) {
    return "";
  }
}

/** @param {unknown} error */
function isTaken(error) {
  return ["ENOTEMPTY", "EEXIST", "EISDIR", "EPERM"].includes(codeOf(error));
}

/** @param {unknown} error @returns {string} */
function codeOf(error) {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

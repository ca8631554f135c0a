/**
 * What is installed, compared with package-lock.json by content: times of files lie after a checkout, a copy or a restored cache.
 * 1. The quick answer is a stamp that a successful set-up leaves in node_modules; it names the lock file's hash and the two native files.
 * 2. Without a stamp that fits (somebody ran npm by hand) the whole is compared, and both native files are tried.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

/** The first Node that runs our TypeScript without a flag or a warning. */
const MIN_NODE = [24, 12];
/** A program that only prints its version, on a machine that is busy compiling. */
const TRIAL_TIMEOUT_MS = 60000;

const nodeFile = join("node_modules", ".bin", "node");
export const sqliteFile = join("node_modules", "sqlite3", "build", "Release", "node_sqlite3.node");
const stampFile = join("node_modules", ".ghoststack-setup.json");

/** @typedef {{ readonly ready: boolean, readonly packages: boolean, readonly why: string }} Inspection */
/** @typedef {{ version?: string, integrity?: string, optional?: boolean, link?: boolean, os?: string[], cpu?: string[], libc?: string[] }} LockedPackage */

/**
 * @param {string} root
 * @returns {Inspection}
 */
export function inspect(root) {
  if (!existsSync(join(root, "node_modules")))
    return { ready: false, packages: false, why: "no packages are installed yet" };
  const stamp = currentStamp(root);
  if (stamp !== undefined && readText(join(root, stampFile)) === stamp) return { ready: true, packages: true, why: "" };
  if (!packagesMatch(root)) return { ready: false, packages: false, why: "the packages differ from package-lock.json" };
  if (!nodeWorks(root)) return { ready: false, packages: true, why: "the pinned Node is missing or too old" };
  if (!sqliteWorks(root)) return { ready: false, packages: true, why: "SQLite's native part is missing" };
  writeStamp(root);
  return { ready: true, packages: true, why: "" };
}

/** Leaves the stamp where that is allowed; a folder that only others may write to just costs the longer look each time. @param {string} root */
export function writeStamp(root) {
  const stamp = currentStamp(root);
  if (stamp === undefined) return;
  try {
    writeFileSync(join(root, stampFile), stamp);
  } catch (error) {
    return;
  }
}

/** @param {string} root @returns {string | undefined} undefined while a native file is missing */
function currentStamp(root) {
  const lock = readText(join(root, "package-lock.json"));
  const node = fingerprint(join(root, nodeFile));
  const sqlite3 = fingerprint(join(root, sqliteFile));
  if (lock === undefined || node === undefined || sqlite3 === undefined) return undefined;
  const hash = createHash("sha256").update(lock).digest("hex");
  return `${JSON.stringify({ lock: hash, platform: describePlatform(), node, sqlite3 })}\n`;
}

/** @param {string} file */
function fingerprint(file) {
  try {
    const found = statSync(file);
    return `${found.size}@${Math.trunc(found.mtimeMs)}`;
  } catch (error) {
    return undefined;
  }
}

/** `linux-x64-glibc`: what a native file is made for. */
export function describePlatform() {
  return `${process.platform}-${process.arch}${process.platform === "linux" ? `-${libc()}` : ""}`;
}

function libc() {
  return existsSync("/etc/alpine-release") ? "musl" : "glibc";
}

/** @param {string} root */
function packagesMatch(root) {
  const installed = readPackages(join(root, "node_modules", ".package-lock.json"));
  return lockedPackages(root).every(([path, locked]) => {
    const there = installed[path];
    if (there === undefined || !existsSync(join(root, path, "package.json"))) return locked.optional === true;
    return there.version === locked.version && there.integrity === locked.integrity;
  });
}

/**
 * How far an `npm ci` has come.
 * @param {string} root
 */
export function countUnpacked(root) {
  const paths = lockedPackages(root).map(([path]) => path);
  return { total: paths.length, present: paths.filter((path) => existsSync(join(root, path, "package.json"))).length };
}

/** @param {string} root @returns {readonly [string, LockedPackage][]} those for this platform */
function lockedPackages(root) {
  return Object.entries(readPackages(join(root, "package-lock.json"))).filter(
    ([path, locked]) =>
      path !== "" &&
      fits(locked.os, process.platform) &&
      fits(locked.cpu, process.arch) &&
      (process.platform !== "linux" || fits(locked.libc, libc())),
  );
}

/** npm's own rule: a list of names, or of names that are excluded (`!win32`). @param {string[] | undefined} list @param {string} value */
function fits(list, value) {
  if (list === undefined || list.length === 0) return true;
  if (list.includes(`!${value}`)) return false;
  return list.includes(value) || list.every((name) => name.startsWith("!"));
}

/** @param {string} file @returns {Record<string, LockedPackage | undefined> & Record<string, LockedPackage>} */
function readPackages(file) {
  const text = readText(file);
  if (text === undefined) return {};
  try {
    return JSON.parse(text).packages || {};
  } catch (error) {
    return {}; // cut off while it was written: counts as nothing installed
  }
}

/** @param {string} root whether node_modules/.bin/node is new enough */
export function nodeWorks(root) {
  const trial = spawnSync(join(root, nodeFile), ["-p", "process.versions.node"], {
    encoding: "utf8",
    timeout: TRIAL_TIMEOUT_MS,
  });
  if (trial.status !== 0) return false;
  const [major, minor] = trial.stdout.trim().split(".").map(Number);
  if (major === undefined || minor === undefined) return false;
  return major > Number(MIN_NODE[0]) || (major === MIN_NODE[0] && minor >= Number(MIN_NODE[1]));
}

/** @param {string} root whether sqlite3 loads in the pinned Node */
export function sqliteWorks(root) {
  if (!existsSync(join(root, sqliteFile))) return false;
  return (
    spawnSync(join(root, nodeFile), ["-e", "require('sqlite3')"], { cwd: root, timeout: TRIAL_TIMEOUT_MS }).status === 0
  );
}

/** @param {string} file */
function readText(file) {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    return undefined;
  }
}

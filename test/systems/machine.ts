/**
 * What the systems tests do to the machine, each with its end: an ordinary user to run as, a tiny disk to fill.
 * Everything is undone by `using`, also when a test throws; a mount whose process was killed is lazy and dies with its folder's last user.
 */
import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn, spawnSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { root } from "../../tools/source-files.ts";

/** `nobody` on Debian and Arch: no account is made, and nothing on the machine belongs to it. */
export const ORDINARY_UID = 65_534;

export interface TemporaryFolder extends Disposable {
  readonly path: string;
}

/** A folder that belongs to the ordinary user (mode 0700), below one that everybody may pass through. */
export function ordinaryFolder(): TemporaryFolder {
  const parent = mkdtempSync(join(tmpdir(), "ghost-systems-"));
  chmodSync(parent, 0o755);
  const path = join(parent, "home");
  mkdirSync(path, { mode: 0o700 });
  chownSync(path, ORDINARY_UID, ORDINARY_UID);
  return {
    path,
    [Symbol.dispose]() {
      // Never through a mount: below a bind mount lies the repository itself.
      if (!isMountPoint(path)) rmSync(parent, { recursive: true, force: true });
    },
  };
}

/** A file system of its own, `sizeBytes` large, that belongs to the ordinary user; what was on it is gone once disposed. */
export function tinyDisk(sizeBytes: number): TemporaryFolder {
  const options = `size=${sizeBytes},mode=0700,uid=${ORDINARY_UID},gid=${ORDINARY_UID}`;
  return mounted(["-t", "tmpfs", "-o", options, "ghost-systems"]);
}

/** This repository where the ordinary user can reach it, also when it was checked out below a closed folder such as root's home. */
export function reachableRepository(): TemporaryFolder {
  return mounted(["--bind", root]);
}

function mounted(what: readonly string[]): TemporaryFolder {
  const folder = ordinaryFolder();
  const result = spawnSync("mount", [...what, folder.path], { encoding: "utf8" });
  if (result.status !== 0) {
    folder[Symbol.dispose]();
    throw new Error(`cannot mount ${what.join(" ")}: ${result.stderr}`);
  }
  return {
    path: folder.path,
    [Symbol.dispose]() {
      // Lazy: a process that still holds a file must not keep the mount in sight. Removing the folder before it is gone would empty the repository.
      const unmounted = spawnSync("umount", ["--lazy", folder.path], { encoding: "utf8" });
      assert.equal(unmounted.status, 0, unmounted.stderr);
      folder[Symbol.dispose]();
    },
  };
}

function isMountPoint(path: string): boolean {
  return readFileSync("/proc/self/mountinfo", "utf8").includes(` ${path} `);
}

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** `ORDINARY_UID` unless another ordinary user is wanted. */
  readonly uid?: number;
}

/** Starts a program as the ordinary user, without groups and capabilities, and with this environment only. */
export function spawnAsOrdinary(
  argv: readonly [string, ...string[]],
  options: RunOptions,
): ChildProcessByStdio<null, Readable, Readable> {
  const { uid = ORDINARY_UID } = options;
  const ids = [`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "--inh-caps=-all", "--no-new-privs", "--"];
  return spawn("setpriv", [...ids, ...argv], {
    cwd: options.cwd,
    env: { ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** The same, to its end. */
export function runAsOrdinary(argv: readonly [string, ...string[]], options: RunOptions): Promise<Finished> {
  const child = spawnAsOrdinary(argv, options);
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      resolve({ code, stdout: Buffer.concat(stdout).toString("utf8"), stderr: Buffer.concat(stderr).toString("utf8") });
    });
  });
}

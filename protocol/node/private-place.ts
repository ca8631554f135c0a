/**
 * Whose socket it is, before anything is said to it: a face sends its credential first, so whoever listens there has it.
 *
 * 1. The folder is a real one, belongs to the user and is closed to everybody else. Then nobody but the user (and root) can put a socket into it
 *    or exchange the one that is there, between this check and the connection too. Without XDG_RUNTIME_DIR it lies in /tmp, where anyone may have
 *    made a folder of its name first.
 * 2. What is in it is a socket of the user's.
 * What does not exist passes: there nobody listens, which the connection itself reports.
 */
import type { Stats } from "node:fs";
import { lstat } from "node:fs/promises";
import { dirname } from "node:path";
import { GhostApiError } from "../errors.ts";

const OPEN_TO_OTHERS = 0o077;

/** @throws GhostApiError `folder_unusable`, which names the path and what is wrong with it (1). `uid`: whose it must be. */
export async function checkPrivateFolder(path: string, uid = ownUid()): Promise<void> {
  const found = await look(path);
  if (found === undefined) return;
  if (found.isSymbolicLink()) throw unusable(path, "is a link: only a real folder can be trusted");
  if (!found.isDirectory()) throw unusable(path, "is not a folder");
  checkOwner(path, found, uid);
  const mode = found.mode & 0o777;
  if ((mode & OPEN_TO_OTHERS) === 0) return;
  throw unusable(path, `is open to other users (mode ${mode.toString(8).padStart(4, "0")}): chmod 700 ${path}`);
}

/** @throws GhostApiError `folder_unusable` for the socket or its folder (1, 2). */
export async function checkPrivateSocket(path: string, uid = ownUid()): Promise<void> {
  await checkPrivateFolder(dirname(path), uid);
  const found = await look(path);
  if (found === undefined) return;
  if (!found.isSocket()) throw unusable(path, "is not a socket");
  checkOwner(path, found, uid);
}

/** -1 where the system has no such ids; then owners are not compared. */
export function ownUid(): number {
  return process.getuid?.() ?? -1;
}

function checkOwner(path: string, found: Stats, uid: number): void {
  if (uid >= 0 && found.uid !== uid) throw unusable(path, `belongs to user ${found.uid}, not to ${uid}`);
}

async function look(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
    if (code === "ENOENT") return undefined;
    throw unusable(path, `cannot be looked at (${code})`);
  }
}

function unusable(path: string, why: string): GhostApiError {
  return new GhostApiError({ code: "folder_unusable", message: `${path} ${why}`, details: { path } });
}

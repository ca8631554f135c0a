/**
 * One daemon per folder. The lock is the operating system's, taken through SQLite (an exclusive transaction on a file in the folder): it ends with its
 * process, however that dies, so a stale lock cannot exist. Node itself offers no file locks.
 */
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import sqlite3 from "sqlite3";
import { z } from "zod";
import type { Clock } from "../base/clock.ts";
import { systemCode, UserError } from "../base/errors.ts";
import { fileError, writeFile } from "./filesystem.ts";
import { type StandingPermit, THIS_MACHINE } from "./permit.ts";

const noteSchema = z.object({
  pid: z.int(),
  version: z.string(),
  startedAtMs: z.number(),
  /** Absent until the daemon listens. */
  http: z.string().optional(),
  socket: z.string().optional(),
});
/** What the holder leaves in the folder for those who are refused. */
export type InstanceNote = z.infer<typeof noteSchema>;

export interface InstanceLock extends AsyncDisposable {
  /** Tells others more about who holds the folder; `daemon.json` in it. A full disk is no reason to fail: they then do without. */
  announce(note: InstanceNote): Promise<void>;
}

const NOTE_FILE = "daemon.json";
/** A holder writes its note right after it has the lock: who comes in between waits this long, in all, to learn its pid. */
const NOTE_TRIES = 20;
const NOTE_PAUSE_MS = 25;

/** @throws UserError `already_running` naming the holder's pid, where it has left one; `folder_unusable` where the lock file is none of ours. */
export async function lockFolder(
  permit: StandingPermit,
  folder: string,
  options: { readonly note: InstanceNote; readonly clock: Clock },
): Promise<InstanceLock> {
  const file = join(folder, "daemon.lock");
  permit.spend({ capability: "fs.write", resource: { kind: "path", path: file }, host: THIS_MACHINE });
  const database = await open(file);
  try {
    await run(database, "PRAGMA journal_mode = MEMORY");
    await run(database, "BEGIN EXCLUSIVE");
  } catch (error) {
    await close(database);
    if (systemCode(error) !== "SQLITE_BUSY") throw unusable(error, file);
    throw await refusal(error, folder, options.clock);
  }
  const announce = (note: InstanceNote) =>
    writeFile(permit, join(folder, NOTE_FILE), `${JSON.stringify(note)}\n`).catch(() => {});
  await announce(options.note);
  return { announce, [Symbol.asyncDispose]: () => close(database) };
}

async function refusal(cause: unknown, folder: string, clock: Clock): Promise<UserError> {
  let holder = readNote(folder);
  for (let tries = 1; holder === undefined && tries < NOTE_TRIES; tries += 1) {
    await clock.sleep(NOTE_PAUSE_MS);
    holder = readNote(folder);
  }
  const who = holder === undefined ? "another daemon" : `the daemon with pid ${holder.pid}`;
  const at = holder?.http === undefined ? {} : { http: holder.http };
  return new UserError("already_running", `${folder} is in use by ${who}`, {
    cause,
    details: { folder, ...(holder === undefined ? {} : { pid: holder.pid, ...at }) },
  });
}

/** The note may be from an earlier daemon when the holder is just starting; then it is left out by its missing process. */
function readNote(folder: string): InstanceNote | undefined {
  try {
    const note = noteSchema.parse(JSON.parse(readFileSync(join(folder, NOTE_FILE), "utf8")));
    process.kill(note.pid, 0);
    return note;
  } catch {
    return undefined; // No note, half a note, or a dead process: the message does without a pid.
  }
}

/** The file is made here and not by SQLite, which would let others read it. */
function open(file: string): Promise<sqlite3.Database> {
  try {
    closeSync(openSync(file, "a", 0o600));
  } catch (error) {
    return Promise.reject(fileError(error, file, "written"));
  }
  return new Promise((resolve, reject) => {
    const database = new sqlite3.Database(file, (error) =>
      error === null ? resolve(database) : reject(unusable(error, file)),
    );
  });
}

function unusable(cause: unknown, file: string): UserError {
  const why = systemCode(cause) ?? "unknown error";
  const message = `${file} cannot be used as a lock (${why}); remove it and start again`;
  return new UserError("folder_unusable", message, { cause, details: { path: file } });
}
function run(database: sqlite3.Database, sql: string): Promise<void> {
  return new Promise((resolve, reject) => database.run(sql, (error) => (error === null ? resolve() : reject(error))));
}
function close(database: sqlite3.Database): Promise<void> {
  return new Promise((resolve) => database.close(() => resolve()));
}

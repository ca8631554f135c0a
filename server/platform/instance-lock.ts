/**
 * One daemon per folder. The lock is the operating system's, taken through SQLite (an exclusive transaction on a file in the folder): it ends with its
 * process, however that dies, so a stale lock cannot exist. Node itself offers no file locks.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import sqlite3 from "sqlite3";
import { z } from "zod";
import { UserError } from "../base/errors.ts";
import { writeFile } from "./filesystem.ts";
import { type StandingPermit, THIS_MACHINE } from "./permit.ts";

const noteSchema = z.object({ pid: z.int(), http: z.string(), socket: z.string(), version: z.string(), startedAtMs: z.number() });
/** What the holder leaves in the folder for those who are refused, and for `ghost status`. */
export type InstanceNote = z.infer<typeof noteSchema>;

export interface InstanceLock extends AsyncDisposable {
  /** Tells others who holds the folder; `daemon.json` in it. */
  announce(note: InstanceNote): Promise<void>;
}

const NOTE_FILE = "daemon.json";

/** @throws UserError `already_running` naming the holder's pid, where it has left one. */
export async function lockFolder(permit: StandingPermit, folder: string): Promise<InstanceLock> {
  const file = join(folder, "daemon.lock");
  permit.spend({ capability: "fs.write", resource: { kind: "path", path: file }, host: THIS_MACHINE });
  const database = await open(file);
  try {
    await run(database, "PRAGMA journal_mode = MEMORY");
    await run(database, "BEGIN EXCLUSIVE");
  } catch (error) {
    await close(database);
    if (!(error instanceof Error && "code" in error && error.code === "SQLITE_BUSY")) throw error;
    const holder = readNote(folder);
    const who = holder === undefined ? "another daemon" : `the daemon with pid ${holder.pid}`;
    throw new UserError("already_running", `${folder} is in use by ${who}`, {
      cause: error,
      details: { folder, ...(holder === undefined ? {} : { pid: holder.pid, http: holder.http }) },
    });
  }
  return {
    announce: (note) => writeFile(permit, join(folder, NOTE_FILE), `${JSON.stringify(note)}\n`),
    [Symbol.asyncDispose]: () => close(database),
  };
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

function open(file: string): Promise<sqlite3.Database> {
  return new Promise((resolve, reject) => {
    const database = new sqlite3.Database(file, (error) => (error === null ? resolve(database) : reject(error)));
  });
}
function run(database: sqlite3.Database, sql: string): Promise<void> {
  return new Promise((resolve, reject) => database.run(sql, (error) => (error === null ? resolve() : reject(error))));
}
function close(database: sqlite3.Database): Promise<void> {
  return new Promise((resolve) => database.close(() => resolve()));
}

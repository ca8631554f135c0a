/**
 * One SQLite connection: the `sqlite3` driver's callbacks as promises, its failures as errors of ours, and a cache of prepared statements.
 * 1. A connection does one thing at a time: its owner awaits each call before the next, so that a failed statement is never followed by others
 *    that belonged to its transaction.
 * 2. All work happens on libuv's pool; the main thread pays for binding values and building rows only.
 */
import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import sqlite3 from "sqlite3";
import { BugError, type GhostError, OperationalError, systemCode } from "../base/errors.ts";
import type { SqlValue } from "./database.ts";

/** Each prepared statement holds some KiB; the server's code has fewer texts than this, so only text built at run time is ever dropped. */
const MAX_PREPARED = 128;

/** How long SQLite waits for another process's lock (a backup tool, a shell) before it gives up. */
const BUSY_TIMEOUT_MS = 5_000;

export interface Connection {
  run(sql: string, values?: readonly SqlValue[]): Promise<void>;
  all(sql: string, values?: readonly SqlValue[]): Promise<readonly unknown[]>;
  close(): Promise<void>;
}

/** @throws OperationalError `database_unreadable` when the file cannot be opened. */
export async function openConnection(file: string, mode: "create" | "readOnly"): Promise<Connection> {
  const flags = mode === "create" ? sqlite3.OPEN_READWRITE | sqlite3.OPEN_CREATE : sqlite3.OPEN_READONLY;
  const handle = await new Promise<sqlite3.Database>((resolve, reject) => {
    const opened = new sqlite3.Database(file, flags | sqlite3.OPEN_FULLMUTEX, (error) =>
      error === null ? resolve(opened) : reject(sqliteError(error, file)),
    );
  });
  handle.configure("busyTimeout", BUSY_TIMEOUT_MS);
  const prepared = new Map<string, sqlite3.Statement>();

  const prepare = (sql: string): Promise<sqlite3.Statement> =>
    new Promise((resolve, reject) => {
      const statement = handle.prepare(sql, (error: Error | null) => {
        if (error !== null) {
          reject(sqliteError(error, file));
          return;
        }
        const oldest = prepared.size < MAX_PREPARED ? undefined : prepared.entries().next().value;
        if (oldest !== undefined) {
          prepared.delete(oldest[0]);
          oldest[1].finalize();
        }
        prepared.set(sql, statement);
        resolve(statement);
      });
    });

  return {
    async run(sql, values = []) {
      const statement = prepared.get(sql) ?? (await prepare(sql));
      await new Promise<void>((resolve, reject) => {
        statement.run(values, (error: Error | null) => (error === null ? resolve() : reject(sqliteError(error, file))));
      });
    },
    async all(sql, values = []) {
      const statement = prepared.get(sql) ?? (await prepare(sql));
      return new Promise((resolve, reject) => {
        statement.all<unknown>(values, (error, rows) =>
          error === null ? resolve(rows) : reject(sqliteError(error, file)),
        );
      });
    },
    async close() {
      for (const statement of prepared.values()) statement.finalize();
      prepared.clear();
      await new Promise<void>((resolve, reject) => {
        handle.close((error) => (error === null ? resolve() : reject(sqliteError(error, file))));
      });
    },
  };
}

/** True for what SQLite reports when the file's content is damaged, and for nothing else. */
export function isCorruption(error: unknown): boolean {
  const code = systemCode(error);
  return code === "SQLITE_CORRUPT" || code === "SQLITE_NOTADB";
}

function sqliteError(error: Error, file: string): GhostError {
  const options = { cause: error, details: { path: file } };
  switch (systemCode(error)) {
    case "SQLITE_FULL":
      return new OperationalError("storage_full", `${file} cannot grow: ${error.message}`, options);
    case "SQLITE_BUSY":
    case "SQLITE_LOCKED":
      return new OperationalError("overloaded", `${file} is locked by another program`, options);
    case "SQLITE_CANTOPEN":
    case "SQLITE_IOERR":
      if (hasNoRoom(file)) return new OperationalError("storage_full", `${file} cannot grow: no space left`, options);
      return new OperationalError("database_unreadable", `${file} cannot be used: ${error.message}`, options);
    case "SQLITE_CORRUPT":
    case "SQLITE_NOTADB":
    case "SQLITE_READONLY":
    case "SQLITE_PERM":
      return new OperationalError("database_unreadable", `${file} cannot be used: ${error.message}`, options);
    default:
      return new BugError("internal", `a statement failed: ${error.message}`, options);
  }
}

/** SQLite calls it an I/O error when its shared memory (32 KiB at a time) or its journal finds no room. */
const LEAST_ROOM_BYTES = 64 * 1024;
function hasNoRoom(file: string): boolean {
  try {
    const { bavail, bsize } = statfsSync(dirname(file));
    return bavail * bsize < LEAST_ROOM_BYTES;
  } catch {
    return false; // Nobody knows: the error stays what SQLite said.
  }
}

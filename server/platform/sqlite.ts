/**
 * SQLite behind the `Database` interface: group commit on one writing connection, reads on their own connections.
 * 1. A damaged file is renamed and kept, never overwritten; a file of a newer version is not touched.
 * 2. Many callers share one transaction. When it fails, it is rolled back whole and every caller is tried alone, so that a bad statement fails
 *    its own caller only.
 * 3. In WAL mode a commit survives a killed process with synchronous=NORMAL and a power loss with FULL. One connection does both: a group that
 *    holds a durable write is committed under FULL. The pragma costs one statement, and only when the mode changes between two groups; a second
 *    writing connection would instead wait for the first one's lock.
 * 4. Readers never wait behind the writer, and each read starts a new snapshot, so it sees every earlier commit.
 */
import { closeSync, openSync, renameSync } from "node:fs";
import { open, rename, stat } from "node:fs/promises";
import { z } from "zod";
import type { Clock } from "../base/clock.ts";
import { BugError, GhostError, OperationalError, systemCode, UserError } from "../base/errors.ts";
import { isoTime } from "./iso-time.ts";
import type { Database, SqlValue, Statement } from "./database.ts";
import type { Log } from "./log.ts";
import { type StandingPermit, THIS_MACHINE } from "./permit.ts";
import { type Connection, isCorruption, openConnection } from "./sqlite-connection.ts";

/** Callers that may wait for the writer. Without a bound a disk that stalls lets memory grow until the process dies. */
const MAX_QUEUED_WRITES = 10_000;
/** The same for readers. */
const MAX_QUEUED_READS = 10_000;
/** Statements in one transaction: keeps a group's latency, and the work repeated after a bad statement, within some milliseconds. */
const MAX_GROUP_STATEMENTS = 512;
/** Two reads at once keep a long listing from blocking a short look-up, and leave two of libuv's four threads to others. */
const READ_CONNECTIONS = 2;
/** `quick_check` reads about 500 MB/s; a larger file would keep the daemon from being ready within its second. */
const MAX_CHECKED_BYTES = 128 * 1024 * 1024;
/** After a burst the WAL shrinks back to this when it is checkpointed. */
const WAL_LIMIT_BYTES = 64 * 1024 * 1024;

export type OpenReport =
  | { readonly kind: "opened" }
  | { readonly kind: "created" }
  /** The file was damaged: it was kept under the name `keptAside`, and an empty one was started. */
  | { readonly kind: "restarted"; readonly keptAside: string; readonly reason: string };

export interface DatabaseOptions {
  readonly file: string;
  /** Each migration is a list of statements; `PRAGMA user_version` counts those applied. Only ever appended to. */
  readonly migrations: readonly (readonly string[])[];
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Opens or creates the database and brings it to the newest version.
 * @throws UserError `database_newer`; OperationalError `database_unreadable` when the system refuses the file, `storage_full`.
 */
export async function openDatabase(
  permit: StandingPermit,
  options: DatabaseOptions,
): Promise<{ readonly database: Database; readonly report: OpenReport }> {
  const { file, clock, log } = options;
  permit.spend({ capability: "fs.write", resource: { kind: "path", path: file }, host: THIS_MACHINE });
  let report: OpenReport = (await sizeOf(file)) > 0 ? { kind: "opened" } : { kind: "created" };
  if (report.kind === "opened") {
    const reason = await findDamage(file, options.migrations.length);
    if (reason !== undefined) {
      report = await keepAside(file, reason, clock);
      log.error({ event: "database.restarted", file, ...report });
    }
  }
  createPrivate(file);
  const writer = await openConnection(file, "create");
  const readers: Connection[] = [];
  try {
    await prepareWriter(writer);
    await migrate(writer, options.migrations);
    for (let count = 0; count < READ_CONNECTIONS; count += 1) {
      const reader = await openConnection(file, "create");
      readers.push(reader);
      await reader.run("PRAGMA query_only = ON");
    }
  } catch (error) {
    for (const connection of [...readers, writer]) await connection.close();
    throw error;
  }
  return { database: new SqliteDatabase(file, writer, readers), report };
}

interface QueuedWrite {
  readonly statements: readonly Statement[];
  readonly durable: boolean;
  resolve(): void;
  reject(error: unknown): void;
}

class SqliteDatabase implements Database {
  readonly file: string;
  readonly #writer: Connection;
  readonly #readers: readonly Connection[];
  readonly #idleReaders: Connection[];
  readonly #waitingReads: ((reader: Connection) => void)[] = [];
  #queue: QueuedWrite[] = [];
  #writing: Promise<void> | undefined;
  #synchronous: "NORMAL" | "FULL" = "NORMAL";
  #closing: Promise<void> | undefined;

  constructor(file: string, writer: Connection, readers: readonly Connection[]) {
    this.file = file;
    this.#writer = writer;
    this.#readers = readers;
    this.#idleReaders = [...readers];
  }

  async read<Row>(row: z.ZodType<Row>, sql: string, values: readonly SqlValue[]): Promise<readonly Row[]> {
    this.#refuseWhenClosing();
    const reader = this.#idleReaders.pop() ?? (await this.#nextReader());
    let found: readonly unknown[];
    try {
      found = await reader.all(sql, values);
    } finally {
      const next = this.#waitingReads.shift();
      if (next === undefined) this.#idleReaders.push(reader);
      else next(reader);
    }
    return found.map((value) => {
      const parsed = row.safeParse(value);
      if (parsed.success) return parsed.data;
      throw new BugError("internal", `a stored row has an unexpected shape: ${parsed.error.message}`);
    });
  }

  write(statements: readonly Statement[]): Promise<void> {
    return this.#enqueue(statements, false);
  }

  writeDurable(statements: readonly Statement[]): Promise<void> {
    return this.#enqueue(statements, true);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#writing;
    for (let count = 0; count < this.#readers.length; count += 1) {
      const reader = this.#idleReaders.pop() ?? (await this.#nextReader());
      await reader.close();
    }
    await this.#writer.close();
  }

  #refuseWhenClosing(): void {
    if (this.#closing === undefined) return;
    throw new OperationalError("daemon_stopping", "the database is closed", { details: { path: this.file } });
  }

  #nextReader(): Promise<Connection> {
    if (this.#waitingReads.length >= MAX_QUEUED_READS) return Promise.reject(overloaded("reads", MAX_QUEUED_READS));
    return new Promise((resolve) => this.#waitingReads.push(resolve));
  }

  async #enqueue(statements: readonly Statement[], durable: boolean): Promise<void> {
    this.#refuseWhenClosing();
    if (statements.length === 0) return;
    if (this.#queue.length >= MAX_QUEUED_WRITES) throw overloaded("writes", MAX_QUEUED_WRITES);
    const done = new Promise<void>((resolve, reject) => {
      this.#queue.push({ statements, durable, resolve, reject });
    });
    this.#writing ??= this.#drain();
    await done;
  }

  /** Commits group after group until nobody waits. Never rejects: each caller hears of its own failure. */
  async #drain(): Promise<void> {
    // Callers of the same turn join the first group.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const group = this.#takeGroup();
      try {
        await this.#commit(group);
        for (const caller of group) caller.resolve();
      } catch (error) {
        if (group.length === 1) for (const caller of group) caller.reject(error);
        else await this.#commitEachAlone(group);
      }
    }
    this.#writing = undefined;
  }

  #takeGroup(): readonly QueuedWrite[] {
    let count = 0;
    let statements = 0;
    for (const caller of this.#queue) {
      if (count > 0 && statements + caller.statements.length > MAX_GROUP_STATEMENTS) break;
      count += 1;
      statements += caller.statements.length;
    }
    return this.#queue.splice(0, count);
  }

  async #commitEachAlone(group: readonly QueuedWrite[]): Promise<void> {
    for (const caller of group) {
      try {
        await this.#commit([caller]);
        caller.resolve();
      } catch (error) {
        caller.reject(error);
      }
    }
  }

  async #commit(group: readonly QueuedWrite[]): Promise<void> {
    const synchronous = group.some((caller) => caller.durable) ? "FULL" : "NORMAL";
    if (synchronous !== this.#synchronous) {
      await this.#writer.run(`PRAGMA synchronous = ${synchronous}`);
      this.#synchronous = synchronous;
    }
    await this.#writer.run("BEGIN IMMEDIATE");
    try {
      for (const caller of group) {
        for (const { sql, values } of caller.statements) await this.#writer.run(sql, values);
      }
      await this.#writer.run("COMMIT");
    } catch (error) {
      // Some failures (a full disk) end the transaction by themselves; the rollback then has nothing to do and says so.
      await this.#writer.run("ROLLBACK").catch(() => {});
      throw error;
    }
  }
}

function overloaded(what: string, limit: number): OperationalError {
  return new OperationalError("overloaded", `${limit} ${what} already wait for the database`, { retryAfterMs: 1_000 });
}

async function prepareWriter(writer: Connection): Promise<void> {
  await writer.all("PRAGMA journal_mode = WAL");
  await writer.run("PRAGMA synchronous = NORMAL");
  await writer.run("PRAGMA foreign_keys = ON");
  await writer.all(`PRAGMA journal_size_limit = ${WAL_LIMIT_BYTES}`);
}

async function migrate(writer: Connection, migrations: readonly (readonly string[])[]): Promise<void> {
  const version = await userVersion(writer);
  for (const [index, migration] of migrations.entries()) {
    if (index < version) continue;
    await writer.run("BEGIN IMMEDIATE");
    try {
      for (const sql of migration) await writer.run(sql);
      await writer.run(`PRAGMA user_version = ${index + 1}`);
      await writer.run("COMMIT");
    } catch (error) {
      await writer.run("ROLLBACK").catch(() => {});
      throw error;
    }
  }
}

const versionRow = z.object({ user_version: z.int() });
const checkRow = z.object({ quick_check: z.string() });

async function userVersion(connection: Connection): Promise<number> {
  const [row] = await connection.all("PRAGMA user_version");
  return versionRow.parse(row).user_version;
}

/** Why the file is damaged, or undefined when it is sound. @throws UserError `database_newer` */
async function findDamage(file: string, known: number): Promise<string | undefined> {
  if (!(await hasHeader(file))) return "it does not begin like a SQLite database";
  // Opened read-only, nothing of the file changes, not even by a checkpoint at close.
  const connection = await openConnection(file, "readOnly");
  try {
    const version = await userVersion(connection);
    if (version > known) {
      throw new UserError(
        "database_newer",
        `${file} has version ${version}; this program knows versions up to ${known}`,
        { details: { path: file, version, known } },
      );
    }
    if ((await sizeOf(file)) > MAX_CHECKED_BYTES) {
      await connection.all("SELECT count(*) FROM sqlite_schema");
      return undefined;
    }
    const [row] = await connection.all("PRAGMA quick_check(1)");
    const { quick_check: finding } = checkRow.parse(row);
    return finding === "ok" ? undefined : finding;
  } catch (error) {
    if (!(error instanceof GhostError) || !isCorruption(error)) throw error;
    return error.message;
  } finally {
    await connection.close();
  }
}

const HEADER = Buffer.from("SQLite format 3\0", "latin1");

async function hasHeader(file: string): Promise<boolean> {
  try {
    await using handle = await open(file, "r");
    const { buffer, bytesRead } = await handle.read({ buffer: Buffer.alloc(HEADER.length), position: 0 });
    return bytesRead === HEADER.length && buffer.equals(HEADER);
  } catch (error) {
    throw unreadable(file, error);
  }
}

async function keepAside(file: string, reason: string, clock: Clock): Promise<OpenReport> {
  const stamp = isoTime(clock.now()).replaceAll(":", "-");
  let keptAside = `${file}.corrupt-${stamp}`;
  for (let copy = 2; (await sizeOf(keptAside)) >= 0; copy += 1) keptAside = `${file}.corrupt-${stamp}-${copy}`;
  for (const suffix of ["-wal", "-shm"]) {
    try {
      await rename(`${file}${suffix}`, `${keptAside}${suffix}`);
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw unreadable(file, error);
    }
  }
  try {
    renameSync(file, keptAside);
  } catch (error) {
    throw unreadable(file, error);
  }
  return { kind: "restarted", keptAside, reason };
}

/** Made by us, the file is ours alone; SQLite gives its -wal and -shm the same mode. */
function createPrivate(file: string): void {
  try {
    closeSync(openSync(file, "a", 0o600));
  } catch (error) {
    throw unreadable(file, error);
  }
}

/** -1 when there is no such file. */
async function sizeOf(file: string): Promise<number> {
  try {
    return (await stat(file)).size;
  } catch (error) {
    if (systemCode(error) === "ENOENT") return -1;
    throw unreadable(file, error);
  }
}

function unreadable(file: string, error: unknown): OperationalError {
  const why = systemCode(error) ?? String(error);
  return new OperationalError("database_unreadable", `${file} cannot be opened (${why})`, {
    cause: error,
    details: { path: file },
  });
}

/**
 * The daemon's log: one JSON object a line, to a file of at most `MAX_LOG_BYTES` with one predecessor, and to followers in process.
 * Secrets never reach it: values of type `Secret` print as `[secret]`, and known key texts are blanked out of every line.
 */
import { closeSync, fstatSync, openSync, renameSync, writeSync } from "node:fs";
import { open } from "node:fs/promises";
import type { Clock } from "../base/clock.ts";
import { GhostError } from "../base/errors.ts";
import { isoTime } from "./iso-time.ts";
import { fileError } from "./filesystem.ts";
import { type StandingPermit, THIS_MACHINE } from "./permit.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";
export interface LogFields {
  readonly event: string;
  readonly [field: string]: unknown;
}

export interface Log {
  debug(fields: LogFields): void;
  info(fields: LogFields): void;
  warn(fields: LogFields): void;
  error(fields: LogFields): void;
}

export interface FileLog extends Log, Disposable {
  readonly file: string;
  /** The last `count` lines of the current file, the oldest first. Reads at most 4 MiB. */
  tail(count: number): Promise<readonly string[]>;
  /** Calls back with every new line until disposed. */
  follow(callback: (line: string) => void): Disposable;
  /** Never lets `text` appear in a line again. */
  redact(text: string): void;
}

/** Without a bound a daemon that runs for a year fills the disk; two files of this size hold some days of requests. */
const MAX_LOG_BYTES = 32 * 1024 * 1024;
const TAIL_BYTES = 4 * 1024 * 1024;
const LEVELS = { debug: 0, info: 1, warn: 2, error: 3 } as const;

/** Opens (and creates, mode 0600) the log file. @throws UserError `folder_unusable`, OperationalError `storage_full`. */
export function openLog(
  permit: StandingPermit,
  options: { readonly file: string; readonly level: LogLevel; readonly clock: Clock; readonly maxBytes?: number },
): FileLog {
  const { file, clock, maxBytes = MAX_LOG_BYTES } = options;
  permit.spend({ capability: "fs.write", resource: { kind: "path", path: file }, host: THIS_MACHINE });
  const openFile = () => openSync(file, "a", 0o600);
  let descriptor: number;
  try {
    descriptor = openFile();
  } catch (error) {
    throw fileError(error, file, "written");
  }
  let sizeBytes = fstatSync(descriptor).size;
  let isClosed = false;
  const followers = new Set<(line: string) => void>();
  /** The longest first: one may be the beginning of another. */
  let secrets: readonly string[] = [];

  /** The new file is open before the old one is closed: a number that was closed may soon be somebody else's file. */
  const roll = () => {
    try {
      renameSync(file, `${file}.1`);
      const next = openFile();
      closeSync(descriptor);
      descriptor = next;
      sizeBytes = 0;
    } catch {
      // It goes on in the old file, and tries again with the next line.
    }
  };

  const write = (level: LogLevel, fields: LogFields) => {
    if (isClosed || LEVELS[level] < LEVELS[options.level]) return;
    let line = toLine({ at: isoTime(clock.now()), level, ...fields });
    for (const secret of secrets) line = line.replaceAll(secret, "[secret]");
    try {
      if (sizeBytes > maxBytes) roll();
      sizeBytes += writeSync(descriptor, `${line}\n`);
    } catch {
      // A full disk must not stop the daemon; followers still see the line.
    }
    for (const follower of followers) follower(line);
  };

  return {
    file,
    debug: (fields) => write("debug", fields),
    info: (fields) => write("info", fields),
    warn: (fields) => write("warn", fields),
    error: (fields) => write("error", fields),
    async tail(count) {
      if (count === 0) return [];
      await using handle = await open(file, "r");
      const { size } = await handle.stat();
      const length = Math.min(size, TAIL_BYTES);
      const { buffer } = await handle.read({ buffer: Buffer.alloc(length), position: size - length });
      return buffer.toString("utf8").split("\n").filter(Boolean).slice(-count);
    },
    follow(callback) {
      followers.add(callback);
      return { [Symbol.dispose]: () => followers.delete(callback) };
    },
    redact(text) {
      if (text.length < 8 || secrets.includes(text)) return;
      secrets = [...secrets, text].toSorted((a, b) => b.length - a.length);
    },
    [Symbol.dispose]() {
      if (isClosed) return;
      isClosed = true;
      closeSync(descriptor);
    },
  };
}

/** What cannot be written as JSON (a cycle, a bigint) must not turn a line of the log into a failure of its own. */
function toLine(fields: LogFields & { readonly at: string; readonly level: LogLevel }): string {
  try {
    return JSON.stringify(fields, replaceErrors);
  } catch (error) {
    const { at, level, event } = fields;
    return JSON.stringify({ at, level, event, unwritable: error instanceof Error ? error.message : String(error) });
  }
}

function replaceErrors(_key: string, value: unknown): unknown {
  if (value instanceof GhostError) {
    return {
      code: value.code,
      message: value.message,
      ...(value.family === "bug" ? { stack: value.stack } : {}),
      cause: value.cause,
    };
  }
  if (value instanceof Error)
    return { name: value.name, message: value.message, stack: value.stack, cause: value.cause };
  return value;
}

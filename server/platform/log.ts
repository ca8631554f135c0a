/**
 * The daemon's log: one JSON object a line, to a file of at most `MAX_LOG_BYTES` with one predecessor, and to followers in process.
 * Secrets never reach it: values of type `Secret` print as `[secret]`, and known key texts are blanked out of every line.
 */
import { closeSync, fstatSync, openSync, renameSync, writeSync } from "node:fs";
import { open } from "node:fs/promises";
import type { Clock } from "../base/clock.ts";
import { GhostError } from "../base/errors.ts";
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

/** Opens (and creates, mode 0600) the log file. @throws the file system's error when it cannot be opened. */
export function openLog(
  permit: StandingPermit,
  options: { readonly file: string; readonly level: LogLevel; readonly clock: Clock },
): FileLog {
  const { file, clock } = options;
  permit.spend({ capability: "fs.write", resource: { kind: "path", path: file }, host: THIS_MACHINE });
  let descriptor = openSync(file, "a", 0o600);
  let sizeBytes = fstatSync(descriptor).size;
  const followers = new Set<(line: string) => void>();
  const secrets = new Set<string>();

  const write = (level: LogLevel, fields: LogFields) => {
    if (LEVELS[level] < LEVELS[options.level]) return;
    let line = JSON.stringify({ at: new Date(clock.now()).toISOString(), level, ...fields }, replaceErrors);
    for (const secret of secrets) line = line.replaceAll(secret, "[secret]");
    try {
      if (sizeBytes > MAX_LOG_BYTES) {
        closeSync(descriptor);
        renameSync(file, `${file}.1`);
        descriptor = openSync(file, "a", 0o600);
        sizeBytes = 0;
      }
      sizeBytes += writeSync(descriptor, `${line}\n`);
    } catch {
      // A full disk must not stop the daemon; followers and stderr-less callers still see the line.
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
      if (text.length >= 8) secrets.add(text);
    },
    [Symbol.dispose]: () => closeSync(descriptor),
  };
}

function replaceErrors(_key: string, value: unknown): unknown {
  if (value instanceof GhostError) {
    return { code: value.code, message: value.message, ...(value.family === "bug" ? { stack: value.stack } : {}), cause: value.cause };
  }
  if (value instanceof Error) return { name: value.name, message: value.message, stack: value.stack, cause: value.cause };
  return value;
}

/**
 * Starts `ghostd` as a process: detached for `ghost start`, as a child for `npm start`.
 * 1. The daemon is told to run as root only by somebody who is root already, and that is said aloud.
 * 2. A daemon that does not become ready fails with its own words.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { errorCatalogue, GhostApiError, wireErrorSchema } from "../../protocol/errors.ts";
import type { GhostClient } from "../../protocol/ghost-client.ts";
import { defaultLocations, type Locations } from "../../protocol/node/locations.ts";
import { checkPrivateFolder } from "../../protocol/node/private-place.ts";
import { connect } from "./context.ts";
import { failure } from "./output.ts";

const MAIN = fileURLToPath(new URL("../../server/daemon/main.ts", import.meta.url));
/** A cold start takes under a second; on a machine that is busy or has a slow disk it may take this long. */
const READY_MS = 60_000;
/** How long to wait for a daemon that somebody else is starting at the same time. */
const OTHER_START_MS = 10_000;
const POLL_MS = 50;
/** Its last words, not its memoirs. */
const MAX_WORDS_CHARACTERS = 4000;

export interface DaemonOptions {
  readonly config?: string | undefined;
  readonly dataDir?: string | undefined;
  readonly runtimeDir?: string | undefined;
  readonly port?: number | undefined;
}

const readySchema = z.object({ ready: z.literal(true), http: z.string(), socket: z.string(), version: z.string() });
export type Ready = z.infer<typeof readySchema>;

export const isRoot = (): boolean => process.getuid?.() === 0;
export const ROOT_WARNING =
  "running as root: the daemon is started with --allow-root; better use an ordinary user where there is one";

/** The command line of the daemon. */
export function daemonArguments(options: DaemonOptions): readonly string[] {
  const flag = (name: string, value: string | number | undefined) => (value === undefined ? [] : [name, String(value)]);
  return [
    MAIN,
    "--ready-json",
    ...flag("--config", options.config),
    ...flag("--data-dir", options.dataDir),
    ...flag("--runtime-dir", options.runtimeDir),
    ...flag("--port", options.port),
    ...(isRoot() ? ["--allow-root"] : []),
  ];
}

/** The running daemon's connection, or undefined where none answers. @throws GhostApiError for any other failure. */
export async function tryConnect(locations: Locations): Promise<GhostClient | undefined> {
  try {
    return await connect(locations);
  } catch (error) {
    if (error instanceof GhostApiError && error.code === "daemon_unreachable") return undefined;
    throw error;
  }
}

export interface Started {
  readonly alreadyRunning: boolean;
  readonly pid: number;
  readonly http: string;
  readonly socket: string;
  readonly version: string;
}

/** Makes sure that a daemon runs: the one that is there, or a new one that outlives this process. */
export async function ensureDaemon(options: DaemonOptions, signal: AbortSignal): Promise<Started> {
  const locations = defaultLocations(options);
  using running = await tryConnect(locations);
  if (running !== undefined) return { alreadyRunning: true, ...(await running.api.daemon.status({}, signal)) };
  await checkPrivateFolder(locations.runtimeDir);
  mkdirSync(locations.dataDir, { recursive: true, mode: 0o700 });
  const wordsFile = join(locations.dataDir, "ghostd.stderr");
  const words = openSync(wordsFile, "w", 0o600);
  const child = spawn(process.execPath, daemonArguments(options), { detached: true, stdio: ["ignore", "pipe", words] });
  closeSync(words);
  const lastWords = () => readFileSync(wordsFile, "utf8");
  try {
    const ready = await untilReady(child, lastWords, signal);
    return { alreadyRunning: false, pid: child.pid ?? 0, ...ready };
  } catch (error) {
    const other = await otherStart(error, locations, signal);
    if (other === undefined) throw error;
    return other;
  } finally {
    child.stdout?.destroy();
    child.unref();
  }
}

/** Somebody else started one between our look and our start: the two folders have one daemon only. */
async function otherStart(error: unknown, locations: Locations, signal: AbortSignal): Promise<Started | undefined> {
  if (!(error instanceof GhostApiError && error.code === "already_running")) return undefined;
  for (let waitedMs = 0; waitedMs < OTHER_START_MS; waitedMs += POLL_MS) {
    using client = await tryConnect(locations);
    if (client !== undefined) return { alreadyRunning: true, ...(await client.api.daemon.status({}, signal)) };
    await sleep(POLL_MS, undefined, { signal });
  }
  return undefined;
}

/** Waits for the daemon's first line (2). Aborting ends the daemon. `lastWords` reads what it wrote to stderr. */
export async function untilReady(child: ChildProcess, lastWords: () => string, signal: AbortSignal): Promise<Ready> {
  const failed = (why: string) => startFailure(why, lastWords().trim().slice(-MAX_WORDS_CHARACTERS));
  return await new Promise<Ready>((resolve, reject) => {
    const stop = (error: Error) => {
      child.kill("SIGTERM");
      reject(error);
    };
    const timer = setTimeout(() => stop(failed(`was not ready after ${READY_MS / 1000} s`)), READY_MS);
    const abort = () => stop(failure("cancelled", "the start was cancelled"));
    signal.addEventListener("abort", abort, { once: true });
    const settle = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    };
    child.once("error", (error) => {
      settle();
      reject(failed(`does not start (${error.message})`));
    });
    child.once("close", (code, signalName) => {
      settle();
      reject(failed(`ended at once (${code === null ? signalName : `exit code ${code}`})`));
    });
    if (child.stdout === null) return;
    createInterface({ input: child.stdout }).once("line", (line) => {
      settle();
      const ready = readySchema.safeParse(parseJson(line));
      if (ready.success) resolve(ready.data);
      else stop(failed("wrote something else than its ready line"));
    });
  });
}

/** The daemon ends its report of an error of the catalogue with that error's advice; whatever else it says is shown as it is (2). */
function startFailure(why: string, words: string): GhostApiError {
  const [code, entry] = Object.entries(errorCatalogue).find(([, { advice }]) => words.endsWith(advice)) ?? [];
  const said = words
    .slice(0, words.length - (entry?.advice.length ?? 0))
    .trim()
    .replace(/^ghostd: /, "");
  const known = wireErrorSchema.safeParse({ code, message: `the daemon did not start: ${said}`, details: {} });
  if (known.success) return new GhostApiError(known.data);
  return failure("daemon_unreachable", `the daemon ${why}${said === "" ? "" : `: ${said}`}`);
}

/** Waits until no process has this pid any more. */
export async function untilGone(pid: number, limitMs: number, signal: AbortSignal): Promise<boolean> {
  for (let waitedMs = 0; waitedMs < limitMs; waitedMs += POLL_MS) {
    if (!isAlive(pid)) return true;
    await sleep(POLL_MS, undefined, { signal });
  }
  return !isAlive(pid);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

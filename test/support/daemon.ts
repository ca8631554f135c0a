/**
 * The real daemon for tests: `node server/daemon/main.ts` in folders of its own, on a free port, out of reach of the user's settings.
 *
 * 1. Nothing outlives its test: `await using` stops the daemon and removes its folder, and the end of the test's process kills what is left.
 * 2. It reads no setting of the person who runs the tests: HOME and the XDG variables point into the test's folder, and no Ollama is looked for
 *    unless the test's own `config` says so.
 * 3. A daemon that does not become ready fails with what it wrote to stderr.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { GhostClient } from "../../protocol/ghost-client.ts";
import { connectSocket } from "../../protocol/node/socket-transport.ts";
import { type TestFolder, testFolder } from "./folder.ts";

const MAIN = fileURLToPath(new URL("../../server/daemon/main.ts", import.meta.url));
/** A cold start takes under a second on a quiet machine; a busy one gets this long. */
const READY_MS = 60_000;
/** A drain that takes longer than this has hung. */
const STOP_MS = 30_000;
/** Enough of stderr to understand a failure. */
const MAX_STDERR_CHARACTERS = 64_000;

export interface TestDaemonOptions {
  /** The text of ghost.toml. By default it only turns the search for Ollama off. */
  readonly config?: string;
  /** The text of warden.toml; by default there is none. */
  readonly warden?: string;
  /** Use this folder, for example that of an earlier daemon, and leave it there; by default the daemon has one of its own. */
  readonly folder?: TestFolder;
  /** Other folders than those in `folder`; the daemon has to make them. */
  readonly dataDir?: string;
  readonly runtimeDir?: string;
  /** More flags, after those of the helper, so that they win. */
  readonly args?: readonly string[];
  /** More environment. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface TestDaemon extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` */
  readonly http: string;
  readonly socket: string;
  readonly version: string;
  readonly pid: number;
  readonly folder: TestFolder;
  readonly dataDir: string;
  readonly runtimeDir: string;
  readonly configFile: string;
  readonly wardenFile: string;
  /** Opens the model APIs. */
  readonly modelKey: string;
  /** The face credential. */
  readonly faceKey: string;
  /** What a command needs in its environment to find this daemon by itself (XDG variables and HOME). */
  readonly env: Readonly<Record<string, string>>;
  readonly exited: Promise<ExitStatus>;
  connect(clientName?: string): Promise<GhostClient>;
  /** SIGTERM, then waits for the drain. Fails where it takes too long. */
  stop(): Promise<ExitStatus>;
  /** SIGKILL, then waits for the end. */
  kill(): Promise<ExitStatus>;
  /** The log file's lines so far, parsed. */
  logs(): readonly Readonly<Record<string, unknown>>[];
  /** What the process wrote to stderr so far. */
  stderr(): string;
}

const running = new Set<ChildProcess>();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

const readySchema = z.object({ ready: z.literal(true), http: z.string(), socket: z.string(), version: z.string() });
const logLineSchema = z.record(z.string(), z.unknown());

/** Starts a daemon and waits until it is ready (3). */
export async function startTestDaemon(options: TestDaemonOptions = {}): Promise<TestDaemon> {
  const folder = options.folder ?? testFolder();
  const places = prepareFolder(folder, options);
  const child = spawn(process.execPath, [MAIN, ...places.flags, ...rootFlags(), ...(options.args ?? [])], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...places.env, ...options.env },
  });
  running.add(child);
  const output = collect(child);
  const exited = new Promise<ExitStatus>((resolve) => {
    child.once("exit", (code, signal) => {
      running.delete(child);
      resolve({ code, signal });
    });
  });
  const release = () => (options.folder === undefined ? folder[Symbol.dispose]() : undefined);

  const line = await firstLine(child, exited);
  const ready = readySchema.safeParse(line === undefined ? undefined : JSON.parse(line));
  if (!ready.success) {
    child.kill("SIGKILL");
    const status = await exited;
    release();
    throw new Error(`the daemon did not become ready (exit ${status.code ?? status.signal}):\n${output.stderr()}`);
  }
  const faceKey = readKey(places.dataDir, "face.key");
  const end = async (signal: NodeJS.Signals): Promise<ExitStatus> => {
    if (running.has(child)) child.kill(signal);
    const status = await Promise.race([exited, sleep(STOP_MS, undefined, { ref: false })]);
    if (status !== undefined) return status;
    child.kill("SIGKILL");
    throw new Error(`the daemon did not end within ${STOP_MS} ms after ${signal}:\n${output.stderr()}`);
  };
  return {
    ...ready.data,
    ...places,
    pid: child.pid ?? 0,
    folder,
    faceKey,
    modelKey: readKey(places.dataDir, "model.key"),
    exited,
    connect: (clientName = "test") => connectSocket(ready.data.socket, { key: faceKey, clientName }),
    stop: () => end("SIGTERM"),
    kill: () => end("SIGKILL"),
    logs: () => readLog(places.dataDir),
    stderr: output.stderr,
    async [Symbol.asyncDispose]() {
      try {
        await end("SIGTERM");
      } finally {
        release();
      }
    },
  };
}

/**
 * Runs the daemon where it must fail before it is ready, and tells how.
 * @throws Error when it becomes ready after all.
 */
export async function expectNoStart(options: TestDaemonOptions): Promise<ExitStatus & { readonly stderr: string }> {
  const folder = options.folder ?? testFolder();
  const places = prepareFolder(folder, options);
  const child = spawn(process.execPath, [MAIN, ...places.flags, ...rootFlags(), ...(options.args ?? [])], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...places.env, ...options.env },
  });
  running.add(child);
  try {
    const output = collect(child);
    const closed = once(child, "close");
    const line = await firstLine(child, closed);
    if (line !== undefined) throw new Error(`the daemon started although it must not: ${line}`);
    await closed;
    return { code: child.exitCode, signal: child.signalCode, stderr: output.stderr() };
  } finally {
    child.kill("SIGKILL");
    running.delete(child);
    if (options.folder === undefined) folder[Symbol.dispose]();
  }
}

/** Tests in containers run as root; the daemon wants that said. */
export function rootFlags(): readonly string[] {
  return process.getuid?.() === 0 ? ["--allow-root"] : [];
}

/** The folders and the environment of a daemon, also for tests that start it in another way. */
export function prepareFolder(
  folder: TestFolder,
  options: Pick<TestDaemonOptions, "config" | "warden" | "dataDir" | "runtimeDir">,
) {
  const configDir = folder.join("config", "ghoststack");
  const dataDir = options.dataDir ?? folder.join("data", "ghoststack");
  const runtimeDir = options.runtimeDir ?? folder.join("run", "ghoststack");
  const configFile = folder.join("config", "ghoststack", "ghost.toml");
  const wardenFile = folder.join("config", "ghoststack", "warden.toml");
  mkdirSync(configDir, { recursive: true });
  for (const name of ["data", "run"]) mkdirSync(folder.join(name, "ghoststack"), { recursive: true, mode: 0o700 });
  if (options.config !== undefined || !existsSync(configFile)) {
    writeFileSync(configFile, options.config ?? "[providers.ollama]\ndiscover = false\n");
  }
  if (options.warden !== undefined) writeFileSync(wardenFile, options.warden);
  const flags = [
    "--ready-json",
    "--port",
    "0",
    "--config",
    configFile,
    "--data-dir",
    dataDir,
    "--runtime-dir",
    runtimeDir,
  ];
  const env: Record<string, string> = {
    PATH: process.env["PATH"] ?? "",
    HOME: folder.path,
    TERM: "xterm-256color",
    XDG_CONFIG_HOME: folder.join("config"),
    XDG_DATA_HOME: folder.join("data"),
    XDG_RUNTIME_DIR: folder.join("run"),
  };
  return { configFile, wardenFile, dataDir, runtimeDir, flags, env };
}

function collect(child: ChildProcess) {
  let stderr = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-MAX_STDERR_CHARACTERS);
  });
  return { stderr: () => stderr };
}

/** The first line of stdout; undefined when the process ends, or stays silent for too long, before it has written one. */
async function firstLine(child: ChildProcess, ended: Promise<unknown>): Promise<string | undefined> {
  if (child.stdout === null) return undefined;
  const lines = createInterface({ input: child.stdout });
  const line = once(lines, "line").then(([text]) => z.string().parse(text));
  line.catch(() => {}); // It is not awaited when the process ends first.
  const nothing = async (promise: Promise<unknown>) => {
    await promise;
    return undefined;
  };
  return await Promise.race([line, nothing(ended), nothing(sleep(READY_MS, undefined, { ref: false }))]);
}

function readKey(dataDir: string, name: string): string {
  return readFileSync(`${dataDir}/${name}`, "utf8").trim();
}

function readLog(dataDir: string): readonly Readonly<Record<string, unknown>>[] {
  const file = `${dataDir}/ghostd.log`;
  if (!existsSync(file)) return [];
  const complete = readFileSync(file, "utf8").split("\n").slice(0, -1);
  return complete.filter(Boolean).map((line) => logLineSchema.parse(JSON.parse(line)));
}

/** The `ghost` program as tests run it: a real process, its streams apart. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";

export const GHOST = fileURLToPath(new URL("../../clients/cli/bin/ghost.mjs", import.meta.url));
/** Far longer than any command takes on a busy machine. */
const LIMIT_MS = 120_000;
const LOOK_EVERY_MS = 20;

const running = new Set<ChildProcess>();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

export interface GhostOptions {
  /** The whole environment; {@link TestDaemon.env} finds that daemon. */
  readonly env: Readonly<Record<string, string>>;
  /** Piped in, then closed; empty by default. */
  readonly stdin?: string;
  readonly cwd?: string;
}

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunningGhost {
  readonly pid: number;
  readonly stdout: () => string;
  readonly stderr: () => string;
  signal(name: NodeJS.Signals): void;
  /** Resolves when stdout and stderr together match. */
  waitFor(pattern: RegExp): Promise<void>;
  readonly finished: Promise<Finished>;
}

/** Runs a command to its end. */
export function runGhost(args: readonly string[], options: GhostOptions): Promise<Finished> {
  return spawnGhost(args, options).finished;
}

export function spawnGhost(args: readonly string[], options: GhostOptions): RunningGhost {
  return spawnProgram([process.execPath, GHOST, ...args], options);
}

export function spawnProgram(command: readonly string[], options: GhostOptions): RunningGhost {
  const [program = "", ...args] = command;
  const child = spawn(program, args, {
    env: { ...options.env },
    stdio: ["pipe", "pipe", "pipe"],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  running.add(child);
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  child.stdin.on("error", () => {}); // The program does not read it: its right.
  child.stdin.end(options.stdin ?? "");
  const limit = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS).unref();
  const finished = once(child, "close").then((): Finished => {
    clearTimeout(limit);
    running.delete(child);
    return { code: child.exitCode, signal: child.signalCode, stdout, stderr };
  });
  return {
    pid: child.pid ?? 0,
    stdout: () => stdout,
    stderr: () => stderr,
    signal: (name) => void child.kill(name),
    finished,
    async waitFor(pattern) {
      while (!pattern.test(stdout + stderr)) {
        if (!running.has(child)) throw new Error(`the program ended without ${pattern}:\n${stdout}\n${stderr}`);
        await sleep(LOOK_EVERY_MS);
      }
    },
  };
}

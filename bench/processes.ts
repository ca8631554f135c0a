/**
 * Child processes of a benchmark.
 * 1. Whoever starts one disposes of it (`await using`); should the benchmark end before that, they are killed as it goes. None outlives it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";

/** Past this a process that was asked to end is killed. */
const STOP_GRACE_MS = 5000;
const START_TIMEOUT_MS = 30_000;
/** What is kept of a child's stderr, to be shown when it fails. */
const MAX_STDERR_CHARACTERS = 16_000;

const running = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

export interface StartedProcess extends AsyncDisposable {
  readonly pid: number;
  /** The first line of stdout, parsed. */
  readonly ready: unknown;
  /** From spawn to the ready line. */
  readonly startMs: number;
  readonly stdin: Writable;
  /** The next lines of stdout. */
  readonly lines: AsyncIterator<string>;
  /** What it wrote to stderr so far (the end of it). */
  stderr(): string;
}

export interface StartOptions {
  readonly args: readonly string[];
  /** The whole environment of the child; this process's own by default. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** Starts Node with `args` and waits for its first line of stdout, which must be JSON. */
export async function startNode(options: StartOptions): Promise<StartedProcess> {
  const startedAt = performance.now();
  const child = spawn(process.execPath, options.args, {
    stdio: ["pipe", "pipe", "pipe"],
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  running.add(child);
  child.once("exit", () => running.delete(child));
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-MAX_STDERR_CHARACTERS);
  });
  child.stdin.on("error", () => {}); // The child is gone: its reader finds out by the end of its stdout.
  try {
    await once(child, "spawn");
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const first = await Promise.race([lines.next(), sleep(START_TIMEOUT_MS, undefined, { ref: false })]);
    if (first === undefined || first.done === true) {
      throw new Error(`${options.args.join(" ")} did not become ready. It wrote:\n${stderr}`);
    }
    return {
      pid: child.pid ?? 0,
      ready: JSON.parse(first.value),
      startMs: performance.now() - startedAt,
      stdin: child.stdin,
      lines,
      stderr: () => stderr,
      [Symbol.asyncDispose]: () => stop(child),
    };
  } catch (error) {
    await stop(child);
    throw error;
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGTERM");
  const killer = setTimeout(() => child.kill("SIGKILL"), STOP_GRACE_MS);
  await exited;
  clearTimeout(killer);
}

/**
 * Child processes.
 * 1. A child inherits nothing of our environment: it gets the variables that are listed, and no others (I5, I14).
 * 2. It is told of our end: its IPC channel closes however we die, and a child that serves us ends then (`process.on("disconnect")`).
 * 3. Stopping is polite first: SIGTERM, then SIGKILL after `KILL_AFTER_MS`.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Clock } from "../base/clock.ts";
import { onDispose } from "../base/disposable.ts";
import { type AnyPermit, THIS_MACHINE } from "./permit.ts";

export interface ChildOptions {
  readonly executable: string;
  readonly args: readonly string[];
  readonly cwd: string;
  /** The child's whole environment. */
  readonly environment: Readonly<Record<string, string>>;
  readonly clock: Clock;
  /** A message from the child, unchecked: whatever it sent, as JSON. */
  onMessage(message: unknown): void;
  /** A line that the child wrote to stderr or stdout, cut at `MAX_LINE_CHARACTERS`. */
  onLine(line: string): void;
  /** Called once, also when the child could not be started. */
  onExit(exit: ChildExit): void;
}

export interface ChildExit {
  readonly code: number | null;
  readonly signal: string | null;
  /** Why it could not be started. */
  readonly startError?: Error;
}

export interface Child extends AsyncDisposable {
  /** Undefined when it could not be started. */
  readonly pid: number | undefined;
  /** Sends a JSON message. A child that is gone does not get it; `onExit` tells. */
  send(message: object): void;
  /** Ends it at once. */
  kill(): void;
  /** Resolves once it has ended. */
  readonly exited: Promise<ChildExit>;
}

/** How long a child may take to end itself: longer would hold up the daemon's own end. */
const KILL_AFTER_MS = 2_000;
/** A child that writes without line breaks must not fill our memory. */
const MAX_LINE_CHARACTERS = 4096;

/** Starts a program as a child with an IPC channel. Its effect is `cmd.exec` of exactly these arguments. */
export function startChild(permit: AnyPermit, options: ChildOptions): Child {
  const { executable, args, cwd } = options;
  const spent = permit.spend({
    capability: "cmd.exec",
    resource: { kind: "argv", executable, args, cwd },
    host: THIS_MACHINE,
  });
  const child = spawn(executable, [...args], {
    cwd,
    env: { ...options.environment },
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    serialization: "json",
  });
  const exited = Promise.withResolvers<ChildExit>();
  let ended = false;
  const end = (exit: ChildExit) => {
    if (ended) return;
    ended = true;
    const detail = exit.startError?.message ?? `code ${exit.code}, signal ${exit.signal}`;
    spent.settle(exit.startError === undefined ? { kind: "done" } : { kind: "failed", detail });
    options.onExit(exit);
    exited.resolve(exit);
  };
  child.on("message", (message) => {
    if (!ended) options.onMessage(message);
  });
  // "exit" may come before the last output and messages were read; "close" comes after them.
  child.on("close", (code, signal) => end({ code, signal }));
  child.on("error", (error) => {
    // "error" is also emitted for a message that could not be sent; only a child without a pid never ran.
    if (child.pid === undefined) end({ code: null, signal: null, startError: error });
  });
  forwardLines(child.stdout, options.onLine);
  forwardLines(child.stderr, options.onLine);
  return {
    pid: child.pid,
    exited: exited.promise,
    send(message) {
      // The callback keeps a broken channel from being thrown: the exit is reported by itself.
      if (child.connected) child.send(message, () => {});
    },
    kill: () => void child.kill("SIGKILL"),
    [Symbol.asyncDispose]: () => stop(child, options.clock, exited.promise),
  };
}

async function stop(child: ChildProcess, clock: Clock, exited: Promise<ChildExit>): Promise<void> {
  child.kill("SIGTERM");
  using _deadline = clock.after(KILL_AFTER_MS, () => child.kill("SIGKILL"));
  await exited;
}

function forwardLines(stream: NodeJS.ReadableStream | null, onLine: (line: string) => void): Disposable {
  let rest = "";
  const onData = (text: string) => {
    const lines = (rest + text).split("\n");
    rest = (lines.pop() ?? "").slice(0, MAX_LINE_CHARACTERS);
    for (const line of lines) if (line !== "") onLine(line.slice(0, MAX_LINE_CHARACTERS));
  };
  stream?.setEncoding("utf8");
  stream?.on("data", onData);
  stream?.on("end", () => {
    if (rest !== "") onLine(rest);
  });
  return onDispose(() => stream?.removeListener("data", onData));
}

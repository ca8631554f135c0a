/** Runs the daemon as a child in the foreground: its end is ours, Ctrl-C is its drain. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { CliContext } from "./context.ts";
import { untilReady } from "./daemon-process.ts";

/** Passed on to the daemon, which drains; a second one makes it end at once. */
export const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** @returns the daemon's exit code, 1 where a signal ended it. */
export async function runForeground(args: readonly string[], context: CliContext): Promise<number> {
  const { output, interrupts } = context;
  // In a group of its own, so that Ctrl-C reaches it once, through us.
  const child = spawn(process.execPath, args, { detached: true, stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "close");
  const forward = (signal: NodeJS.Signals) => void child.kill(signal);
  using _interrupts = interrupts.take(() => forward("SIGINT"));
  for (const signal of STOP_SIGNALS.slice(1)) {
    process.removeAllListeners(signal);
    process.on(signal, forward);
  }
  const killAtExit = () => void child.kill("SIGKILL");
  process.once("exit", killAtExit);
  const ready = await untilReady(child, () => "", new AbortController().signal);
  if (output.json) output.item(ready);
  else output.line(`The daemon runs in the foreground on ${ready.http} (Ctrl-C stops it).`);
  await exited;
  process.off("exit", killAtExit);
  return child.exitCode ?? 1;
}

/** Runs the daemon as a child in the foreground: its end is ours, Ctrl-C is its drain. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { checkPrivateFolder } from "../../protocol/node/private-place.ts";
import type { CliContext } from "./context.ts";
import { untilReady } from "./daemon-process.ts";

/** The terminal, a shell and npm may each pass on the same Ctrl-C; two of them must not look like a second one, which cuts the drain short. */
const SAME_KEY_MS = 1000;

/**
 * Passes SIGINT, SIGTERM and SIGHUP on to the daemon, which drains; one that comes later makes it end at once. Nothing is left behind when this
 * process ends in another way.
 * @returns a signal that aborts at the first of them.
 */
export function passSignalsOn(child: ChildProcess, onFirst: () => void): AbortSignal {
  const first = new AbortController();
  let lastMs = Number.NEGATIVE_INFINITY;
  const pass = () => {
    const nowMs = performance.now();
    const isSame = nowMs - lastMs < SAME_KEY_MS;
    lastMs = nowMs;
    if (isSame) return;
    if (!first.signal.aborted) onFirst();
    first.abort();
    child.kill("SIGTERM");
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.removeAllListeners(signal);
    process.on(signal, pass);
  }
  process.once("exit", () => void child.kill("SIGKILL"));
  return first.signal;
}

/** @returns the daemon's exit code, 1 where a signal ended it. @throws GhostApiError `folder_unusable` before it is started. */
export async function runForeground(args: readonly string[], { output, locations }: CliContext): Promise<number> {
  await checkPrivateFolder(locations.runtimeDir);
  // In a group of its own, so that Ctrl-C reaches it once, through us.
  const child = spawn(process.execPath, args, { detached: true, stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "close");
  passSignalsOn(child, () => output.note("stopping; answers that are being written may finish"));
  const ready = await untilReady(child, () => "", new AbortController().signal);
  if (output.json) output.item(ready);
  else output.line(`The daemon runs in the foreground on ${ready.http} (Ctrl-C stops it).`);
  await exited;
  return child.exitCode ?? 1;
}

/** CPU time and memory of a process, from /proc (Linux). */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const SAMPLE_EVERY_MS = 50;

let ticksPerSecond: number | undefined;

/** User and system time that the process has used so far, all its threads together, in µs. Steps of 10 ms on most kernels. */
export function cpuTimeUs(pid: number): number {
  ticksPerSecond ??= Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The second field is the command in brackets and may hold anything; count from behind it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return ((Number(fields[11]) + Number(fields[12])) / ticksPerSecond) * 1e6;
}

/** Resident memory in bytes. */
export function rssBytes(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  if (match === null) throw new Error(`process ${pid} has ended`);
  return Number(match[1]) * 1024;
}

/** Runs `work` and reports the process's memory before it and its peak while it ran. */
export async function watchMemory<Result>(
  pid: number,
  work: () => Promise<Result>,
): Promise<{ readonly result: Result; readonly beforeBytes: number; readonly peakBytes: number }> {
  const beforeBytes = rssBytes(pid);
  let peakBytes = beforeBytes;
  const sample = () => {
    peakBytes = Math.max(peakBytes, rssBytes(pid));
  };
  const timer = setInterval(sample, SAMPLE_EVERY_MS);
  try {
    const result = await work();
    sample();
    return { result, beforeBytes, peakBytes };
  } finally {
    clearInterval(timer);
  }
}

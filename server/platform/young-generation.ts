/**
 * Bounds the part of the heap in which objects are born. Left alone it grows to 134 MB in a busy daemon, nearly all of it garbage that waits: more
 * than everything that lives in the process. Its maximum is a launch flag of Node; what can be changed in a running process is by how much it grows.
 */
import { PerformanceObserver } from "node:perf_hooks";
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8";
import { onDispose } from "../base/disposable.ts";

/**
 * Both halves together. With half of it, what 1,000 slow streams hold between two tokens is taken for long-lived, and the process has 50 MB more of
 * garbage in its old generation; with twice as much it has 10 MB more here, and nothing is faster that could be measured.
 */
const TARGET_BYTES = 32 * 1024 * 1024;

/** Looks after each collection, and lets the young generation grow only while it is smaller than `TARGET_BYTES`. */
export function boundYoungGeneration(): Disposable {
  let mayGrow: boolean | undefined;
  const adjust = () => {
    const space = getHeapSpaceStatistics().find(({ space_name: name }) => name === "new_space");
    const isSmall = (space?.space_size ?? 0) < TARGET_BYTES;
    if (isSmall === mayGrow) return;
    mayGrow = isSmall;
    setFlagsFromString(`--semi-space-growth-factor=${isSmall ? 2 : 1}`);
  };
  adjust();
  const observer = new PerformanceObserver(adjust);
  observer.observe({ entryTypes: ["gc"] });
  return onDispose(() => observer.disconnect());
}

/** Large messages for the reader of a connection: parsed by `json.worker.ts`, so that the main loop never stands still for one. */
import { deserialize } from "node:v8";
import { FrameError } from "../../../protocol/node/frame-decoder.ts";
import type { Clock } from "../../base/clock.ts";
import { GhostError } from "../../base/errors.ts";
import { createWorkerPool, type WorkerPool } from "../../platform/workers.ts";

/** One thread: large messages are rare, and their order within a connection is kept anyway. */
const THREADS = 1;

export function createJsonPool(clock: Clock): WorkerPool {
  return createWorkerPool({ entry: new URL("./json.worker.ts", import.meta.url), size: THREADS, clock });
}

/** @throws FrameError with the id of the request where the worker could read it. */
export async function parseLargeJson(
  pool: WorkerPool,
  body: Buffer,
  options: { readonly maxValues: number; readonly signal: AbortSignal },
): Promise<unknown> {
  const job = new Uint8Array(4 + body.length);
  new DataView(job.buffer).setUint32(0, options.maxValues, true);
  job.set(body, 4);
  try {
    return deserialize(await pool.run(job, options.signal));
  } catch (thrown) {
    if (!(thrown instanceof GhostError)) throw thrown;
    const { id } = thrown.details;
    throw new FrameError(thrown.code, thrown.message, typeof id === "string" || typeof id === "number" ? id : null);
  }
}

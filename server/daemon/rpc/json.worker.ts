/**
 * Parses a large JSON-RPC message away from the main loop. Gets its bytes, hands back the value as V8 serialises it, which the main
 * thread reads by copying texts; what costs there is the number of values, so that is bounded here.
 */
import { serialize } from "node:v8";
import { FrameError } from "../../../protocol/node/frame-decoder.ts";
import { parseJson } from "../../../protocol/node/rpc-message.ts";
import { UserError } from "../../base/errors.ts";
import { serveWorker } from "../../platform/workers.ts";
import { refuseExcess } from "../json-limits.ts";

/** The job: 4 bytes with the number of values allowed (little endian), then the message. */
const LIMIT_BYTES = 4;

serveWorker((job) => {
  const maxValues = new DataView(job.buffer).getUint32(0, true);
  const text = job.subarray(LIMIT_BYTES);
  refuseExcess(Buffer.from(text.buffer, text.byteOffset, text.byteLength));
  const value = readJson(text);
  if (countValues(value, maxValues) > maxValues) {
    const id = typeof value === "object" && value !== null && "id" in value ? value.id : undefined;
    const details = typeof id === "string" || typeof id === "number" ? { id } : {};
    throw new UserError("body_too_large", `a large message holds more than ${maxValues} values`, { details });
  }
  return serialize(value);
});

function readJson(bytes: Uint8Array): unknown {
  try {
    return parseJson(bytes);
  } catch (error) {
    if (error instanceof FrameError) throw new UserError("invalid_json", error.message);
    throw error;
  }
}

/** Counts keys and elements at any depth, without recursion, and stops soon after `limit`. */
function countValues(root: unknown, limit: number): number {
  let count = 1;
  const open: unknown[] = [root];
  while (open.length > 0 && count <= limit) {
    const value = open.pop();
    if (typeof value !== "object" || value === null) continue;
    const children: readonly unknown[] = Array.isArray(value) ? value : Object.values(value);
    count += children.length;
    if (count <= limit) open.push(...children);
  }
  return count;
}

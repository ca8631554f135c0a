/** How much of large bodies a listener without a key holds at once: anyone on the machine can send them, and the connections alone are no bound. */
import type { FastifyInstance } from "fastify";
import { OperationalError } from "../../base/errors.ts";

/** Eight bodies of the longest that is accepted by default; some hundred long conversations. */
const MAX_HELD_BYTES = 256 * 1024 * 1024;
/** Smaller ones are not counted: all connections together hold less of them than that. */
const COUNTED_BYTES = 16 * 1024;
const RETRY_MS = 1_000;

/** A body counts with the length that it announces, or as the longest that is accepted, from its head until its answer is over. */
export function boundBodies(app: FastifyInstance, limitBytes = MAX_HELD_BYTES): void {
  let heldBytes = 0;
  app.addHook("preParsing", (request, reply, payload, next) => {
    const { "content-length": announced, "transfer-encoding": encoding } = request.headers;
    const sizeBytes = encoding === undefined ? Number(announced ?? 0) : (app.initialConfig.bodyLimit ?? limitBytes);
    if (sizeBytes > COUNTED_BYTES) {
      if (heldBytes + sizeBytes > limitBytes) {
        const message = `${limitBytes} bytes of other requests are being received or answered`;
        next(new OperationalError("overloaded", message, { retryAfterMs: RETRY_MS }));
        return;
      }
      heldBytes += sizeBytes;
      reply.raw.once("close", () => {
        heldBytes -= sizeBytes;
      });
    }
    next(null, payload);
  });
}

/** What the body worker is asked and answers: one byte for the job, then the body; JSON back. */
import { BugError } from "../../base/errors.ts";

const JOBS = ["chat-facts", "chat-messages"] as const;
export type BodyJob = (typeof JOBS)[number];

export function encodeJob(job: BodyJob, body: Buffer): Uint8Array {
  const bytes = new Uint8Array(body.length + 1);
  bytes[0] = JOBS.indexOf(job);
  bytes.set(body, 1);
  return bytes;
}

export function decodeJob(bytes: Uint8Array): { readonly job: BodyJob; readonly body: Buffer } {
  const job = JOBS[bytes[0] ?? -1];
  if (job === undefined) throw new BugError("internal", "an unknown job reached the body worker");
  return { job, body: Buffer.from(bytes.buffer, bytes.byteOffset + 1, bytes.byteLength - 1) };
}

/** The worker's reply. It comes from our own parser in the same program, so its shape is trusted. */
export function decodeReply<Shape>(bytes: Uint8Array): Shape {
  // oxlint-disable-next-line typescript/consistent-type-assertions -- the parser's last line; see above.
  return JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8")) as Shape;
}

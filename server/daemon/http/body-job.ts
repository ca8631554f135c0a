/**
 * What the body worker is asked and answers: the job's name with its length before it, then the body; back comes a length, a JSON head of that length, and
 * texts as they are, because reading a text costs the main loop next to nothing and parsing it would not.
 */
import { BugError } from "../../base/errors.ts";
import type { Message } from "../../ghostllm/stream.ts";
import { type ChatDialect, isChatDialect } from "./dialects/parsers.ts";

export type BodyJob =
  | { readonly kind: "chat-facts" | "chat-messages"; readonly dialect: ChatDialect }
  | { readonly kind: (typeof PLAIN_JOBS)[number] };

const PLAIN_JOBS = [
  "completion",
  "embedding-facts",
  "embedding-texts",
  "ollama-completion",
  "ollama-embed",
  "ollama-embed-one",
] as const;

const LENGTH_BYTES = 4;

export function encodeJob(job: BodyJob, body: Buffer): Uint8Array {
  const name = Buffer.from("dialect" in job ? `${job.kind} ${job.dialect}` : job.kind, "latin1");
  const bytes = new Uint8Array(body.length + name.length + 1);
  bytes[0] = name.length;
  bytes.set(name, 1);
  bytes.set(body, name.length + 1);
  return bytes;
}

export function decodeJob(bytes: Uint8Array): { readonly job: BodyJob; readonly body: Buffer } {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = 1 + (all[0] ?? 0);
  return { job: jobOf(all.toString("latin1", 1, start)), body: all.subarray(start) };
}

function jobOf(name: string): BodyJob {
  const [kind, dialect] = name.split(" ");
  if ((kind === "chat-facts" || kind === "chat-messages") && dialect !== undefined && isChatDialect(dialect))
    return { kind, dialect };
  const plain = PLAIN_JOBS.find((known) => known === name);
  if (plain !== undefined) return { kind: plain };
  throw new BugError("internal", "an unknown job reached the body worker");
}

export function encodeReply(head: unknown, texts: readonly string[] = []): Uint8Array<ArrayBuffer> {
  const encoded = texts.map((text) => Buffer.from(text));
  const json = Buffer.from(JSON.stringify({ head, lengths: encoded.map(({ length }) => length) }));
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32LE(json.length);
  return Uint8Array.from(Buffer.concat([length, json, ...encoded]));
}

/** A shorter text costs more to send apart than to parse. */
const LONG_TEXT = 256;
/** Stands for a text that is sent apart. Nothing in a message is called so. */
const APART = "\u0000apart";

/** Messages are mostly text: what is long of it goes beside the JSON. */
export function encodeMessages(messages: readonly Message[]): Uint8Array<ArrayBuffer> {
  const texts: string[] = [];
  const head = JSON.stringify(messages, (_key, value: unknown) =>
    // Half of a surrogate pair has no UTF-8, and stays in the JSON as an escape.
    typeof value === "string" && value.length > LONG_TEXT && value.isWellFormed()
      ? { [APART]: texts.push(value) - 1 }
      : value,
  );
  return encodeReply(JSON.parse(head), texts);
}

export function decodeMessages(bytes: Uint8Array): readonly Message[] {
  const { head, texts } = decodeReply<readonly Message[]>(bytes);
  putBack(head, texts);
  return head;
}

function putBack(value: object, texts: readonly string[]): void {
  for (const [key, inner] of Object.entries(value)) {
    if (typeof inner !== "object" || inner === null) continue;
    const place: unknown = Reflect.get(inner, APART);
    if (typeof place === "number") Reflect.set(value, key, texts[place]);
    else putBack(inner, texts);
  }
}

/** The worker's reply. It comes from our own parser in the same program, so its shape is trusted. */
export function decodeReply<Head>(bytes: Uint8Array): { readonly head: Head; readonly texts: readonly string[] } {
  const reply = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = LENGTH_BYTES + reply.readUInt32LE();
  // oxlint-disable-next-line typescript/consistent-type-assertions -- the parser's last line; see above.
  const { head, lengths } = JSON.parse(reply.toString("utf8", LENGTH_BYTES, at)) as { head: Head; lengths: number[] };
  const texts = lengths.map((length) => {
    at += length;
    return reply.toString("utf8", at - length, at);
  });
  return { head, texts };
}

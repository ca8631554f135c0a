/**
 * What the transcript writes into the spool: four kinds of records, each with the id of its answer.
 * Layout: kind (1 byte), dialect (1), length of the id (1), the id, then the rest: JSON, a frame's own bytes, or for `begin` the length of the
 * JSON (4, little endian), the JSON, and the client's body as it came.
 */
import { z } from "zod";
import { finishReasonSchema } from "../../../protocol/chat.ts";
import { wireErrorSchema } from "../../../protocol/errors.ts";
import {
  type AnswerId,
  answerIdSchema,
  clientIdSchema,
  modelRefSchema,
  sessionIdSchema,
  threadIdSchema,
  userIdSchema,
} from "../../../protocol/ids.ts";
import { routeDecisionSchema } from "../../../protocol/route.ts";
import { roleSchema } from "../../../protocol/session.ts";
import { usageSchema } from "../../../protocol/usage.ts";
import { assert } from "../../base/assert.ts";
import type { Dialect, Message, StreamEvent } from "../stream.ts";

const opaqueSchema = z.object({ maker: z.string(), data: z.string() });
const partSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("text"), text: z.string() }),
  z.object({ kind: z.literal("image"), url: z.string() }),
  z.object({ kind: z.literal("file"), url: z.string(), mediaType: z.string(), name: z.string().exactOptional() }),
  z.object({
    kind: z.literal("toolCall"),
    callId: z.string(),
    name: z.string(),
    arguments: z.string(),
    isCustom: z.boolean().exactOptional(),
    namespace: z.string().exactOptional(),
    opaque: opaqueSchema.exactOptional(),
  }),
  z.object({
    kind: z.literal("toolResult"),
    callId: z.string(),
    text: z.string(),
    isError: z.boolean().exactOptional(),
    images: z.array(z.string()).exactOptional(),
  }),
  z.object({ kind: z.literal("reasoning"), text: z.string(), opaque: opaqueSchema.exactOptional() }),
]);
/** What the reasoning keeper stores. */
export const keptPartsSchema = z.array(partSchema);
const messageSchema = z.object({ role: roleSchema, parts: z.array(partSchema) });
/** An entry's body: what was said, free of any dialect. */
export const entryBodySchema = z.object({ parts: z.array(partSchema), reasoning: z.string().optional() });

export const beginSchema = z.object({
  userId: userIdSchema,
  client: clientIdSchema,
  task: z.enum(["chat", "completion"]),
  target: z.string(),
  atMs: z.number(),
  labels: z.array(z.string()),
  request: z.discriminatedUnion("kind", [
    /** The client's own body; `large` names it when it lies beside the records. */
    z.object({ kind: z.literal("body"), dialect: z.string(), large: z.string().optional() }),
    z.object({
      kind: z.literal("messages"),
      sessionId: sessionIdSchema,
      threadId: threadIdSchema.nullable(),
      large: z.string().optional(),
    }),
    z.object({ kind: z.literal("completion") }),
  ]),
});
export type Begin = z.infer<typeof beginSchema>;

const openedSchema = z.object({ model: modelRefSchema, decision: routeDecisionSchema });
export type Opened = z.infer<typeof openedSchema>;

export const outcomeSchema = z.discriminatedUnion("state", [
  z.object({ state: z.literal("complete") }),
  z.object({ state: z.literal("failed"), error: wireErrorSchema }),
  z.object({ state: z.literal("cancelled") }),
]);
/** How an answer ended. */
export type Outcome = z.infer<typeof outcomeSchema>;
const endSchema = z.object({ outcome: outcomeSchema, atMs: z.number() });

const eventsSchema = z.array(
  z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("text"), text: z.string() }),
    z.object({ kind: z.literal("refusal"), text: z.string() }),
    z.object({
      kind: z.literal("reasoning"),
      text: z.string(),
      block: z.int().exactOptional(),
      opaque: z.string().exactOptional(),
    }),
    z.object({
      kind: z.literal("toolCall"),
      index: z.int(),
      callId: z.string().exactOptional(),
      name: z.string().exactOptional(),
      namespace: z.string().exactOptional(),
      isCustom: z.boolean().exactOptional(),
      arguments: z.string(),
      isWhole: z.boolean().exactOptional(),
      opaque: z.string().exactOptional(),
    }),
    z.object({ kind: z.literal("usage"), usage: usageSchema }),
    z.object({ kind: z.literal("finish"), reason: finishReasonSchema }),
    z.object({ kind: z.literal("error"), error: wireErrorSchema }),
  ]),
);

export type TranscriptRecord =
  | { readonly kind: "begin"; readonly answerId: AnswerId; readonly begin: Begin; readonly body: Buffer }
  | { readonly kind: "opened"; readonly answerId: AnswerId; readonly opened: Opened }
  | { readonly kind: "frame"; readonly answerId: AnswerId; readonly dialect: Dialect; readonly bytes: Buffer }
  | { readonly kind: "end"; readonly answerId: AnswerId; readonly outcome: Outcome; readonly atMs: number };

const KINDS = { begin: 1, opened: 2, frame: 3, end: 4 } as const;
/** The place in this list is what is stored: append only. */
const DIALECTS: readonly Dialect[] = [
  "events",
  "openai-chat",
  "openai-completion",
  "ollama",
  "openai-responses",
  "anthropic-messages",
  "gemini",
];

/** The first bytes of a record. A frame's are the same for all frames of an answer in one dialect: make them once. */
export function recordHeader(kind: keyof typeof KINDS, answerId: AnswerId, dialect: Dialect = "events"): Buffer {
  assert(answerId.length < 256, "an answer's id is longer than 255 bytes");
  const header = Buffer.allocUnsafe(3 + answerId.length);
  header[0] = KINDS[kind];
  header[1] = DIALECTS.indexOf(dialect);
  header[2] = answerId.length;
  header.write(answerId, 3, "latin1");
  return header;
}

/** The parts of a `begin` record after its header. */
export function beginParts(begin: Begin, body: Buffer): readonly Buffer[] {
  const json = Buffer.from(JSON.stringify(begin));
  const length = Buffer.allocUnsafe(4);
  length.writeUInt32LE(json.length);
  return [length, json, body];
}

/** Decisions are made once and used by many answers (`decide`). */
const openedParts = new WeakMap<Opened["decision"], { readonly model: Opened["model"]; readonly bytes: Buffer }>();

export function openedPart(opened: Opened): Buffer {
  const known = openedParts.get(opened.decision);
  if (known?.model === opened.model) return known.bytes;
  const bytes = Buffer.from(JSON.stringify(opened));
  openedParts.set(opened.decision, { model: opened.model, bytes });
  return bytes;
}
export const endPart = (outcome: Outcome, atMs: number): Buffer => Buffer.from(JSON.stringify({ outcome, atMs }));

/** An `events` frame has no bytes of its own; these stand for it. */
export const eventBytes = (events: readonly StreamEvent[]): Buffer => Buffer.from(JSON.stringify(events));
export const parseEventBytes = (bytes: Buffer): readonly StreamEvent[] =>
  eventsSchema.parse(JSON.parse(bytes.toString("utf8")));

/** The body of a request without one of a client's. */
export const messageBytes = (messages: readonly Message[]): Buffer => Buffer.from(JSON.stringify(messages));
export const parseMessageBytes = (bytes: Buffer): readonly Message[] =>
  z.array(messageSchema).parse(JSON.parse(bytes.toString("utf8")));

export const isDialect = (name: string): name is Dialect => DIALECTS.some((dialect) => dialect === name);

/** The inverse of the functions above. @throws for bytes that no version of ours wrote. */
export function parseRecord(bytes: Buffer): TranscriptRecord {
  const [kind, dialectIndex, idLength] = bytes;
  const afterId = 3 + (idLength ?? 0);
  const answerId = answerIdSchema.parse(bytes.toString("latin1", 3, afterId));
  const rest = bytes.subarray(afterId);
  switch (kind) {
    case KINDS.begin: {
      const length = rest.readUInt32LE(0);
      const begin = beginSchema.parse(JSON.parse(rest.toString("utf8", 4, 4 + length)));
      return { kind: "begin", answerId, begin, body: rest.subarray(4 + length) };
    }
    case KINDS.opened:
      return { kind: "opened", answerId, opened: openedSchema.parse(JSON.parse(rest.toString("utf8"))) };
    case KINDS.frame: {
      const dialect = DIALECTS[dialectIndex ?? -1];
      assert(dialect !== undefined, "a record names an unknown dialect");
      return { kind: "frame", answerId, dialect, bytes: rest };
    }
    case KINDS.end:
      return { kind: "end", answerId, ...endSchema.parse(JSON.parse(rest.toString("utf8"))) };
    default:
      throw new RangeError(`a record has the unknown kind ${kind}`);
  }
}

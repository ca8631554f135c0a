/**
 * What an earlier process left, brought into SQLite before anything else happens.
 * 1. It goes through the same absorber as live records, in the order of the spool.
 * 2. A record that SQLite contains already is skipped: an ended answer takes none, an open one only those after the position that its row names.
 *    So a crash between a commit and the release of the spool, or in the middle of this, changes nothing.
 * 3. The spool is released only when all of it is stored.
 */
import type { AnswerId } from "../../../protocol/ids.ts";
import { assert } from "../../base/assert.ts";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../platform/log.ts";
import type { Spool, SpoolRecord } from "../../platform/spool.ts";
import type { Dialect, Message, StreamEvent } from "../stream.ts";
import type { Absorber, Change } from "./absorber.ts";
import type { ContextBuffer, OpenAnswerRow } from "./context-buffer.ts";
import { ROOT_HASH } from "./thread-tree.ts";
import { type Request, type Tracked, tracked, trackedFromBegin } from "./tracked.ts";
import {
  type Begin,
  isDialect,
  parseEventBytes,
  parseMessageBytes,
  parseRecord,
  type TranscriptRecord,
} from "./transcript-record.ts";

/** Records looked up and absorbed together: bounds what a boot holds in memory. */
const REPLAY_RECORDS = 1_000;
const REPLAY_BYTES = 4 * 1024 * 1024;

/** Where a request's messages come from. */
export type RequestSource =
  | { readonly kind: "body"; readonly body: Buffer; readonly dialect: Dialect }
  | { readonly kind: "messages"; readonly messages: readonly Message[] }
  | { readonly kind: "spooled"; readonly body: Buffer };

export interface ReplayOptions {
  readonly spool: Spool;
  readonly clock: Clock;
  readonly log: Log;
  /** What a frame of a dialect says. */
  readonly decodeFrame: (dialect: Dialect, bytes: Buffer) => readonly StreamEvent[];
  /** The messages of a client's body. */
  readonly decodeRequest: (dialect: Dialect, body: Buffer) => Promise<readonly Message[]>;
}

/** @throws what the database throws; nothing is released then, and the next start tries again. */
export async function replayInto(absorber: Absorber, buffer: ContextBuffer, options: ReplayOptions): Promise<void> {
  const { spool, log, clock } = options;
  for (const open of await buffer.openAnswers()) absorber.track(trackedFrom(open));
  const counts = { records: 0, skipped: 0, unreadable: 0 };
  let batch: Replayed[] = [];
  let sizeBytes = 0;
  const flush = async () => {
    counts.skipped += await absorbBatch(absorber, batch, await knownOf(buffer, batch), options);
    batch = [];
    sizeBytes = 0;
  };
  const onTorn = (torn: object) => log.warn({ event: "spool.torn", ...torn });
  for await (const spooled of spool.replay(onTorn)) {
    counts.records += 1;
    const record = tryParse(spooled);
    if (record === undefined) {
      counts.unreadable += 1;
      continue;
    }
    batch.push({ position: spooled.position, record });
    sizeBytes += spooled.bytes.length;
    if (batch.length >= REPLAY_RECORDS || sizeBytes >= REPLAY_BYTES) await flush();
  }
  await flush();
  let interrupted = 0;
  for (const answer of absorber.live) {
    if (answer.state !== "streaming") continue;
    interrupted += 1;
    absorber.push(answer, { kind: "end", outcome: { state: "interrupted" }, atMs: clock.now() }, answer.absorbed, 0);
  }
  await absorber.drain(() => true);
  await spool.releaseEarlier();
  if (counts.records > 0 || interrupted > 0) log.info({ event: "transcript.replayed", ...counts, interrupted });
}

interface Replayed {
  readonly position: number;
  readonly record: TranscriptRecord;
}

/** Answers that begin in this batch, and have been stored before. */
function knownOf(buffer: ContextBuffer, batch: readonly Replayed[]): Promise<ReadonlySet<AnswerId>> {
  return buffer.known(batch.flatMap(({ record }) => (record.kind === "begin" ? [record.answerId] : [])));
}

/** How many records were skipped (2). */
async function absorbBatch(
  absorber: Absorber,
  batch: readonly Replayed[],
  known: ReadonlySet<AnswerId>,
  options: ReplayOptions,
): Promise<number> {
  let skipped = 0;
  for (const { position, record } of batch) {
    if (record.kind === "begin" && !known.has(record.answerId)) {
      const answer = trackedFromBegin(record.answerId, record.begin);
      absorber.track(answer);
      absorber.push(answer, { kind: "begin", request: spooledRequest(record, options) }, position, record.body.length);
      continue;
    }
    const answer = absorber.find(record.answerId);
    if (answer === undefined || record.kind === "begin" || position <= answer.absorbed) {
      skipped += 1;
      continue;
    }
    absorber.push(answer, changeOf(record, options), position, "bytes" in record ? record.bytes.length : 0);
  }
  await absorber.drain(() => true);
  return skipped;
}

function changeOf(record: Exclude<TranscriptRecord, { kind: "begin" }>, options: ReplayOptions): Change {
  switch (record.kind) {
    case "opened":
      return { kind: "opened", opened: record.opened };
    case "end":
      return { kind: "end", outcome: record.outcome, atMs: record.atMs };
    case "frame": {
      const { dialect, bytes } = record;
      return {
        kind: "frame",
        events: () => (dialect === "events" ? parseEventBytes(bytes) : options.decodeFrame(dialect, bytes)),
      };
    }
  }
}

function spooledRequest(
  record: Extract<TranscriptRecord, { kind: "begin" }>,
  options: ReplayOptions,
): Request | undefined {
  const { request } = record.begin;
  if (request.kind === "completion") return undefined;
  return requestFrom(record.begin, { kind: "spooled", body: record.body }, options);
}

/** The request of a `begin`, as the absorber takes it. */
export function requestFrom(begin: Begin, source: RequestSource, options: ReplayOptions): Request {
  const { request } = begin;
  assert(request.kind !== "completion", "a completion has no messages");
  const { large } = request;
  const decode = async (body: Buffer): Promise<readonly Message[]> => {
    if (request.kind === "messages") return parseMessageBytes(body);
    assert(isDialect(request.dialect), `there is no dialect ${request.dialect}`);
    return options.decodeRequest(request.dialect, body);
  };
  const messages = async (): Promise<readonly Message[]> => {
    if (source.kind === "messages") return source.messages;
    if (source.kind === "body") return options.decodeRequest(source.dialect, source.body);
    if (large === undefined) return decode(source.body);
    const body = await options.spool.readLarge(large);
    assert(body !== undefined, `the body ${large} is gone`);
    return decode(body);
  };
  const sizeBytes = source.kind === "messages" ? lengthOf(source.messages) : source.body.length;
  const { sessionId, threadId } = request.kind === "messages" ? request : { sessionId: null, threadId: null };
  return { messages, sessionId, threadId, sizeBytes, large };
}

function trackedFrom({ row, parentId, parentHash, labels, epoch, chunks }: OpenAnswerRow): Tracked {
  const { placed, model, decision, absorbed } = row;
  const place = placed === null ? null : { ...placed, parentId, parentHash: parentHash ?? ROOT_HASH, epoch };
  return { ...tracked({ ...row, answerId: row.id, labels, place }), model, decision, absorbed, chunks };
}

function tryParse({ bytes }: SpoolRecord): TranscriptRecord | undefined {
  try {
    return parseRecord(bytes);
  } catch {
    // Counted and logged by the caller: one record that no version of ours wrote must not keep the others from being read.
    return undefined;
  }
}

function lengthOf(messages: readonly Message[]): number {
  let length = 0;
  for (const { parts } of messages) for (const part of parts) length += "text" in part ? part.text.length : 64;
  return length;
}

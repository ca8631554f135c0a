/**
 * From answers to rows: where each new request attaches in its user's trees, and what a batch of changed answers writes. Pure: the caller has
 * read what is needed (`find`), and commits what comes out.
 * Requests of one batch see each other's entries, as if each had been committed before the next.
 */
import type { FinishReason } from "../../../protocol/chat.ts";
import type { WireError } from "../../../protocol/errors.ts";
import type { AnswerId, ClientId, EntryId, ModelRef, SessionId, ThreadId, UserId } from "../../../protocol/ids.ts";
import { entryIdSchema, sessionIdSchema, threadIdSchema } from "../../../protocol/ids.ts";
import type { RouteDecision } from "../../../protocol/route.ts";
import type { AnswerState } from "../../../protocol/session.ts";
import type { Ids } from "../../base/clock.ts";
import type { Message } from "../stream.ts";
import { type Delta, deltaParts, type Findings, isEmptyDelta, joinDeltas } from "./answer-delta.ts";
import type { AnswerRow, Batch, FoundEntry, WantedPrefix } from "./context-buffer.ts";
import {
  attach,
  attachableHashes,
  hashesOf,
  nextHash,
  type PrefixHash,
  ROOT_HASH,
  type StoredEntry,
  titleOf,
} from "./thread-tree.ts";

/** Where an answer stands in its user's trees. */
export interface Place {
  readonly sessionId: SessionId;
  readonly threadId: ThreadId;
  readonly entryId: EntryId;
  readonly parentId: EntryId | null;
  /** The hash of everything before the answer. */
  readonly parentHash: PrefixHash;
  /** The thread's epoch with this answer as its head. */
  readonly epoch: number;
}

/** One answer from its beginning until its end is stored. */
export interface LiveAnswer {
  readonly answerId: AnswerId;
  readonly userId: UserId;
  readonly client: ClientId;
  readonly task: "chat" | "completion";
  readonly target: string;
  readonly startedAtMs: number;
  readonly labels: readonly string[];
  /** Undefined: not attached yet. Null: it stands in no session (a completion, or its session was deleted). */
  place: Place | null | undefined;
  model: ModelRef | null;
  decision: RouteDecision | null;
  /** What was said since it was last stored. */
  delta: Delta;
  findings: Findings;
  /** Pieces stored so far. */
  chunks: number;
  state: AnswerState;
  failure: WireError | null;
  endedAtMs: number | null;
  /** The position of the last spool record that is contained. */
  absorbed: number;
}

/** What a new chat's request said. */
export interface Opening {
  readonly messages: readonly Message[];
  readonly chain: readonly PrefixHash[];
  /** The session that the caller named. */
  readonly sessionId: SessionId | null;
  /** Of two threads that end alike, the one that it goes on with. */
  readonly threadId: ThreadId | null;
  /** That session exists and belongs to the caller's user; otherwise a new one is made. */
  readonly exists: boolean;
  /** That session's id is free, so the new one gets it. */
  readonly isFree: boolean;
}

/** `breathe` is asked behind each message: a promise gives others their turn. */
export async function openingOf(
  messages: readonly Message[],
  named: Omit<Opening, "messages" | "chain">,
  breathe: () => Promise<void> | undefined,
): Promise<Opening> {
  const chain: PrefixHash[] = [];
  for (const hash of hashesOf(messages)) {
    chain.push(hash);
    const breath = breathe();
    if (breath !== undefined) await breath;
  }
  return { ...named, messages, chain };
}

/** The prefixes to look up before `placeAll`. */
export function wantedPrefixes(userId: UserId, opening: Opening): readonly WantedPrefix[] {
  if (opening.sessionId !== null && !opening.exists) return [];
  return attachableHashes(opening.messages, opening.chain).map((prefixHash) => ({
    userId,
    prefixHash,
    sessionId: opening.sessionId,
  }));
}

export interface BatchInput {
  readonly found: readonly FoundEntry[];
  /** Stored pieces of answers that have ended. */
  readonly chunks: ReadonlyMap<AnswerId, readonly Delta[]>;
  readonly revision: number;
  readonly ids: Ids;
  readonly nowMs: number;
}

export interface BatchPlan {
  readonly batch: Batch;
  /** Where the batch puts answers that had no place: theirs once it is committed. */
  readonly places: ReadonlyMap<LiveAnswer, Place>;
  /** Adds an answer, in the order in which they began or ended, with its opening where it is not attached yet. */
  add(live: LiveAnswer, opening: Opening | undefined): void;
}

/** A batch that grows answer by answer, so that its maker can let others have their turn in between. */
export function planBatch(input: BatchInput): BatchPlan {
  const batch: Batch = {
    sessions: [],
    touched: [],
    threads: [],
    entries: [],
    answers: [],
    chunks: [],
    assembled: [],
    revision: input.revision,
  };
  const tree = new BatchTree(input.found);
  const places = new Map<LiveAnswer, Place>();
  return {
    batch,
    places,
    add(live, opening) {
      let place = live.place ?? null;
      if (opening !== undefined) {
        place = placeOpening(live, opening, tree, batch, input);
        places.set(live, place);
      } else if (place !== null) {
        batch.touched.push({ id: place.sessionId, atMs: input.nowMs });
      }
      addAnswer(live, place, input, tree, batch);
    },
  };
}

/** Stored entries, and those of this batch, by prefix. */
class BatchTree {
  readonly #byPrefix = new Map<PrefixHash, FoundEntry[]>();
  readonly #seen = new Set<EntryId>();
  /** Heads that this batch moves. */
  readonly #heads = new Map<ThreadId, EntryId>();
  /** The sessions that this batch makes, and whose they are. */
  readonly #owners = new Map<SessionId, UserId>();

  constructor(found: readonly FoundEntry[]) {
    for (const entry of found) this.add(entry);
  }

  add(entry: FoundEntry): void {
    if (this.#seen.has(entry.id)) return;
    this.#seen.add(entry.id);
    const same = this.#byPrefix.get(entry.prefixHash);
    if (same === undefined) this.#byPrefix.set(entry.prefixHash, [entry]);
    else same.push(entry);
  }

  moveHead(threadId: ThreadId, head: EntryId): void {
    this.#heads.set(threadId, head);
  }

  addSession(sessionId: SessionId, userId: UserId): void {
    this.#owners.set(sessionId, userId);
  }

  /** Whether this batch makes the session for this user. */
  hasSession(sessionId: SessionId, userId: UserId): boolean {
    return this.#owners.get(sessionId) === userId;
  }

  candidates(userId: UserId, prefixHash: PrefixHash, sessionId: SessionId | null): readonly StoredEntry[] {
    const found = this.#byPrefix.get(prefixHash);
    if (found === undefined) return [];
    return found
      .filter((entry) => entry.userId === userId && (sessionId === null || entry.sessionId === sessionId))
      .map(({ id, sessionId: session, createdAtMs, threadId, epoch }) => {
        const isHead = threadId !== null && (this.#heads.get(threadId) ?? id) === id;
        return { id, sessionId: session, prefixHash, createdAtMs, head: isHead ? { threadId, epoch } : null };
      });
  }
}

function placeOpening(live: LiveAnswer, opening: Opening, tree: BatchTree, batch: Batch, input: BatchInput): Place {
  const { ids } = input;
  const { userId, startedAtMs } = live;
  const exists = opening.exists || (opening.sessionId !== null && tree.hasSession(opening.sessionId, userId));
  const isNew = opening.sessionId !== null && !exists;
  const attachment = isNew
    ? ({ kind: "newSession" } as const)
    : attach(
        opening.messages,
        opening.chain,
        (prefix) => tree.candidates(userId, prefix, opening.sessionId),
        opening.threadId,
      );
  const matched = attachment.kind === "newSession" ? 0 : attachment.matched;
  const entryId = entryIdSchema.parse(ids.next("ent"));
  const session =
    attachment.kind === "newSession"
      ? sessionFor(live, { ...opening, exists }, tree, batch, ids)
      : attachment.at.sessionId;
  if (attachment.kind !== "newSession") batch.touched.push({ id: session, atMs: input.nowMs });
  const grows = attachment.kind === "continue";
  const threadId = grows ? attachment.threadId : threadIdSchema.parse(ids.next("thr"));
  const basedOn = grows ? attachment.epoch : 0;
  const epoch = basedOn + 1;
  let parentId = attachment.kind === "newSession" ? null : attachment.at.id;
  let parentHash = opening.chain[matched - 1] ?? ROOT_HASH;
  for (let index = matched; index < opening.messages.length; index += 1) {
    const message = opening.messages[index];
    if (message === undefined) break;
    const id = entryIdSchema.parse(ids.next("ent"));
    parentHash = opening.chain[index] ?? parentHash;
    batch.revision += 1;
    batch.entries.push({
      id,
      sessionId: session,
      userId,
      parent: parentId,
      prefixHash: parentHash,
      role: message.role,
      body: { parts: message.parts },
      labels: live.labels,
      answerId: null,
      revision: batch.revision,
      createdAtMs: startedAtMs,
    });
    tree.add({
      userId,
      id,
      sessionId: session,
      prefixHash: parentHash,
      createdAtMs: startedAtMs,
      threadId: null,
      epoch: 0,
    });
    parentId = id;
  }
  batch.threads.push({ id: threadId, sessionId: session, userId, head: entryId, epoch, basedOn, atMs: input.nowMs });
  tree.moveHead(threadId, entryId);
  return { sessionId: session, threadId, entryId, parentId, parentHash, epoch };
}

/** The session that a request without a stored beginning goes to: the one it named where that is its user's, else a new one. */
function sessionFor(live: LiveAnswer, opening: Opening, tree: BatchTree, batch: Batch, ids: Ids): SessionId {
  if (opening.sessionId !== null && opening.exists) return opening.sessionId;
  const named = opening.isFree ? opening.sessionId : null;
  const id = named ?? sessionIdSchema.parse(ids.next("ses"));
  const { userId, client, startedAtMs } = live;
  tree.addSession(id, userId);
  batch.sessions.push({ id, userId, title: titleOf(opening.messages), client, createdAtMs: startedAtMs });
  return id;
}

function addAnswer(live: LiveAnswer, place: Place | null, input: BatchInput, tree: BatchTree, batch: Batch): void {
  const hasEnded = live.state !== "streaming";
  const isDeleted = place === null && live.task === "chat";
  let text: string | null = null;
  if (hasEnded) {
    const said = joinDeltas([...(input.chunks.get(live.answerId) ?? []), live.delta]);
    if (live.chunks > 0) batch.assembled.push(live.answerId);
    if (live.task === "completion") text = said.text;
    if (place !== null) addEntry(live, place, said, tree, batch);
  } else {
    if (!isEmptyDelta(live.delta) && !isDeleted) {
      batch.chunks.push({ answerId: live.answerId, sequence: live.chunks, userId: live.userId, body: live.delta });
    }
    if (place !== null) addEntry(live, place, undefined, tree, batch);
  }
  batch.answers.push(answerRow(live, place, text));
}

/** The assistant's entry: without its content while it streams, that being in the chunks. */
function addEntry(live: LiveAnswer, place: Place, said: Delta | undefined, tree: BatchTree, batch: Batch): void {
  const { userId, startedAtMs } = live;
  const parts = said === undefined ? [] : deltaParts(said);
  const prefixHash = said === undefined ? null : nextHash(place.parentHash, { role: "assistant", parts });
  batch.revision += 1;
  batch.entries.push({
    id: place.entryId,
    sessionId: place.sessionId,
    userId,
    parent: place.parentId,
    prefixHash,
    role: "assistant",
    body: said === undefined || said.reasoning === "" ? { parts } : { parts, reasoning: said.reasoning },
    labels: live.labels,
    answerId: live.answerId,
    revision: batch.revision,
    createdAtMs: startedAtMs,
  });
  if (prefixHash === null) return;
  const { entryId: id, sessionId, threadId, epoch } = place;
  tree.add({ userId, id, sessionId, prefixHash, createdAtMs: startedAtMs, threadId, epoch });
}

function answerRow(live: LiveAnswer, place: Place | null, text: string | null): AnswerRow {
  const reason: FinishReason | null = live.findings.reason ?? null;
  return {
    id: live.answerId,
    userId: live.userId,
    client: live.client,
    task: live.task,
    target: live.target,
    placed: place,
    model: live.model,
    decision: live.decision,
    state: live.state,
    reason,
    usage: live.findings.usage ?? {},
    error: live.failure ?? live.findings.error ?? null,
    text,
    startedAtMs: live.startedAtMs,
    endedAtMs: live.endedAtMs,
    absorbed: live.absorbed,
  };
}

/**
 * Thinking that a client cannot carry. Providers sign what their models think before they call tools, and want it back with the results; clients of chat
 * completions or Ollama's API know no field for it. So it is kept here, and put back into the request that brings the results.
 * 1. Found by the id of the turn's first call, and by user (I15). Only seals, thinking and their order are kept: texts and arguments are always those that
 *    the client sends.
 * 2. Kept in memory and in SQLite, so that a restart between a call and its result changes nothing. A loss costs the model its train of thought, never
 *    the answer: nothing here fails a request.
 * 3. A relay is not looked into: there the client carries everything itself.
 */
import { z } from "zod";
import type { UserId } from "../../../protocol/ids.ts";
import type { Clock } from "../../base/clock.ts";
import type { Database } from "../../platform/database.ts";
import type { Log } from "../../platform/log.ts";
import { AnswerFold } from "../frames/answer-fold.ts";
import type { Frame, Message, Part, StreamEvent } from "../stream.ts";
import { keptPartsSchema } from "./transcript-record.ts";

/** Tool loops come back within seconds: this many turns are hours of several busy agents. */
const MAX_TURNS_IN_MEMORY = 512;
/**
 * Calls of which nothing is kept, so that the history of an agent is not looked up again with every turn: with 100 bytes each, half a megabyte, and the
 * calls of some dozens of long conversations.
 */
const MAX_ABSENT = 4096;
/** Ids of providers have some 30 characters; a client may write any, and is not remembered for it. */
const MAX_ABSENT_KEY_LENGTH = 256;
/** Long thinking is some 100 KB; more than this is not worth its memory. */
const MAX_TURN_CHARACTERS = 512 * 1024;
/** All of them together: turns are a few KB as a rule, and 512 of the longest would take the memory of the whole daemon. */
const MAX_CHARACTERS_IN_MEMORY = 16 * 1024 * 1024;
/** On the disk, where 10,000 of the longest would be 5 GB. */
const MAX_STORED_BYTES = 256 * 1024 * 1024;
/** Sessions are taken up again days later, hardly after weeks. */
const KEPT_MS = 14 * 24 * 3_600_000;
const MAX_TURNS_STORED = 10_000;
/** Pruning after every turn would double its cost. */
const PRUNE_EVERY = 200;

/** One answer while it streams. */
export interface KeptTurn {
  add(frame: Frame): void;
  /** The answer is whole. */
  end(): void;
}

export interface ReasoningKeeper {
  /** @param maker the id of the provider that answers */
  watch(userId: UserId, maker: string): KeptTurn;
  /** The messages with what was kept in its places; the same array where nothing was. */
  restore(userId: UserId, messages: readonly Message[]): Promise<readonly Message[]>;
}

interface KeeperOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
}

export function createReasoningKeeper(options: KeeperOptions): ReasoningKeeper {
  return new StoredReasoning(options);
}

class StoredReasoning implements ReasoningKeeper {
  readonly #options: KeeperOptions;
  /** By user and call, the one used last at the end. */
  readonly #recent = new Map<string, readonly Part[]>();
  #recentCharacters = 0;
  /** By user and call, the one asked for last at the end. */
  readonly #absent = new Set<string>();
  #stored = 0;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  watch(userId: UserId, maker: string): KeptTurn {
    const fold = new AnswerFold();
    let characters = 0;
    return {
      add(frame) {
        if (characters > MAX_TURN_CHARACTERS) return;
        for (const event of frame.events()) {
          const kept = keptOf(event);
          if (kept === undefined) continue;
          if (kept.kind === "reasoning") characters += kept.text.length;
          if (kept.kind === "reasoning" || kept.kind === "toolCall") characters += kept.opaque?.length ?? 0;
          fold.add(kept);
        }
      },
      end: () => {
        if (characters > MAX_TURN_CHARACTERS) return;
        const parts = fold.parts(maker);
        const first = parts.find((part) => part.kind === "toolCall");
        if (first?.kind !== "toolCall" || first.callId === "") return;
        if (parts.some(isSealed)) this.#remember(userId, first.callId, parts);
      },
    };
  }

  async restore(userId: UserId, messages: readonly Message[]): Promise<readonly Message[]> {
    const wanted = messages.flatMap((message) => turnOf(message) ?? []);
    if (wanted.length === 0) return messages;
    const found = await this.#find(userId, wanted);
    if (found.size === 0) return messages;
    return messages.map((message) => {
      const kept = found.get(turnOf(message) ?? "");
      return kept === undefined ? message : { ...message, parts: merge(message.parts, kept) };
    });
  }

  async #find(userId: UserId, callIds: readonly string[]): Promise<ReadonlyMap<string, readonly Part[]>> {
    const found = new Map<string, readonly Part[]>();
    const missing: string[] = [];
    for (const callId of callIds) {
      const key = keyOf(userId, callId);
      const parts = this.#recent.get(key);
      if (parts !== undefined) found.set(callId, parts);
      else if (this.#absent.has(key)) this.#isAbsent(key);
      else missing.push(callId);
    }
    if (missing.length === 0) return found;
    try {
      const row = z.object({ call_id: z.string(), body: z.string() });
      const sql = `SELECT call_id, body FROM kept_turns WHERE user_id = ? AND call_id IN (SELECT value FROM json_each(?))`;
      const rows = await this.#options.database.read(row, sql, [userId, JSON.stringify(missing)]);
      for (const { call_id, body } of rows) {
        const parts = keptPartsSchema.parse(JSON.parse(body));
        found.set(call_id, parts);
        this.#hold(keyOf(userId, call_id), parts);
      }
      // What was kept while this was read is in memory, and is found there first.
      for (const callId of missing) if (!found.has(callId)) this.#isAbsent(keyOf(userId, callId));
    } catch (error) {
      this.#options.log.warn({ event: "reasoning.not_read", error }); // (2)
    }
    return found;
  }

  #remember(userId: UserId, callId: string, parts: readonly Part[]): void {
    this.#hold(keyOf(userId, callId), parts);
    this.#store(userId, callId, parts).catch((error: unknown) => {
      this.#options.log.warn({ event: "reasoning.not_kept", error }); // (2)
    });
  }

  #hold(key: string, parts: readonly Part[]): void {
    this.#absent.delete(key);
    this.#forget(key);
    this.#recent.set(key, parts);
    this.#recentCharacters += charactersOf(parts);
    for (const oldest of this.#recent.keys()) {
      if (this.#recent.size <= MAX_TURNS_IN_MEMORY && this.#recentCharacters <= MAX_CHARACTERS_IN_MEMORY) return;
      this.#forget(oldest);
    }
  }

  #forget(key: string): void {
    this.#recentCharacters -= charactersOf(this.#recent.get(key) ?? []);
    this.#recent.delete(key);
  }

  #isAbsent(key: string): void {
    if (this.#recent.has(key) || key.length > MAX_ABSENT_KEY_LENGTH) return;
    this.#absent.delete(key);
    this.#absent.add(key);
    const oldest = this.#absent.size > MAX_ABSENT ? this.#absent.values().next().value : undefined;
    if (oldest !== undefined) this.#absent.delete(oldest);
  }

  async #store(userId: UserId, callId: string, parts: readonly Part[]): Promise<void> {
    const { database, clock } = this.#options;
    await database.write([
      {
        sql: `INSERT INTO kept_turns (user_id, call_id, body, created_at) VALUES (?, ?, ?, ?)
          ON CONFLICT (user_id, call_id) DO UPDATE SET body = excluded.body, created_at = excluded.created_at`,
        values: [userId, callId, JSON.stringify(parts), clock.now()],
      },
    ]);
    this.#stored += 1;
    if (this.#stored % PRUNE_EVERY !== 1) return;
    await database.write([
      { sql: "DELETE FROM kept_turns WHERE created_at < ?", values: [clock.now() - KEPT_MS] },
      {
        sql: `DELETE FROM kept_turns WHERE created_at < (
          SELECT created_at FROM kept_turns ORDER BY created_at DESC LIMIT 1 OFFSET ?)`,
        values: [MAX_TURNS_STORED - 1],
      },
      {
        sql: `DELETE FROM kept_turns WHERE created_at <= (
          SELECT max(created_at) FROM (
            SELECT created_at, sum(octet_length(body)) OVER (ORDER BY created_at DESC) AS total FROM kept_turns)
          WHERE total > ?)`,
        values: [MAX_STORED_BYTES],
      },
    ]);
  }
}

function charactersOf(parts: readonly Part[]): number {
  let characters = 0;
  for (const part of parts) {
    if (part.kind === "reasoning") characters += part.text.length;
    if (part.kind === "reasoning" || part.kind === "toolCall") characters += part.opaque?.data.length ?? 0;
  }
  return characters;
}

const keyOf = (userId: UserId, callId: string) => `${userId} ${callId}`;

/** Of texts and calls only that they were there (1). */
function keptOf(event: StreamEvent): StreamEvent | undefined {
  switch (event.kind) {
    case "reasoning":
      return event;
    case "text":
    case "refusal":
      return { kind: "text", text: "" };
    case "toolCall": {
      const { isWhole: _whole, ...call } = event;
      return { ...call, arguments: "" };
    }
    default:
      return undefined;
  }
}

function isSealed(part: Part): boolean {
  return (part.kind === "reasoning" || part.kind === "toolCall") && part.opaque !== undefined;
}

/** The first call of an assistant's message that carries no seals itself. */
function turnOf({ role, parts }: Message): string | undefined {
  if (role !== "assistant" || parts.some((part) => part.kind === "reasoning" || isSealed(part))) return undefined;
  const first = parts.find((part) => part.kind === "toolCall");
  return first?.kind === "toolCall" ? first.callId : undefined;
}

/** The client's own parts in the order in which the model made them, with what was kept. Where they are not that turn's, nothing is put in. */
function merge(own: readonly Part[], kept: readonly Part[]): readonly Part[] {
  const calls = new Map(own.flatMap((part) => (part.kind === "toolCall" ? [[part.callId, part] as const] : [])));
  const keptCalls = kept.filter((part) => part.kind === "toolCall");
  if (keptCalls.length !== calls.size || !keptCalls.every(({ callId }) => calls.has(callId))) return own;
  const others = own.filter((part) => part.kind !== "toolCall");
  const merged: Part[] = [];
  let isTextPlaced = false;
  const placeText = () => {
    if (!isTextPlaced) merged.push(...others);
    isTextPlaced = true;
  };
  for (const part of kept) {
    if (part.kind === "reasoning") merged.push(part);
    else if (part.kind === "text") placeText();
    else if (part.kind === "toolCall") {
      placeText();
      const call = calls.get(part.callId);
      if (call !== undefined) merged.push(part.opaque === undefined ? call : { ...call, opaque: part.opaque });
    }
  }
  return merged;
}

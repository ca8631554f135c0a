/**
 * What a daemon holds of the answers it gave: the chats as GhostApi shows them, and the texts of completions, which stand in no session, from its
 * database. Fails where one answer stands in two places.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import sqlite3 from "sqlite3";
import { z } from "zod";
import type { GhostApi } from "../../protocol/ghost-api.ts";
import { type AnswerId, answerIdSchema, type SessionId } from "../../protocol/ids.ts";
import { type AnswerState, answerStateSchema, type SessionEntry, type SessionSummary } from "../../protocol/session.ts";
import type { Usage } from "../../protocol/usage.ts";

export interface StoredAnswer {
  readonly id: AnswerId;
  readonly sessionId: SessionId | undefined;
  readonly model: string;
  readonly state: AnswerState;
  /** Undefined for a completion whose text is not kept any more. */
  readonly text: string | undefined;
  readonly usage: Usage;
}

export interface Stored {
  readonly byId: ReadonlyMap<AnswerId, StoredAnswer>;
  /** The answers of chats by the first word of the question before them. */
  readonly byMarker: ReadonlyMap<string, readonly StoredAnswer[]>;
}

const PAGE = 1000;
const signal = () => AbortSignal.timeout(120_000);

/** With `markers`, only the sessions whose title begins with one of them or that changed together with those. */
export async function readStored(api: GhostApi, dataDir: string, markers?: ReadonlySet<string>): Promise<Stored> {
  const byId = new Map<AnswerId, StoredAnswer>();
  const byMarker = new Map<string, StoredAnswer[]>();
  const entryIds = new Map<AnswerId, string>();
  for (const session of await listSessions(api, markers === undefined ? Number.POSITIVE_INFINITY : PAGE)) {
    for (const { entry, parent } of await readEntries(api, session, markers)) {
      const { answer, text } = entry;
      if (answer === undefined) continue;
      assert.equal(entryIds.get(answer.id) ?? entry.id, entry.id, `${answer.id} stands in two places`);
      if (entryIds.has(answer.id)) continue;
      entryIds.set(answer.id, entry.id);
      const { id, model, state, usage } = answer;
      const stored: StoredAnswer = { id, model, state, usage, text, sessionId: session.id };
      byId.set(id, stored);
      const marker = /^\S*/.exec(parent?.text ?? "")?.[0] ?? "";
      byMarker.set(marker, [...(byMarker.get(marker) ?? []), stored]);
    }
  }
  for (const completion of await readCompletions(dataDir)) byId.set(completion.id, completion);
  return { byId, byMarker };
}

/** Latest first. */
async function listSessions(api: GhostApi, limit: number): Promise<readonly SessionSummary[]> {
  const sessions: SessionSummary[] = [];
  let cursor: string | undefined;
  do {
    const page = await api.session.list({ limit: PAGE, cursor }, signal());
    sessions.push(...page.sessions);
    cursor = page.nextCursor;
  } while (cursor !== undefined && sessions.length < limit);
  return sessions;
}

async function readEntries(api: GhostApi, session: SessionSummary, markers: ReadonlySet<string> | undefined) {
  const found: { readonly entry: SessionEntry; readonly parent: SessionEntry | undefined }[] = [];
  if (markers !== undefined && session.updatedAtMs < Date.now() - RECENT_MS) return found;
  const { threads } = await api.session.get({ sessionId: session.id }, signal());
  assert.equal(threads.length, session.threads);
  for (const { id: threadId } of threads) {
    const { entries } = await api.session.get({ sessionId: session.id, threadId }, signal());
    for (const [index, entry] of entries.entries()) found.push({ entry, parent: entries[index - 1] });
  }
  return found;
}

/** Longer than a round takes on a busy machine. */
const RECENT_MS = 120_000;

const completionRow = z.object({
  id: answerIdSchema,
  model: z.string().nullable(),
  state: answerStateSchema,
  text: z.string().nullable(),
  prompt_tokens: z.int().nullable(),
  completion_tokens: z.int().nullable(),
});

/** Call it after something that reads everything through the daemon: that stores what is still in memory. */
async function readCompletions(dataDir: string): Promise<readonly StoredAnswer[]> {
  const rows = await query(join(dataDir, "ghost.db"), "SELECT * FROM answers WHERE task = 'completion'");
  return z
    .array(completionRow)
    .parse(rows)
    .map((row) => ({
      id: row.id,
      sessionId: undefined,
      model: row.model ?? "none",
      state: row.state,
      text: row.text ?? undefined,
      usage: {
        ...(row.prompt_tokens === null ? {} : { promptTokens: row.prompt_tokens }),
        ...(row.completion_tokens === null ? {} : { completionTokens: row.completion_tokens }),
      },
    }));
}

/** Reads a database beside the process that has it open. */
export async function query(file: string, sql: string): Promise<readonly unknown[]> {
  const database = await new Promise<sqlite3.Database>((resolve, reject) => {
    const opened = new sqlite3.Database(file, sqlite3.OPEN_READONLY, (error) =>
      error === null ? resolve(opened) : reject(error),
    );
  });
  try {
    return await new Promise((resolve, reject) => {
      database.all(sql, (error: Error | null, rows: unknown[]) => (error === null ? resolve(rows) : reject(error)));
    });
  } finally {
    await new Promise<void>((resolve) => database.close(() => resolve()));
  }
}

/**
 * The record of every effect: what was asked, who or what decided, what became of it.
 * 1. The row of a change is on disk, safe from a power loss, before its effect starts: a crash in between leaves a row "unknown", never none.
 * 2. Every row has a `user_id`, and every read is filtered by it (I15).
 * 3. Rows are never changed except from "unknown" to their outcome, once.
 */
import { z } from "zod";
import type { UserId } from "../../protocol/ids.ts";
import type { LedgerRow, ledgerListParams } from "../../protocol/ledger.ts";
import { capabilitySchema } from "../../protocol/policy.ts";
import type { Clock, Ids } from "../base/clock.ts";
import type { Database, Statement } from "../platform/database.ts";
import type { Log } from "../platform/log.ts";

/** For `openDatabase`: statements by version. */
export const ledgerMigrations: readonly (readonly string[])[] = [
  [
    `CREATE TABLE ledger (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      effect_id TEXT NOT NULL UNIQUE,
      user_id TEXT NOT NULL,
      at_ms INTEGER NOT NULL,
      actor TEXT NOT NULL,
      capability TEXT NOT NULL,
      resource TEXT NOT NULL,
      decision TEXT NOT NULL,
      decided_by TEXT NOT NULL,
      outcome TEXT NOT NULL,
      detail TEXT
    ) STRICT`,
    "CREATE INDEX ledger_by_user ON ledger (user_id, id)",
  ],
];

/** A failure's message may hold a whole answer of some server; a row needs its beginning. */
const MAX_DETAIL_CHARACTERS = 1000;
/** Beyond what a question can show, a command's arguments (up to 2 MiB on Linux) would only swell the record. */
const MAX_RESOURCE_CHARACTERS = 8000;

export type LedgerEntry = Pick<
  LedgerRow,
  "actor" | "capability" | "resource" | "decision" | "decidedBy" | "outcome" | "detail"
> & {
  readonly userId: UserId;
};

export class Ledger {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #ids: Ids;
  readonly #log: Log;
  readonly #pending = new Set<Promise<void>>();

  constructor(options: { readonly database: Database; readonly clock: Clock; readonly ids: Ids; readonly log: Log }) {
    this.#database = options.database;
    this.#clock = options.clock;
    this.#ids = options.ids;
    this.#log = options.log;
  }

  /**
   * Writes the rows of one plan, all or none, and resolves with a handle for each once they are safe.
   * @throws OperationalError `storage_full` | `overloaded`: the plan must not go on then.
   */
  async record(entries: readonly LedgerEntry[], options: { readonly durable: boolean }): Promise<readonly string[]> {
    const atMs = this.#clock.now();
    const ids = entries.map(() => this.#ids.next("eff"));
    const statements = entries.map((entry, index) => insertion(entry, ids[index] ?? "", atMs));
    await (options.durable ? this.#database.writeDurable(statements) : this.#database.write(statements));
    return ids;
  }

  /** Notes an outcome. It is written soon; when that fails, the row stays "unknown" and the log says so. */
  settle(effectId: string, outcome: "done" | "failed" | "none", detail?: string): void {
    const statement = {
      sql: "UPDATE ledger SET outcome = ?, detail = coalesce(?, detail) WHERE effect_id = ? AND outcome = 'unknown'",
      values: [outcome, detail === undefined ? null : cut(detail), effectId],
    };
    const written = this.#database
      .write([statement])
      .catch((error: unknown) => this.#log.error({ event: "ledger.outcomeLost", effectId, outcome, error }))
      .finally(() => this.#pending.delete(written));
    this.#pending.add(written);
  }

  /** The user's rows, the latest first. */
  async list(userId: UserId, params: z.output<typeof ledgerListParams>): Promise<readonly LedgerRow[]> {
    const rows = await this.#database.read(
      storedRow,
      `SELECT id, at_ms, actor, capability, resource, decision, decided_by, outcome, detail FROM ledger
       WHERE user_id = ? AND id < ? ORDER BY id DESC LIMIT ?`,
      [userId, params.beforeId ?? Number.MAX_SAFE_INTEGER, params.limit],
    );
    return rows.map(({ at_ms: atMs, decided_by: decidedBy, detail, ...row }) => ({
      ...row,
      atMs,
      decidedBy,
      ...(detail === null ? {} : { detail }),
    }));
  }

  /** Resolves once every outcome noted so far is written or given up. */
  async flush(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }
}

const storedRow = z.object({
  id: z.int(),
  at_ms: z.number(),
  actor: z.string(),
  capability: capabilitySchema,
  resource: z.string(),
  decision: z.enum(["allowed", "approved", "denied", "expired", "withdrawn"]),
  decided_by: z.string(),
  outcome: z.enum(["unknown", "done", "failed", "none"]),
  detail: z.string().nullable(),
});

function insertion(entry: LedgerEntry, effectId: string, atMs: number): Statement {
  const { userId, actor, capability, resource, decision, decidedBy, outcome, detail } = entry;
  return {
    sql: `INSERT INTO ledger (effect_id, user_id, at_ms, actor, capability, resource, decision, decided_by, outcome, detail)
          VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    values: [
      effectId,
      userId,
      Math.trunc(atMs),
      actor,
      capability,
      cut(resource, MAX_RESOURCE_CHARACTERS),
      decision,
      decidedBy,
      outcome,
      detail === undefined ? null : cut(detail),
    ],
  };
}

function cut(text: string, maxCharacters = MAX_DETAIL_CHARACTERS): string {
  return text.length > maxCharacters ? `${text.slice(0, maxCharacters)}…` : text;
}

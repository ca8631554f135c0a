/**
 * Responses that a client may go on from by `previous_response_id`, read again or delete: `store` is true where it does not say otherwise.
 * 1. Every row has its user, and every read and delete is filtered by it (I15): another user's response is one that does not exist.
 * 2. A row holds the items that its own request added. The conversation is the chain of rows; a chain with a gap is not guessed at.
 * 3. Rows are bounded by age, count and size; what is pruned is unknown from then on.
 */
import { z } from "zod";
import type { UserId } from "../../../../protocol/ids.ts";
import type { Clock } from "../../../base/clock.ts";
import { UserError } from "../../../base/errors.ts";
import type { Database, Statement } from "../../../platform/database.ts";
import { isRecord, parseJson, recordsAt, textAt } from "../../../ghostllm/frames/json.ts";
import { itemOf, type ItemsText, joinItems, outputItems } from "./responses-body.ts";

/** As long as OpenAI keeps them. */
const MAX_AGE_MS = 30 * 24 * 3_600_000;
/** Of one user: a busy agent makes some hundreds a day. */
const MAX_RESPONSES = 10_000;
/** Characters of one user. Clients that send their whole history each time, and do not say `store: false`, would fill the disk. */
const MAX_TOTAL_SIZE = 256 * 1024 * 1024;
/** Turns of one conversation: a chain is walked for each next turn. */
const MAX_CHAIN = 1_000;
/** Pruning reads the whole index: once for so many rows is enough. */
const PRUNE_EVERY = 64;

export const responseMigrations: readonly (readonly string[])[] = [
  [],
  [
    // What is looked through stands before the texts, which SQLite keeps on pages of their own.
    `CREATE TABLE responses (
      id TEXT NOT NULL, user_id TEXT NOT NULL, previous_id TEXT, size INTEGER NOT NULL, created_at REAL NOT NULL,
      pieces TEXT, input TEXT NOT NULL, output TEXT NOT NULL, response TEXT NOT NULL, PRIMARY KEY (user_id, id))`,
    `CREATE INDEX responses_by_time ON responses (user_id, created_at, id, size)`,
    // Of items that another server named; ours say their response themselves.
    `CREATE TABLE response_items (
      user_id TEXT NOT NULL, item_id TEXT NOT NULL, response_id TEXT NOT NULL, PRIMARY KEY (user_id, item_id),
      FOREIGN KEY (user_id, response_id) REFERENCES responses (user_id, id) ON DELETE CASCADE) WITHOUT ROWID`,
    `CREATE INDEX response_items_by_response ON response_items (user_id, response_id)`,
  ],
];

export interface StoredResponse {
  readonly id: string;
  readonly userId: UserId;
  /** A response of the store that this one goes on from. */
  readonly previousId: string | null;
  readonly input: ItemsText;
  /** The response as JSON. */
  readonly response: string;
  readonly pieces: readonly (readonly number[])[] | null;
  readonly createdAtMs: number;
}

export interface ResponseStore {
  /** Resolves when it is kept, also if the process is killed then. @throws OperationalError `storage_full` | `overloaded` */
  put(response: StoredResponse): Promise<void>;
  get(userId: UserId, id: string): Promise<StoredResponse | undefined>;
  /** An item of a response's output, as JSON. */
  item(userId: UserId, itemId: string): Promise<string | undefined>;
  /** Whether there was one. */
  delete(userId: UserId, id: string): Promise<boolean>;
  /** All items up to and with this response; undefined where it, or one before it, is not kept. @throws UserError `body_too_large` */
  history(userId: UserId, id: string, maxBytes: number): Promise<ItemsText | undefined>;
}

const row = z.object({
  id: z.string(),
  previous_id: z.string().nullable(),
  input: z.string(),
  response: z.string(),
  pieces: z.string().nullable(),
  created_at: z.number(),
});
const piecesSchema = z.array(z.array(z.int()));
const chainRow = z.object({ previous_id: z.string().nullable(), input: z.string(), output: z.string() });
const outputRow = z.object({ output: z.string() });
const nameRow = z.object({ response_id: z.string() });
const lengthRow = z.object({ total: z.number().nullable() });

const CHAIN = `WITH RECURSIVE chain (id, previous_id, size, depth) AS (
  SELECT id, previous_id, size, 0 FROM responses WHERE user_id = ?1 AND id = ?2 AND created_at >= ?3
  UNION ALL
  SELECT earlier.id, earlier.previous_id, earlier.size, depth + 1 FROM chain
    JOIN responses AS earlier ON earlier.user_id = ?1 AND earlier.id = chain.previous_id WHERE depth < ${MAX_CHAIN})`;

const PRUNE = `DELETE FROM responses WHERE user_id = ?1 AND (created_at < ?2 OR id IN (SELECT id FROM (
  SELECT id, sum(size) OVER newest AS total, row_number() OVER newest AS place FROM responses WHERE user_id = ?1
  WINDOW newest AS (ORDER BY created_at DESC, id DESC)) WHERE total > ?3 OR place > ${MAX_RESPONSES}))`;

/** `msg_01M8…_0`: the first item of the response `resp_01M8…`. */
const OWN_ITEM = /^[a-z]+_([0-9A-Z]{26})_\d+$/;

function itemIds(response: string): readonly string[] {
  const value = parseJson(response);
  const items = isRecord(value) ? recordsAt(value, "output") : [];
  return items.map((item) => textAt(item, "id")).filter((id) => id !== "");
}

function nameItem(userId: UserId, itemId: string, responseId: string): Statement {
  return {
    sql: "INSERT OR REPLACE INTO response_items (user_id, item_id, response_id) VALUES (?, ?, ?)",
    values: [userId, itemId, responseId],
  };
}

/** With `responseMigrations` applied. */
export function createResponseStore(options: {
  readonly database: Database;
  readonly clock: Clock;
  readonly maxTotalSize?: number;
}): ResponseStore {
  const { database, clock, maxTotalSize = MAX_TOTAL_SIZE } = options;
  let puts = 0;
  const prune = (userId: UserId): Statement => ({
    sql: PRUNE,
    values: [userId, clock.now() - MAX_AGE_MS, maxTotalSize],
  });
  const get: ResponseStore["get"] = async (userId, id) => {
    const [found] = await database.read(
      row,
      "SELECT id, previous_id, input, response, pieces, created_at FROM responses WHERE user_id = ? AND id = ? AND created_at >= ?",
      [userId, id, clock.now() - MAX_AGE_MS],
    );
    if (found === undefined) return undefined;
    const { previous_id: previousId, input, response, created_at: createdAtMs } = found;
    const pieces = found.pieces === null ? null : piecesSchema.parse(JSON.parse(found.pieces));
    return { id, userId, previousId, input, response, pieces, createdAtMs };
  };
  return {
    async put({ id, userId, previousId, input, response, pieces, createdAtMs }) {
      puts += 1;
      const output = outputItems(response);
      const size = input.length + output.length + response.length;
      const lengths = pieces === null ? null : JSON.stringify(pieces);
      const insert: Statement = {
        sql: `INSERT OR REPLACE INTO responses
          (id, user_id, previous_id, size, created_at, pieces, input, output, response) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        values: [id, userId, previousId, size, createdAtMs, lengths, input, output, response],
      };
      const named = pieces === null ? itemIds(response).map((itemId) => nameItem(userId, itemId, id)) : [];
      await database.write([insert, ...named, ...(puts % PRUNE_EVERY === 1 ? [prune(userId)] : [])]);
    },
    get,
    async item(userId, itemId) {
      const [named] = await database.read(
        nameRow,
        "SELECT response_id FROM response_items WHERE user_id = ? AND item_id = ?",
        [userId, itemId],
      );
      const own = OWN_ITEM.exec(itemId)?.[1];
      const id = named?.response_id ?? (own === undefined ? undefined : `resp_${own}`);
      if (id === undefined) return undefined;
      const [found] = await database.read(
        outputRow,
        "SELECT output FROM responses WHERE user_id = ? AND id = ? AND created_at >= ?",
        [userId, id, clock.now() - MAX_AGE_MS],
      );
      return found === undefined ? undefined : itemOf(found.output, itemId);
    },
    async delete(userId, id) {
      const isThere = (await get(userId, id)) !== undefined;
      await database.writeDurable([
        { sql: "DELETE FROM responses WHERE user_id = ? AND id = ?", values: [userId, id] },
      ]);
      return isThere;
    },
    history: (userId, id, maxBytes) => readChain(database, [userId, id, clock.now() - MAX_AGE_MS], maxBytes),
  };
}

/** @param values the user, the last response, and when the oldest that counts was made */
async function readChain(
  database: Database,
  values: readonly [UserId, string, number],
  maxBytes: number,
): Promise<ItemsText | undefined> {
  const [sum] = await database.read(lengthRow, `${CHAIN} SELECT sum(size) AS total FROM chain`, values);
  const total = sum?.total ?? undefined;
  if (total === undefined) return undefined;
  if (total > 2 * maxBytes) {
    throw new UserError("body_too_large", `the conversation up to ${values[1]} has about ${total} bytes`, {
      details: { limitBytes: maxBytes },
    });
  }
  const rows = await database.read(
    chainRow,
    `${CHAIN} SELECT responses.previous_id, input, output FROM chain JOIN responses ON user_id = ?1 AND responses.id = chain.id ORDER BY depth DESC`,
    values,
  );
  if (rows.length === 0 || rows[0]?.previous_id !== null) return undefined;
  return joinItems(...rows.flatMap(({ input, output }) => [input, output]));
}

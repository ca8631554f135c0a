/** What faces read of stored sessions, page by page. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import {
  actorOf,
  ada,
  ask,
  assistant,
  bob,
  makeFolder,
  openTranscriptAt,
  removeFolder,
  user,
} from "../../../test/support/transcript.ts";
import { GhostError } from "../../base/errors.ts";
import type { Database } from "../../platform/database.ts";
import { systemIds } from "../../platform/system-clock.ts";
import { createSessionReader } from "./session-reader.ts";

async function setUp(context: TestContext) {
  const folder = await makeFolder();
  const opened = await openTranscriptAt(folder);
  context.after(async () => {
    await opened[Symbol.asyncDispose]();
    await removeFolder(folder);
  });
  const begin = (userId: typeof ada, updatedAtMs: number) =>
    opened.database.write([
      {
        sql: "INSERT INTO sessions (id, user_id, title, client, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
        values: [systemIds.next("ses"), userId, "a title", actorOf(userId).client, updatedAtMs, updatedAtMs],
      },
    ]);
  return { ...opened, begin };
}

test("pages that end between sessions of one millisecond skip none and double none", async (context) => {
  const { transcript, begin } = await setUp(context);
  for (const updatedAtMs of [1, 2, 2, 2, 2, 2, 2, 2, 3, 4, 4]) await begin(ada, updatedAtMs);
  for (const updatedAtMs of [2, 2, 9]) await begin(bob, updatedAtMs);
  const whole = await transcript.list(ada, { limit: 1000 });
  assert.deepEqual([whole.sessions.length, whole.nextCursor], [11, undefined]);
  for (const limit of [1, 2, 3, 5, 10, 11, 12]) {
    const ids: string[] = [];
    let pages = 0;
    let cursor: string | undefined;
    do {
      const page = await transcript.list(ada, { limit, cursor });
      ids.push(...page.sessions.map(({ id }) => id));
      pages += 1;
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    assert.deepEqual(
      ids,
      whole.sessions.map(({ id }) => id),
      `pages of ${limit}`,
    );
    assert.equal(pages, Math.ceil(11 / limit), "no page comes empty");
  }
});

test("a cursor outlives its session, and shows another user nothing of it", async (context) => {
  const { transcript, begin } = await setUp(context);
  for (const updatedAtMs of [1, 2, 2]) await begin(ada, updatedAtMs);
  await begin(bob, 1);
  const first = await transcript.list(ada, { limit: 1 });
  const [, second, third] = (await transcript.list(ada, { limit: 3 })).sessions;
  for (const { id: sessionId } of first.sessions) await transcript.delete(ada, { sessionId });
  await ask(transcript, [user("a session that begins between two pages")], ["yes"]);
  const rest = await transcript.list(ada, { limit: 9, cursor: first.nextCursor });
  assert.deepEqual(rest.sessions, [second, third]);
  const bobs = await transcript.list(bob, { limit: 9 });
  assert.deepEqual(await transcript.list(bob, { limit: 9, cursor: first.nextCursor }), bobs);
});

test("what is no cursor is refused, and named", async (context) => {
  const { transcript } = await setUp(context);
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  for (const cursor of ["x", "ses_1", "===", encode([1]), encode(["1", "ses_1"]), encode([1, "'"]), encode(null)]) {
    await assert.rejects(transcript.list(ada, { limit: 1, cursor }), (error: unknown) => {
      return error instanceof GhostError && error.code === "invalid_params" && error.details["field"] === "cursor";
    });
  }
});

/** The real database, and how many rows and bytes of bodies each read has brought. */
function weighed(database: Database): {
  readonly database: Database;
  readonly reads: { rows: number; bytes: number }[];
} {
  const reads: { rows: number; bytes: number }[] = [];
  const read: Database["read"] = async (row, sql, values) => {
    const rows = await database.read(row, sql, values);
    const bodies = rows.map((found) =>
      typeof found === "object" && found !== null && "body" in found ? found.body : "",
    );
    reads.push({ rows: rows.length, bytes: bodies.reduce((sum: number, body) => sum + String(body).length, 0) });
    return rows;
  };
  const passed: Database = {
    file: database.file,
    read,
    write: (statements) => database.write(statements),
    writeDurable: (statements) => database.writeDurable(statements),
    [Symbol.asyncDispose]: () => database[Symbol.asyncDispose](),
  };
  return { database: passed, reads };
}

test("a session of megabytes is read in pages of a bounded size, and whole", async (context) => {
  const { transcript, database } = await setUp(context);
  const texts = Array.from({ length: 200 }, (_, index) => `${index} ${"x".repeat(index % 10 === 0 ? 100_000 : 100)}`);
  texts[77] = `77 ${"long".repeat(200_000)}`;
  const turns = texts.map((text, index) => (index % 2 === 0 ? user(text) : assistant(text)));
  const { sessionId } = await ask(transcript, [...turns.slice(0, -1), user("and then?")], ["the end"]);
  assert.ok(sessionId !== null);
  const expected = [...texts.slice(0, -1), "and then?", "the end"];
  const bodies = expected.length;
  for (const [name, readAll] of [
    ["get", async (reader) => (await reader.get(ada, sessionId)).entries.map(({ text }) => text)],
    [
      "history",
      async (reader) =>
        (await reader.history(ada, sessionId)).messages.flatMap(({ parts }) =>
          parts.map((part) => ("text" in part ? part.text : "")),
        ),
    ],
    [
      "changes",
      async (reader) => {
        const found: string[] = [];
        let revision = 0;
        for (
          let page = await reader.changes(ada, sessionId, 0);
          page.length > 0;
          page = await reader.changes(ada, sessionId, revision)
        ) {
          found.push(...page.map(({ entry }) => entry.text));
          revision = page.at(-1)?.revision ?? 0;
        }
        return found;
      },
    ],
  ] satisfies readonly (readonly [
    string,
    (reader: ReturnType<typeof createSessionReader>) => Promise<readonly string[]>,
  ])[]) {
    const { database: watched, reads } = weighed(database);
    assert.deepEqual(await readAll(createSessionReader(watched)), expected, name);
    const pages = reads.filter(({ bytes }) => bytes > 0);
    assert.equal(
      pages.reduce((sum, { rows }) => sum + rows, 0),
      bodies,
      name,
    );
    assert.ok(pages.length > 8 && pages.length < 40, `${name}: ${pages.length} pages`);
    for (const { rows, bytes } of pages) {
      assert.ok(rows <= 64, `${name}: ${rows} entries at once`);
      assert.ok(rows === 1 || bytes <= 256 * 1024, `${name}: ${bytes} bytes at once`);
    }
  }
});

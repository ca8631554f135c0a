/** What faces read of stored sessions, page by page. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import {
  actorOf,
  ada,
  ask,
  bob,
  makeFolder,
  openTranscriptAt,
  removeFolder,
  user,
} from "../../../test/support/transcript.ts";
import { GhostError } from "../../base/errors.ts";
import { systemIds } from "../../platform/system-clock.ts";

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

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { userIdSchema } from "../../../../protocol/ids.ts";
import { testFolder } from "../../../../test/support/folder.ts";
import { GhostError } from "../../../base/errors.ts";
import { present } from "../../../base/optional.ts";
import { ManualClock } from "../../../ghostwarden/manual-clock.ts";
import { bootPermit } from "../../../ghostwarden/warden.ts";
import type { Log } from "../../../platform/log.ts";
import { openDatabase } from "../../../platform/sqlite.ts";
import { createResponseStore, responseMigrations, type StoredResponse } from "./responses-store.ts";

const ada = userIdSchema.parse("ada");
const bob = userIdSchema.parse("bob");
const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };
const DAY_MS = 24 * 3_600_000;
const MAX_BYTES = 1024 * 1024;

async function open(maxTotalSize?: number) {
  const folder = testFolder();
  const clock = new ManualClock();
  const permit = bootPermit("test", [{ capability: "fs.write", resource: { kind: "path", path: folder.path } }]);
  const file = join(folder.path, "g.db");
  const { database } = await openDatabase(permit, { file, migrations: responseMigrations, clock, log: silent });
  const store = createResponseStore({ database, clock, ...present("maxTotalSize", maxTotalSize) });
  const put = (id: string, more: Partial<StoredResponse> = {}) =>
    store.put({
      id,
      userId: ada,
      previousId: null,
      input: `{"in":"${id}"}`,
      response: `{"id":"${id}","output":[{"out":"${id}"}],"usage":null}`,
      pieces: [[1, 2]],
      createdAtMs: clock.now(),
      ...more,
    });
  return {
    store,
    clock,
    put,
    async [Symbol.asyncDispose]() {
      await database[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
    },
  };
}

test("what is put is read again, and belongs to its user alone", async () => {
  await using world = await open();
  const { store, put } = world;
  await put("a");
  assert.deepEqual((await store.get(ada, "a"))?.pieces, [[1, 2]]);
  assert.equal(await store.get(bob, "a"), undefined);
  assert.equal(await store.history(bob, "a", MAX_BYTES), undefined);
  assert.equal(await store.delete(bob, "a"), false);
  await put("a", { userId: bob, input: '"bob\'s"' });
  assert.equal((await store.get(ada, "a"))?.input, '{"in":"a"}', "the same id of two users is two responses");
  assert.equal(await store.delete(ada, "a"), true);
  assert.equal(await store.get(ada, "a"), undefined);
  assert.equal((await store.get(bob, "a"))?.input, '"bob\'s"');
});

test("a chain is the conversation in its order; one with a gap, or over two users, is none", async () => {
  await using world = await open();
  const { store, put } = world;
  await put("a");
  await put("b", { previousId: "a", input: "" });
  await put("c", { previousId: "b" });
  assert.equal(await store.history(ada, "c", MAX_BYTES), '{"in":"a"},{"out":"a"},{"out":"b"},{"in":"c"},{"out":"c"}');
  await put("d", { userId: bob, previousId: "c" });
  assert.equal(await store.history(bob, "d", MAX_BYTES), undefined);
  await store.delete(ada, "b");
  assert.equal(await store.history(ada, "c", MAX_BYTES), undefined);
  assert.equal(await store.history(ada, "nobody", MAX_BYTES), undefined);
});

test("an item is found by its id, ours and another server's, for its user, as long as its response is kept", async () => {
  await using world = await open();
  const { store, put } = world;
  const own = "01M8DTX64QGTX7XWGVATJZHQ8T";
  const output = (id: string) => `{"id":"r","output":[{"type":"message"},{"type":"message","id":"${id}"}]}`;
  await put(`resp_${own}`, { response: output(`msg_${own}_1`) });
  await put("theirs", { response: output("msg_abc"), pieces: null });
  for (const [id, response] of [
    [`msg_${own}_1`, `resp_${own}`],
    ["msg_abc", "theirs"],
  ] as const) {
    assert.equal(await store.item(ada, id), `{"type":"message","id":"${id}"}`);
    assert.equal(await store.item(bob, id), undefined);
    await store.delete(ada, response);
    assert.equal(await store.item(ada, id), undefined);
  }
  assert.equal(await store.item(ada, "msg_nobody"), undefined);
});

test("a chain that is larger than a body may be is refused before it is read", async () => {
  await using world = await open();
  const { store, put } = world;
  await put("a", { input: `"${"x".repeat(5_000)}"` });
  assert.equal(await store.history(bob, "a", 1_000), undefined, "nobody else learns even that");
  await put("b", { userId: bob, previousId: "a" });
  assert.equal(await store.history(bob, "b", 1_000), undefined);
  await assert.rejects(
    store.history(ada, "a", 1_000),
    (error) => error instanceof GhostError && error.code === "body_too_large",
  );
});

test("a chain that never ends is no chain", async () => {
  await using world = await open();
  const { store, put } = world;
  await put("a", { previousId: "b" });
  await put("b", { previousId: "a" });
  assert.equal(await store.history(ada, "b", MAX_BYTES), undefined);
});

test("old rows are unknown at once, and go with the next pruning; what is too much goes, the oldest first", async () => {
  await using world = await open(40_000);
  const { store, put, clock } = world;
  await put("old");
  clock.advance(31 * DAY_MS);
  assert.equal(await store.get(ada, "old"), undefined);
  assert.equal(await store.history(ada, "old", MAX_BYTES), undefined);
  for (let count = 0; count < 64; count += 1) {
    clock.advance(1);
    await put(`r${count}`, { input: `"${"x".repeat(1_000)}"` });
  }
  const isThere = async (id: string) => (await store.get(ada, id)) !== undefined;
  const first = (await Promise.all(Array.from({ length: 64 }, (_, count) => isThere(`r${count}`)))).indexOf(true);
  assert.ok(first > 20 && first < 30, `the first that is left is number ${first}`);
  assert.ok(await isThere("r63"));
});

import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { z } from "zod";
import { GhostError } from "../base/errors.ts";
import type { Log } from "./log.ts";
import { StandingPermit } from "./permit-mint.ts";
import { openDatabase } from "./sqlite.ts";
import { systemClock } from "./system-clock.ts";

const MIGRATIONS = [["CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)"]];
const silent: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const note = z.object({ text: z.string() });
const insert = (text: string | null) => ({ sql: "INSERT INTO notes (text) VALUES (?)", values: [text] });

async function setUp(context: TestContext) {
  const folder = await mkdtemp(join(tmpdir(), "sqlite-"));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "test.db");
  const permit = new StandingPermit("test", [{ capability: "fs.write", resource: { kind: "path", path: folder } }]);
  const open = (migrations: readonly (readonly string[])[] = MIGRATIONS) =>
    openDatabase(permit, { file, migrations, clock: systemClock, log: silent });
  return { folder, file, open };
}

const withCode = (code: string) => (error: unknown) => error instanceof GhostError && error.code === code;

async function fill(open: Awaited<ReturnType<typeof setUp>>["open"], count: number): Promise<void> {
  const { database } = await open();
  await database.write(Array.from({ length: count }, (_, index) => insert(`${index} ${"x".repeat(500)}`)));
  await database[Symbol.asyncDispose]();
}

test("a database is created, keeps its rows, and is migrated when it is opened again", async (context) => {
  const { open } = await setUp(context);
  const first = await open();
  assert.deepEqual(first.report, { kind: "created" });
  await first.database.write([insert("kept")]);
  await first.database[Symbol.asyncDispose]();
  const second = await open([...MIGRATIONS, ["ALTER TABLE notes ADD COLUMN tag TEXT", "UPDATE notes SET tag = 'old'"]]);
  assert.deepEqual(second.report, { kind: "opened" });
  const rows = await second.database.read(
    z.object({ text: z.string(), tag: z.string() }),
    "SELECT text, tag FROM notes",
    [],
  );
  assert.deepEqual(rows, [{ text: "kept", tag: "old" }]);
  await second.database[Symbol.asyncDispose]();
});

test("a permit that does not cover the file opens nothing", async (context) => {
  const { folder } = await setUp(context);
  const permit = new StandingPermit("test", [
    { capability: "fs.write", resource: { kind: "path", path: "/elsewhere" } },
  ]);
  const opening = openDatabase(permit, { file: join(folder, "a.db"), migrations: [], clock: systemClock, log: silent });
  await assert.rejects(opening, withCode("internal"));
  assert.deepEqual(await readdir(folder), []);
});

test("a database of a newer version is refused and its file is not changed", async (context) => {
  const { file, open } = await setUp(context);
  const { database } = await open([...MIGRATIONS, ["CREATE TABLE more (id INTEGER)"]]);
  await database[Symbol.asyncDispose]();
  const before = await readFile(file);
  await assert.rejects(open(), withCode("database_newer"));
  assert.ok(before.equals(await readFile(file)));
});

const DAMAGES: readonly (readonly [string, (file: string) => Promise<void>])[] = [
  ["garbage", (file) => writeFile(file, "this is no database, but it is somebody's file")],
  ["a file shorter than its header", (file) => truncate(file, 10)],
  ["a truncated file", async (file) => truncate(file, (await readFile(file)).length - 5_000)],
  [
    "a page overwritten in the middle",
    async (file) => {
      const content = await readFile(file);
      content.fill(
        0xa5,
        Math.floor(content.length / 2 / 4096) * 4096,
        Math.floor(content.length / 2 / 4096) * 4096 + 4096,
      );
      await writeFile(file, content);
    },
  ],
];
for (const [name, damage] of DAMAGES) {
  test(`a damaged database (${name}) is kept aside byte for byte, and a fresh one is started`, async (context) => {
    const { folder, file, open } = await setUp(context);
    await fill(open, 200);
    await damage(file);
    const damaged = await readFile(file);
    const { database, report } = await open();
    assert.equal(report.kind, "restarted");
    assert.ok(report.kind === "restarted" && report.keptAside.startsWith(`${file}.corrupt-2`));
    assert.ok(damaged.equals(await readFile(report.keptAside)));
    assert.deepEqual(await database.read(note, "SELECT text FROM notes", []), []);
    await database.write([insert("works")]);
    await database[Symbol.asyncDispose]();
    assert.equal((await readdir(folder)).filter((entry) => /corrupt-.*Z$/.test(entry)).length, 1);
  });
}

test("a bad statement fails its own caller and nobody else in the group", async (context) => {
  const { open } = await setUp(context);
  const { database } = await open();
  const outcomes = await Promise.allSettled([
    database.write([insert("a")]),
    database.write([insert("half of the bad one"), insert(null)]),
    database.write([insert("b"), insert("c")]),
    database.writeDurable([insert("d")]),
    database.write([{ sql: "INSERT INTO nowhere VALUES (1)", values: [] }]),
  ]);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ["fulfilled", "rejected", "fulfilled", "fulfilled", "rejected"],
  );
  const rows = await database.read(note, "SELECT text FROM notes ORDER BY text", []);
  assert.deepEqual(
    rows.map(({ text }) => text),
    ["a", "b", "c", "d"],
  );
  await database[Symbol.asyncDispose]();
});

test("a read sees every write that was acknowledged before it, with many callers at once", async (context) => {
  const { open } = await setUp(context);
  const { database } = await open();
  const seen = await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const write =
        index % 7 === 0 ? database.writeDurable([insert(`n${index}`)]) : database.write([insert(`n${index}`)]);
      await write;
      return database.read(note, "SELECT text FROM notes WHERE text = ?", [`n${index}`]);
    }),
  );
  assert.ok(seen.every((rows) => rows.length === 1));
  await database[Symbol.asyncDispose]();
});

test("a full database refuses with storage_full, keeps what it has, and goes on when there is room", async (context) => {
  const { open } = await setUp(context);
  const { database } = await open();
  await database.write([insert("before"), { sql: "PRAGMA max_page_count = 12", values: [] }]);
  const large = database.write([insert("x".repeat(100_000))]);
  const small = database.write([insert("small")]);
  await assert.rejects(large, withCode("storage_full"));
  await small;
  await database.write([{ sql: "PRAGMA max_page_count = 100000", values: [] }, insert("y".repeat(100_000))]);
  const rows = await database.read(note, "SELECT text FROM notes ORDER BY id", []);
  assert.deepEqual(
    rows.map(({ text }) => text.slice(0, 6)),
    ["before", "small", "yyyyyy"],
  );
  await database[Symbol.asyncDispose]();
});

test("every kind of value comes back as it was, a text with a NUL included", async (context) => {
  const { open } = await setUp(context);
  const { database } = await open([["CREATE TABLE v (a, b, c, d)"]]);
  const values = ["a\0b'\"ü😀", 2 ** 52 + 1, null, Buffer.from([0, 255, 1])];
  await database.write([{ sql: "INSERT INTO v VALUES (?, ?, ?, ?)", values }]);
  const row = z.object({ a: z.string(), b: z.number(), c: z.null(), d: z.instanceof(Buffer) });
  assert.deepEqual(await database.read(row, "SELECT * FROM v", []), [
    { a: values[0], b: values[1], c: null, d: values[3] },
  ]);
  await assert.rejects(database.read(z.object({ a: z.number() }), "SELECT a FROM v", []), withCode("internal"));
  await database[Symbol.asyncDispose]();
});

test("closing waits for the writes that were accepted and refuses new ones", async (context) => {
  const { open } = await setUp(context);
  const { database } = await open();
  const writes = Array.from({ length: 20 }, (_, index) => database.write([insert(`w${index}`)]));
  const closing = database[Symbol.asyncDispose]();
  await assert.rejects(database.write([insert("late")]), withCode("daemon_stopping"));
  await Promise.all([...writes, closing]);
  const again = await open();
  assert.equal((await again.database.read(note, "SELECT text FROM notes", [])).length, 20);
  await again.database[Symbol.asyncDispose]();
});

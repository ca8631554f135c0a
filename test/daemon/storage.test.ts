/**
 * What lies in the data folder may be damaged, newer or half written: nothing is overwritten, the daemon says what happened, and what was acknowledged
 * is there again after a restart.
 */
import assert from "node:assert/strict";
import {
  appendFileSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
  closeSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import sqlite3 from "sqlite3";
import { GhostApiError } from "../../protocol/errors.ts";
import type { SessionId } from "../../protocol/ids.ts";
import type { SessionWatchUpdate } from "../../protocol/session.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { expectNoStart, startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { type TestFolder, testFolder } from "../support/folder.ts";
import { call, configFor, sse } from "../support/http.ts";

let host: OpenAiHost;
before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
});
after(() => host[Symbol.asyncDispose]());

const soon = () => AbortSignal.timeout(20_000);
const start = (folder: TestFolder) => startTestDaemon({ folder, config: configFor(host.baseUrl) });
const question = (text: string, more: object = {}) => ({
  model: "up/m",
  messages: [{ role: "user", content: text }],
  ...more,
});
const latest = () => host.requests.findLast(({ method }) => method === "POST");

/** A data folder with `count` sessions that a daemon left behind when it was asked to stop. */
async function leftBehind(folder: TestFolder, count = 3): Promise<string> {
  await using daemon = await start(folder);
  for (let number = 0; number < count; number += 1) {
    const reply = await call(daemon, "/v1/chat/completions", { body: question(`question ${number}`) });
    assert.equal(reply.status, 200, reply.text);
  }
  assert.equal((await titles(daemon)).length, count);
  return join(daemon.dataDir, "ghost.db");
}

async function titles(daemon: TestDaemon): Promise<readonly string[]> {
  using client = await daemon.connect();
  const { sessions } = await client.api.session.list({}, soon());
  return sessions.map(({ title }) => title);
}

async function entriesOf(daemon: TestDaemon, sessionId: SessionId) {
  using client = await daemon.connect();
  return (await client.api.session.get({ sessionId }, soon())).entries;
}

const DAMAGES: readonly [what: string, damage: (file: string) => void][] = [
  ["that holds something else", (file) => writeFileSync(file, Buffer.alloc(40_000, "this is no database\n"))],
  ["that was cut in half", (file) => truncateSync(file, Math.floor(statSync(file).size / 2))],
  ["with less than a header", (file) => truncateSync(file, 10)],
  ["with an overwritten page", (file) => overwrite(file, 4096, Buffer.alloc(4096, 0xa5))],
];
for (const [what, damage] of DAMAGES) {
  test(`a database ${what} is kept aside as it is, reported, and a new one works`, async () => {
    using folder = testFolder();
    const file = await leftBehind(folder);
    damage(file);
    const damaged = readFileSync(file);
    let keptAside: string;
    {
      await using daemon = await start(folder);
      const logged = daemon.logs().find(({ event }) => event === "database.restarted");
      keptAside = String(logged?.["keptAside"]);
      assert.ok(readFileSync(keptAside).equals(damaged), "the damaged file is byte for byte what it was");
      using client = await daemon.connect();
      const { findings } = await client.api.daemon.doctor({}, soon());
      const finding = findings.find(({ subject }) => subject === "database");
      assert.equal(finding?.state, "warning");
      assert.ok(finding?.message.includes(keptAside), finding?.message);
      assert.deepEqual(await titles(daemon), []);
      assert.equal((await call(daemon, "/v1/chat/completions", { body: question("after the damage") })).status, 200);
      assert.deepEqual(await titles(daemon), ["after the damage"]);
    }
    await using again = await start(folder);
    assert.deepEqual(await titles(again), ["after the damage"]);
    assert.ok(existsSync(keptAside));
    assert.equal(
      again.logs().filter(({ event }) => event === "database.restarted").length,
      1,
      "the second start has nothing to report",
    );
  });
}

test("a database of a newer version ends the start with exit 1 and is not touched", async () => {
  using folder = testFolder();
  const file = await leftBehind(folder);
  await sql(file, "PRAGMA user_version = 99");
  const stored = readFileSync(file);
  const { code, stderr } = await expectNoStart({ folder });
  assert.equal(code, 1);
  const [, known] =
    /ghost\.db has version 99; this program knows versions up to (\d+)\n.*Update GhostStack/.exec(stderr) ?? [];
  assert.ok(known !== undefined, stderr);
  assert.doesNotMatch(stderr, /^\s+at /m);
  assert.ok(readFileSync(file).equals(stored));
  // With the old version again, everything is there.
  await sql(file, `PRAGMA user_version = ${known}`);
  await using daemon = await start(folder);
  assert.equal((await titles(daemon)).length, 3);
});

test("after a kill -9 with a torn spool and foreign files in it, what was shown is there, and the next answers are kept too", async () => {
  using folder = testFolder();
  const whole = "the whole answer to the first question";
  let shown = "";
  let dataDir: string;
  {
    await using daemon = await start(folder);
    dataDir = daemon.dataDir;
    host.playOnce({ tokens: [whole] });
    assert.equal((await call(daemon, "/v1/chat/completions", { body: question("first") })).status, 200);
    host.playOnce({ tokens: 100_000, msPerToken: 5 });
    using client = await daemon.connect();
    await assert.rejects(async () => {
      for await (const update of client.api.chat.send({ text: "second", model: "up/m" }, soon())) {
        if (update.kind === "text") shown += update.text;
        if (shown.length > 100) await daemon.kill();
      }
    });
  }
  const spool = join(dataDir, "spool");
  const segment = readdirSync(spool).findLast(
    (name) => name.endsWith(".spool") && statSync(join(spool, name)).size > 0,
  );
  assert.ok(segment !== undefined, "the killed daemon left records in its spool");
  // A record of 1,000 bytes that was cut after 3.
  appendFileSync(join(spool, segment), Buffer.from([0xe8, 3, 0, 0, 1, 2, 3, 4, 5, 6, 7]));
  writeFileSync(join(spool, "notes.txt"), "mine");
  writeFileSync(join(spool, "0000000099999999.spool"), Buffer.alloc(5_000, "garbage"));
  writeFileSync(join(spool, "0000000000000000-7.large"), "nobody's body");

  await using daemon = await start(folder);
  const torn = daemon.logs().filter(({ event }) => event === "spool.torn");
  assert.equal(torn.length, 2, "both damaged ends are reported");
  using client = await daemon.connect();
  const { sessions } = await client.api.session.list({}, soon());
  assert.deepEqual(sessions.map(({ title }) => title).toSorted(), ["first", "second"]);
  const answers = new Map<string, Awaited<ReturnType<typeof entriesOf>>[number] | undefined>();
  for (const { id, title } of sessions) answers.set(title, (await entriesOf(daemon, id)).at(-1));
  assert.equal(answers.get("first")?.text, whole);
  assert.equal(answers.get("first")?.answer?.state, "complete");
  assert.ok(answers.get("second")?.text.startsWith(shown), "everything that was shown is kept");
  assert.equal(answers.get("second")?.answer?.state, "interrupted");
  assert.equal(readFileSync(join(spool, "notes.txt"), "utf8"), "mine");
  assert.equal((await call(daemon, "/v1/chat/completions", { body: question("third") })).status, 200);
  await daemon.kill();
  await using last = await start(folder);
  assert.deepEqual([...(await titles(last))].toSorted(), ["first", "second", "third"]);
});

test("sessions survive a restart, and a watcher goes on from its revision without a repetition or a gap", async () => {
  using folder = testFolder();
  let sessionId: SessionId | undefined;
  let seen: readonly SessionWatchUpdate[];
  {
    await using daemon = await start(folder);
    sessionId = await chat(daemon, "one", undefined);
    seen = await watch(daemon, sessionId, 0, 2);
    assert.deepEqual(
      seen.map(({ entry }) => entry.role),
      ["user", "assistant"],
    );
  }
  const revision = seen.at(-1)?.revision ?? 0;
  await using daemon = await start(folder);
  assert.deepEqual(await watch(daemon, sessionId, 0, 2), seen, "history is the same after a restart");
  const resumed = watch(daemon, sessionId, revision, 2);
  await chat(daemon, "two", sessionId);
  const later = await resumed;
  assert.ok(later.every((update) => update.revision > revision));
  assert.deepEqual(
    later.map(({ entry }) => entry.role),
    ["user", "assistant"],
  );
  assert.equal(later[0]?.entry.text, "two");
  const before = new Set(seen.map(({ entry }) => entry.id));
  assert.ok(
    later.every(({ entry }) => !before.has(entry.id)),
    "nothing of the history comes again",
  );
});

test("a watcher that is ahead of what is stored is told so, and never gets another text", async () => {
  using folder = testFolder();
  await using daemon = await start(folder);
  const sessionId = await chat(daemon, "one", undefined);
  await assert.rejects(
    watch(daemon, sessionId, 1_000_000, 1),
    (error) => error instanceof GhostApiError && error.code === "stream_position_lost",
  );
  assert.equal((await watch(daemon, sessionId, 0, 2)).length, 2);
});

test("an answer that streams while the database is locked by another program is whole, and stored once it is free", async () => {
  using folder = testFolder();
  const file = await leftBehind(folder, 1);
  await using daemon = await start(folder);
  const locked = await open(file);
  try {
    await exec(locked, "BEGIN EXCLUSIVE");
    host.playOnce({ tokens: 30, msPerToken: 5 });
    const reply = await call(daemon, "/v1/chat/completions", {
      body: question("while it is locked", { stream: true }),
    });
    assert.ok(sse(reply.text).isDone);
  } finally {
    await exec(locked, "ROLLBACK").catch(() => {}); // Where it could not begin there is nothing to end.
    await new Promise((resolve) => locked.close(resolve));
  }
  const signal = soon();
  while (!(await titles(daemon)).includes("while it is locked")) signal.throwIfAborted();
  assert.equal(latest()?.state, "finished");
});

async function chat(daemon: TestDaemon, text: string, sessionId: SessionId | undefined): Promise<SessionId> {
  using client = await daemon.connect();
  let session = sessionId;
  for await (const update of client.api.chat.send(
    { text, model: "up/m", ...(sessionId === undefined ? {} : { sessionId }) },
    soon(),
  )) {
    if (update.kind === "started") session = update.sessionId;
    if (update.kind === "failed") assert.fail(update.error.message);
  }
  assert.ok(session !== undefined);
  return session;
}

/** The latest state of each entry after `revision`, once there are `count` that have ended. */
async function watch(
  daemon: TestDaemon,
  sessionId: SessionId,
  afterRevision: number,
  count: number,
): Promise<readonly SessionWatchUpdate[]> {
  using client = await daemon.connect();
  const latestOf = new Map<string, SessionWatchUpdate>();
  for await (const update of client.api.session.watch({ sessionId, afterRevision }, soon())) {
    latestOf.delete(update.entry.id);
    latestOf.set(update.entry.id, update);
    if ([...latestOf.values()].filter(({ entry }) => entry.answer?.state !== "streaming").length >= count) break;
  }
  return [...latestOf.values()];
}

function overwrite(file: string, position: number, bytes: Buffer): void {
  const descriptor = openSync(file, "r+");
  writeSync(descriptor, bytes, 0, bytes.length, position);
  closeSync(descriptor);
}

function open(file: string): Promise<sqlite3.Database> {
  return new Promise((resolve, reject) => {
    const database = new sqlite3.Database(file, (error) => (error === null ? resolve(database) : reject(error)));
  });
}
function exec(database: sqlite3.Database, text: string): Promise<void> {
  return new Promise((resolve, reject) => database.exec(text, (error) => (error === null ? resolve() : reject(error))));
}
async function sql(file: string, text: string): Promise<void> {
  const database = await open(file);
  await exec(database, text);
  await new Promise((resolve) => database.close(resolve));
}

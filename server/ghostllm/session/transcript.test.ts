import assert from "node:assert/strict";
import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { z } from "zod";
import { sessionGetResult, type SessionWatchUpdate } from "../../../protocol/session.ts";
import type { SessionId, UserId } from "../../../protocol/ids.ts";
import {
  actorOf,
  ada,
  ask,
  assistant,
  bob,
  bodyOf,
  DECISION,
  lastFrame,
  makeFolder,
  MODEL,
  newAnswerId,
  openTranscriptAt,
  removeFolder,
  system,
  textFrame,
  type Turn,
  user,
} from "../../../test/support/transcript.ts";
import { GhostError } from "../../base/errors.ts";
import { eventsFrame } from "../stream.ts";
import type { Recording, Transcript } from "./transcript.ts";

const never = new AbortController().signal;
const withCode = (code: string) => (error: unknown) => error instanceof GhostError && error.code === code;

async function setUp(context: TestContext, options: Parameters<typeof openTranscriptAt>[1] = {}) {
  const folder = await makeFolder();
  const opened = await openTranscriptAt(folder, options);
  context.after(async () => {
    await opened[Symbol.asyncDispose]();
    await removeFolder(folder);
  });
  return { folder, ...opened };
}

/** A session by its id, as a face sees it, checked against the protocol's schema. */
async function view(transcript: Transcript, sessionId: SessionId | null, userId: UserId = ada) {
  assert.ok(sessionId !== null);
  return sessionGetResult.parse(await transcript.get(userId, { sessionId }));
}
const texts = (entries: readonly { readonly text: string }[]) => entries.map(({ text }) => text);

async function begin(transcript: Transcript, turns: readonly Turn[], userId: UserId = ada): Promise<Recording> {
  const recording = await transcript.begin({
    answerId: newAnswerId(),
    actor: actorOf(userId),
    task: "chat",
    target: "ghost/auto",
    request: { kind: "body", dialect: "openai-chat", body: bodyOf(turns) },
  });
  recording.opened(MODEL, DECISION);
  return recording;
}

const U1 = [system("s"), user("u1")];

test("a conversation that a client sends back grows in one thread of one session", async (context) => {
  const { transcript } = await setUp(context);
  const first = await ask(transcript, U1, ["a", "1"]);
  const second = await ask(transcript, [...U1, assistant("a1"), user("u2")], ["a2"]);
  assert.equal(second.sessionId, first.sessionId);
  assert.equal(second.threadId, first.threadId);
  const { session, threads, entries } = await view(transcript, first.sessionId);
  assert.deepEqual(texts(entries), ["s", "u1", "a1", "u2", "a2"]);
  assert.deepEqual([session.title, session.threads, session.messages, threads.length], ["u1", 1, 5, 1]);
  assert.equal(entries[4]?.answer?.state, "complete");
});

test("a request that repeats or edits an earlier message forks within the session", async (context) => {
  const { transcript } = await setUp(context);
  const first = await ask(transcript, U1, ["a1"]);
  await ask(transcript, [...U1, assistant("a1"), user("u2")], ["a2"]);
  const regenerated = await ask(transcript, [...U1, assistant("a1"), user("u2")], ["another a2"]);
  const edited = await ask(transcript, [...U1, assistant("a1"), user("u2 edited")], ["a3"]);
  for (const fork of [regenerated, edited]) {
    assert.equal(fork.sessionId, first.sessionId);
    assert.notEqual(fork.threadId, first.threadId);
  }
  const { session, entries } = await view(transcript, first.sessionId);
  assert.deepEqual(texts(entries), ["s", "u1", "a1", "u2 edited", "a3"]);
  assert.deepEqual([session.threads, session.messages], [3, 8]);
});

test("parallel agents with one system prompt do not share a session, and answers side by side do not mix", async (context) => {
  const { transcript } = await setUp(context);
  const open = await Promise.all(
    ["a", "b", "c"].map((name) => begin(transcript, [system("same"), user(`task ${name}`)])),
  );
  for (let piece = 0; piece < 5; piece += 1) {
    for (const [index, recording] of open.entries()) recording.record(textFrame(`${index}${piece} `));
  }
  for (const recording of open) recording.end({ state: "complete" });
  const places = await Promise.all(open.map(({ answerId }) => transcript.settled(answerId)));
  assert.equal(new Set(places.map(({ sessionId }) => sessionId)).size, 3);
  for (const [index, { sessionId }] of places.entries()) {
    const { entries } = await view(transcript, sessionId);
    assert.equal(entries.at(-1)?.text, `${index}0 ${index}1 ${index}2 ${index}3 ${index}4 `);
  }
});

test("the same request twice at once makes two threads of one session", async (context) => {
  const { transcript } = await setUp(context);
  const [left, right] = await Promise.all([begin(transcript, U1), begin(transcript, U1)]);
  right.record(textFrame("right"));
  left.record(textFrame("left"));
  right.end({ state: "complete" });
  left.end({ state: "complete" });
  const places = await Promise.all([left, right].map(({ answerId }) => transcript.settled(answerId)));
  assert.equal(places[0]?.sessionId, places[1]?.sessionId);
  assert.notEqual(places[0]?.threadId, places[1]?.threadId);
  const next = await ask(transcript, [...U1, assistant("left"), user("u2")], ["a2"]);
  assert.equal(next.threadId, places[0]?.threadId);
});

test("two users with the same opening never see or touch each other's session", async (context) => {
  const { transcript } = await setUp(context);
  const adas = await ask(transcript, U1, ["a1"], ada);
  const bobs = await ask(transcript, [...U1, assistant("a1"), user("u2")], ["b2"], bob);
  assert.notEqual(bobs.sessionId, adas.sessionId);
  const sessionId = adas.sessionId;
  assert.ok(sessionId !== null);
  await assert.rejects(transcript.get(bob, { sessionId }), withCode("session_not_found"));
  await assert.rejects(transcript.history(bob, sessionId), withCode("session_not_found"));
  await assert.rejects(transcript.delete(bob, { sessionId }), withCode("session_not_found"));
  await assert.rejects(
    Array.fromAsync(transcript.watch(bob, { sessionId, afterRevision: 0 }, never)),
    withCode("session_not_found"),
  );
  assert.deepEqual(
    (await transcript.list(bob, { limit: 9 })).sessions.map(({ id }) => id),
    [bobs.sessionId],
  );
  assert.equal((await transcript.usage(bob, { sinceMs: 0 })).models[0]?.answers, 1);
  // A session of somebody else, named outright, is left alone.
  const recording = await transcript.begin({
    answerId: newAnswerId(),
    actor: actorOf(bob),
    task: "chat",
    target: "ghost/auto",
    request: { kind: "messages", messages: [{ role: "user", parts: [{ kind: "text", text: "intruder" }] }], sessionId },
  });
  recording.end({ state: "complete" });
  assert.notEqual((await transcript.settled(recording.answerId)).sessionId, sessionId);
  assert.deepEqual(texts((await view(transcript, sessionId)).entries), ["s", "u1", "a1"]);
});

test("a chat goes on with its history, in the session that it was told at once", async (context) => {
  const { transcript } = await setUp(context);
  let history: Awaited<ReturnType<Transcript["history"]>> | undefined;
  let sessionId: SessionId | undefined;
  for (const text of ["one", "two", "three"]) {
    const messages = [
      ...(history?.messages ?? []),
      { role: "user" as const, parts: [{ kind: "text" as const, text }] },
    ];
    const recording = await transcript.begin({
      answerId: newAnswerId(),
      actor: actorOf(ada),
      task: "chat",
      target: "ghost/auto",
      request: { kind: "messages", messages, sessionId, threadId: history?.threadId },
    });
    sessionId ??= recording.sessionId;
    assert.ok(sessionId !== undefined && recording.sessionId === sessionId);
    recording.opened(MODEL, DECISION);
    // The second answer fails before its first word: it is shown, and the conversation goes on from the question.
    if (text === "two")
      recording.end({ state: "failed", error: { code: "upstream_failed", message: "broke", details: {} } });
    else {
      recording.record(
        eventsFrame([
          { kind: "reasoning", text: "hm" },
          { kind: "text", text: `re ${text}` },
        ]),
      );
      recording.end({ state: "complete" });
    }
    history = await transcript.history(ada, sessionId);
  }
  assert.deepEqual(
    history?.messages.map(({ parts }) => parts[0]),
    ["one", "re one", "two", "three", "re three"].map((text) => ({ kind: "text", text })),
  );
  const { session, entries } = await view(transcript, sessionId ?? null);
  assert.equal(session.threads, 1);
  assert.deepEqual([entries[3]?.answer?.state, entries[3]?.answer?.error], ["failed", "broke"]);
});

test("tool calls, their results, usage and the reason are kept; a count that nobody reported stays unknown", async (context) => {
  const { transcript } = await setUp(context);
  const recording = await begin(transcript, U1);
  recording.record(
    eventsFrame([
      { kind: "toolCall", index: 0, callId: "c1", name: "read", arguments: '{"pa' },
      { kind: "toolCall", index: 1, callId: "c2", name: "list", arguments: "{}" },
      { kind: "toolCall", index: 0, arguments: 'th":"x"}' },
      { kind: "usage", usage: { promptTokens: 7 } },
      { kind: "finish", reason: "toolCalls" },
    ]),
  );
  recording.end({ state: "complete" });
  const { sessionId } = await transcript.settled(recording.answerId);
  const entry = (await view(transcript, sessionId)).entries.at(-1);
  assert.deepEqual(entry?.toolCalls, [
    { callId: "c1", name: "read", arguments: '{"path":"x"}' },
    { callId: "c2", name: "list", arguments: "{}" },
  ]);
  assert.deepEqual(entry?.answer?.usage, { promptTokens: 7 });
  assert.equal(entry?.answer?.reason, "toolCalls");
  await ask(transcript, [user("without usage")], ["a"]);
  const completion = await transcript.begin({
    answerId: newAnswerId(),
    actor: actorOf(ada),
    task: "completion",
    target: "ghost/code",
    request: { kind: "completion", prefix: "let x", suffix: "" },
  });
  completion.opened(MODEL, DECISION);
  completion.record(lastFrame({ prompt_tokens: 3, completion_tokens: 5 }));
  completion.end({ state: "complete" });
  assert.equal((await transcript.settled(completion.answerId)).sessionId, null);
  assert.deepEqual((await transcript.usage(ada, { sinceMs: 0 })).models, [
    { model: MODEL, answers: 3, interrupted: 0, promptTokens: 10, completionTokens: 5, answersWithoutUsage: 1 },
  ]);
});

test("an error inside the stream makes the answer failed, however the stream ended", async (context) => {
  const { transcript } = await setUp(context);
  const recording = await begin(transcript, U1);
  recording.record(
    eventsFrame([
      { kind: "text", text: "half" },
      { kind: "error", error: { code: "upstream_failed", message: "gone", details: {} } },
    ]),
  );
  recording.end({ state: "complete" });
  const { sessionId } = await transcript.settled(recording.answerId);
  const entry = (await view(transcript, sessionId)).entries.at(-1);
  assert.deepEqual([entry?.text, entry?.answer?.state, entry?.answer?.error], ["half", "failed", "gone"]);
});

test("a growing answer can be read at any moment, whole, and its long text is stored in pieces", async (context) => {
  const { transcript, database } = await setUp(context);
  const recording = await begin(transcript, U1);
  recording.record(textFrame("start "));
  const { sessions } = await transcript.list(ada, { limit: 1 });
  const sessionId = sessions[0]?.id ?? null;
  let expected = "start ";
  for (let piece = 0; piece < 20; piece += 1) {
    const text = `${piece}:${'é\0"'.repeat(5_000)}`;
    expected += text;
    recording.record(textFrame(text));
    if (piece % 5 === 0) assert.equal((await view(transcript, sessionId)).entries.at(-1)?.text, expected);
  }
  const count = z.object({ n: z.int() });
  assert.ok(((await database.read(count, "SELECT count(*) AS n FROM answer_chunks", []))[0]?.n ?? 0) >= 4);
  recording.end({ state: "cancelled" });
  await transcript.settled(recording.answerId);
  const entry = (await view(transcript, sessionId)).entries.at(-1);
  assert.deepEqual([entry?.text, entry?.answer?.state], [expected, "cancelled"]);
  assert.deepEqual(await database.read(count, "SELECT count(*) AS n FROM answer_chunks", []), [{ n: 0 }]);
});

test("a large request goes beside the spool and is attached like any other", async (context) => {
  const { transcript, folder } = await setUp(context);
  const opening = [user("x".repeat(400_000))];
  const beginning = begin(transcript, opening);
  const recording = await beginning;
  assert.ok((await readdir(join(folder, "spool"))).some((name) => name.endsWith(".large")));
  recording.record(textFrame("a"));
  recording.end({ state: "complete" });
  const first = await transcript.settled(recording.answerId);
  const second = await ask(transcript, [...opening, assistant("a"), user("next")], ["b"]);
  assert.equal(second.threadId, first.threadId);
});

test("a watcher gets the history, then every growth, with rising revisions, and can come back where it left", async (context) => {
  const { transcript } = await setUp(context);
  const recording = await begin(transcript, U1);
  const { sessions } = await transcript.list(ada, { limit: 1 });
  const sessionId = sessions[0]?.id;
  assert.ok(sessionId !== undefined);
  const seen: SessionWatchUpdate[] = [];
  const lengths = new Set<number>();
  for await (const update of transcript.watch(ada, { sessionId, afterRevision: 0 }, never)) {
    assert.ok(update.revision > (seen.at(-1)?.revision ?? 0));
    seen.push(update);
    if (update.entry.role !== "assistant") continue;
    lengths.add(update.entry.text.length);
    if (update.entry.answer?.state === "complete") break;
    if (update.entry.text.length < 3) recording.record(textFrame("x"));
    else recording.end({ state: "complete" });
  }
  assert.deepEqual([...lengths], [0, 1, 2, 3]);
  const last = seen.at(-1)?.revision ?? 0;
  const rest = transcript.watch(ada, { sessionId, afterRevision: last - 1 }, AbortSignal.timeout(10_000));
  for await (const update of rest) {
    assert.deepEqual(update, seen.at(-1));
    break;
  }
  const ahead = transcript.watch(ada, { sessionId, afterRevision: last + 100 }, never);
  await assert.rejects(Array.fromAsync(ahead), withCode("stream_position_lost"));
});

test("a watch ends with its signal, and with session_not_found when the session is deleted", async (context) => {
  const { transcript } = await setUp(context);
  const { sessionId } = await ask(transcript, U1, ["a1"]);
  assert.ok(sessionId !== null);
  const abort = new AbortController();
  const aborted = (async () => {
    for await (const { entry } of transcript.watch(ada, { sessionId, afterRevision: 0 }, abort.signal)) {
      if (entry.text === "a1") abort.abort();
    }
  })();
  await aborted;
  const deleted = (async () => {
    for await (const { entry } of transcript.watch(ada, { sessionId, afterRevision: 0 }, never)) {
      if (entry.text === "a1") void transcript.delete(ada, { sessionId });
    }
  })();
  await assert.rejects(deleted, withCode("session_not_found"));
});

test("a deleted session is gone for good, while its usage and an answer that streams into it go on", async (context) => {
  const { folder, transcript, ...opened } = await setUp(context);
  const { sessionId } = await ask(transcript, U1, ["secret text"]);
  const streaming = await begin(transcript, [...U1, assistant("secret text"), user("u2")]);
  streaming.record(textFrame("more secret"));
  assert.ok(sessionId !== null);
  assert.deepEqual(await transcript.delete(ada, { sessionId }), { deletedEntries: 5 });
  streaming.record(textFrame("text"));
  streaming.end({ state: "complete" });
  assert.deepEqual(await transcript.settled(streaming.answerId), { sessionId: null, threadId: null, entryId: null });
  await assert.rejects(transcript.get(ada, { sessionId }), withCode("session_not_found"));
  assert.equal((await transcript.usage(ada, { sinceMs: 0 })).models[0]?.answers, 2);
  await opened[Symbol.asyncDispose]();
  await using again = await openTranscriptAt(folder);
  assert.deepEqual((await again.transcript.list(ada, { limit: 9 })).sessions, []);
  const dump = z.object({ all: z.string() });
  const rows = await again.database.read(
    dump,
    "SELECT group_concat(coalesce(text, '') || coalesce(error, '')) AS 'all' FROM answers",
    [],
  );
  assert.ok(!JSON.stringify(rows).includes("secret"));
});

test("when the spool is full, record throws, the answer ends as failed and others go on later", async (context) => {
  const { transcript, spool } = await setUp(context, { spoolMaxBytes: 20_000, segmentBytes: 2_000 });
  const recording = await begin(transcript, U1);
  const fill = () => {
    for (;;) recording.record(textFrame("y".repeat(500)));
  };
  assert.throws(fill, withCode("storage_full"));
  recording.end({ state: "failed", error: { code: "storage_full", message: "the disk is full", details: {} } });
  const { sessionId } = await transcript.settled(recording.answerId);
  const entry = (await view(transcript, sessionId)).entries.at(-1);
  assert.equal(entry?.answer?.state, "failed");
  assert.ok((entry?.text.length ?? 0) > 10_000);
  assert.ok(spool.next > 15_000);
  await ask(transcript, [user("next")], ["works"]);
});

test("when SQLite is full, nothing is lost: it is stored as soon as there is room", async (context) => {
  const { transcript, database } = await setUp(context);
  await database.write([{ sql: "PRAGMA max_page_count = 40", values: [] }]);
  const recording = await begin(transcript, U1);
  recording.record(textFrame("z".repeat(300_000)));
  recording.end({ state: "complete" });
  const settled = transcript.settled(recording.answerId);
  const { sessions } = await transcript.list(ada, { limit: 9 });
  assert.deepEqual(sessions, []);
  await database.write([{ sql: "PRAGMA max_page_count = 1000000", values: [] }]);
  const { sessionId } = await settled;
  assert.equal((await view(transcript, sessionId)).entries.at(-1)?.text.length, 300_000);
});

test("what is not stored yet stays in the spool, however many segments that takes, and is deleted afterwards", async (context) => {
  const { transcript, database, folder } = await setUp(context, { segmentBytes: 1_000 });
  await database.write([{ sql: "PRAGMA max_page_count = 40", values: [] }]);
  const recording = await begin(transcript, U1);
  for (let piece = 0; piece < 300; piece += 1) recording.record(textFrame("w".repeat(1_000)));
  recording.end({ state: "complete" });
  await transcript.list(ada, { limit: 9 });
  const killed = await makeFolder();
  context.after(() => removeFolder(killed));
  await cp(join(folder, "spool"), join(killed, "spool"), { recursive: true });
  await using again = await openTranscriptAt(killed);
  const { sessions } = await again.transcript.list(ada, { limit: 9 });
  assert.equal((await view(again.transcript, sessions[0]?.id ?? null)).entries.at(-1)?.text.length, 300_000);
  await database.write([{ sql: "PRAGMA max_page_count = 1000000", values: [] }]);
  await transcript.settled(recording.answerId);
  while ((await readdir(join(folder, "spool"))).length > 1) await transcript.list(ada, { limit: 1 });
});

test("two requests that go on from one answer at once: one continues, the other forks", async (context) => {
  const { transcript, log } = await setUp(context);
  const first = await ask(transcript, U1, ["a1"]);
  const both = await Promise.all(
    ["x", "y"].map((text) => ask(transcript, [...U1, assistant("a1"), user(text)], [`re ${text}`])),
  );
  assert.deepEqual(
    both.map(({ sessionId }) => sessionId),
    [first.sessionId, first.sessionId],
  );
  assert.equal(both.filter(({ threadId }) => threadId === first.threadId).length, 1);
  assert.deepEqual(log.lines, []);
});

test("only the latest thousand completions keep their text", async (context) => {
  const { transcript, database } = await setUp(context);
  for (let count = 0; count < 1_150; count += 1) {
    const recording = await transcript.begin({
      answerId: newAnswerId(),
      actor: actorOf(ada),
      task: "completion",
      target: "ghost/code",
      request: { kind: "completion", prefix: "", suffix: "" },
    });
    recording.record(textFrame(`text ${count}`));
    recording.end({ state: "complete" });
    if (count % 10 === 0) await transcript.settled(recording.answerId);
  }
  await transcript.list(ada, { limit: 1 });
  const count = z.object({ texts: z.int(), answers: z.int() });
  const [row] = await database.read(count, "SELECT count(text) AS texts, count(*) AS answers FROM answers", []);
  assert.equal(row?.answers, 1_150);
  assert.ok((row?.texts ?? 0) >= 1_000 && (row?.texts ?? 0) < 1_150);
});

test("a thread that grew behind the writer's back is not overwritten", async (context) => {
  const { database, transcript } = await setUp(context);
  const { threadId } = await ask(transcript, U1, ["a1"]);
  const grow = (basedOn: number) => ({
    sql: "UPDATE threads SET epoch = epoch + 1, based_on = ? WHERE id = ?",
    values: [basedOn, threadId],
  });
  await database.write([grow(1)]);
  await assert.rejects(database.write([grow(1)]), /stale epoch/);
});

test("a clean stop leaves nothing to replay and marks what was still open as interrupted", async (context) => {
  const { folder, transcript, ...opened } = await setUp(context);
  const recording = await begin(transcript, U1);
  recording.record(textFrame("so far"));
  assert.equal(transcript.openAnswers, 1);
  await opened[Symbol.asyncDispose]();
  assert.throws(() => recording.record(textFrame("too late")), withCode("daemon_stopping"));
  const names = await readdir(join(folder, "spool"));
  assert.equal((await readFile(join(folder, "spool", names[0] ?? ""))).length, 0);
  await using again = await openTranscriptAt(folder);
  const { sessions } = await again.transcript.list(ada, { limit: 9 });
  const entry = (await view(again.transcript, sessions[0]?.id ?? null)).entries.at(-1);
  assert.deepEqual([entry?.text, entry?.answer?.state], ["so far", "interrupted"]);
});

test("replaying the spool cut at any byte, from any stored state, any number of times, loses and doubles nothing", async (context) => {
  const { folder, transcript } = await setUp(context);
  const done = await begin(transcript, U1);
  const open = await begin(transcript, [user("other")]);
  const pieces = ["alpha ", "beta ", "gamma ", "delta "];
  for (const piece of pieces.slice(0, 2)) for (const recording of [done, open]) recording.record(textFrame(piece));
  const { sessions } = await transcript.list(ada, { limit: 9 });
  for (const { id } of sessions) await transcript.get(ada, { sessionId: id });
  // The database as a killed process leaves it: two pieces of each answer are stored, what follows is in the spool alone.
  const stored = new Map<string, Buffer>();
  for (const file of ["ghost.db", "ghost.db-wal"]) stored.set(file, await readFile(join(folder, file)));
  for (const piece of pieces.slice(2)) for (const recording of [done, open]) recording.record(textFrame(piece));
  done.end({ state: "complete" });
  const [name = ""] = await readdir(join(folder, "spool"));
  const whole = await readFile(join(folder, "spool", name));
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: whole.length }), fc.boolean(), async (cut, withDatabase) => {
      const copy = await makeFolder();
      try {
        await writeFile(join(copy, "spool", name), whole.subarray(0, cut));
        if (withDatabase) for (const [file, bytes] of stored) await writeFile(join(copy, file), bytes);
        const first = await snapshot(copy);
        // What an earlier process left must come out the same when its spool is absorbed again.
        await writeFile(join(copy, "spool", name), whole.subarray(0, cut));
        assert.deepEqual(await snapshot(copy), first);
        const full = pieces.join("");
        for (const { text, state } of first) {
          assert.ok(full.startsWith(text));
          assert.ok(state === "interrupted" || (state === "complete" && text === full));
          if (withDatabase) assert.ok(text.startsWith("alpha beta "));
        }
        assert.ok(!withDatabase || first.length === 2);
        if (cut === whole.length)
          assert.deepEqual(
            first.map(({ text }) => text),
            [full, full],
          );
      } finally {
        await removeFolder(copy);
      }
    }),
    {
      numRuns: 60,
      examples: [
        [whole.length, true],
        [whole.length, false],
        [0, true],
      ],
    },
  );
});

test("who asks faster than SQLite stores waits for room, and then is answered", async (context) => {
  const { transcript } = await setUp(context);
  const start = (index: number) =>
    transcript.begin({
      answerId: newAnswerId(),
      actor: actorOf(ada),
      task: "chat",
      target: "ghost/auto",
      request: { kind: "body", dialect: "openai-chat", body: bodyOf([user(`${index} ${"x".repeat(200_000)}`)]) },
    });
  // In one turn, so that nothing is stored meanwhile; the bound is 32 MiB.
  const recordings = Array.from({ length: 200 }, (_, index) => start(index));
  const waiting = recordings.filter((recording) => recording instanceof Promise);
  assert.ok(waiting.length > 20 && waiting.length < 60, `${waiting.length} wait`);
  for (const recording of recordings) (await recording).end({ state: "complete" });
  assert.equal((await transcript.list(ada, { limit: 500 })).sessions.length, 200);
});

/** Every answer with its text. */
async function snapshot(folder: string) {
  await using opened = await openTranscriptAt(folder);
  const { sessions } = await opened.transcript.list(ada, { limit: 99 });
  const answers: { readonly text: string; readonly state: string | undefined; readonly entries: number }[] = [];
  for (const { id, title } of sessions.toSorted((a, b) => (a.title < b.title ? -1 : 1))) {
    const { entries, session } = await opened.transcript.get(ada, { sessionId: id });
    assert.equal(session.threads, 1, title);
    const last = entries.at(-1);
    answers.push({ text: last?.text ?? "", state: last?.answer?.state, entries: entries.length });
  }
  return answers;
}

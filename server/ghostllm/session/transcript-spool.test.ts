/** What is in the spool when: before anything that depends on it is shown or told, and no oftener than that (I7, I8). */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import {
  actorOf,
  ada,
  bodyOf,
  DECISION,
  makeFolder,
  MODEL,
  newAnswerId,
  openTranscriptAt,
  removeFolder,
  textFrame,
  user,
} from "../../../test/support/transcript.ts";
import type { Recording, Transcript } from "./transcript.ts";

/** How much the spool's file holds. */
const spooledBytes = (folder: string) =>
  readdirSync(join(folder, "spool")).reduce((sum, name) => sum + statSync(join(folder, "spool", name)).size, 0);

const begin = (transcript: Transcript, isShownWhole: boolean): Recording | Promise<Recording> =>
  transcript.begin({
    answerId: newAnswerId(),
    actor: actorOf(ada),
    task: "chat",
    target: "ghost/auto",
    request: { kind: "body", dialect: "openai-chat", body: bodyOf([user("q")]) },
    isShownWhole,
  });

/** What a process that is killed now would leave in the spool, as the next one finds it. */
async function afterKill(context: TestContext, folder: string) {
  const killed = await makeFolder();
  context.after(() => removeFolder(killed));
  await cp(join(folder, "spool"), join(killed, "spool"), { recursive: true });
  await using again = await openTranscriptAt(killed);
  const { sessions } = await again.transcript.list(ada, { limit: 9 });
  if (sessions[0] === undefined) return undefined;
  const entry = (await again.transcript.get(ada, { sessionId: sessions[0].id })).entries.at(-1);
  return { text: entry?.text, state: entry?.answer?.state };
}

test("a question is in the spool when the turn ends, and what is told or shown of its answer at once", async (context) => {
  const folder = await makeFolder();
  context.after(() => removeFolder(folder));
  await using opened = await openTranscriptAt(folder);
  const { transcript } = opened;
  const recording = await begin(transcript, false);
  assert.equal(spooledBytes(folder), 0);
  await new Promise((resolve) => setImmediate(resolve));
  const question = spooledBytes(folder);
  assert.ok(question > 0);
  // Its session may be told from here on.
  recording.opened(MODEL, DECISION);
  const told = spooledBytes(folder);
  assert.ok(told > question);
  recording.record(textFrame("shown"));
  assert.ok(spooledBytes(folder) > told);
  assert.deepEqual(await afterKill(context, folder), { text: "shown", state: "interrupted" });
});

test("an answer that is shown whole is written once, with its end", async (context) => {
  const folder = await makeFolder();
  context.after(() => removeFolder(folder));
  await using opened = await openTranscriptAt(folder);
  const { transcript } = opened;
  const recording = await begin(transcript, true);
  recording.opened(MODEL, DECISION);
  recording.record(textFrame("all of "));
  recording.record(textFrame("it"));
  assert.equal(spooledBytes(folder), 0);
  recording.end({ state: "complete" });
  assert.deepEqual(await afterKill(context, folder), { text: "all of it", state: "complete" });
});

test("a whole answer that cannot be spooled is not shown, and others go on", async () => {
  const folder = await makeFolder();
  const support = join(import.meta.dirname, "../../../test/support/transcript.ts");
  // A real limit of the kernel: files of this process end at 1 MiB.
  const script = `
    const { actorOf, ada, bodyOf, DECISION, MODEL, newAnswerId, openTranscriptAt, textFrame, user } = await import(${JSON.stringify(support)});
    const { transcript } = await openTranscriptAt(${JSON.stringify(folder)}, { segmentBytes: 8_000_000 });
    const begin = async (isShownWhole) => {
      const request = { kind: "body", dialect: "openai-chat", body: bodyOf([user("q")]) };
      const recording = await transcript.begin({ answerId: newAnswerId(), actor: actorOf(ada), task: "chat", target: "t", request, isShownWhole });
      recording.opened(MODEL, DECISION);
      return recording;
    };
    const outcomes = [];
    const tried = (what) => { try { what(); outcomes.push("done"); } catch (error) { outcomes.push(error.code); } };
    const streamed = await begin(false);
    tried(() => streamed.record(textFrame("s".repeat(800_000))));
    for (const length of [400_000, 100]) {
      const whole = await begin(true);
      tried(() => whole.record(textFrame("w".repeat(length))));
      tried(() => whole.end({ state: "complete" }));
    }
    tried(() => streamed.record(textFrame("s")));
    console.log(JSON.stringify(outcomes));
    process.exit();
  `;
  const command = 'ulimit -f 1024; exec "$0" --input-type=module-typescript -e "$1"';
  const { stdout } = await promisify(execFile)("bash", ["-c", command, process.execPath, script]);
  await removeFolder(folder);
  assert.deepEqual(JSON.parse(stdout), ["done", "done", "storage_full", "done", "done", "done"]);
});

for (const isShownWhole of [false, true]) {
  test(`a question that cannot be spooled is refused, and stands nowhere afterwards (${isShownWhole ? "whole" : "stream"})`, async () => {
    const folder = await makeFolder();
    const support = join(import.meta.dirname, "../../../test/support/transcript.ts");
    const script = `
      const { actorOf, ada, bodyOf, DECISION, MODEL, newAnswerId, openTranscriptAt, textFrame, user } = await import(${JSON.stringify(support)});
      const { transcript } = await openTranscriptAt(${JSON.stringify(folder)}, { segmentBytes: 8_000_000 });
      const begin = (text, isShownWhole) => {
        const request = { kind: "body", dialect: "openai-chat", body: bodyOf([user(text)]) };
        return transcript.begin({ answerId: newAnswerId(), actor: actorOf(ada), task: "chat", target: "t", request, isShownWhole });
      };
      const kept = await begin("kept", false);
      kept.opened(MODEL, DECISION);
      // Much for the spool and little for SQLite, which has room for what is refused.
      const frame = textFrame("s");
      kept.record({ ...frame, bytes: Buffer.concat([Buffer.from(": " + "x".repeat(900_000) + "\\n\\n"), frame.bytes]) });
      kept.end({ state: "complete" });
      const refused = await begin("refused" + "y".repeat(200_000), ${isShownWhole});
      await new Promise((resolve) => setImmediate(resolve));
      let code = "opened";
      try { refused.opened(MODEL, DECISION); } catch (error) { code = error.code; }
      refused.end({ state: "failed", error: { code: "storage_full", message: "full", details: {} } });
      await transcript[Symbol.asyncDispose]();
      console.log(JSON.stringify([code, transcript.openAnswers]));
      process.exit();
    `;
    const command = 'ulimit -f 1024; exec "$0" --input-type=module-typescript -e "$1"';
    const { stdout } = await promisify(execFile)("bash", ["-c", command, process.execPath, script]);
    assert.deepEqual(JSON.parse(stdout), ["storage_full", 0]);
    {
      await using again = await openTranscriptAt(folder);
      const { sessions } = await again.transcript.list(ada, { limit: 9 });
      assert.deepEqual(
        sessions.map(({ title }) => title),
        ["kept"],
      );
    }
    await removeFolder(folder);
  });
}

test("an answer that comes faster than it is stored is kept in the spool, and not in memory as well", async (context) => {
  const folder = await makeFolder();
  context.after(() => removeFolder(folder));
  await using opened = await openTranscriptAt(folder, { segmentBytes: 300_000 });
  const recording = await begin(opened.transcript, false);
  recording.opened(MODEL, DECISION);
  let kept = 0;
  let text = "";
  for (let index = 0; index < 40; index += 1) {
    const piece = `${index}:${"f".repeat(100_000)};`;
    const frame = textFrame(piece);
    const events = () => {
      kept += 1;
      return frame.events();
    };
    recording.record({ ...frame, events });
    text += piece;
  }
  recording.end({ state: "complete" });
  const { sessionId } = await opened.transcript.settled(recording.answerId);
  assert.ok(sessionId !== null);
  const { entries } = await opened.transcript.get(ada, { sessionId });
  assert.equal(entries.at(-1)?.text, text);
  assert.equal(kept, 5);
  assert.deepEqual(opened.log.lines, []);
});

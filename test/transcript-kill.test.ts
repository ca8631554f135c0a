/** kill -9 at random moments: whatever was shown is in the transcript afterwards, and nothing else (I7, I8). */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { answerIdSchema, type AnswerId } from "../protocol/ids.ts";
import type { SessionEntry } from "../protocol/session.ts";
import { ada, makeFolder, openTranscriptAt, removeFolder } from "./support/transcript.ts";

const ROUNDS = process.env["GHOST_TEST_FULL"] === "1" ? 200 : 20;
const SEED = Number(process.env["GHOST_TEST_SEED"] ?? (Date.now() % 1_000_000) + 1);

interface Shown {
  readonly question: string;
  text: string;
  hasEnded: boolean;
}

/** Runs the child and kills it at a moment of its life that `moment` (0 to 1) chooses; true when it had come so far as to answer. */
async function runAndKill(folder: string, seed: number, moment: number, shown: Map<AnswerId, Shown>): Promise<boolean> {
  const entry = join(import.meta.dirname, "support", "transcript-kill-child.ts");
  const child = spawn(process.execPath, [entry, folder, String(seed)], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  let isReady = false;
  const read = (async () => {
    for await (const line of createInterface({ input: child.stdout })) {
      const [kind, id, ...rest] = line.split(" ");
      if (kind === "ready") isReady = true;
      if (id === undefined) continue;
      const answerId = answerIdSchema.parse(id);
      const answer = shown.get(answerId);
      if (kind === "b") shown.set(answerId, { question: rest.join(" "), text: "", hasEnded: false });
      else if (kind === "t" && answer !== undefined) answer.text += rest.join(" ");
      else if (kind === "e" && answer !== undefined) answer.hasEnded = true;
    }
  })();
  // A quarter of the kills may hit the start, where what the last round left is being absorbed.
  if (moment < 0.25) await sleep(moment * 2_000);
  else {
    while (!isReady && child.exitCode === null) await sleep(5);
    await sleep((moment - 0.25) * 600);
  }
  child.kill("SIGKILL");
  const [, signal] = await exited;
  assert.equal(signal, "SIGKILL", "the child ended by itself");
  await read;
  return isReady;
}

test(`what was shown before a kill is in the transcript after it (${ROUNDS} kills, seed ${SEED})`, async (context) => {
  context.diagnostic(`repeat with GHOST_TEST_SEED=${SEED}`);
  const folder = await makeFolder();
  context.after(() => removeFolder(folder));
  let state = SEED;
  const counts = { complete: 0, interrupted: 0, partial: 0, started: 0 };
  const shown = new Map<AnswerId, Shown>();
  for (let round = 0; round < ROUNDS; round += 1) {
    state = (state * 48_271) % 2_147_483_647;
    if (await runAndKill(folder, state, state / 2_147_483_647, shown)) counts.started += 1;
    // Sometimes the next process is killed as well before anybody looks.
    if (state % 3 === 0 && round < ROUNDS - 1) continue;
    await using opened = await openTranscriptAt(folder);
    for (const [answerId, { question, text, hasEnded }] of shown) {
      const entry = await storedAnswer(opened.transcript, answerId, question);
      assert.ok(entry.text.startsWith(text), `${answerId}: shown text is missing`);
      const answerState = entry.answer?.state;
      if (hasEnded) assert.deepEqual([answerState, entry.text], ["complete", text]);
      // The end may have been recorded and not printed any more.
      else assert.ok(answerState === "interrupted" || answerState === "complete", `${answerId} is ${answerState}`);
      if (answerState === "complete") counts.complete += 1;
      else counts.interrupted += 1;
      if (answerState === "interrupted" && text !== "") counts.partial += 1;
    }
    shown.clear();
    const { models } = await opened.transcript.usage(ada, { sinceMs: 0 });
    assert.ok(models.length <= 1);
    assert.deepEqual(
      opened.log.lines.filter(({ event }) => event !== "spool.torn"),
      [],
    );
  }
  context.diagnostic(JSON.stringify(counts));
  assert.ok(counts.complete > 0 && counts.interrupted > 0 && counts.partial > 0, JSON.stringify(counts));
});

async function storedAnswer(
  transcript: Awaited<ReturnType<typeof openTranscriptAt>>["transcript"],
  answerId: AnswerId,
  question: string,
): Promise<SessionEntry> {
  const { sessionId, threadId } = await transcript.settled(answerId);
  assert.ok(sessionId !== null && threadId !== null);
  const { entries } = await transcript.get(ada, { sessionId, threadId });
  const index = entries.findIndex(({ answer }) => answer?.id === answerId);
  const entry = entries[index];
  assert.ok(entry !== undefined, `${answerId} is not in its thread`);
  assert.equal(entries[index - 1]?.text.split(" ")[0], question);
  return entry;
}

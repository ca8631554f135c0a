/**
 * kill -9 at random moments of the real daemon, with clients of every kind at work: whatever one of them was shown is there afterwards, whole
 * answers are whole, and nothing is there twice (I7, I8). All rounds share one folder, so that what one leaves is replayed on top of the others'.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { GhostApi } from "../../protocol/ghost-api.ts";
import type { SessionId } from "../../protocol/ids.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { prepareFolder, rootFlags, startTestDaemon } from "../support/daemon.ts";
import { type TestFolder, testFolder } from "../support/folder.ts";
import { configFor } from "../support/http.ts";
import {
  CLIENT_KINDS,
  type ClientWorld,
  EMBEDDED,
  runClients,
  scriptFor,
  scriptedTokens,
  type Turn,
  UPSTREAM,
  type Witness,
} from "../support/kill-clients.ts";
import { isFullRun, type Random, testRandom } from "../support/random.ts";
import { readStored, type Stored, type StoredAnswer } from "../support/stored-answers.ts";

const ROUNDS = isFullRun ? 200 : 12;
/** The moment of the kill, after the round's clients began, or after one of them was first shown something. */
const MAX_DELAY_MS = 400;
/** In every so many rounds the moment counts from the embedded engine's first words, which come late in a fresh process. */
const EMBEDDED_EVERY = 3;
/** In every so many rounds a second process is killed while it starts, where the first one's records are being absorbed. */
const KILLED_START_EVERY = 3;
/** Sessions that are gone on with begin anew after so many rounds: each of their requests holds all that was said. */
const NEW_SESSION_EVERY = 5;
const MAIN = fileURLToPath(new URL("../../server/daemon/main.ts", import.meta.url));
const soon = () => AbortSignal.timeout(60_000);

interface Tally {
  requests: number;
  acknowledged: number;
  interrupted: number;
  interruptedWithText: number;
  completeUnseen: number;
  killedStarts: number;
  readonly shownBy: Map<string, number>;
}

test(`what clients were shown survives ${ROUNDS} kills of the daemon`, async (context) => {
  const random = testRandom();
  context.diagnostic(`repeat with GHOST_TEST_SEED=${random.seed}`);
  using folder = testFolder();
  const tally: Tally = {
    requests: 0,
    acknowledged: 0,
    interrupted: 0,
    interruptedWithText: 0,
    completeUnseen: 0,
    killedStarts: 0,
    shownBy: new Map(),
  };
  const all: Witness[] = [];
  const sessions = new Map<string, SessionId>();
  const turns = new Map<string, readonly Turn[]>();
  for (let round = 0; round < ROUNDS; round += 1) {
    if (round % NEW_SESSION_EVERY === 0) {
      sessions.clear();
      turns.clear();
    }
    const witnesses = await killRound({ folder, random, round, sessions, turns, all });
    if (random.below(KILLED_START_EVERY) === 0) {
      await killStart(folder, random);
      tally.killedStarts += 1;
    }
    all.push(...witnesses);
    await inspect(folder, { witnesses, all, tally, round, resumed: sessions.get("resumed") }).catch(
      (error: unknown) => {
        throw new Error(`round ${round} of seed ${random.seed}`, { cause: error });
      },
    );
  }
  report(context, tally);
});

function report(context: TestContext, tally: Tally): void {
  const summary = JSON.stringify({ ...tally, shownBy: Object.fromEntries(tally.shownBy) });
  context.diagnostic(summary);
  assert.ok(tally.acknowledged > 0 && tally.interruptedWithText > 0, summary);
  for (const kind of CLIENT_KINDS)
    assert.ok((tally.shownBy.get(kind) ?? 0) > 0, `no ${kind} was shown anything: ${summary}`);
}

interface Round {
  readonly folder: TestFolder;
  readonly random: Random;
  readonly round: number;
  readonly sessions: Map<string, SessionId>;
  readonly turns: Map<string, readonly Turn[]>;
  readonly all: readonly Witness[];
}

/** Starts a daemon, sets all clients on it, kills it at a random moment, and returns what the clients saw. */
async function killRound({ folder, random, round, sessions, turns }: Round): Promise<readonly Witness[]> {
  await using host = await startOpenAiHost({ models: ["m"], script: scriptFor });
  const daemon = await startTestDaemon({ folder, config: configFor(host.baseUrl) });
  using face = await daemon.connect();
  const gone = new AbortController();
  const shown = Promise.withResolvers<void>();
  const waitsFor = round % EMBEDDED_EVERY === 0 ? EMBEDDED : random.pick([undefined, UPSTREAM]);
  if (waitsFor === undefined) shown.resolve();
  let isKilled = false;
  const witnesses: Witness[] = [];
  const world: ClientWorld = {
    daemon,
    face,
    random,
    round,
    sessions,
    turns,
    witnesses,
    gone: gone.signal,
    isKilled: () => isKilled,
    onShown: ({ model }) => (model === waitsFor ? shown.resolve() : undefined),
  };
  const working = runClients(world);
  await Promise.race([shown.promise, working, failAfter(30_000, "nothing was shown")]);
  await sleep(random.below(MAX_DELAY_MS + 1));
  const { engine } = await face.api.daemon.status({}, soon());
  isKilled = true;
  const killed = await daemon.kill();
  assert.equal(killed.signal, "SIGKILL", `the daemon ended by itself: ${daemon.stderr()}`);
  // What the kernel had taken already still arrives; it was shown.
  const late = setTimeout(() => gone.abort(), 5_000);
  await working;
  clearTimeout(late);
  assert.deepEqual(
    witnesses.filter(({ problem }) => problem !== undefined),
    [],
  );
  assert.deepEqual(host.violations, []);
  if (engine.pid !== undefined) await untilEnded(engine.pid);
  return witnesses;
}

/** Kills a process while it starts; it may have become ready. */
async function killStart(folder: TestFolder, random: Random): Promise<void> {
  const { flags, env } = prepareFolder(folder, {});
  const child = spawn(process.execPath, [MAIN, ...flags, ...rootFlags()], { stdio: "ignore", env });
  const exited = once(child, "exit");
  await sleep(200 + random.below(600));
  child.kill("SIGKILL");
  assert.deepEqual(await exited, [null, "SIGKILL"]);
}

interface Inspection {
  readonly witnesses: readonly Witness[];
  readonly all: readonly Witness[];
  readonly tally: Tally;
  readonly round: number;
  readonly resumed: SessionId | undefined;
}

/** A fresh daemon on the folder: it works at once, and what it holds agrees with what everybody saw. */
async function inspect(folder: TestFolder, inspection: Inspection): Promise<void> {
  const { witnesses, all, tally, round, resumed } = inspection;
  await using host = await startOpenAiHost({ models: ["m"], script: scriptFor });
  await using daemon = await startTestDaemon({ folder, config: configFor(host.baseUrl) });
  using face = await daemon.connect();
  const isThorough = round === ROUNDS - 1 || round % 20 === 19;
  const stored = await readStored(
    face.api,
    daemon.dataDir,
    isThorough ? undefined : new Set(witnesses.map(({ marker }) => marker)),
  );
  const recent = new Set(witnesses);
  for (const witness of isThorough ? all : witnesses) check(witness, stored, { isRecent: recent.has(witness) });
  for (const witness of witnesses) count(witness, stored, tally);
  if (isThorough) await checkUsage(face.api, stored, all);
  await checkWorks(face.api, { host, round, resumed });
  const complaints = daemon.logs().filter(({ event }) => COMPLAINTS.has(String(event)));
  assert.deepEqual(complaints, []);
}

/** Lines of the log that mean a loss. */
const COMPLAINTS: ReadonlySet<string> = new Set([
  "transcript.failed",
  "transcript.answer_lost",
  "transcript.batch_failed",
  "transcript.frame_unreadable",
  "transcript.request_unreadable",
  "transcript.end_not_spooled",
  "database.restarted",
  "request.bug",
  "uncaught.exception",
  "unhandled.rejection",
]);

function check(witness: Witness, stored: Stored, { isRecent }: { readonly isRecent: boolean }): void {
  const what = JSON.stringify(witness);
  const answers = stored.byMarker.get(witness.marker) ?? [];
  assert.ok(answers.length <= 1, `asked once, stored ${answers.length} times: ${what}`);
  const byId = witness.answerId === undefined ? undefined : stored.byId.get(witness.answerId);
  const answer: StoredAnswer | undefined = byId ?? answers[0];
  if (answer === undefined) {
    assert.equal(witness.answerId, undefined, `its answer is gone: ${what}`);
    return;
  }
  const seen = `${what} but stored ${JSON.stringify(answer)}`;
  if (witness.task === "chat") {
    assert.equal(answers[0]?.id, answer.id, `the answer stands under another question: ${seen}`);
    assert.ok(witness.sessionId === undefined || answer.sessionId === witness.sessionId, `in another session: ${seen}`);
  }
  // The texts of old completions are not kept; in the round of their own they were looked at.
  if (answer.text === undefined && !isRecent) return;
  assert.ok(answer.text !== undefined, `its text is gone: ${seen}`);
  assert.ok(answer.text.startsWith(witness.shown), `shown text is missing: ${seen}`);
  assert.ok(witness.whole?.startsWith(answer.text) ?? true, `text that nobody said: ${seen}`);
  if (witness.isAcknowledged) {
    assert.equal(answer.state, "complete", seen);
    assert.equal(answer.text, witness.shown, seen);
    const { promptTokens, completionTokens } = answer.usage;
    assert.deepEqual(
      [promptTokens, completionTokens],
      [witness.usage?.promptTokens, witness.usage?.completionTokens],
      seen,
    );
  } else {
    assert.ok(answer.state === "interrupted" || answer.state === "complete", seen);
  }
  if (answer.state === "complete" && witness.whole !== undefined) {
    assert.equal(answer.text, witness.whole, seen);
    assert.equal(answer.usage.completionTokens, scriptedTokens(witness.marker).length, seen);
  }
}

function count(witness: Witness, stored: Stored, tally: Tally): void {
  tally.requests += 1;
  if (witness.isAcknowledged) tally.acknowledged += 1;
  if (witness.shown !== "") tally.shownBy.set(witness.kind, (tally.shownBy.get(witness.kind) ?? 0) + 1);
  const answer = witness.answerId === undefined ? undefined : stored.byId.get(witness.answerId);
  if (answer?.state === "interrupted") tally.interrupted += 1;
  if (answer?.state === "interrupted" && witness.shown !== "") tally.interruptedWithText += 1;
  if (answer?.state === "complete" && !witness.isAcknowledged) tally.completeUnseen += 1;
}

/** The sums are those of the stored answers, each counted once. */
async function checkUsage(api: GhostApi, stored: Stored, all: readonly Witness[]): Promise<void> {
  const { models } = await api.usage.summary({}, soon());
  assert.deepEqual(models.map(({ model }) => model).toSorted(), [EMBEDDED, UPSTREAM]);
  for (const row of models) {
    const answers = [...stored.byId.values()].filter(({ model }) => model === row.model);
    const sum = (count: (answer: StoredAnswer) => number) =>
      answers.reduce((total, answer) => total + count(answer), 0);
    const expected = {
      model: row.model,
      answers: answers.length,
      interrupted: sum(({ state }) => (state === "interrupted" ? 1 : 0)),
      promptTokens: sum(({ usage }) => usage.promptTokens ?? 0),
      completionTokens: sum(({ usage }) => usage.completionTokens ?? 0),
      answersWithoutUsage: sum(({ usage }) => (Object.keys(usage).length === 0 ? 1 : 0)),
    };
    assert.deepEqual(row, expected);
    const asked = all.filter(({ model }) => model === row.model);
    const checks = row.model === UPSTREAM ? ROUNDS : 0;
    assert.ok(row.answers <= asked.length + checks, `${row.answers} answers to ${asked.length} questions`);
    assert.ok(row.answers >= asked.filter(({ answerId }) => answerId !== undefined).length);
  }
}

/** Goes on at once where the kill broke off: the model is sent all that was stored, the broken answer included. */
async function checkWorks(
  api: GhostApi,
  {
    host,
    round,
    resumed,
  }: { readonly host: OpenAiHost; readonly round: number; readonly resumed: SessionId | undefined },
): Promise<void> {
  const marker = `r${round}check0n3`;
  const before = resumed === undefined ? [] : (await api.session.get({ sessionId: resumed }, soon())).entries;
  let text = "";
  let isFinished = false;
  const session = resumed === undefined ? {} : { sessionId: resumed };
  for await (const update of api.chat.send({ ...session, text: marker, model: UPSTREAM }, soon())) {
    if (update.kind === "text") text += update.text;
    if (update.kind === "finished") isFinished = true;
  }
  assert.deepEqual([isFinished, text], [true, scriptedTokens(marker).join("")]);
  const sent: { messages: readonly Turn[] } = JSON.parse(
    host.requests.findLast(({ method }) => method === "POST")?.bodyText ?? "{}",
  );
  const history = before
    .filter((entry) => entry.text !== "")
    .map((entry) => ({ role: entry.role, content: entry.text }));
  assert.deepEqual(sent.messages, [...history, { role: "user", content: marker }]);
}

async function untilEnded(pid: number): Promise<void> {
  const limit = soon();
  while (existsSync(`/proc/${pid}`)) {
    limit.throwIfAborted();
    await sleep(10);
  }
}

async function failAfter(delayMs: number, what: string): Promise<never> {
  await sleep(delayMs, undefined, { ref: false });
  throw new Error(`${what} within ${delayMs} ms`);
}

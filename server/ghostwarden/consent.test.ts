import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ApprovalWatchUpdate } from "../../protocol/approval.ts";
import { type ApprovalId, approvalIdSchema, clientIdSchema, userIdSchema } from "../../protocol/ids.ts";
import { systemIds } from "../platform/system-clock.ts";
import { type Answer, CONSENT_WAIT_MS, ConsentDesk, MAX_OPEN_QUESTIONS } from "./consent.ts";
import { ManualClock } from "./manual-clock.ts";

const ada = userIdSchema.parse("ada");
const bob = userIdSchema.parse("bob");
const first = clientIdSchema.parse("cli-1");
const second = clientIdSchema.parse("nvim-2");
const question = { userId: ada, actor: "flow", reason: "to fetch", effects: ["net.http GET https://example.com/"] };
const never = new AbortController().signal;

function setUp() {
  const clock = new ManualClock();
  const desk = new ConsentDesk({ clock, ids: systemIds });
  const face = (userId = ada, signal = never) => desk.watch(userId, signal)[Symbol.asyncIterator]();
  return { clock, desk, face };
}

async function nextUpdate(face: AsyncIterator<ApprovalWatchUpdate>): Promise<ApprovalWatchUpdate> {
  const { value, done } = await face.next();
  assert.equal(done, false);
  return value;
}

async function nextAsked(face: AsyncIterator<ApprovalWatchUpdate>) {
  const update = await nextUpdate(face);
  assert.equal(update.kind, "asked");
  return update.kind === "asked" ? update.approval : assert.fail();
}

test("the first answer counts, and the second learns who was first and when", async () => {
  const { clock, desk, face } = setUp();
  const screen = face();
  const answer = desk.ask(question, never);
  const { id, effects, expiresAtMs, askedAtMs } = await nextAsked(screen);
  assert.deepEqual(effects, question.effects);
  assert.equal(expiresAtMs - askedAtMs, CONSENT_WAIT_MS);
  clock.advance(1000);
  assert.deepEqual(desk.respond({ id, outcome: "reject_once" }, { userId: ada, client: first }), { kind: "accepted" });
  const late = desk.respond({ id, outcome: "allow_once" }, { userId: ada, client: second });
  assert.deepEqual(late, { kind: "alreadyAnswered", by: first, atMs: askedAtMs + 1000, outcome: "reject_once" });
  assert.deepEqual(await answer, { kind: "reject_once", by: first });
  assert.deepEqual(await nextUpdate(screen), { kind: "settled", id, outcome: "reject_once", by: first });
});

test("an unanswered question expires as no, and a later answer hears so", async () => {
  const { clock, desk, face } = setUp();
  const screen = face();
  const answer = desk.ask(question, never);
  const { id } = await nextAsked(screen);
  clock.advance(CONSENT_WAIT_MS - 1);
  assert.equal(clock.timers, 1);
  clock.advance(1);
  assert.deepEqual(await answer, { kind: "expired" });
  assert.deepEqual(await nextUpdate(screen), { kind: "settled", id, outcome: "expired" });
  assert.deepEqual(desk.respond({ id, outcome: "allow_once" }, { userId: ada, client: first }), { kind: "expired" });
});

test("an actor that goes away withdraws its question, and no answer can revive it", async () => {
  const { clock, desk, face } = setUp();
  const screen = face();
  const actor = new AbortController();
  const answer = desk.ask(question, actor.signal);
  const { id } = await nextAsked(screen);
  actor.abort();
  assert.deepEqual(await answer, { kind: "withdrawn" });
  assert.deepEqual(await nextUpdate(screen), { kind: "settled", id, outcome: "withdrawn" });
  assert.deepEqual(desk.respond({ id, outcome: "allow_once" }, { userId: ada, client: first }), { kind: "expired" });
  assert.equal(clock.timers, 0);
  assert.deepEqual(await desk.ask(question, actor.signal), { kind: "withdrawn" });
});

test("without a face nothing is asked; a face of another user does not count", async () => {
  const { desk, face } = setUp();
  const other = face(bob);
  assert.deepEqual(await desk.ask(question, never), { kind: "unattended" });
  const leaving = face();
  await leaving.return?.();
  assert.deepEqual(await desk.ask(question, never), { kind: "unattended" });
  const aborting = new AbortController();
  const aborted = face(ada, aborting.signal);
  aborting.abort();
  assert.deepEqual(await desk.ask(question, never), { kind: "unattended" });
  await assert.rejects(aborted.next(), { code: "cancelled" });
  await other.return?.();
});

test("a face counts from the call of watch on, before it reads anything", async () => {
  const { desk } = setUp();
  const watching = desk.watch(ada, never);
  const answer = desk.ask(question, never);
  const { id } = await nextAsked(watching[Symbol.asyncIterator]());
  desk.respond({ id, outcome: "allow_once" }, { userId: ada, client: first });
  assert.deepEqual(await answer, { kind: "allow_once", by: first });
});

test("a face that attaches later sees what is open, and one that leaves abstains", async () => {
  const { desk, face } = setUp();
  const leaving = face();
  const answer = desk.ask(question, never);
  await leaving.return?.();
  const { id } = await nextAsked(face());
  desk.respond({ id, outcome: "allow_once" }, { userId: ada, client: second });
  assert.deepEqual(await answer, { kind: "allow_once", by: second });
});

test("another user neither sees nor answers, and cannot tell that the question exists", async () => {
  const { desk, face } = setUp();
  const screen = face();
  const stranger = face(bob);
  const answer = desk.ask(question, never);
  const { id } = await nextAsked(screen);
  const missing = { code: "approval_not_found" };
  assert.throws(() => desk.respond({ id, outcome: "allow_once" }, { userId: bob, client: first }), missing);
  desk.respond({ id, outcome: "reject_once" }, { userId: ada, client: first });
  assert.deepEqual(await answer, { kind: "reject_once", by: first });
  assert.throws(() => desk.respond({ id, outcome: "allow_once" }, { userId: bob, client: first }), missing);
  assert.throws(
    () => desk.respond({ id: approvalIdSchema.parse("apr_0"), outcome: "allow_once" }, { userId: ada, client: first }),
    missing,
  );
  // The stranger's stream holds nothing: after disposal it ends without an update.
  desk[Symbol.dispose]();
  assert.deepEqual(await stranger.next(), { value: undefined, done: true });
});

test("open questions are bounded for each user, and answering one makes room", async () => {
  const { desk, face } = setUp();
  const screen = face();
  const answers = Array.from({ length: MAX_OPEN_QUESTIONS }, () => desk.ask(question, never));
  assert.deepEqual(await desk.ask(question, never), { kind: "overloaded" });
  const { id } = await nextAsked(screen);
  desk.respond({ id, outcome: "reject_once" }, { userId: ada, client: first });
  await answers[0];
  const another = desk.ask(question, never);
  desk[Symbol.dispose]();
  assert.deepEqual(await another, { kind: "withdrawn" });
  assert.deepEqual(
    (await Promise.all(answers)).filter(({ kind }) => kind === "withdrawn").length,
    MAX_OPEN_QUESTIONS - 1,
  );
});

test("a face that does not read is let go with an error instead of filling memory", async () => {
  const { clock, desk, face } = setUp();
  const slow = face();
  for (let round = 0; round < 200; round += 1) {
    void desk.ask(question, never);
    clock.advance(CONSENT_WAIT_MS);
  }
  assert.deepEqual(await desk.ask(question, never), { kind: "unattended" });
  let read = 0;
  await assert.rejects(
    async () => {
      for (;;) {
        await nextUpdate(slow);
        read += 1;
      }
    },
    { code: "overloaded" },
  );
  assert.ok(read <= 256, `read ${read}`);
});

test("what an actor says cannot disguise itself on the screen", async () => {
  const { desk, face } = setUp();
  const screen = face();
  void desk.ask({ ...question, reason: "a\u001b[2Jb\nc\u202Ed", effects: ["fs.write /tmp/\u200Bx\r/etc"] }, never);
  const { reason, effects } = await nextAsked(screen);
  assert.equal(reason, "a\\x1b[2Jb\nc\\u{202e}d");
  assert.deepEqual(effects, ["fs.write /tmp/\\u{200b}x\\x0d/etc"]);
  desk[Symbol.dispose]();
});

const step = fc.oneof(
  fc.record({
    kind: fc.constant("respond" as const),
    outcome: fc.constantFrom("allow_once" as const, "reject_once" as const),
    client: fc.constantFrom(first, second),
    userId: fc.constantFrom(ada, bob),
  }),
  fc.record({ kind: fc.constant("wait" as const), ms: fc.constantFrom(1, CONSENT_WAIT_MS / 2, CONSENT_WAIT_MS) }),
  fc.record({ kind: fc.constantFrom("withdraw" as const, "leave" as const) }),
);

test("whatever happens in whatever order, a question ends once, and with yes only if exactly one allow_once was accepted", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 8 }), async (steps) => {
      const { clock, desk, face } = setUp();
      const screen = face();
      const actor = new AbortController();
      const endings: Answer[] = [];
      const asking = desk.ask(question, actor.signal).then((answer) => endings.push(answer));
      const { id } = await nextAsked(screen);
      const accepted: string[] = [];
      for (const now of steps) {
        if (now.kind === "respond") accepted.push(...respondTo(desk, id, now));
        else if (now.kind === "wait") clock.advance(now.ms);
        else if (now.kind === "withdraw") actor.abort();
        else await screen.return?.();
      }
      clock.advance(CONSENT_WAIT_MS);
      await asking;
      assert.equal(endings.length, 1);
      assert.ok(accepted.length <= 1);
      assert.equal(endings[0]?.kind === "allow_once", accepted[0] === "allow_once");
      assert.equal(clock.timers, 0);
    }),
    { numRuns: 300 },
  );
});

function respondTo(
  desk: ConsentDesk,
  id: ApprovalId,
  by: { readonly outcome: "allow_once" | "reject_once"; readonly client: typeof first; readonly userId: typeof ada },
): readonly string[] {
  if (by.userId === bob) {
    assert.throws(() => desk.respond({ id, outcome: by.outcome }, by), { code: "approval_not_found" });
    return [];
  }
  return desk.respond({ id, outcome: by.outcome }, by).kind === "accepted" ? [by.outcome] : [];
}

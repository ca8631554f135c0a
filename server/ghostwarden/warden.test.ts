import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { z } from "zod";
import type { ApprovalOutcome } from "../../protocol/approval.ts";
import { clientIdSchema, userIdSchema } from "../../protocol/ids.ts";
import { DisposableStore } from "../base/disposable.ts";
import { UserError } from "../base/errors.ts";
import type { Database } from "../platform/database.ts";
import { openLog } from "../platform/log.ts";
import { type Actor, type EffectRequest, THIS_MACHINE } from "../platform/permit.ts";
import { openDatabase } from "../platform/sqlite.ts";
import { systemIds } from "../platform/system-clock.ts";
import { CONSENT_WAIT_MS } from "./consent.ts";
import { ManualClock } from "./manual-clock.ts";
import { bootPermit, createWarden, ledgerMigrations, type PlanResult, toError, type Warden } from "./warden.ts";

const ada = userIdSchema.parse("ada");
const bob = userIdSchema.parse("bob");
const face = clientIdSchema.parse("cli-1");
const actor: Actor = { userId: ada, client: clientIdSchema.parse("flow-7"), via: { kind: "session", id: "ses_1" } };
const never = new AbortController().signal;
const LIST = { limit: 100 };

const write = (path: string): EffectRequest => ({
  capability: "fs.write",
  resource: { kind: "path", path },
  host: THIS_MACHINE,
});
const exec = (...args: string[]): EffectRequest => ({
  capability: "cmd.exec",
  resource: { kind: "argv", executable: "/bin/rm", args, cwd: "/" },
  host: THIS_MACHINE,
});
const get = (path: string): EffectRequest => ({
  capability: "net.http",
  resource: { kind: "url", method: "GET", origin: "https://example.com", path },
  host: THIS_MACHINE,
});
const cloud: EffectRequest = {
  capability: "llm.cloud",
  resource: { kind: "model", model: "lmstudio/x" },
  host: THIS_MACHINE,
};

interface Stage {
  readonly clock: ManualClock;
  readonly database: Database;
  readonly warden: Warden;
  /** Attaches a face that answers every question the same way, and counts them. */
  answerAll(outcome: ApprovalOutcome): { readonly asked: string[][] };
}

async function setUp(context: TestContext, rules?: string): Promise<Stage> {
  const folder = await mkdtemp(join(tmpdir(), "warden-"));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const permit = bootPermit("data", [{ capability: "fs.write", resource: { kind: "path", path: folder } }]);
  const clock = new ManualClock();
  const log = openLog(permit, { file: join(folder, "log"), level: "debug", clock });
  const { database } = await openDatabase(permit, {
    file: join(folder, "ghost.db"),
    migrations: ledgerMigrations,
    clock,
    log,
  });
  const store = new DisposableStore();
  store.use(log);
  store.use(database);
  context.after(() => store[Symbol.asyncDispose]());
  const warden = store.use(createWarden({ rules, wardenFile: "warden.toml", database, clock, ids: systemIds, log }));
  const answerAll = (outcome: ApprovalOutcome) => {
    const asked: string[][] = [];
    const updates = warden.approvals.watch(ada, never);
    void (async () => {
      for await (const update of updates) {
        if (update.kind !== "asked") continue;
        asked.push(update.approval.effects);
        warden.approvals.respond({ id: update.approval.id, outcome }, { userId: ada, client: face });
      }
    })();
    return { asked };
  };
  return { clock, database, warden, answerAll };
}

/** The ledger once all outcomes are written, the oldest row first, without what differs between runs. */
async function rowsOf(stage: Stage) {
  await stage.warden[Symbol.asyncDispose]();
  const rows = await stage.warden.ledger.list(ada, LIST);
  return rows.toReversed().map(({ id: _id, atMs: _at, actor: _actor, ...row }) => row);
}

function permitsOf(result: PlanResult) {
  if (result.kind !== "granted") return assert.fail(`not granted: ${JSON.stringify(result)}`);
  return result.permits;
}

test("what a rule allows is granted without a question, and the ledger holds decision and outcome", async (context) => {
  const stage = await setUp(context, '[capabilities]\nfs.write = "allow"');
  const permits = permitsOf(
    await stage.warden.authorizePlan(
      { effects: [write("/a"), write("/b"), write("/c"), cloud], digest: "d1" },
      actor,
      "why",
      never,
    ),
  );
  permits.take(write("/a")).spend(write("/a")).settle({ kind: "done" });
  permits.take(write("/b")).spend(write("/b")).settle({ kind: "failed", detail: "disk on fire" });
  permits.take(cloud).spend(cloud);
  permits[Symbol.dispose]();
  const rule = 'fs.write = "allow" (warden.toml line 2)';
  const allowed = { capability: "fs.write", decision: "allowed", decidedBy: rule };
  assert.deepEqual(await rowsOf(stage), [
    { ...allowed, resource: "/a", outcome: "done", detail: "plan d1" },
    { ...allowed, resource: "/b", outcome: "failed", detail: "disk on fire" },
    { ...allowed, resource: "/c", outcome: "none", detail: "not used" },
    {
      capability: "llm.cloud",
      resource: "lmstudio/x",
      decision: "allowed",
      decidedBy: 'llm.cloud = "allow" (default)',
      outcome: "unknown",
      detail: "plan d1",
    },
  ]);
});

test("the row of a change is stored before its permit exists", async (context) => {
  const { warden, database } = await setUp(context, '[capabilities]\nfs.write = "allow"');
  const granted = warden.authorizePlan({ effects: [write("/a")] }, actor, "why", never);
  permitsOf(await granted);
  const count = z.object({ outcome: z.string(), user_id: z.string() });
  assert.deepEqual(await database.read(count, "SELECT outcome, user_id FROM ledger", []), [
    { outcome: "unknown", user_id: "ada" },
  ]);
});

test("when the ledger cannot be written nothing is granted, and a no stays a no", async (context) => {
  const { warden, database } = await setUp(context, '[capabilities]\nfs.write = "allow"\ncmd.exec = "deny"');
  await database.write([{ sql: "DROP TABLE ledger", values: [] }]);
  await assert.rejects(warden.authorizePlan({ effects: [write("/a")] }, actor, "why", never));
  const refused = await warden.authorizePlan({ effects: [exec("-r")] }, actor, "why", never);
  assert.equal(refused.kind, "denied");
});

test("a deny wins over everything else in the plan, and nobody is asked", async (context) => {
  const stage = await setUp(context, '[capabilities]\nfs.write = "allow"\nnet.http = "prompt"\ncmd.exec = "deny"');
  const { asked } = stage.answerAll("allow_once");
  const refused = await stage.warden.authorizePlan(
    { effects: [write("/a"), get("/"), exec("-r", "/")] },
    actor,
    "why",
    never,
  );
  assert.deepEqual(refused, {
    kind: "denied",
    rule: { capability: "cmd.exec", verdict: "deny", source: "user", line: 4 },
    reason: 'GhostWarden denies cmd.exec "/bin/rm" "-r" "/": cmd.exec = "deny" (warden.toml line 4)',
  });
  assert.equal(asked.length, 0);
  const rows = await rowsOf(stage);
  assert.deepEqual(
    rows.map(({ capability, decision, outcome }) => [capability, decision, outcome]),
    [
      ["fs.write", "denied", "none"],
      ["net.http", "denied", "none"],
      ["cmd.exec", "denied", "none"],
    ],
  );
});

test("a plan with several effects is one question, and a yes gives a permit for each", async (context) => {
  const stage = await setUp(context, '[capabilities]\nfs.write = "allow"');
  const { asked } = stage.answerAll("allow_once");
  const permits = permitsOf(
    await stage.warden.authorizePlan({ effects: [get("/a?x=1&token=hunter2"), write("/a")] }, actor, "why", never),
  );
  assert.deepEqual(asked, [["net.http GET https://example.com/a?x=1&token=[secret]", "fs.write /a"]]);
  permits.take(get("/a?x=1&token=hunter2")).spend(get("/a?x=1&token=hunter2")).settle({ kind: "done" });
  permits[Symbol.dispose]();
  assert.deepEqual(await rowsOf(stage), [
    {
      capability: "net.http",
      resource: "GET https://example.com/a?x=1&token=[secret]",
      decision: "approved",
      decidedBy: "client cli-1",
      outcome: "done",
    },
    {
      capability: "fs.write",
      resource: "/a",
      decision: "allowed",
      decidedBy: 'fs.write = "allow" (warden.toml line 2)',
      outcome: "none",
      detail: "not used",
    },
  ]);
});

test("the tries of one effect have a permit each, and one row: how the last of them ended", async (context) => {
  const stage = await setUp(context);
  const { asked } = stage.answerAll("allow_once");
  const result = await stage.warden.authorizePlan({ effects: [get("/a"), get("/b")], tries: 3 }, actor, "why", never);
  assert.deepEqual(asked, [
    ["net.http GET https://example.com/a (up to 3 times)", "net.http GET https://example.com/b (up to 3 times)"],
  ]);
  {
    using permits = permitsOf(result);
    permits.take(get("/a")).spend(get("/a")).settle({ kind: "failed", detail: "the line broke" });
    permits.take(get("/a")).spend(get("/a")).settle({ kind: "done" });
    permits.take(get("/a"));
    assert.throws(() => permits.take(get("/a")), { code: "internal" });
  }
  const row = (path: string) => ({
    capability: "net.http",
    resource: `GET https://example.com${path}`,
    decision: "approved",
    decidedBy: "client cli-1",
  });
  assert.deepEqual(await rowsOf(stage), [
    { ...row("/a"), outcome: "done", detail: "at the try number 2" },
    { ...row("/b"), outcome: "none", detail: "not used" },
  ]);
});

test("a row is open as long as one of its tries is", async (context) => {
  const stage = await setUp(context, '[capabilities]\nnet.http = "allow"');
  const permits = permitsOf(await stage.warden.authorizePlan({ effects: [get("/a")], tries: 2 }, actor, "why", never));
  const [first, second] = [permits.take(get("/a")).spend(get("/a")), permits.take(get("/a")).spend(get("/a"))];
  permits[Symbol.dispose]();
  second.settle({ kind: "failed", detail: "no" });
  const outcomes = async () => (await stage.warden.ledger.list(ada, LIST)).map(({ outcome }) => outcome);
  assert.deepEqual(await outcomes(), ["unknown"]);
  first.settle({ kind: "done" });
  assert.deepEqual(
    (await rowsOf(stage)).map(({ outcome }) => outcome),
    ["done"],
  );
});

test("a no of a person is a denial that names its rule and its face", async (context) => {
  const stage = await setUp(context);
  stage.answerAll("reject_once");
  const refused = await stage.warden.authorize(get("/"), actor, "why", never);
  assert.deepEqual(refused, {
    kind: "denied",
    rule: { capability: "net.http", verdict: "prompt", source: "default" },
    reason: "you said no to net.http GET https://example.com/",
    by: face,
  });
  assert.deepEqual(
    (await rowsOf(stage)).map(({ decision, decidedBy, outcome }) => [decision, decidedBy, outcome]),
    [["denied", "client cli-1", "none"]],
  );
});

test("expired, withdrawn and unattended questions are values with an error of the catalogue each", async (context) => {
  const stage = await setUp(context);
  const { warden, clock } = stage;
  const codeOf = (result: Awaited<ReturnType<Warden["authorize"]>>) =>
    result.kind === "granted" ? assert.fail() : { code: toError(result).code, message: toError(result).message };
  const unattended = codeOf(await warden.authorize(get("/"), actor, "why", never));
  assert.equal(unattended.code, "denied");
  assert.match(unattended.message, /no face is attached.*attach one/);

  const watching = warden.approvals.watch(ada, never)[Symbol.asyncIterator]();
  const waiting = warden.authorize(get("/"), actor, "why", never);
  assert.equal((await watching.next()).done, false);
  clock.advance(CONSENT_WAIT_MS);
  assert.equal(codeOf(await waiting).code, "consent_expired");

  const leaving = new AbortController();
  const withdrawn = warden.authorize(get("/"), actor, "why", leaving.signal);
  leaving.abort();
  assert.equal(codeOf(await withdrawn).code, "cancelled");
  assert.deepEqual(
    (await rowsOf(stage)).map(({ decision, outcome }) => [decision, outcome]),
    [
      ["denied", "none"],
      ["expired", "none"],
      ["withdrawn", "none"],
    ],
  );
});

test("an actor that leaves while the ledger is being written gets no permit, and the row says so", async (context) => {
  const stage = await setUp(context, '[capabilities]\nfs.write = "allow"');
  const leaving = new AbortController();
  const result = stage.warden.authorize(write("/a"), actor, "why", leaving.signal);
  leaving.abort();
  assert.equal((await result).kind, "withdrawn");
  const [row] = await rowsOf(stage);
  assert.deepEqual([row?.outcome, row?.detail], ["none", "withdrawn before it began"]);
});

test("a rule that denies by the time of the answer wins over a yes", async (context) => {
  const { warden } = await setUp(context);
  const watching = warden.approvals.watch(ada, never)[Symbol.asyncIterator]();
  const waiting = warden.authorize(get("/"), actor, "why", never);
  const { value } = await watching.next();
  assert.deepEqual(warden.reload('[capabilities]\nnet.http = "deny"'), { kind: "loaded", warnings: [] });
  assert.ok(value?.kind === "asked");
  warden.approvals.respond({ id: value.approval.id, outcome: "allow_once" }, { userId: ada, client: face });
  const refused = await waiting;
  assert.equal(refused.kind, "denied");
  assert.match(refused.kind === "denied" ? refused.reason : "", /warden\.toml line 2/);
});

test("changing the plan after it was handed in changes neither question nor permit", async (context) => {
  const { warden, answerAll } = await setUp(context);
  const { asked } = answerAll("allow_once");
  const args = ["-i", "a"];
  const waiting = warden.authorizePlan(
    { effects: [exec(...args), { ...exec(), resource: { kind: "argv", executable: "/bin/rm", args, cwd: "/" } }] },
    actor,
    "",
    never,
  );
  args.push("/etc");
  const permits = permitsOf(await waiting);
  assert.deepEqual(asked[0], ['cmd.exec "/bin/rm" "-i" "a" (up to 2 times)']);
  assert.throws(() => permits.take(exec("-i", "a", "/etc")), { code: "internal" });
  permits.take(exec("-i", "a"));
});

test("an effect that cannot be shown in full is not asked about, and a plan beyond the bound is refused", async (context) => {
  const { warden, answerAll } = await setUp(context);
  const { asked } = answerAll("allow_once");
  const long = await warden.authorize(exec("x".repeat(5000)), actor, "", never);
  assert.match(long.kind === "denied" ? long.reason : "", /too long to be shown/);
  const many = await warden.authorizePlan(
    { effects: Array.from({ length: 257 }, (_, index) => write(`/${index}`)) },
    actor,
    "",
    never,
  );
  assert.match(many.kind === "denied" ? many.reason : "", /257 effects/);
  assert.equal(asked.length, 0);
});

test("judging is a look-up: it asks nobody, writes nothing and costs at most 0.05 ms", async (context) => {
  const { warden } = await setUp(context, '[capabilities]\nnet.http = "deny"');
  assert.deepEqual(warden.judge(cloud, actor), {
    verdict: "allow",
    rule: { capability: "llm.cloud", verdict: "allow", source: "default" },
  });
  assert.equal(warden.judge(get("/"), actor).verdict, "deny");
  const rounds = 100_000;
  const startedMs = performance.now();
  for (let round = 0; round < rounds; round += 1) warden.judge(cloud, actor);
  assert.ok((performance.now() - startedMs) / rounds < 0.05);
  assert.deepEqual(await warden.ledger.list(ada, LIST), []);
});

test("a broken edit keeps the last good rules and is reported; a good one mends it; a removed file means the defaults", async (context) => {
  const { warden } = await setUp(context, '[capabilities]\ncmd.exec = "deny"');
  const verdictOf = (name: string) => warden.policy().capabilities.find(({ capability }) => capability === name);
  const denied = { capability: "cmd.exec", verdict: "deny", source: "user", line: 2 };
  assert.deepEqual(verdictOf("cmd.exec"), denied);
  for (const [broken, problem] of [
    ['[capabilities]\ncmd.exec = "allwo"', /^warden\.toml:2:12: .*Did you mean `allow`\?$/],
    ["[capabilities", /^warden\.toml:1:/],
  ] as const) {
    const result = warden.reload(broken);
    assert.match(result.kind === "problem" ? result.problem : "", problem);
    assert.match(warden.policy().problem ?? "", problem);
    assert.deepEqual(verdictOf("cmd.exec"), denied);
  }
  assert.equal(warden.reload('[capabilities]\ncmd.exec = "allow"').kind, "loaded");
  assert.equal(warden.policy().problem, undefined);
  assert.equal(verdictOf("cmd.exec")?.verdict, "allow");
  warden.reload(undefined);
  assert.deepEqual(verdictOf("cmd.exec"), { capability: "cmd.exec", verdict: "prompt", source: "default" });
  assert.equal(warden.policy().capabilities.length, 16);
});

test("at the start a broken file is an error: there are no last good rules", async (context) => {
  await assert.rejects(
    setUp(context, '[capabilities]\ncmd.exce = "deny"'),
    (error) => error instanceof UserError && error.code === "config_invalid",
  );
});

test("everybody reads their own rows only, page by page", async (context) => {
  const { warden } = await setUp(context);
  for (const path of ["/1", "/2", "/3"]) await warden.authorize(write(path), actor, "", never);
  await warden.authorize(write("/bob"), { ...actor, userId: bob }, "", never);
  const resources = async (userId: typeof ada, params: { limit: number; beforeId?: number }) =>
    (await warden.ledger.list(userId, params)).map(({ resource }) => resource);
  assert.deepEqual(await resources(ada, LIST), ["/3", "/2", "/1"]);
  assert.deepEqual(await resources(bob, LIST), ["/bob"]);
  assert.deepEqual(await resources(userIdSchema.parse("eve"), LIST), []);
  const page = await warden.ledger.list(ada, { limit: 2 });
  assert.deepEqual(await resources(ada, { limit: 2, beforeId: page.at(-1)?.id ?? 0 }), ["/1"]);
});

test("no sequence of answers, waits, withdrawals and reloads yields permits without exactly one accepted allow_once", async (context) => {
  const { warden, clock } = await setUp(context);
  const step = fc.oneof(
    fc.record({
      kind: fc.constant("respond" as const),
      outcome: fc.constantFrom("allow_once" as const, "reject_once" as const),
    }),
    fc.record({ kind: fc.constantFrom("wait" as const, "withdraw" as const, "deny" as const) }),
  );
  const seen = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 5 }), async (steps) => {
      warden.reload(undefined);
      const leave = new AbortController();
      const gone = new AbortController();
      const watching = warden.approvals.watch(ada, leave.signal)[Symbol.asyncIterator]();
      const plan = { effects: [get("/a"), write("/b")] };
      const waiting = warden.authorizePlan(plan, actor, "why", gone.signal);
      const { value } = await watching.next();
      const { id } = value?.kind === "asked" ? value.approval : assert.fail();
      let yes = 0;
      let refusedByRule = false;
      let settled = false;
      for (const now of steps) {
        if (now.kind === "respond") {
          const { kind } = warden.approvals.respond({ id, outcome: now.outcome }, { userId: ada, client: face });
          if (kind === "accepted" && now.outcome === "allow_once") yes += 1;
          settled = true;
        } else if (now.kind === "wait") {
          clock.advance(CONSENT_WAIT_MS);
          settled = true;
        } else if (now.kind === "withdraw") gone.abort();
        else refusedByRule = warden.reload('[capabilities]\nnet.http = "deny"').kind === "loaded";
      }
      if (!settled) clock.advance(CONSENT_WAIT_MS);
      const result = await waiting;
      leave.abort();
      assert.ok(yes <= 1);
      assert.equal(result.kind === "granted", yes === 1 && !refusedByRule && !gone.signal.aborted);
      seen.set(result.kind, (seen.get(result.kind) ?? 0) + 1);
      if (result.kind !== "granted") return;
      for (const effect of plan.effects) {
        const permit = result.permits.take(effect);
        assert.throws(() => permit.spend(write("/other")), { code: "internal" });
        permit.spend(effect).settle({ kind: "done" });
        assert.throws(() => permit.spend(effect), { code: "internal" });
      }
    }),
    { numRuns: 100 },
  );
  assert.deepEqual(
    [...seen.keys()].toSorted(),
    ["denied", "expired", "granted", "withdrawn"],
    "every ending was examined",
  );
});

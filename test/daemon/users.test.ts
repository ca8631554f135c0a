/**
 * Nobody sees what belongs to somebody else (I15). The daemon has one user until accounts exist, so these tests put its parts together in process
 * and give them two. A table, a method of GhostApi or one of the stores that is new fails here until somebody has said whose it is.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { z } from "zod";
import type { ApprovalId, SessionId } from "../../protocol/ids.ts";
import { answerIdSchema, clientIdSchema, userIdSchema } from "../../protocol/ids.ts";
import { GhostApiError } from "../../protocol/errors.ts";
import { type GhostApi, methodsByName } from "../../protocol/ghost-api.ts";
import { toGhostError } from "../../server/base/errors.ts";
import { systemIds } from "../../server/platform/system-clock.ts";
import { type Actor, type EffectRequest, THIS_MACHINE } from "../../server/platform/permit.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon } from "../support/daemon.ts";
import { ask, call, configFor } from "../support/http.ts";
import { query } from "../support/stored-answers.ts";
import { type Household, openHousehold } from "../support/two-users.ts";

const ada = userIdSchema.parse("ada");
const bob = userIdSchema.parse("bob");
/** In everything that is Ada's, and in nothing else. */
const MARK = "nightingale";
const soon = () => AbortSignal.timeout(20_000);

let host: OpenAiHost;
let house: Household;
let adasSession: SessionId;
let adasQuestion: ApprovalId;
let asked: Promise<unknown>;
const leave = new AbortController();

const actorOf = (userId: Actor["userId"]): Actor => ({
  userId,
  client: clientIdSchema.parse(`${userId}-${MARK}`),
  via: { kind: "face", id: "test" },
});
const effect = (path: string): EffectRequest => ({
  capability: "fs.write",
  resource: { kind: "path", path },
  host: THIS_MACHINE,
});
const harmless: EffectRequest = {
  capability: "llm.cloud",
  resource: { kind: "model", model: `up/${MARK}` },
  host: THIS_MACHINE,
};

before(async () => {
  host = await startOpenAiHost({ models: [MARK, "m"], script: { tokens: ["the ", `${MARK} `, "sings"] } });
  house = await openHousehold(configFor(host.baseUrl, "fim = true\n[providers.embedded]\nenabled = false\n"));
  const api = house.apiOf(ada);
  for await (const update of api.chat.send({ text: `about the ${MARK}`, model: `up/${MARK}` }, soon())) {
    if (update.kind === "started") adasSession = update.sessionId;
  }
  for await (const _update of api.completion.create({ prefix: MARK, model: `up/${MARK}` }, soon()));
  const granted = await house.warden.authorize(harmless, actorOf(ada), MARK, soon());
  assert.equal(granted.kind, "granted");
  const watching = api.approval.watch({}, leave.signal)[Symbol.asyncIterator]();
  const first = watching.next();
  asked = house.warden.authorize(effect(`/home/${MARK}`), actorOf(ada), `for the ${MARK}`, leave.signal);
  const { value } = await first;
  assert.equal(value?.kind, "asked");
  adasQuestion = value.approval.id;
});
after(async () => {
  leave.abort();
  await asked;
  await house[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  assert.deepEqual(host.violations, []);
});

const refused = (code: string) => (error: unknown) => {
  const found = error instanceof GhostApiError ? error.code : toGhostError(error).code;
  assert.equal(found, code, String(error));
  return true;
};
async function drain(stream: AsyncIterable<unknown>): Promise<readonly unknown[]> {
  const items: unknown[] = [];
  for await (const item of stream) items.push(item);
  return items;
}
/** What a stream that never ends says within a turn or two of the loop, which is when it says what there is already. */
async function beginning(open: (signal: AbortSignal) => AsyncIterable<unknown>): Promise<readonly unknown[]> {
  const stop = new AbortController();
  const items: unknown[] = [];
  const reading = (async () => {
    for await (const item of open(stop.signal)) items.push(item);
  })();
  // A round trip through the store is slower than anything that is held in memory.
  await house.llm.transcript.list(bob, { limit: 1 });
  stop.abort();
  await reading.catch(() => {}); // Its own abort.
  return items;
}

/** How each method is seen to keep to its caller; `daemon`: it tells nothing of any user, for the reason that stands there. */
const METHODS: Readonly<Record<string, ((api: GhostApi) => Promise<unknown>) | { readonly daemon: string }>> = {
  "ghost/session/list": (api) => api.session.list({}, soon()),
  "ghost/session/get": (api) =>
    assert.rejects(api.session.get({ sessionId: adasSession }, soon()), refused("session_not_found")),
  "ghost/session/watch": (api) =>
    assert.rejects(drain(api.session.watch({ sessionId: adasSession }, soon())), refused("session_not_found")),
  "ghost/session/delete": (api) =>
    assert.rejects(api.session.delete({ sessionId: adasSession }, soon()), refused("session_not_found")),
  "ghost/chat/send": async (api) => {
    const before = host.requests.length;
    const params = { sessionId: adasSession, text: "what was said?", model: "up/m" };
    await assert.rejects(drain(api.chat.send(params, soon())), refused("session_not_found"));
    assert.equal(host.requests.length, before, "no model heard of it");
  },
  "ghost/completion/create": async (api) => {
    host.playOnce({ tokens: ["for bob"] });
    return drain(api.completion.create({ prefix: "p", model: "up/m" }, soon()));
  },
  "ghost/usage/summary": (api) => api.usage.summary({}, soon()),
  "ghost/ledger/list": (api) => api.ledger.list({}, soon()),
  "ghost/approval/watch": (api) => beginning((signal) => api.approval.watch({}, signal)),
  "ghost/approval/respond": (api) =>
    assert.rejects(
      api.approval.respond({ id: adasQuestion, outcome: "allow_once" }, soon()),
      refused("approval_not_found"),
    ),
  "ghost/daemon/status": { daemon: "process facts and counts" },
  "ghost/daemon/doctor": { daemon: "settings and servers" },
  "ghost/daemon/logs": { daemon: "events with ids; texts of conversations are never logged" },
  "ghost/daemon/stop": { daemon: "stops it for everybody" },
  "ghost/model/list": { daemon: "models of the machine" },
  "ghost/model/pull": { daemon: "weights of the machine" },
  "ghost/route/explain": { daemon: "models of the machine; nothing is stored" },
  "ghost/policy/get": { daemon: "the rules of warden.toml" },
  "ghost/key/model": { daemon: "the one model key, until accounts have their own" },
  "ghost/key/set": { daemon: "the daemon's own accounts at providers, until users have theirs" },
  "ghost/key/list": { daemon: "which providers have a key; not the keys" },
  "ghost/key/remove": { daemon: "the daemon's own accounts at providers, until users have theirs" },
  "ghost/key/test": { daemon: "what a provider says to the daemon's own key" },
  "ghost/settings/get": { daemon: "the settings of ghost.toml" },
};

test("every method of GhostApi is listed with whose data it shows", () => {
  assert.deepEqual(Object.keys(METHODS).toSorted(), [...methodsByName.keys()].toSorted());
});

for (const [name, look] of Object.entries(METHODS)) {
  if (typeof look !== "function") continue;
  test(`${name} shows Bob nothing of Ada's`, async () => {
    const seen = JSON.stringify((await look(house.apiOf(bob))) ?? null);
    for (const trace of [MARK, adasSession, adasQuestion]) assert.ok(!seen.includes(trace), `${trace} in ${seen}`);
  });
}

test("Ada sees all of it, so that the tests above had something to miss", async () => {
  const api = house.apiOf(ada);
  const { sessions } = await api.session.list({}, soon());
  assert.deepEqual([sessions.length, sessions[0]?.id], [1, adasSession]);
  const { entries } = await api.session.get({ sessionId: adasSession }, soon());
  assert.deepEqual(
    entries.map(({ text }) => text),
    [`about the ${MARK}`, `the ${MARK} sings`],
  );
  assert.equal((await api.usage.summary({}, soon())).models[0]?.answers, 2);
  assert.ok((await api.ledger.list({}, soon())).rows.some(({ resource }) => resource.includes(MARK)));
  assert.equal((await beginning((signal) => api.approval.watch({}, signal))).length, 1);
});

/** Each method of the stores: `filtered` ones take the user, and are looked at here where GhostApi does not reach them. */
const TRANSCRIPT: Readonly<Record<string, string>> = {
  begin: "written under its actor's user",
  settled: "for the answer's own recorder, by an id that only it has",
  history: "filtered",
  list: "filtered",
  get: "filtered",
  usage: "filtered",
  delete: "filtered",
  watch: "filtered",
  openAnswers: "a count",
};
const WARDEN: Readonly<Record<string, string>> = {
  authorizePlan: "written under its actor's user",
  authorize: "written under its actor's user",
  judge: "the rules",
  policy: "the rules",
  reload: "the rules",
  warnings: "the rules",
  approvals: "watch and respond are filtered",
  ledger: "list is filtered",
};

function membersOf(object: object): readonly string[] {
  const prototype: unknown = Object.getPrototypeOf(object);
  const own = [...Object.getOwnPropertyNames(object), ...Object.getOwnPropertyNames(prototype ?? {})];
  return own.filter((name) => name !== "constructor").toSorted();
}

test("every method of the transcript and of the Warden is listed with whose data it shows", () => {
  assert.deepEqual(membersOf(house.llm.transcript), Object.keys(TRANSCRIPT).toSorted());
  assert.deepEqual(membersOf(house.warden), Object.keys(WARDEN).toSorted());
  assert.deepEqual(Object.keys(house.warden.approvals).toSorted(), ["respond", "watch"]);
  assert.deepEqual(Object.keys(house.warden.ledger), ["list"]);
});

test("the transcript's own reads are filtered, also where GhostApi does not reach them", async () => {
  const { transcript } = house.llm;
  const adasThread = (await transcript.history(ada, adasSession)).threadId;
  await assert.rejects(transcript.history(bob, adasSession), refused("session_not_found"));
  await assert.rejects(transcript.history(bob, adasSession, adasThread), refused("session_not_found"));
  await assert.rejects(
    transcript.get(bob, { sessionId: adasSession, threadId: adasThread }),
    refused("session_not_found"),
  );
});

const record = async (
  userId: Actor["userId"],
  request: Parameters<Household["llm"]["transcript"]["begin"]>[0]["request"],
) => {
  const answerId = answerIdSchema.parse(systemIds.next("ans"));
  const { transcript } = house.llm;
  const recording = await transcript.begin({ answerId, actor: actorOf(userId), task: "chat", target: "up/m", request });
  recording.end({ state: "complete" });
  return transcript.settled(answerId);
};
const says = (role: "user" | "assistant", text: string) => ({ role, parts: [{ kind: "text", text }] }) as const;

test("Bob's very same words are a conversation of his own", async () => {
  const messages = [
    says("user", `about the ${MARK}`),
    says("assistant", `the ${MARK} sings`),
    says("user", "and now?"),
  ];
  const body = Buffer.from(
    JSON.stringify({ model: "m", messages: messages.map(({ role, parts }) => ({ role, content: parts[0].text })) }),
  );
  const { sessionId } = await record(bob, { kind: "body", dialect: "openai-chat", body });
  assert.notEqual(sessionId, adasSession);
  assert.equal((await house.llm.transcript.get(ada, { sessionId: adasSession })).session.messages, 2);
  assert.ok(sessionId !== null);
  await house.llm.transcript.delete(bob, { sessionId });
});

test("a write of Bob's that names Ada's session, or her thread, goes elsewhere", async () => {
  const { threadId } = await house.llm.transcript.history(ada, adasSession);
  const messages = [
    says("user", `about the ${MARK}`),
    says("assistant", `the ${MARK} sings`),
    says("user", "intruding"),
  ];
  const placed = await record(bob, { kind: "messages", messages, sessionId: adasSession, threadId });
  assert.notEqual(placed.sessionId, adasSession);
  const { session, entries } = await house.llm.transcript.get(ada, { sessionId: adasSession });
  assert.deepEqual([session.messages, entries.length], [2, 2]);
  assert.ok(placed.sessionId !== null);
  await house.llm.transcript.delete(bob, { sessionId: placed.sessionId });
});

test("Bob's answer to Ada's question does not count", async () => {
  const { approvals } = house.warden;
  const by = { userId: bob, client: clientIdSchema.parse("bob") };
  assert.throws(
    () => approvals.respond({ id: adasQuestion, outcome: "allow_once" }, by),
    refused("approval_not_found"),
  );
  assert.equal(
    (await beginning((signal) => house.apiOf(ada).approval.watch({}, signal))).length,
    1,
    "it is still open",
  );
});

/** Tables without an owner, and why that is right. */
const WITHOUT_USER: Readonly<Record<string, string>> = {
  counters: "one number, the revision of the whole store; nothing of anybody's",
  sqlite_sequence: "SQLite's own",
};

test("every table of the daemon's database says whose each row is, and the rows say `local`", async () => {
  await using daemon = await startTestDaemon({
    config: configFor(host.baseUrl),
    warden: '[capabilities]\nllm.cloud = "deny"\n',
  });
  await call(daemon, "/v1/chat/completions", { body: ask("up/m", { stream: true }) });
  await call(daemon, "/v1/completions", { body: { model: "up/m", prompt: "x" } });
  await call(daemon, "/v1/responses", { body: { model: "up/m", input: "x", store: true } });
  using client = await daemon.connect();
  const { sessions } = await client.api.session.list({}, soon());
  assert.equal(sessions.length, 2);
  const file = `${daemon.dataDir}/ghost.db`;
  const text = z.object({ name: z.string() });
  const tables = z.array(text).parse(await query(file, "SELECT name FROM sqlite_master WHERE type = 'table'"));
  assert.ok(tables.length >= 7, JSON.stringify(tables));
  let rows = 0;
  for (const { name } of tables) {
    const columns = z.array(text).parse(await query(file, `SELECT name FROM pragma_table_info('${name}')`));
    const hasUser = columns.some((column) => column.name === "user_id");
    assert.equal(
      hasUser,
      !(name in WITHOUT_USER),
      `${name} has the columns ${columns.map((column) => column.name).join(", ")}`,
    );
    if (!hasUser) continue;
    const owners = z.array(z.object({ user_id: z.string(), n: z.int() }));
    for (const owner of owners.parse(
      await query(file, `SELECT user_id, count(*) AS n FROM ${name} GROUP BY user_id`),
    )) {
      assert.equal(owner.user_id, "local");
      rows += owner.n;
    }
  }
  assert.ok(rows >= 6, `${rows} rows were looked at`);
});

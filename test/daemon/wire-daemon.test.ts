/** GhostApi at the daemon itself, over its socket: what `wire.test.ts` shows with stand-in handlers holds with the real ones. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type ErrorCode, GhostApiError } from "../../protocol/errors.ts";
import { ghostApiMethods } from "../../protocol/ghost-api.ts";
import type { GhostClient } from "../../protocol/ghost-client.ts";
import { answerIdSchema, approvalIdSchema, sessionIdSchema } from "../../protocol/ids.ts";
import { connectSocket } from "../../protocol/node/socket-transport.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { connectRaw, initializeMessage } from "../fakes/raw-rpc.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { configFor } from "../support/http.ts";

let host: OpenAiHost;
let daemon: TestDaemon;
let client: GhostClient;
before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
  daemon = await startTestDaemon({ config: configFor(host.baseUrl) });
  client = await daemon.connect("wire");
});
after(async () => {
  client[Symbol.dispose]();
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

const soon = () => AbortSignal.timeout(20_000);
const latest = () => host.requests.findLast(({ method }) => method === "POST");
const endless = { tokens: 100_000, msPerToken: 5 } as const;

test("status says which daemon this is and counts its clients", async () => {
  const alone = await client.api.daemon.status({}, soon());
  assert.deepEqual(
    [alone.pid, alone.http, alone.socket, alone.dataDir],
    [daemon.pid, daemon.http, daemon.socket, daemon.dataDir],
  );
  assert.equal(alone.clients, 1);
  assert.ok(alone.rssBytes > 10_000_000 && Math.abs(alone.startedAtMs - Date.now()) < 600_000);
  const other = await daemon.connect("second");
  assert.equal((await client.api.daemon.status({}, soon())).clients, 2);
  other[Symbol.dispose]();
  const signal = soon();
  while ((await client.api.daemon.status({}, signal)).clients !== 1);
});

test("lists hold what the daemon has: models with their providers, sessions, settings, rules, effects", async () => {
  const { models, providers } = await client.api.model.list({ refresh: true }, soon());
  assert.deepEqual(models.map(({ ref }) => ref).toSorted(), ["embedded/tiny-code-fim", "up/m"]);
  const present = providers.filter(({ state }) => state !== "absent");
  assert.deepEqual(present.map(({ id }) => id).toSorted(), ["embedded", "up"]);
  assert.deepEqual((await client.api.session.list({}, soon())).sessions, []);
  const { settings, file } = await client.api.settings.get({}, soon());
  assert.equal(file, daemon.configFile);
  assert.deepEqual(
    settings.find(({ path }) => path === "http.port"),
    { path: "http.port", value: 0, source: "flag" },
  );
  assert.equal((await client.api.policy.get({}, soon())).file, daemon.wardenFile);
  assert.deepEqual((await client.api.ledger.list({}, soon())).rows, []);
  assert.deepEqual(await client.api.key.model({}, soon()), {
    key: daemon.modelKey,
    openaiBaseUrl: `${daemon.http}/v1`,
  });
  const decision = await client.api.route.explain({ model: "up/m" }, soon());
  assert.deepEqual(decision.plan, ["up/m"]);
});

const nowhere = sessionIdSchema.parse("ses_00000000000000000000000000");
const FAILURES: readonly [
  what: string,
  act: () => Promise<unknown>,
  code: ErrorCode,
  details: Readonly<Record<string, unknown>>,
][] = [
  [
    "a session that does not exist",
    () => client.api.session.get({ sessionId: nowhere }, soon()),
    "session_not_found",
    {},
  ],
  [
    "deleting a session that does not exist",
    () => client.api.session.delete({ sessionId: nowhere }, soon()),
    "session_not_found",
    {},
  ],
  [
    "watching a session that does not exist",
    () => collect(client.api.session.watch({ sessionId: nowhere }, soon())),
    "session_not_found",
    {},
  ],
  [
    "an approval that does not exist",
    () =>
      client.api.approval.respond(
        { id: approvalIdSchema.parse("apr_00000000000000000000000000"), outcome: "reject_once" },
        soon(),
      ),
    "approval_not_found",
    {},
  ],
  [
    "a model that does not exist",
    () => collect(client.api.chat.send({ text: "hi", model: "up/n" }, soon())),
    "model_not_found",
    {},
  ],
  ["a limit of nothing", () => client.api.session.list({ limit: 0 }, soon()), "invalid_params", { field: "limit" }],
  [
    "an empty stop text",
    () => collect(client.api.completion.create({ prefix: "a", stop: ["b", ""] }, soon())),
    "invalid_params",
    { field: "stop.1" },
  ],
  [
    "too many lines of log",
    () => collect(client.api.daemon.logs({ lines: 1_000_000 }, soon())),
    "invalid_params",
    { field: "lines" },
  ],
];
for (const [what, act, code, details] of FAILURES) {
  test(`${what} is \`${code}\`, and the connection lives on`, async () => {
    const error = await failure(act());
    assert.equal(error.code, code, error.message);
    for (const [name, value] of Object.entries(details)) assert.equal(error.details[name], value);
    assert.ok(error.advice.length > 0);
    await client.api.daemon.status({}, soon());
  });
}

test("a wrong type is refused with the field's name also when no client library stands before it", async () => {
  using raw = await connectRaw(daemon.socket);
  raw.send(initializeMessage(daemon.faceKey));
  assert.equal((await raw.next())?.error, undefined);
  raw.send({ jsonrpc: "2.0", id: 1, method: "ghost/session/list", params: { limit: "many" } });
  const refused = await raw.next();
  assert.equal(refused?.error?.data?.code, "invalid_params");
  assert.equal(refused?.error?.data?.details["field"], "limit");
  raw.send({ jsonrpc: "2.0", id: 2, method: "ghost/session/lisst", params: {} });
  const unknown = await raw.next();
  assert.equal(unknown?.error?.data?.code, "method_unknown");
  assert.match(unknown?.error?.message ?? "", /ghost\/session\/list`/);
});

test("a cancelled stream stops the upstream and ends with `cancelled`; leaving the loop early does the same", async () => {
  host.playOnce(endless);
  const abort = new AbortController();
  const first = failure(
    (async () => {
      for await (const update of client.api.chat.send({ text: "go", model: "up/m" }, abort.signal))
        if (update.kind === "text") abort.abort();
    })(),
  );
  assert.equal((await first).code, "cancelled");
  await host.until(() => latest()?.state === "closed-by-peer", "the upstream was stopped");

  host.playOnce(endless);
  for await (const update of client.api.chat.send({ text: "go", model: "up/m" }, soon()))
    if (update.kind === "text") break;
  await host.until(() => host.openRequests === 0 && latest()?.state === "closed-by-peer", "the upstream was stopped");
  const signal = soon();
  while ((await client.api.daemon.status({}, signal)).openAnswers > 0);
});

test("two clients do not disturb each other: one leaves in mid-answer, the other gets its whole answer", async () => {
  const tokens = Array.from({ length: 60 }, (_, n) => `${n} `);
  host.playOnce({ tokens, msPerToken: 10 });
  const whole = collect(client.api.chat.send({ text: "stay", model: "up/m" }, soon()));
  await host.until(() => (latest()?.tokensSent ?? 0) > 2 && host.openRequests === 1, "the first answer is under way");
  host.playOnce(endless);
  const other = await daemon.connect("leaver");
  const left = failure(collect(other.api.chat.send({ text: "leave", model: "up/m" }, soon())));
  await host.until(() => host.openRequests === 2 && (latest()?.tokensSent ?? 0) > 2, "the second answer is under way");
  other[Symbol.dispose]();
  assert.equal((await left).code, "daemon_unreachable");
  const updates = await whole;
  assert.equal(updates.map((update) => (update.kind === "text" ? update.text : "")).join(""), tokens.join(""));
  assert.equal(updates.at(-1)?.kind, "finished");
  await host.until(() => host.openRequests === 0, "both upstreams have ended");
});

test("followed log lines come as they are written", async () => {
  const abort = new AbortController();
  using stranger = await connectRaw(daemon.socket);
  const lines: string[] = [];
  const following = (async () => {
    for await (const { line } of client.api.daemon.logs({ lines: 1, follow: true }, abort.signal)) {
      lines.push(line);
      // What is logged from here on can only come live.
      if (lines.length === 1) stranger.sendText("Content-Length: nonsense\r\n\r\n");
      if (line.includes("rpc.violation")) abort.abort();
    }
  })();
  assert.equal((await failure(following)).code, "cancelled");
  assert.ok(lines.length >= 2 && lines.every((line) => typeof JSON.parse(line) === "object"));
});

test("a client of another protocol version is told the versions of both, and is let go", async () => {
  for (const [min, max] of [
    [2, 9],
    [99, 99],
  ] as const) {
    using raw = await connectRaw(daemon.socket);
    raw.send(initializeMessage(daemon.faceKey, { min, max }));
    const reply = await raw.next();
    assert.equal(reply?.error?.data?.code, "protocol_unsupported");
    assert.deepEqual(reply.error.data.details, { clientMin: min, clientMax: max, daemonMin: 1, daemonMax: 1 });
    await raw.closed;
  }
  using newer = await connectRaw(daemon.socket);
  newer.send(initializeMessage(daemon.faceKey, { min: 1, max: 9 }));
  assert.deepEqual((await newer.next())?.result !== undefined, true, "a client that also speaks ours is welcome");
});

test("without the face credential nothing is answered, whatever is asked", async () => {
  for (const key of ["wrong", "", daemon.modelKey, `${daemon.faceKey} `, daemon.faceKey.slice(0, -1)]) {
    const error = await failure(connectSocket(daemon.socket, { key, clientName: "stranger" }));
    assert.ok(["unauthenticated", "invalid_params"].includes(error.code), error.code);
    assert.ok(!error.message.includes(daemon.faceKey));
  }
  const methods = Object.entries(ghostApiMethods).flatMap(([namespace, group]) =>
    Object.keys(group).map((name) => `ghost/${namespace}/${name}`),
  );
  assert.ok(methods.length > 15);
  using raw = await connectRaw(daemon.socket);
  for (const [id, method] of methods.entries()) {
    raw.send({ jsonrpc: "2.0", id, method, params: {} });
    const reply = await raw.next();
    assert.equal(reply?.error?.data?.code, "not_initialized", method);
  }
});

test("an answer that fails after its beginning is an outcome with what was shown, and one that fails before is an error", async () => {
  host.playOnce({ tokens: 10, fault: { kind: "cut", afterTokens: 4, where: "mid-frame", how: "reset" } });
  const updates = await collect(client.api.chat.send({ text: "break", model: "up/m" }, soon()));
  const last = updates.at(-1);
  assert.ok(last?.kind === "failed");
  assert.equal(last.error.code, "upstream_failed");
  assert.ok(updates.some(({ kind }) => kind === "text"));
  const started = updates[0];
  assert.ok(started?.kind === "started");
  assert.ok(answerIdSchema.safeParse(started.answerId).success);
  host.playOnce({ status: { code: 500, body: "json", message: "boom" } });
  const error = await failure(collect(client.api.chat.send({ text: "fail", model: "up/m" }, soon())));
  assert.equal(error.code, "upstream_failed");
  assert.match(error.message, /boom/);
});

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function failure(work: Promise<unknown>): Promise<GhostApiError> {
  const thrown = await work.then(
    () => assert.fail("it did not fail"),
    (error: unknown) => error,
  );
  assert.ok(thrown instanceof GhostApiError, `not a GhostApiError: ${String(thrown)}`);
  return thrown;
}

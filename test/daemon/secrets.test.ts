/**
 * A provider's key, from the environment or stored, reaches its own server and nothing else (I5), and who can only ask holds nothing to answer with (I14).
 * What a model says in its answer is the user's and is passed on unchanged, whatever it is; everything around it is ours, and is looked at here.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { createServer, type IncomingMessage } from "node:http";
import { after, before, test } from "node:test";
import { GhostApiError } from "../../protocol/errors.ts";
import type { GhostClient } from "../../protocol/ghost-client.ts";
import { methodsByName } from "../../protocol/ghost-api.ts";
import { approvalIdSchema } from "../../protocol/ids.ts";
import { connectSocket } from "../../protocol/node/socket-transport.ts";
import { portOf } from "../fakes/openai-host-fast.ts";
import { type OpenAiHost, type ScriptSource, startOpenAiHost } from "../fakes/openai-host.ts";
import type { Script } from "../fakes/openai-host-script.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { testFolder } from "../support/folder.ts";
import { type ApiReply, ask, call, configFor } from "../support/http.ts";

/** Random, so that it stands nowhere by accident; with the characters of base64. */
const randomKey = () => `sk-${Buffer.from(crypto.getRandomValues(new Uint8Array(30))).toString("base64")}`;
const KEY = randomKey();
/** Handed in by a face, for the provider `kept`. */
const STORED = randomKey();
const KEY_NAME = "GHOST_TEST_UPSTREAM_KEY";
const soon = () => AbortSignal.timeout(30_000);

let host: OpenAiHost;
let other: OpenAiHost;
let kept: OpenAiHost;
let daemon: TestDaemon;
let face: GhostClient;
/** Everything that came out of the daemon towards its clients. */
const shown: string[] = [];

before(async () => {
  host = await startOpenAiHost({ models: ["m"], apiKey: KEY });
  other = await startOpenAiHost({ models: ["m2"] });
  kept = await startOpenAiHost({ models: ["m3"], apiKey: STORED });
  const more = `key_env = "${KEY_NAME}"
[providers.compatible.other]
base_url = "${other.baseUrl}"
locality = "machine"
[providers.compatible.kept]
base_url = "${kept.baseUrl}"
locality = "machine"
[routing.aliases]
both = ["up/m", "other/m2"]
[log]
level = "debug"
`;
  daemon = await startTestDaemon({ config: configFor(host.baseUrl, more), env: { [KEY_NAME]: KEY } });
  face = await daemon.connect();
  shown.push(JSON.stringify(await face.api.key.set({ provider: "kept", value: STORED }, soon())));
});
after(async () => {
  face[Symbol.dispose]();
  await daemon[Symbol.asyncDispose]();
  const hosts = [host, other, kept];
  await Promise.all(hosts.map((one) => one[Symbol.asyncDispose]()));
  assert.deepEqual(
    hosts.flatMap(({ violations }) => violations),
    [],
  );
});

async function request(path: string, body: object): Promise<ApiReply> {
  const reply = await call(daemon, path, { body });
  shown.push(reply.text, JSON.stringify([...reply.headers]));
  return reply;
}
/** Neither the key, nor so much of it that the rest could be guessed. */
const holdsKey = (text: string) =>
  [KEY, STORED].some(
    (key) =>
      text.includes(key) || text.includes(key.slice(0, 24)) || text.includes(key.slice(-24)) || hidden(key, text),
  );
/** As it stands in an address, or in base64 that begins with it. */
const hidden = (key: string, text: string) =>
  text.includes(encodeURIComponent(key)) || text.includes(Buffer.from(key).toString("base64").slice(0, 24));

const SIDES = () =>
  [
    { from: "the environment", key: KEY, server: host, model: "up/m" },
    { from: "the store", key: STORED, server: kept, model: "kept/m3" },
  ] as const;

test("each key is in the Authorization header of its own server, on every kind of request", async () => {
  for (const { key, server, model, from } of SIDES()) {
    const asked = server.requests.length;
    await request("/v1/chat/completions", ask(model, { stream: true }));
    await request("/v1/chat/completions", ask(model));
    await request("/v1/completions", { model, prompt: "x" });
    await request("/v1/embeddings", { model, input: "x" });
    await face.api.model.list({ refresh: true }, soon());
    const requests = server.requests.slice(asked);
    assert.deepEqual(
      new Set(requests.map(({ method, path }) => `${method} ${path}`)),
      new Set(["GET /v1/models", "POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings"]),
      from,
    );
    for (const { headers, bodyText } of requests) {
      assert.equal(headers.authorization, `Bearer ${key}`, from);
      assert.ok(!holdsKey(JSON.stringify({ ...headers, authorization: "" }) + bodyText));
    }
  }
});

const ECHOES: readonly [name: string, script: (key: string) => Script][] = [
  ["a 401", (key) => ({ status: { code: 401, body: "json", message: `Incorrect API key provided: ${key}.` } })],
  ["a 400", (key) => ({ status: { code: 400, body: "json", message: `header authorization: Bearer ${key}` } })],
  ["a 429", (key) => ({ status: { code: 429, body: "json", message: `too much from ${key}`, retryAfterS: 1 } })],
  ["a 500", (key) => ({ status: { code: 500, body: "json", message: `cannot look up ${key}`, errorCode: key } })],
  [
    "a 500 that has it in an address",
    (key) => ({ status: { code: 500, body: "json", message: `GET /models?key=${encodeURIComponent(key)}` } }),
  ],
  [
    "a 500 whose key is where the message is cut",
    (key) => ({ status: { code: 500, body: "json", message: `${"x".repeat(480)}${key}` } }),
  ],
  ["an HTML page", (key) => ({ status: { code: 502, body: "html", message: `Bearer ${key}` } })],
  [
    "an error in band at the start",
    (key) => ({ tokens: 3, fault: { kind: "error-in-band", afterTokens: 0, message: `bad ${key}` } }),
  ],
  [
    "an error in band in the middle",
    (key) => ({ tokens: 3, fault: { kind: "error-in-band", afterTokens: 2, message: `bad ${key}` } }),
  ],
];
for (const [name, script] of ECHOES) {
  test(`${name} that echoes the key is passed on without it`, async () => {
    for (const { key, server, model } of SIDES()) {
      for (const stream of [true, false]) {
        server.playOnce(script(key));
        const reply = await request("/v1/chat/completions", ask(model, { stream }));
        assert.ok(!holdsKey(reply.text), reply.text);
        if (stream) assert.match(reply.text, /"error"/);
      }
      server.playOnce(script(key));
      const updates: unknown[] = [];
      try {
        for await (const update of face.api.chat.send({ text: "hello", model }, soon())) updates.push(update);
      } catch (error) {
        assert.ok(error instanceof GhostApiError);
        updates.push({ message: error.message, details: error.details });
      }
      const seen = JSON.stringify(updates);
      shown.push(seen);
      assert.ok(!holdsKey(seen), seen);
    }
  });
}

test("a test of a key that the server echoes says what is wrong without it", async () => {
  for (const { key, server, model } of SIDES()) {
    const provider = model.split("/")[0] ?? "";
    const failing: ScriptSource = () => ({ status: { code: 401, body: "json", message: `no such key: ${key}` } });
    server.play(failing);
    const verdict = await face.api.key.test({ provider }, soon());
    server.play({});
    shown.push(JSON.stringify(verdict));
    assert.equal(verdict.ok, false);
    assert.match(verdict.detail, /does not take the key.*no such key: \[secret\]/);
  }
});

test("errors of embeddings and of the list of models are passed on without the key as well", async () => {
  const status = { code: 403, body: "json", message: `Bearer ${KEY} may not` } as const;
  host.playOnce({ status });
  assert.ok(!holdsKey((await request("/v1/embeddings", { model: "up/m", input: "x" })).text));
  const failing: ScriptSource = () => ({ status });
  host.play(failing);
  const { providers } = await face.api.model.list({ refresh: true }, soon());
  const { findings } = await face.api.daemon.doctor({}, soon());
  host.play({});
  await face.api.model.list({ refresh: true }, soon());
  const up = providers.find(({ id }) => id === "up");
  assert.deepEqual([up?.state, up?.problem?.includes("may not")], ["refused", true]);
  assert.ok(!holdsKey(JSON.stringify([providers, findings])));
});

test("the next model of an alias gets neither the key nor the client's own", async () => {
  const before = other.requests.length;
  host.playOnce({ status: { code: 401, body: "json", message: KEY } });
  const reply = await request("/v1/chat/completions", ask("both", { stream: true }));
  assert.equal(reply.headers.get("x-ghost-model"), "other/m2");
  assert.ok(other.requests.length > before);
  for (const { headers, bodyText } of [...other.requests, ...host.requests]) {
    for (const secret of [daemon.modelKey, daemon.faceKey])
      assert.ok(!(JSON.stringify(headers) + bodyText).includes(secret));
  }
  for (const { headers, bodyText } of other.requests) {
    assert.equal(headers.authorization, undefined);
    assert.ok(!holdsKey(JSON.stringify(headers) + bodyText));
  }
});

test("a redirect to elsewhere does not take the key along", async () => {
  const elsewhere: IncomingMessage[] = [];
  const thief = createServer((message, response) => {
    elsewhere.push(message);
    response.end("{}");
  });
  const redirecting = createServer((message, response) => {
    message.resume();
    const isList = message.method === "GET";
    if (isList) response.end(JSON.stringify({ object: "list", data: [{ id: "m" }] }));
    else response.writeHead(307, { location: `http://127.0.0.1:${portOf(thief)}/v1/chat/completions` }).end();
  });
  for (const server of [thief, redirecting]) await once(server.listen(0, "127.0.0.1"), "listening");
  const config = configFor(`http://127.0.0.1:${portOf(redirecting)}/v1`, `key_env = "${KEY_NAME}"\n`);
  await using redirected = await startTestDaemon({ config, env: { [KEY_NAME]: KEY } });
  const reply = await call(redirected, "/v1/chat/completions", { body: ask("up/m", { stream: true }) });
  assert.equal(reply.status, 502);
  assert.deepEqual(elsewhere, []);
  for (const server of [thief, redirecting]) {
    server.closeAllConnections();
    server.close();
  }
});

test("the engine's process has none of the daemon's environment, and no key in reach of it", async () => {
  const reply = await request("/v1/completions", {
    model: "embedded/tiny-code-fim",
    prompt: "const a = ",
    max_tokens: 4,
  });
  assert.equal(reply.status, 200, reply.text);
  const { engine } = await face.api.daemon.status({}, soon());
  assert.ok(engine.pid !== undefined);
  assert.ok(readFileSync(`/proc/${daemon.pid}/environ`, "latin1").includes(KEY), "the daemon's own has it");
  for (const name of ["environ", "cmdline"])
    assert.ok(!readFileSync(`/proc/${daemon.pid}/${name}`, "latin1").includes(STORED));
  for (const name of ["environ", "cmdline"]) {
    const text = readFileSync(`/proc/${engine.pid}/${name}`, "latin1");
    for (const secret of [KEY, STORED, daemon.modelKey, daemon.faceKey]) assert.ok(!text.includes(secret));
    assert.ok(!text.includes(KEY_NAME));
  }
  const names = readFileSync(`/proc/${engine.pid}/environ`, "latin1").split("\0").filter(Boolean);
  assert.deepEqual(
    names
      .map((line) => line.split("=")[0]?.replace(/^NODE_CHANNEL_.*/, "NODE_CHANNEL"))
      .filter((name) => name !== "NODE_CHANNEL"),
    [],
  );
});

test("a crash report of Node's has neither a key of the environment nor a stored one", async () => {
  using reports = testFolder();
  const options = `--report-on-signal --report-signal=SIGUSR2 --report-directory=${reports.path}`;
  await using reporting = await startTestDaemon({
    config: configFor(host.baseUrl, `key_env = "${KEY_NAME}"\n`),
    env: { [KEY_NAME]: KEY, NODE_OPTIONS: options },
  });
  using client = await reporting.connect();
  await client.api.key.set({ provider: "up", value: STORED }, soon());
  assert.equal((await call(reporting, "/v1/chat/completions", { body: ask("up/m") })).status, 200);
  process.kill(reporting.pid, "SIGUSR2");
  const until = soon();
  const report = () => {
    const [name] = readdirSync(reports.path);
    return name === undefined ? "" : readFileSync(reports.join(name), "utf8");
  };
  // It is written bit by bit, beside everything else that the daemon does.
  while (!isJson(report())) await client.api.daemon.status({}, until);
  const text = report();
  assert.match(text, /"javascriptStack"/);
  assert.ok(!holdsKey(text));
});

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

const nobody = "ses_00000000000000000000000000";
/** Parameters for every method that can be called without an end to the daemon. */
const CALLS: Readonly<Record<string, object>> = {
  "ghost/daemon/status": {},
  "ghost/daemon/doctor": {},
  "ghost/daemon/logs": { lines: 10_000 },
  "ghost/model/list": { refresh: true },
  "ghost/model/pull": { source: `http://127.0.0.1:9/${nobody}.gguf` },
  "ghost/chat/send": { text: "hello", model: "up/m" },
  "ghost/completion/create": { prefix: "x", model: "up/m" },
  "ghost/session/list": { limit: 1000 },
  "ghost/session/get": {},
  "ghost/session/watch": {},
  "ghost/session/delete": { sessionId: nobody },
  "ghost/route/explain": { model: "ghost/auto" },
  "ghost/usage/summary": {},
  "ghost/approval/watch": {},
  "ghost/approval/respond": { id: approvalIdSchema.parse("apr_0"), outcome: "allow_once" },
  "ghost/policy/get": {},
  "ghost/ledger/list": {},
  "ghost/key/model": {},
  "ghost/key/set": { provider: "kept", value: STORED },
  "ghost/key/list": {},
  "ghost/key/test": { provider: "kept" },
  "ghost/key/remove": { provider: "other" },
  "ghost/settings/get": {},
};

test("no method of GhostApi tells it", async () => {
  assert.deepEqual([...Object.keys(CALLS), "ghost/daemon/stop"].toSorted(), [...methodsByName.keys()].toSorted());
  const { sessions } = await face.api.session.list({ limit: 1000 }, soon());
  assert.ok(sessions.length >= ECHOES.length, "the failed chats are there to be read");
  for (const [name, params] of Object.entries(CALLS)) {
    const isOfSession = name === "ghost/session/get" || name === "ghost/session/watch";
    const all = isOfSession ? sessions.map(({ id }) => ({ sessionId: id })) : [params];
    for (const single of all) {
      const seen = await everything(name, single);
      shown.push(seen);
      assert.ok(!holdsKey(seen), `${name}: ${seen.slice(0, 2_000)}`);
    }
  }
});

/** Whatever a method says, errors included; of a stream without an end what it says at first. */
async function everything(name: string, params: object): Promise<string> {
  const definition = methodsByName.get(name);
  assert.ok(definition !== undefined);
  const method: unknown = Reflect.get(Reflect.get(face.api, definition.namespace), definition.method);
  assert.ok(typeof method === "function");
  const items: unknown[] = [];
  const isEndless = name.endsWith("/watch");
  try {
    if (definition.kind === "request") items.push(await Reflect.apply(method, undefined, [params, soon()]));
    else {
      const stop = new AbortController();
      // What is there already comes before the answer to a later request on the same connection.
      if (isEndless)
        void face.api.policy
          .get({}, soon())
          .then(() => face.api.session.list({}, soon()))
          .finally(() => stop.abort());
      const stream: AsyncIterable<unknown> = Reflect.apply(method, undefined, [
        params,
        AbortSignal.any([stop.signal, soon()]),
      ]);
      for await (const item of stream) items.push(item);
    }
  } catch (error) {
    assert.ok(error instanceof GhostApiError, String(error));
    items.push({ code: error.code, message: error.message, details: error.details });
  }
  return JSON.stringify(items);
}

test("a model key opens none of them, over the socket or over HTTP", async () => {
  await assert.rejects(
    connectSocket(daemon.socket, { key: daemon.modelKey, clientName: "intruder" }),
    (error) => error instanceof GhostApiError && error.code === "unauthenticated",
  );
  for (const name of methodsByName.keys()) {
    const reply = await call(daemon, `/${name}`, { body: {}, key: daemon.modelKey });
    assert.equal(reply.status, 404, name);
  }
  assert.ok([401, 403].includes((await call(daemon, "/metrics", { key: daemon.modelKey })).status));
});

test("what a model says is passed on as it is, also where it looks like a key", async () => {
  const innocent = "sk-this-is-not-our-key-but-looks-like-one";
  host.playOnce({ tokens: [innocent] });
  assert.match((await request("/v1/chat/completions", ask("up/m"))).text, new RegExp(innocent));
});

test("nothing that was shown, logged or stored holds it, nor one of the daemon's own keys", async () => {
  await face.api.session.list({}, soon());
  const files = readdirSync(daemon.folder.path, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  const names = files.map(({ name }) => name);
  for (const name of ["ghost.db", "ghostd.log", "ghost.toml", "provider-keys.json"])
    assert.ok(names.includes(name), names.join(" "));
  for (const { name, parentPath } of files) {
    if (name.startsWith("provider-keys")) assert.equal(statSync(`${parentPath}/${name}`).mode & 0o077, 0, name);
    const text = readFileSync(`${parentPath}/${name}`, "latin1");
    assert.ok(!holdsKey(text), name);
    if (name !== "model.key") assert.ok(!text.includes(daemon.modelKey), name);
    if (name !== "face.key") assert.ok(!text.includes(daemon.faceKey), name);
  }
  assert.ok(
    names.some((name) => name.includes("spool") || /\d+/.test(name)),
    names.join(" "),
  );
  assert.ok(
    daemon.logs().some(({ level }) => level === "debug"),
    "the log is as talkative as it can be",
  );
  assert.ok(shown.length > 50);
  for (const text of [...shown, daemon.stderr()]) {
    assert.ok(!holdsKey(text));
    assert.ok(!text.includes(daemon.faceKey));
  }
});

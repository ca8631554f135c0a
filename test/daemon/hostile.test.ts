/** Clients that send nonsense, too much, too slowly, or leave: the daemon answers or drops them, and serves the next one. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, get } from "node:http";
import { connect, type Socket } from "node:net";
import { after, before, test } from "node:test";
import { sessionIdSchema } from "../../protocol/ids.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { ask, call, configFor, errorOf, sse, textOf } from "../support/http.ts";

let host: OpenAiHost;
let daemon: TestDaemon;
before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
  daemon = await startTestDaemon({ config: configFor(host.baseUrl, "[http]\nmax_body_mib = 1\n") });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

const port = () => Number(new URL(daemon.http).port);
const works = async () => {
  host.playOnce({ tokens: ["ok"] });
  const reply = await call(daemon, "/v1/chat/completions", { body: ask("up/m", { stream: true }) });
  assert.equal(textOf(sse(reply.text).chunks), "ok");
};

const bodies: readonly [name: string, rawBody: string | Uint8Array<ArrayBuffer>, status: number, code: string][] = [
  ["no JSON", "hello", 400, "invalid_json"],
  ["an empty body", "", 400, "invalid_json"],
  ["bytes that are not UTF-8", Uint8Array.from([0x7b, 0x22, 0xff, 0x22, 0x7d]), 400, "invalid_json"],
  ["a list", "[]", 400, "invalid_params"],
  ["JSON nested ten thousand deep", `${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}`, 400, "invalid_json"],
  ["more than the limit", JSON.stringify(ask("x".repeat(1_200_000))), 413, "body_too_large"],
];
for (const [name, rawBody, status, code] of bodies) {
  test(`${name}: a typed error`, async () => {
    const reply = await call(daemon, "/v1/chat/completions", { rawBody, method: "POST" });
    assert.deepEqual([reply.status, errorOf(reply).code], [status, code]);
  });
}

test("a wrong content type does not matter, a wrong length does", async () => {
  host.playOnce({ tokens: ["ok"] });
  assert.equal(
    (await call(daemon, "/v1/chat/completions", { body: ask("up/m"), headers: { "content-type": "text/plain" } }))
      .status,
    200,
  );
  const socket = connect(port(), "127.0.0.1");
  await once(socket, "connect");
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk)).on("error", () => {});
  socket.end(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:${port()}\r\nauthorization: Bearer ${daemon.modelKey}\r\ncontent-length: 100\r\n\r\n{"model":`,
  );
  await once(socket, "close");
  assert.ok(!Buffer.concat(chunks).toString().startsWith("HTTP/1.1 200"));
  await works();
});

test("a request that is not HTTP gets 400 and harms nobody", async () => {
  const socket = connect(port(), "127.0.0.1");
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk)).on("error", () => {});
  socket.write("\x16\x03\x01 this is not http\r\n\r\n");
  await once(socket, "close");
  assert.match(Buffer.concat(chunks).toString(), /^HTTP\/1\.1 400/);
  await works();
});

test("ten thousand half-open connections push out one another, not the clients that talk", async () => {
  const sockets: Socket[] = [];
  let dropped = 0;
  try {
    for (let batch = 0; batch < 20; batch += 1) {
      const opening = Array.from({ length: 500 }, () => {
        const socket = connect(port(), "127.0.0.1");
        socket.on("error", () => {}).on("close", () => (dropped += 1));
        socket.write("POST /v1/chat/comple");
        sockets.push(socket);
        return once(socket, "connect").catch(() => {}); // Dropped while connecting: what this test is about.
      });
      await Promise.all(opening);
      if (batch % 5 === 0) await works();
    }
    await works();
    assert.ok(dropped >= 9_000, `${dropped} of 10,000 were dropped`);
  } finally {
    for (const socket of sockets) socket.destroy();
  }
});

test("clients that vanish at any moment leave nothing behind", async () => {
  host.play({ tokens: 50, msPerToken: 5 });
  const attempts = Array.from({ length: 30 }, async (_, index) => {
    const controller = new AbortController();
    const reply = call(daemon, "/v1/chat/completions", {
      body: ask("up/m", { stream: index % 3 !== 0 }),
      signal: controller.signal,
    });
    setTimeout(() => controller.abort(), index * 4);
    await reply.catch(() => {}); // The client's own abort.
  });
  await Promise.all(attempts);
  await host.until(() => host.openRequests === 0, "every upstream request is over");
  host.play({});
  using client = await daemon.connect();
  // A client may have left before its request was sent on: then no upstream tells when it is over.
  const signal = AbortSignal.timeout(10_000);
  while ((await client.api.daemon.status({}, signal)).openAnswers > 0) signal.throwIfAborted();
  await works();
});

test("two faces that fail do not disturb a third", async () => {
  using first = await daemon.connect();
  using second = await daemon.connect();
  const signal = AbortSignal.timeout(10_000);
  await assert.rejects(
    first.api.session.get({ sessionId: sessionIdSchema.parse("ses_00000000000000000000000000") }, signal),
    /session/,
  );
  first[Symbol.dispose]();
  assert.equal((await second.api.daemon.status({}, signal)).pid, daemon.pid);
});

test("bodies made to exhaust a parser are refused, and the daemon lives", async () => {
  await using roomy = await startTestDaemon({ config: configFor(host.baseUrl) });
  const bomb = (d: string) => `{"model":"up/m","messages":[{"role":"user","content":"x"}],"d":${d}}`;
  for (const path of ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]) {
    const deep = await call(roomy, path, { rawBody: bomb("[".repeat(5_000_000) + "]".repeat(5_000_000)) });
    assert.deepEqual([deep.status, errorOf(deep).code], [400, "invalid_json"]);
    const wide = await call(roomy, path, { rawBody: bomb(`[${"{},".repeat(6_000_000)}{}]`) });
    assert.deepEqual([wide.status, errorOf(wide).code], [413, "body_too_large"]);
  }
  assert.equal((await call(roomy, "/healthz", { key: null })).status, 200);
});

test("large completions and embeddings are read in a worker and relayed as they came", async () => {
  await using roomy = await startTestDaemon({ config: configFor(host.baseUrl) });
  host.playOnce({ tokens: ["ok"] });
  const prompt = "p".repeat(3_000_000);
  assert.equal((await call(roomy, "/v1/completions", { body: { model: "up/m", prompt } })).status, 200);
  assert.equal(host.requests.at(-1)?.bodyText, JSON.stringify({ model: "m", prompt }));
  const input = Array.from({ length: 500 }, (_, index) => `text ${index} ${"e".repeat(1000)}`);
  assert.equal((await call(roomy, "/v1/embeddings", { body: { model: "up/m", input } })).status, 200);
  assert.equal(host.requests.at(-1)?.bodyText, JSON.stringify({ model: "m", input }));
});

test("a connection that asks again and again leaves nothing of its requests behind", async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set<number | undefined>();
  for (let round = 0; round < 30; round += 1) {
    const headers = { authorization: `Bearer ${daemon.modelKey}` };
    const [response] = await once(get(`${daemon.http}/v1/models`, { agent, headers }), "response");
    ports.add(response.socket.localPort);
    response.resume();
    await once(response, "end");
  }
  agent.destroy();
  assert.equal(ports.size, 1, "one connection served all of them");
  assert.doesNotMatch(daemon.stderr(), /MaxListeners/);
});

test("member names of Object's prototype are relayed like any other", async () => {
  await using odd = await startOpenAiHost({ models: ["m"], extraFields: ["constructor", "toString", "__proto__"] });
  await using other = await startTestDaemon({ config: configFor(odd.baseUrl) });
  odd.playOnce({ tokens: ["ok"] });
  const rawBody = '{"constructor":1,"toString":2,"model":"up/m","messages":[{"role":"user","content":"x"}]}';
  assert.equal((await call(other, "/v1/chat/completions", { rawBody })).status, 200);
});

test("a path that cannot be decoded passes the same checks, and answers in the same shape", async () => {
  const reply = await call(daemon, "/%zz");
  assert.deepEqual([reply.status, errorOf(reply).code], [400, "invalid_params"]);
  const stranger = await call(daemon, "/nothing-here", { key: null });
  assert.deepEqual([stranger.status, errorOf(stranger).code], [401, "invalid_api_key"]);
});

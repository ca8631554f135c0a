/** Connections that ask to become something else than HTTP/1.1: those that may not are answered and closed, and none holds up the daemon's end. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { WebSocket } from "ws";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { ask, configFor } from "../support/http.ts";

let host: OpenAiHost;
let daemon: TestDaemon;
before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
  daemon = await startTestDaemon({ config: configFor(host.baseUrl) });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

interface Asked {
  readonly path: string;
  readonly key?: string;
  readonly protocol: string;
  readonly body?: string;
}

/** Sends a request with an `Upgrade` and leaves the connection open. */
async function upgrade(at: TestDaemon, { path, key, protocol, body }: Asked) {
  const port = new URL(at.http).port;
  const socket = connect(Number(port), "127.0.0.1");
  let text = "";
  socket.on("data", (bytes) => {
    text += bytes.toString("latin1");
  });
  const closed = once(socket, "close");
  const head = [
    `${body === undefined ? "GET" : "POST"} ${path} HTTP/1.1`,
    `Host: 127.0.0.1:${port}`,
    "Connection: Upgrade",
    `Upgrade: ${protocol}`,
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ...(key === undefined ? [] : [`Authorization: Bearer ${key}`]),
    ...(body === undefined ? [] : [`Content-Length: ${Buffer.byteLength(body)}`]),
  ];
  socket.write(`${head.join("\r\n")}\r\n\r\n${body ?? ""}`);
  await once(socket, "data", { signal: AbortSignal.timeout(10_000) });
  return { socket, closed, text: () => text, status: () => Number(text.split(" ")[1]) };
}

const cases: readonly [path: string, hasKey: boolean, status: number][] = [
  ["/v1/models", true, 200],
  ["/v1/models", false, 401],
  ["/v1/nothing", true, 404],
  ["/v1/responses", false, 401],
  ["/healthz", false, 200],
];
for (const [path, hasKey, status] of cases) {
  test(`a WebSocket for ${path} ${hasKey ? "with" : "without"} a key is answered ${status} and closed`, async () => {
    const key = hasKey ? { key: daemon.modelKey } : {};
    const asked = await upgrade(daemon, { path, protocol: "websocket", ...key });
    await asked.closed;
    assert.equal(asked.status(), status);
  });
}

test("an offer of HTTP/2, which some clients make with each request, changes nothing", async () => {
  host.playOnce({ tokens: ["fine"] });
  const body = JSON.stringify(ask("up/m"));
  const path = "/v1/chat/completions";
  const asked = await upgrade(daemon, { path, protocol: "h2c", key: daemon.modelKey, body });
  while (!asked.text().includes("fine")) await once(asked.socket, "data");
  assert.equal(asked.status(), 200);
  asked.socket.destroy();
});

test("open WebSockets, also of a peer that has stopped reading, do not hold up the daemon's end", async () => {
  const own = await startTestDaemon({ config: configFor(host.baseUrl) });
  const headers = { authorization: `Bearer ${own.modelKey}` };
  const polite = new WebSocket(`${own.http.replace("http", "ws")}/v1/responses`, { headers });
  await once(polite, "open");
  const closed = once(polite, "close");
  const silent = await upgrade(own, { path: "/v1/responses", protocol: "websocket", key: own.modelKey });
  assert.equal(silent.status(), 101);
  silent.socket.pause();
  const startedAt = performance.now();
  assert.deepEqual(await own.stop(), { code: 0, signal: null });
  assert.ok(performance.now() - startedAt < 5_000);
  const [code]: unknown[] = await closed;
  assert.equal(code, 1001);
  silent.socket.destroy();
});

test("a frame that is larger than a body may be ends its connection", async () => {
  const own = await startTestDaemon({ config: `[http]\nmax_body_mib = 1\n${configFor(host.baseUrl)}` });
  await using _stop = own;
  const headers = { authorization: `Bearer ${own.modelKey}` };
  const socket = new WebSocket(`${own.http.replace("http", "ws")}/v1/responses`, { headers });
  await once(socket, "open");
  socket.send("x".repeat(1024 * 1024 + 1));
  const [code]: unknown[] = await once(socket, "close");
  assert.equal(code, 1009);
});

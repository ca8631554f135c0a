/** Two audiences (I14): who can ask can never answer. And every route names who may use it. */
import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { GhostApiError } from "../../protocol/errors.ts";
import { connectSocket } from "../../protocol/node/socket-transport.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { ask, call, errorOf } from "../support/http.ts";

let daemon: TestDaemon;
before(async () => {
  daemon = await startTestDaemon();
});
after(() => daemon[Symbol.asyncDispose]());

/** Everything the HTTP front answers. A new route fails here until somebody has said who may use it. */
const ROUTES: Readonly<Record<string, "none" | "model" | "face">> = {
  "HEAD /": "none",
  "GET /healthz": "none",
  "GET /metrics": "face",
  "GET /v1/models": "model",
  "GET /v1/models/*": "model",
  "POST /v1/chat/completions": "model",
  "POST /v1/completions": "model",
  "POST /v1/embeddings": "model",
  "GET /v1/responses": "model",
  "POST /v1/responses": "model",
  "POST /v1/responses/input_tokens": "model",
  "POST /v1/responses/compact": "model",
  "GET /v1/responses/:id": "model",
  "DELETE /v1/responses/:id": "model",
  "GET /v1/responses/:id/input_items": "model",
  "POST /v1/responses/:id/cancel": "model",
  "POST /v1/messages": "model",
  "POST /v1/messages/count_tokens": "model",
  "GET /v1beta/models": "model",
  "GET /v1beta/models/*": "model",
  "POST /v1beta/models/*": "model",
  "POST /v1/models/*": "model",
};

test("the routes that exist are the routes that are listed", () => {
  const listening = daemon.logs().find((line) => line["event"] === "http.listening");
  assert.ok(Array.isArray(listening?.["routes"]));
  const found = listening["routes"].map((route: { method: string; path: string; audience: string }) => [
    `${route.method} ${route.path}`,
    route.audience,
  ]);
  assert.deepEqual(Object.fromEntries(found), ROUTES);
});

for (const [route, audience] of Object.entries(ROUTES)) {
  const [method = "", path = ""] = route.split(" ");
  test(`${route} opens for ${audience === "none" ? "everybody" : `a ${audience} key`} and nobody else`, async () => {
    const status = async (key: string | null) =>
      (await call(daemon, path, { method, key, ...(method === "POST" ? { body: {} } : {}) })).status;
    const open = (code: number) => code !== 401 && code !== 403;
    assert.equal(open(await status(null)), audience === "none");
    assert.equal(open(await status("wrong")), audience === "none");
    assert.equal(open(await status(daemon.modelKey)), audience !== "face");
    assert.equal(open(await status(daemon.faceKey)), audience !== "model");
  });
}

test("a model key opens nothing on the socket", async () => {
  await assert.rejects(
    connectSocket(daemon.socket, { key: daemon.modelKey, clientName: "intruder" }),
    (error) => error instanceof GhostApiError && error.code === "unauthenticated",
  );
});

test("keys are private files, and neither is in the log, the answers or the errors", async () => {
  for (const name of ["model.key", "face.key"]) assert.equal(statSync(join(daemon.dataDir, name)).mode & 0o777, 0o600);
  assert.equal(statSync(daemon.socket).mode & 0o777, 0o600);
  assert.equal(statSync(daemon.dataDir).mode & 0o777, 0o700);
  const reply = await call(daemon, "/v1/chat/completions", { body: ask("nobody/has-this"), key: daemon.modelKey });
  assert.ok(!reply.text.includes(daemon.modelKey));
  const log = readFileSync(join(daemon.dataDir, "ghostd.log"), "utf8");
  assert.ok(log.length > 0);
  assert.ok(!log.includes(daemon.modelKey) && !log.includes(daemon.faceKey));
});

test("a foreign Host or Origin is refused with 403, also with the right key", async () => {
  const { request } = await import("node:http");
  const status = (headers: Record<string, string>) =>
    new Promise<number | undefined>((resolve, reject) => {
      const outgoing = request(
        `${daemon.http}/v1/models`,
        { headers: { authorization: `Bearer ${daemon.modelKey}`, ...headers } },
        (response) => {
          response.resume();
          resolve(response.statusCode);
        },
      );
      outgoing.on("error", reject).end();
    });
  assert.equal(await status({ host: "evil.example" }), 403);
  assert.equal(await status({ origin: "https://evil.example" }), 403);
  assert.equal(await status({}), 200);
});

test("an unknown path answers 404 with what is near, and a wrong method too", async () => {
  const reply = await call(daemon, "/v1/chat/completion", { body: {} });
  assert.deepEqual([reply.status, errorOf(reply).code], [404, "method_unknown"]);
  assert.match(errorOf(reply).message, /\/v1\/chat\/completions/);
});

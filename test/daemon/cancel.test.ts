/** A cancelled request stops its upstream in every state (I11), for every engine. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import type { Script } from "../fakes/openai-host-script.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { ask, call, configFor } from "../support/http.ts";

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

const endless: Script = { tokens: 100_000, msPerToken: 5 };
const states: readonly [name: string, script: Script, stream: boolean, reached: () => boolean][] = [
  ["before the head", { fault: { kind: "hang-before-headers" } }, true, () => host.openRequests === 1],
  ["before the first token", { fault: { kind: "hang", afterTokens: 0 }, tokens: 2 }, true, () => host.openRequests === 1],
  ["in the middle of a stream", endless, true, () => (host.requests.at(-1)?.tokensSent ?? 0) >= 3],
  ["while a plain answer is made", endless, false, () => host.openRequests === 1],
];
for (const [name, script, stream, reached] of states) {
  test(`a client that leaves ${name} stops the upstream`, async () => {
    host.playOnce(script);
    const controller = new AbortController();
    const reply = call(daemon, "/v1/chat/completions", { body: ask("up/m", { stream }), signal: controller.signal });
    const gone = assert.rejects(reply);
    await host.until(reached, `the upstream is ${name}`);
    controller.abort();
    await host.until(() => host.requests.at(-1)?.state === "closed-by-peer", "the upstream connection is closed");
    await gone.catch(() => {}); // A stream whose head had come ends as cut instead of rejecting.
  });
}

test("cancelling over GhostApi stops the upstream, and the session says cancelled", async () => {
  host.playOnce(endless);
  using client = await daemon.connect();
  const controller = new AbortController();
  let text = "";
  let sessionId: string | undefined;
  await assert.rejects(async () => {
    for await (const update of client.api.chat.send({ text: "go", model: "up/m" }, controller.signal)) {
      if (update.kind === "started") sessionId = update.sessionId;
      if (update.kind === "text") text += update.text;
      if (text.length > 20) controller.abort();
    }
  }, /cancelled/);
  await host.until(() => host.requests.at(-1)?.state === "closed-by-peer", "the upstream connection is closed");
  const signal = AbortSignal.timeout(10_000);
  const { sessions } = await client.api.session.list({}, signal);
  assert.equal(sessions[0]?.id, sessionId);
  for (;;) {
    const session = sessions[0];
    assert.ok(session !== undefined);
    const { entries } = await client.api.session.get({ sessionId: session.id }, signal);
    const answer = entries.at(-1);
    if (answer?.answer?.state === "streaming") continue;
    assert.equal(answer?.answer?.state, "cancelled");
    assert.ok(answer.text.startsWith(text), "the session has at least what was shown");
    break;
  }
});

test("a client that does not read stops the upstream's flow, and gets everything once it reads", async () => {
  const { request } = await import("node:http");
  host.playOnce({ tokens: Array.from({ length: 400 }, () => "z".repeat(100_000)) });
  const body = JSON.stringify(ask("up/m", { stream: true }));
  const outgoing = request(`${daemon.http}/v1/chat/completions`, { method: "POST", headers: { authorization: `Bearer ${daemon.modelKey}`, "content-length": body.length } });
  outgoing.end(body);
  const [response] = await new Promise<[import("node:http").IncomingMessage]>((resolve) => outgoing.once("response", (message) => resolve([message])));
  response.pause();
  // 40 MB are on offer; what is taken settles at the sockets' buffers.
  let before = -1;
  for (;;) {
    const now = host.requests.at(-1)?.connectionBytesWritten ?? 0;
    if (now === before && now > 0) break;
    before = now;
    await new Promise((resolve) => {
      setTimeout(resolve, 300);
    });
  }
  assert.ok(before < 20_000_000, `${before} bytes were taken although nobody read`);
  let size = 0;
  for await (const chunk of response) size += Buffer.isBuffer(chunk) ? chunk.length : 0;
  assert.ok(size > 40_000_000);
});

/** A cancelled request stops its upstream in every state (I11), for every engine. */
import assert from "node:assert/strict";
import { type IncomingMessage, request } from "node:http";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { SessionId } from "../../protocol/ids.ts";
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
/** The latest request for an answer. */
const latest = () => host.requests.findLast(({ method }) => method === "POST");
const states: readonly [name: string, script: Script, stream: boolean, reached: () => boolean][] = [
  ["before the head", { fault: { kind: "hang-before-headers" } }, true, () => true],
  ["before the first token", { fault: { kind: "hang", afterTokens: 0 }, tokens: 2 }, true, () => true],
  ["in the middle of a stream", endless, true, () => (latest()?.tokensSent ?? 0) >= 3],
  ["while a plain answer is made", endless, false, () => true],
];
for (const [name, script, stream, reached] of states) {
  test(`a client that leaves ${name} stops the upstream`, async () => {
    const before = host.requests.length;
    host.playOnce(script);
    const controller = new AbortController();
    const reply = call(daemon, "/v1/chat/completions", {
      body: ask("up/m", { stream }),
      signal: controller.signal,
    }).catch(() => "aborted");
    await host.until(
      () => host.requests.length > before && latest()?.state === "open" && reached(),
      `the upstream is ${name}`,
    );
    controller.abort();
    await host.until(() => latest()?.state === "closed-by-peer", "the upstream connection is closed");
    await reply;
  });
}

test("cancelling over GhostApi stops the upstream, and the session says cancelled", async () => {
  host.playOnce(endless);
  using client = await daemon.connect();
  const controller = new AbortController();
  let text = "";
  let sessionId: SessionId | undefined;
  await assert.rejects(async () => {
    for await (const update of client.api.chat.send({ text: "go", model: "up/m" }, controller.signal)) {
      if (update.kind === "started") sessionId = update.sessionId;
      if (update.kind === "text") text += update.text;
      if (text.length > 20) controller.abort();
    }
  }, /cancelled/);
  await host.until(() => latest()?.state === "closed-by-peer", "the upstream connection is closed");
  const signal = AbortSignal.timeout(10_000);
  assert.ok(sessionId !== undefined);
  for (;;) {
    const { entries } = await client.api.session.get({ sessionId }, signal);
    const answer = entries.at(-1);
    if (answer?.answer?.state === "streaming") continue;
    assert.equal(answer?.answer?.state, "cancelled");
    assert.ok(answer.text.startsWith(text), "the session has at least what was shown");
    break;
  }
});

test("a client that does not read stops the upstream's flow, and gets everything once it reads", async () => {
  host.playOnce({ tokens: Array.from({ length: 400 }, () => "z".repeat(100_000)) });
  const body = JSON.stringify(ask("up/m", { stream: true }));
  const outgoing = request(`${daemon.http}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${daemon.modelKey}`, "content-length": body.length },
  });
  outgoing.end(body);
  const response = await new Promise<IncomingMessage>((resolve) => {
    outgoing.once("response", resolve);
  });
  response.pause();
  // 40 MB are on offer; what is taken settles at the sockets' buffers: it stays the same over several looks.
  let before = -1;
  for (let same = 0; same < 5; ) {
    await sleep(100);
    const now = latest()?.connectionBytesWritten ?? 0;
    same = now === before && now > 0 ? same + 1 : 0;
    before = now;
  }
  assert.ok(before < 20_000_000, `${before} bytes were taken although nobody read`);
  let size = 0;
  for await (const chunk of response) size += Buffer.isBuffer(chunk) ? chunk.length : 0;
  assert.ok(size > 40_000_000);
});

/** However an Ollama host breaks its answer, no client is shown a clean end (I7): over both doors, streamed and whole, and in the transcript. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { FaultKind } from "../fakes/ollama-faults.ts";
import { type OllamaHost, startOllamaHost } from "../fakes/ollama-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { call, errorOf, sse, textOf } from "../support/http.ts";

let host: OllamaHost;
let daemon: TestDaemon;
before(async () => {
  host = await startOllamaHost({ models: [{ name: "coder:7b" }], speed: 20 });
  daemon = await startTestDaemon({
    config: `[providers.ollama]\ndiscover = false\n[providers.ollama.hosts.gpu]\nurl = "${host.url}"\n`,
  });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

const MODEL = "ollama/coder:7b@gpu";
const FAULTS: readonly FaultKind[] = [
  { kind: "errorLine", afterTokens: 3, text: "an error was encountered while running the model" },
  { kind: "end", afterTokens: 3 },
  { kind: "halfLine", afterTokens: 3 },
  { kind: "reset", afterTokens: 3 },
  { kind: "garbage", afterTokens: 3 },
];
for (const fault of FAULTS) {
  test(`\`${fault.kind}\` in mid-answer is an error everywhere`, async () => {
    const question = (text: string, stream: boolean) => ({
      model: MODEL,
      messages: [{ role: "user", content: text }],
      stream,
    });
    host.inject({ ...fault, on: "chat" });
    const streamed = await call(daemon, "/v1/chat/completions", { body: question(`streamed ${fault.kind}`, true) });
    // A reset may overtake what was sent before it; then the answer fails before its beginning.
    if (fault.kind === "reset" && streamed.status !== 200) assert.equal(errorOf(streamed).code, "upstream_failed");
    else {
      const { chunks, isDone } = sse(streamed.text);
      assert.equal(isDone, false);
      assert.ok(fault.kind === "reset" || textOf(chunks.slice(0, -1)).length > 0, "what came before is shown");
      assert.match(JSON.stringify(chunks.at(-1)), /"code":"upstream_failed"/);
    }

    host.inject({ ...fault, on: "chat" });
    const whole = await call(daemon, "/v1/chat/completions", { body: question(`whole ${fault.kind}`, false) });
    assert.equal(whole.status, 502, whole.text);
    assert.equal(errorOf(whole).code, "upstream_failed");

    host.inject({ ...fault, on: "chat" });
    using client = await daemon.connect();
    const signal = AbortSignal.timeout(20_000);
    const kinds: string[] = [];
    const chat = (async () => {
      for await (const update of client.api.chat.send(
        { text: `over the socket ${fault.kind}`, model: MODEL },
        signal,
      )) {
        kinds.push(update.kind);
      }
      return kinds.at(-1);
    })();
    if (fault.kind === "reset")
      await chat.catch((error: unknown) => assert.match(String(error), /broke the connection/));
    else assert.equal(await chat, "failed");
    assert.ok(!kinds.includes("finished"));

    const { sessions } = await client.api.session.list({}, signal);
    const mine = sessions.filter(({ title }) => title.endsWith(fault.kind));
    assert.equal(mine.length, 3);
    for (const { id } of mine) {
      const { entries } = await client.api.session.get({ sessionId: id }, signal);
      assert.equal(entries.at(-1)?.answer?.state, "failed");
    }
    assert.deepEqual(host.violations, []);
  });
}

/** The user's own `claude` program behind the real daemon, in front of a fake of it: answers, failover, and that it is off unless it is turned on. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { clients, type Daemon } from "../dialects/clients.ts";
import { type FakeClaude, fakeClaude } from "../fakes/claude-play.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { type TestFolder, testFolder } from "../support/folder.ts";
import { ask, call, configFor, errorOf, sse, textOf } from "../support/http.ts";

const MODEL = "claude-code/opus";
let folder: TestFolder;
let claude: FakeClaude;
let spare: OpenAiHost;
let daemon: TestDaemon;
let doors: Daemon;

before(async () => {
  folder = testFolder();
  claude = fakeClaude(folder);
  spare = await startOpenAiHost({ models: ["m"] });
  const more = `[http.ollama]
enabled = true
port = 0
allow_cloud = true
[providers.claude_code]
enabled = true
command = "${claude.command}"
models = ["opus"]
[routing.aliases]
claude-else-up = ["${MODEL}", "up/m"]
`;
  daemon = await startTestDaemon({
    config: configFor(spare.baseUrl, more),
    env: { ANTHROPIC_API_KEY: "sk-ant-api03-secret-0123456789" },
  });
  const door = daemon.logs().find(({ event }) => event === "ollama_http.listening");
  doors = { ...daemon, ollama: `http://127.0.0.1:${String(door?.["port"])}` };
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await spare[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
  assert.deepEqual(spare.violations, []);
});

test("clients of every dialect are answered", async () => {
  claude.play({ deltas: ["Grüße ", "🦊"] });
  for (const client of clients) {
    const answer = await client.ask(doors, { model: MODEL, text: "Say something.", stream: true });
    assert.deepEqual(
      [client.name, answer.status, answer.isWhole, answer.text, answer.finish],
      [client.name, 200, true, "Grüße 🦊", "stop"],
    );
    const refused = await client.ask(doors, { model: MODEL, text: "Weather?", stream: false, withTools: true });
    assert.equal(refused.status, 400, refused.reply.text);
    assert.match(client.errorOf(refused.reply), /tools/);
  }
  for (const { env } of claude.asked()) assert.equal(env["ANTHROPIC_API_KEY"], undefined);
});

test("an alias goes on when the plan is used up, and a client that named it is told", async () => {
  claude.play({ result: "You've hit your weekly limit · resets Monday" });
  spare.playOnce({ tokens: ["from the spare"] });
  const reply = await call(daemon, "/v1/chat/completions", { body: ask("claude-else-up", { stream: true }) });
  assert.equal(textOf(sse(reply.text).chunks), "from the spare", reply.text);
  const refused = await call(daemon, "/v1/chat/completions", { body: ask(MODEL) });
  assert.equal(refused.status, 402, refused.text);
  assert.match(errorOf(refused).message, /weekly limit/);
});

test("it is off unless it is turned on", async () => {
  await using plain = await startTestDaemon();
  const { json } = await call(plain, "/v1/models");
  assert.doesNotMatch(JSON.stringify(json), /claude/);
});

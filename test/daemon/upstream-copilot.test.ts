/** GitHub Copilot behind the real daemon, with the SDK's real runtime in front of a fake model server: clients of every dialect, tools, failover. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Client, clients, type Daemon } from "../dialects/clients.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { ask, call, configFor, errorOf, sse, textOf } from "../support/http.ts";

const TOKEN = "github_pat_test_0123456789";
const MODEL = "copilot/m";
let host: OpenAiHost;
let spare: OpenAiHost;
let daemon: TestDaemon;
let doors: Daemon;

before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
  spare = await startOpenAiHost({ models: ["m"] });
  const more = `[http.ollama]
enabled = true
port = 0
allow_cloud = true
[providers.copilot]
enabled = true
[routing.aliases]
copilot-else-up = ["${MODEL}", "up/m"]
`;
  const env = { COPILOT_GITHUB_TOKEN: TOKEN, GHOST_COPILOT_TEST_URL: `${host.baseUrl}?model=m` };
  daemon = await startTestDaemon({ config: configFor(spare.baseUrl, more), env });
  const door = daemon.logs().find(({ event }) => event === "ollama_http.listening");
  doors = { ...daemon, ollama: `http://127.0.0.1:${String(door?.["port"])}` };
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  await spare[Symbol.asyncDispose]();
  assert.deepEqual([host.violations, spare.violations], [[], []]);
});

async function assertAnswers(client: Client): Promise<void> {
  for (const stream of [true, false]) {
    host.playOnce({ tokens: ["Grüße ", "🦊"] });
    const answer = await client.ask(doors, { model: MODEL, text: "Say something.", stream });
    assert.deepEqual([answer.status, answer.isWhole, answer.text, answer.finish], [200, true, "Grüße 🦊", "stop"]);
  }
  host.playOnce({ tokens: 0, toolCalls: [{ id: "call_0", name: "get_weather", arguments: ['{"city":', '"Köln"}'] }] });
  const question = { model: MODEL, text: "How is the weather?", stream: false, withTools: true };
  const called = await client.ask(doors, question);
  assert.deepEqual(
    called.calls.map(({ name, arguments: given }) => [name, given]),
    [["get_weather", { city: "Köln" }]],
    called.reply.text,
  );
  host.playOnce({ tokens: ["It rains."] });
  const results = called.calls.map(({ id, name }) => ({ callId: id, name, text: `result of ${name}` }));
  const last = await client.ask(doors, { ...question, after: { answer: called, results } });
  assert.deepEqual([last.text, last.isWhole], ["It rains.", true], last.reply.text);
  assert.match(host.requests.at(-1)?.bodyText ?? "", /result of get_weather/);
}

for (const client of clients) test(`${client.name} is answered, tools included`, () => assertAnswers(client));

test("an alias goes on to another provider when Copilot's quota is used up", async () => {
  host.playOnce({ status: { code: 402, body: "json", message: "no credits" } });
  spare.playOnce({ tokens: ["from the spare"] });
  const reply = await call(daemon, "/v1/chat/completions", { body: ask("copilot-else-up", { stream: true }) });
  assert.equal(textOf(sse(reply.text).chunks), "from the spare", reply.text);
  assert.equal(reply.headers.get("x-ghost-model"), "up/m");
  host.playOnce({ status: { code: 402, body: "json", message: "no credits" } });
  const refused = await call(daemon, "/v1/chat/completions", { body: ask(MODEL) });
  assert.equal(refused.status, 402, refused.text);
  assert.match(errorOf(refused).message, /no credits/);
});

test("a client that leaves stops the model at once", async () => {
  host.playOnce({ tokens: ["a", "b"], fault: { kind: "hang", afterTokens: 1 } });
  const leaving = new AbortController();
  const body = ask(MODEL, { stream: true });
  const asked = call(daemon, "/v1/chat/completions", { body, signal: leaving.signal });
  await host.until(() => host.requests.at(-1)?.tokensSent === 1, "the first word");
  leaving.abort();
  await asked.catch(() => {}); // It is cut, whatever came before.
  await host.until(() => host.openRequests === 0, "the end of the request");
});

test("it is off unless it is turned on, and its token is in no log", async () => {
  await using plain = await startTestDaemon({ env: { COPILOT_GITHUB_TOKEN: TOKEN } });
  const { json } = await call(plain, "/v1/models");
  assert.doesNotMatch(JSON.stringify(json), /copilot/);
  assert.ok(!JSON.stringify([daemon.logs(), daemon.stderr()]).includes(TOKEN));
});

/** Ollama through the daemon's HTTP front: a host that is found by itself, behind OpenAI's API and the official client. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { isFree } from "../fakes/ollama-provider-kit.ts";
import { type OllamaHost, type OllamaModelOptions, startOllamaHost } from "../fakes/ollama-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { ask, call, errorOf, sse, textOf } from "../support/http.ts";

const SLOW = "slow and steady wins the race and nobody asks how long it took in the end";
const ANSWER = "Grüße aus dem 🦊 bau";
const toolCalls = [{ name: "read", arguments: { path: "a.ts" } }];
const MODELS: readonly OllamaModelOptions[] = [
  {
    name: "coder",
    capabilities: ["completion", "tools", "insert"],
    answer: ({ tools, suffix, messages }) => {
      if (suffix !== "") return `before ${suffix}`;
      return tools.length > 0 && messages.at(-1)?.role !== "tool" ? { toolCalls } : ANSWER;
    },
  },
  { name: "slow", tokensPerSecond: 0.2, answer: () => SLOW },
  { name: "embedder", capabilities: ["embedding"] },
  { name: "far", remoteHost: "https://ollama.com:443" },
];
const READ = {
  type: "function" as const,
  function: { name: "read", parameters: { type: "object", properties: { path: { type: "string" } } } },
};
const soon = () => AbortSignal.timeout(30_000);

let host: OllamaHost;
let spare: OllamaHost;
let daemon: TestDaemon;
let client: OpenAI;
const config = () => `[providers.ollama.hosts.spare]
url = "${spare.url}"
locality = "lan"
[routing.aliases]
either = ["ollama/coder@local", "ollama/coder@spare"]
`;
before(async () => {
  host = await startOllamaHost({ speed: 100, models: MODELS });
  spare = await startOllamaHost({ speed: 100, models: [{ name: "coder", answer: () => "from the spare" }] });
  daemon = await startTestDaemon({ config: config(), env: { GHOST_OLLAMA_DISCOVERY_URL: host.url } });
  client = new OpenAI({ baseURL: `${daemon.http}/v1`, apiKey: daemon.modelKey, maxRetries: 0 });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await Promise.all([host.stop(), spare.stop()]);
  assert.deepEqual([...host.violations, ...spare.violations], []);
});

const chat = (model: string, more: object = {}) =>
  call(daemon, "/v1/chat/completions", { body: ask(model, { stream: true, ...more }) });

test("a host on this machine is found by itself, with its models and what they can do", async () => {
  const ids: string[] = [];
  for await (const { id } of client.models.list()) ids.push(id);
  for (const name of ["coder@local", "slow@local", "embedder@local", "far@local", "coder@spare"])
    assert.ok(ids.includes(`ollama/${name}`), `${name} in ${ids.join(" ")}`);
  using face = await daemon.connect();
  const { models, providers } = await face.api.model.list({}, soon());
  const find = (name: string) => models.find(({ ref }) => ref === `ollama/${name}@local`);
  const { chat: canChat, fim, tools } = find("coder")?.capabilities ?? {};
  assert.deepEqual([canChat, fim, tools], [true, true, true]);
  assert.deepEqual([find("coder")?.locality, find("far")?.locality], ["machine", "cloud"]);
  assert.equal(models.find(({ ref }) => ref === "ollama/coder@spare")?.locality, "lan", "as ghost.toml says");
  assert.deepEqual([find("embedder")?.capabilities.embeddings, find("embedder")?.capabilities.chat], [true, false]);
  const statuses = providers.filter(({ kind }) => kind === "ollama");
  assert.deepEqual(
    statuses.map(({ state }) => state),
    ["ok", "ok"],
  );
});

test("a chat streams through OpenAI's API, whole, with the usage where it is asked for", async () => {
  const { text, headers } = await chat("ollama/coder@local", { stream_options: { include_usage: true } });
  const { chunks, isDone } = sse(text);
  assert.deepEqual([textOf(chunks), isDone], [ANSWER, true]);
  assert.ok(chunks.length > 3, "it comes in pieces");
  assert.equal(headers.get("x-ghost-model"), "ollama/coder@local");
  const usage: unknown = chunks.at(-1)?.["usage"];
  assert.deepEqual(Reflect.get(Object(usage), "completion_tokens"), 5);
  const whole = await client.chat.completions.create({
    model: "ollama/coder@local",
    messages: [{ role: "user", content: "hello" }],
  });
  assert.deepEqual([whole.choices[0]?.message.content, whole.choices[0]?.finish_reason], [ANSWER, "stop"]);
});

test("a model without a host in its name is found where it is", async () => {
  const reply = await chat("ollama/slow", { max_tokens: 1 });
  assert.equal(textOf(sse(reply.text).chunks), "slow");
});

for (const stream of [true, false]) {
  test(`tools go out, calls come back, and their results go out again, ${stream ? "streamed" : "whole"}`, async () => {
    const model = "ollama/coder@local";
    const question = { role: "user", content: "read a.ts" } as const;
    const request = { model, messages: [question], tools: [READ] };
    const message = stream
      ? await client.chat.completions.stream(request).finalMessage()
      : (await client.chat.completions.create(request)).choices[0]?.message;
    const made = message?.tool_calls?.[0];
    assert.ok(made?.type === "function" && message !== undefined);
    assert.deepEqual([made.function.name, JSON.parse(made.function.arguments)], ["read", { path: "a.ts" }]);
    const result = { role: "tool", tool_call_id: made.id, content: "export {};" } as const;
    const answer = await client.chat.completions.create({ ...request, messages: [question, message, result] });
    assert.equal(answer.choices[0]?.message.content, ANSWER);
    const sent = host.requests.at(-1);
    assert.deepEqual(
      sent?.messages.map(({ role, content }) => [role, content]),
      [
        ["user", "read a.ts"],
        ["assistant", ""],
        ["tool", "export {};"],
      ],
    );
    assert.deepEqual([sent.messages[1]?.toolCalls, sent.messages[2]?.toolName], [toolCalls, "read"]);
  });
}

test("a completion with a suffix is filled in by a model that can, and refused by one that cannot", async () => {
  const { choices } = await client.completions.create({
    model: "ollama/coder@local",
    prompt: "const a = ",
    suffix: ";end",
    max_tokens: 8,
  });
  assert.equal(choices[0]?.text, "before ;end");
  const sent = host.requests.at(-1);
  assert.deepEqual([sent?.route, sent?.prompt, sent?.suffix], ["generate", "const a = ", ";end"]);
  const refused = await call(daemon, "/v1/completions", {
    body: { model: "ollama/slow@local", prompt: "a", suffix: "b" },
  });
  assert.deepEqual([refused.status, errorOf(refused).code], [400, "capability_missing"]);
});

test("embeddings come in order, also more of them than one request to the host holds", async () => {
  const input = Array.from({ length: 11 }, (_, index) => `text ${index}`);
  const { data, usage } = await client.embeddings.create({
    model: "ollama/embedder@local",
    input,
    encoding_format: "float",
  });
  assert.deepEqual(
    data.map(({ index }) => index),
    input.map((_, index) => index),
  );
  const [last] = (
    await client.embeddings.create({ model: "ollama/embedder@local", input: "text 10", encoding_format: "float" })
  ).data;
  assert.deepEqual(data[10]?.embedding, last?.embedding);
  assert.equal(usage.prompt_tokens, 22);
});

test("a JSON schema holds the answer", async () => {
  const schema = {
    type: "object",
    properties: { ok: { type: "boolean" }, n: { type: "integer" } },
    required: ["ok", "n"],
  };
  const { choices } = await client.chat.completions.create({
    model: "ollama/coder@local",
    messages: [{ role: "user", content: "x" }],
    response_format: { type: "json_schema", json_schema: { name: "x", schema } },
  });
  assert.deepEqual(JSON.parse(choices[0]?.message.content ?? ""), { ok: true, n: 1 });
});

test("an error line in the middle is an error in band, without [DONE], on a cut connection; the next answer is whole", async () => {
  host.inject({ kind: "errorLine", afterTokens: 2, text: "the runner has died", on: "chat" });
  const reply = await chat("ollama/coder@local");
  const { chunks, isDone } = sse(reply.text);
  assert.deepEqual([reply.status, textOf(chunks), isDone, reply.isCut], [200, "Grüße aus", false, true]);
  const error: unknown = chunks.at(-1)?.["error"];
  assert.match(String(Reflect.get(Object(error), "message")), /the runner has died/);
  assert.equal(textOf(sse((await chat("ollama/coder@local")).text).chunks), ANSWER);
  host.inject({ kind: "errorLine", afterTokens: 2, text: "the runner has died", on: "chat" });
  const broken = client.chat.completions.stream({
    model: "ollama/coder@local",
    messages: [{ role: "user", content: "x" }],
  });
  await assert.rejects(broken.finalMessage(), /the runner has died/);
});

test("what goes wrong before the first word is a status: a model that is not there, one that does not load, a proxy's page", async () => {
  const missing = await chat("ollama/codr@local");
  assert.deepEqual([missing.status, errorOf(missing).code], [404, "model_not_found"]);
  assert.match(errorOf(missing).message, /ollama\/coder@local/);
  host.inject({ kind: "html", status: 502, on: "chat" });
  const page = await chat("ollama/coder@local");
  assert.deepEqual([page.status, errorOf(page).code], [502, "upstream_failed"]);
  assert.ok(!errorOf(page).message.includes("<"));
});

for (const stream of [true, false]) {
  test(`a client that leaves ${stream ? "a stream" : "a plain answer"} frees the host's slot, and the one that waited for it goes on`, async () => {
    const leave = new AbortController();
    const before = host.count("cancelled", "slow");
    const reply = call(daemon, "/v1/chat/completions", {
      body: ask("ollama/slow@local", { stream }),
      signal: leave.signal,
    }).catch(() => "left");
    await host.until("the host answers", () => host.snapshot().runners.some(({ running }) => running === 1));
    const waiting = chat("ollama/slow@local", { max_tokens: 1 });
    leave.abort();
    assert.equal(await reply, "left");
    await host.until("the answer was cancelled", () => host.count("cancelled", "slow") === before + 1);
    assert.equal(textOf(sse((await waiting).text).chunks), "slow");
    await host.until("nothing runs", () => isFree(host));
  });
}

test("a host that is gone costs its own model an error, and an alias goes on to the next host", async () => {
  const doomed = await startOllamaHost({ speed: 100, models: MODELS });
  await using lonely = await startTestDaemon({ config: config(), env: { GHOST_OLLAMA_DISCOVERY_URL: doomed.url } });
  const on = (model: string) => call(lonely, "/v1/chat/completions", { body: ask(model, { stream: true }) });
  assert.equal((await on("either")).headers.get("x-ghost-model"), "ollama/coder@local");
  await doomed.stop();
  const next = await on("either");
  assert.deepEqual(
    [next.headers.get("x-ghost-model"), textOf(sse(next.text).chunks)],
    ["ollama/coder@spare", "from the spare"],
  );
  const own = await on("ollama/coder@local");
  assert.deepEqual([own.status, errorOf(own).code], [502, "upstream_unreachable"]);
  using face = await lonely.connect();
  const { providers } = await face.api.model.list({ refresh: true }, soon());
  const states = Object.fromEntries(
    providers.filter(({ kind }) => kind === "ollama").map(({ address, state }) => [address, state]),
  );
  assert.deepEqual([states[doomed.url], states[spare.url]], ["absent", "ok"]);
  assert.deepEqual(doomed.violations, []);
});

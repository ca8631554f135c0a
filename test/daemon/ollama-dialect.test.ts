/** The daemon as an Ollama server: the official `ollama` client on the keyless listener, models of other servers behind it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { Ollama } from "ollama";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { call } from "../support/http.ts";

let host: OpenAiHost;
let far: OpenAiHost;
let daemon: TestDaemon;
let url: string;
let client: Ollama;

before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
  far = await startOpenAiHost({ models: ["m"] });
  const config = `[http.ollama]
enabled = true
port = 0
[providers.ollama]
discover = false
[providers.compatible.up]
base_url = "${host.baseUrl}"
locality = "machine"
[providers.compatible.far]
base_url = "${far.baseUrl}"
locality = "cloud"
[routing.aliases]
mine = ["far/m", "up/m"]
`;
  daemon = await startTestDaemon({ config });
  url = `http://127.0.0.1:${String(daemon.logs().find(({ event }) => event === "ollama_http.listening")?.["port"])}`;
  client = new Ollama({ host: url });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await Promise.all([host[Symbol.asyncDispose](), far[Symbol.asyncDispose]()]);
  assert.deepEqual([...host.violations, ...far.violations], []);
});

const ask = [{ role: "user", content: "hello" }];
const tool = {
  type: "function",
  function: { name: "look", description: "looks", parameters: { type: "object", properties: {} } },
};
const fails = (status: number, words: RegExp) => (error: unknown) =>
  error instanceof Error && "status_code" in error && error.status_code === status && words.test(error.message);

test("it lists the local models, with what they can do, and none of the cloud", async () => {
  const { models } = await client.list();
  const names = models.map(({ name }) => name);
  assert.ok(names.includes("up/m") && names.includes("ghost/auto") && names.includes("mine"), names.join());
  assert.ok(!names.includes("far/m"));
  const { capabilities, model_info: info } = await client.show({ model: "embedded/tiny-code-fim" });
  assert.ok(capabilities.includes("insert"));
  assert.equal(Reflect.get(info, "ghost.context_length"), 512);
  assert.deepEqual((await client.ps()).models, []);
  assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/);
});

test("a chat streams its text, and ends with counts and durations", async () => {
  host.playOnce({ tokens: ["Grüße ", "🦊"] });
  let text = "";
  let done: { done_reason: string; eval_count: number; total_duration: number } | undefined;
  for await (const part of await client.chat({ model: "up/m", messages: ask, stream: true })) {
    text += part.message.content;
    if (part.done) done = part;
  }
  assert.equal(text, "Grüße 🦊");
  assert.deepEqual([done?.done_reason, done?.eval_count], ["stop", 2]);
  assert.ok((done?.total_duration ?? 0) > 0);
});

test("calls come whole with an object, and their results find them, with ids and without", async () => {
  for (const withIds of [true, false]) {
    host.playOnce({ tokens: 0, toolCalls: [{ id: "call_1", name: "look", arguments: ['{"at":', '"it"}'] }] });
    const first = await client.chat({ model: "up/m", messages: ask, tools: [tool] });
    const [made] = first.message.tool_calls ?? [];
    assert.deepEqual(made?.function.arguments, { at: "it" });
    const turn = withIds
      ? first.message
      : { ...first.message, tool_calls: [{ function: { name: "look", arguments: { at: "it" } } }] };
    host.playOnce({ tokens: ["seen"] });
    const result = { role: "tool", content: "a fox", tool_name: "look" };
    const last = await client.chat({ model: "up/m", messages: [...ask, turn, result], tools: [tool] });
    assert.equal(last.message.content, "seen");
    const sent = JSON.parse(host.requests.at(-1)?.bodyText ?? "{}");
    assert.equal(sent.messages[2].content, "a fox");
    assert.equal(sent.messages[2].tool_call_id, sent.messages[1].tool_calls[0].id);
  }
});

test("generate asks, continues and fills in", async () => {
  host.playOnce({ tokens: ["an answer"] });
  const asked = await client.generate({ model: "up/m", prompt: "hello", system: "be brief" });
  assert.equal(asked.response, "an answer");
  assert.match(host.requests.at(-1)?.bodyText ?? "", /"role":"system","content":"be brief"/);
  const raw = { model: "embedded/tiny-code-fim", raw: true, options: { num_predict: 8, temperature: 0 } };
  const continued = await client.generate({ ...raw, prompt: "export function add(a: number, b: number) {\n  return " });
  assert.ok((continued.response ?? "").length > 0);
  const filled = await client.generate({ ...raw, prompt: "const a = ", suffix: ";\n" });
  assert.equal(filled.done, true);
});

test("a question whose format has a field called messages is still a question", async () => {
  host.playOnce({ tokens: ["{}"] });
  const format = { type: "object", properties: { messages: { type: "array" } } };
  const asked = await client.generate({ model: "up/m", prompt: "hello", format });
  assert.deepEqual([asked.response, asked.done_reason], ["{}", "stop"]);
});

test("options, formats and images reach the model", async () => {
  host.playOnce({ tokens: ["{}"] });
  const image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
  await client.chat({
    model: "up/m",
    messages: [{ role: "user", content: "what is it", images: [image] }],
    format: { type: "object" },
    options: { num_predict: 5, temperature: 0.5, stop: ["x"], seed: 3 },
  });
  const sent = JSON.parse(host.requests.at(-1)?.bodyText ?? "{}");
  assert.deepEqual([sent.max_tokens, sent.temperature, sent.stop, sent.seed], [5, 0.5, ["x"], 3]);
  assert.deepEqual(sent.response_format.json_schema.schema, { type: "object" });
  assert.equal(sent.messages[0].content[1].image_url.url, `data:image/png;base64,${image}`);
});

test("a request without words loads a model, and asks nobody anything", async () => {
  const before = host.requests.length;
  const loaded = await client.generate({ model: "up/m", prompt: "" });
  assert.deepEqual([loaded.done, loaded.done_reason, loaded.response], [true, "load", ""]);
  const unloaded = await client.chat({ model: "up/m", messages: [], keep_alive: 0 });
  assert.equal(unloaded.done_reason, "unload");
  assert.equal(host.requests.length, before);
});

test("no cloud model can be asked through it: not by name, not by an alias, not by a virtual name", async () => {
  await assert.rejects(client.chat({ model: "far/m", messages: ask }), fails(400, /local models/));
  host.playOnce({ tokens: ["here"] });
  const answer = await client.chat({ model: "mine", messages: ask });
  assert.deepEqual([answer.message.content, answer.model], ["here", "up/m"]);
  assert.deepEqual(
    far.requests.filter(({ method }) => method === "POST"),
    [],
  );
});

test("errors are in Ollama's shape: unknown names, bad fields, changes of models, and a cut in mid-answer", async () => {
  await assert.rejects(client.chat({ model: "nothing", messages: ask }), fails(404, /nothing/));
  const bad = await call({ http: url, modelKey: "" }, "/api/chat", {
    key: null,
    body: { model: "up/m", messages: "x" },
  });
  assert.equal(bad.status, 400);
  assert.match(JSON.stringify(bad.json), /^\{"error":"`messages`/);
  await assert.rejects(client.pull({ model: "x" }), fails(404, /not changed through this door/));
  host.playOnce({ tokens: 5, fault: { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" } });
  const cut = await call({ http: url, modelKey: "" }, "/api/chat", {
    key: null,
    body: { model: "up/m", messages: ask },
  });
  assert.ok(!cut.text.includes('"done":true'), cut.text);
  assert.match(cut.text, /\{"error":"/);
});

test("bodies made to exhaust a parser are refused on every route, before they are parsed", async () => {
  const there = { http: url, modelKey: "" };
  const bomb = (d: string) => `{"model":"up/m","prompt":"x","input":"x","d":${d}}`;
  const bodies: readonly [rawBody: string, status: number][] = [
    [bomb("[".repeat(10_000) + "]".repeat(10_000)), 400],
    [bomb("[".repeat(5_000_000) + "]".repeat(5_000_000)), 400],
    [bomb(`[${"{},".repeat(6_000_000)}{}]`), 413],
  ];
  for (const path of ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"]) {
    for (const [rawBody, status] of bodies)
      assert.equal((await call(there, path, { key: null, rawBody })).status, status, path);
  }
  assert.equal((await call(there, "/api/show", { key: null, rawBody: bomb('"x"'.padEnd(100_000)) })).status, 413);
});

test("large continuations and embeddings are read in a worker, too, and wrong fields named there", async () => {
  const there = { http: url, modelKey: "" };
  const large = "x".repeat(300_000);
  host.playOnce({ tokens: ["ok"] });
  const raw = { model: "up/m", raw: true, stream: false, prompt: `${large}é` };
  assert.match((await call(there, "/api/generate", { key: null, body: raw })).text, /"response":"ok"/);
  assert.equal(JSON.parse(host.requests.at(-1)?.bodyText ?? "").prompt, raw.prompt);
  host.playOnce({ tokens: ["ok"] });
  const question = { model: "up/m", stream: false, prompt: large };
  assert.match((await call(there, "/api/generate", { key: null, body: question })).text, /"response":"ok"/);
  assert.equal(JSON.parse(host.requests.at(-1)?.bodyText ?? "").messages[0].content, large);
  const { embeddings } = await client.embed({ model: "up/m", input: [large, "y"] });
  assert.equal(embeddings.length, 2);
  assert.deepEqual(JSON.parse(host.requests.at(-1)?.bodyText ?? "").input, [large, "y"]);
  assert.ok((await client.embeddings({ model: "up/m", prompt: large })).embedding.length > 0);
  for (const [path, field] of [
    ["/api/embed", "input"],
    ["/api/embeddings", "prompt"],
    ["/api/generate", "suffix"],
  ] as const) {
    const bad = await call(there, path, { key: null, body: { model: "up/m", [field]: 5, large } });
    assert.match(bad.text, new RegExp(`^\\{"error":"\`${field}\``), path);
  }
});

test("large bodies that never end do not fill the memory: what is too much is told to wait, until they are gone", async () => {
  const there = { http: url, modelKey: "" };
  const port = Number(new URL(url).port);
  const stuck = await Promise.all(
    Array.from({ length: 8 }, async () => {
      const socket = connect(port, "127.0.0.1");
      socket.write(`POST /api/chat HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nexpect: 100-continue\r\n`);
      socket.write(`content-length: ${32 * 1024 * 1024}\r\n\r\n`);
      const [reply] = await once(socket, "data");
      assert.match(String(reply), /100 Continue/);
      socket.write('{"model":"');
      return socket;
    }),
  );
  const large = { model: "up/m", stream: false, messages: [{ role: "user", content: "x".repeat(100_000) }] };
  const refused = await call(there, "/api/chat", { key: null, body: large });
  assert.deepEqual([refused.status, refused.headers.get("retry-after")], [503, "1"]);
  host.playOnce({ tokens: ["small"] });
  assert.equal((await client.chat({ model: "up/m", messages: ask })).message.content, "small");
  for (const socket of stuck) socket.destroy();
  host.playOnce({ tokens: ["large"] });
  for (;;) {
    const { status, text } = await call(there, "/api/chat", { key: null, body: large });
    if (status === 503) continue;
    assert.match(text, /"content":"large"/);
    break;
  }
});

test("a page of another origin and another host name are refused, and the main door still wants its key", async () => {
  const there = { http: url, modelKey: "" };
  assert.equal((await call(there, "/api/tags", { key: null, headers: { origin: "http://evil.example" } })).status, 403);
  assert.equal((await call(there, "/api/tags", { key: null })).status, 200);
  assert.equal((await call(daemon, "/api/tags", { key: null })).status, 401);
});

/** Gemini's API through the real daemon: the official client, upstreams of other dialects, and Gemini itself as a relay. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ApiError, type Content, GoogleGenAI, type Part } from "@google/genai";
import { z } from "zod";
import { type AnthropicHost, startAnthropicHost } from "../fakes/anthropic-host.ts";
import { textScript, toolThenText } from "../fakes/cloud-script.ts";
import { type GeminiHost, startGeminiHost } from "../fakes/gemini-host.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { type ApiReply, call, type CallOptions, configFor, sse } from "../support/http.ts";

const KEY = "AIza-test-key-0123456789";
const GEMINI = "gemini-3.8-flash";
const CLAUDE = "claude-opus-5-5";
const EMBEDDER = "gemini-embedding-2";

/** Also what was started before something failed: a host that listens would keep the test's process alive. */
const stack = new AsyncDisposableStack();
let host: OpenAiHost;
let google: GeminiHost;
let claude: AnthropicHost;
let daemon: TestDaemon;
let client: GoogleGenAI;

before(async () => {
  host = stack.use(await startOpenAiHost({ models: ["m", "org/m:2"] }));
  google = stack.use(await startGeminiHost({ models: [GEMINI, EMBEDDER], apiKey: KEY }));
  claude = stack.use(await startAnthropicHost({ models: [CLAUDE], apiKey: KEY }));
  const more = `[providers.gemini]
base_url = "${google.baseUrl}/v1beta"
[providers.anthropic]
base_url = "${claude.baseUrl}/v1"
[routing.aliases]
"gemini-2.5-pro" = ["up/m"]
`;
  const env = { GEMINI_API_KEY: KEY, ANTHROPIC_API_KEY: KEY };
  daemon = stack.use(await startTestDaemon({ config: configFor(host.baseUrl, more), env }));
  client = new GoogleGenAI({ apiKey: daemon.modelKey, httpOptions: { baseUrl: daemon.http } });
});
after(async () => {
  await stack.disposeAsync();
  assert.deepEqual([host.violations, google.violations, claude.violations], [[], [], []]);
});

const post = (path: string, body: unknown, more: CallOptions = {}): Promise<ApiReply> =>
  call(daemon, path, { body, key: null, headers: { "x-goog-api-key": daemon.modelKey }, ...more });
const HELLO = { role: "user", parts: [{ text: "hello" }] };
const ask = (more: object = {}) => ({ contents: [HELLO], ...more });

const chunkSchema = z.looseObject({
  candidates: z.array(z.looseObject({ content: z.object({ parts: z.array(z.looseObject({ text: z.string() })) }) })),
});
const textIn = (chunk: unknown) =>
  chunkSchema
    .parse(chunk)
    .candidates.flatMap(({ content }) => content.parts.map(({ text }) => text))
    .join("");

const errorSchema = z.object({
  error: z.object({ code: z.int(), message: z.string(), status: z.string(), details: z.array(z.looseObject({})) }),
});
/** The error of a body, whose code is the status. */
function errorOf(reply: ApiReply): z.infer<typeof errorSchema>["error"] {
  const { error } = errorSchema.parse(reply.json);
  assert.equal(error.code, reply.status);
  assert.match(reply.headers.get("x-request-id") ?? "", /^(req|ans)_/);
  return error;
}
const upstreamBody = z.looseObject({
  messages: z.array(z.looseObject({ role: z.string(), content: z.unknown() })),
  max_completion_tokens: z.int().optional(),
});
const lastAsked = () => upstreamBody.parse(host.requests.at(-1)?.body);

test("the official client reads a streamed answer of another dialect, with its usage", async () => {
  host.playOnce({ tokens: ["Grüße ", "aus ", "🦊"] });
  const config = { systemInstruction: "Be brief.", maxOutputTokens: 50, temperature: 0.5 };
  let said = "";
  let last: unknown;
  for await (const chunk of await client.models.generateContentStream({ model: "up/m", contents: "hi", config })) {
    said += chunk.text ?? "";
    last = [chunk.candidates?.[0]?.finishReason, chunk.modelVersion, chunk.usageMetadata?.candidatesTokenCount];
    assert.match(chunk.responseId ?? "", /^ans_/);
  }
  assert.equal(said, "Grüße aus 🦊");
  assert.deepEqual(last, ["STOP", "up/m", 3]);
  assert.deepEqual(lastAsked().messages, [
    { role: "system", content: "Be brief." },
    { role: "user", content: "hi" },
  ]);
});

test("a chat of the official client, streamed turn by turn, is one conversation", async () => {
  const chat = client.chats.create({ model: "up/m" });
  for (const tokens of [["one ", "two"], ["three"]]) {
    host.playOnce({ tokens });
    let said = "";
    for await (const chunk of await chat.sendMessageStream({ message: "and?" })) said += chunk.text ?? "";
    assert.equal(said, tokens.join(""));
  }
  assert.deepEqual(lastAsked().messages, [
    { role: "user", content: "and?" },
    { role: "assistant", content: "one two" },
    { role: "user", content: "and?" },
  ]);
  using face = await daemon.connect();
  const { signal } = new AbortController();
  const { sessions } = await face.api.session.list({}, signal);
  assert.equal(sessions.filter(({ title }) => title.includes("and?")).length, 1);
});

test("the official client runs a tool by itself", async () => {
  host.playOnce({ toolCalls: [{ id: "call_1", name: "read", arguments: ['{"path":', '"a.ts"}'] }] });
  host.playOnce({ tokens: ["done"] });
  const asked: unknown[] = [];
  const tool = {
    async tool() {
      return { functionDeclarations: [{ name: "read", parametersJsonSchema: { type: "object", properties: {} } }] };
    },
    async callTool(
      calls: readonly { readonly id?: string; readonly name?: string; readonly args?: unknown }[],
    ): Promise<Part[]> {
      asked.push(...calls);
      return calls.map(({ id = "", name = "" }) => ({ functionResponse: { id, name, response: { output: "text" } } }));
    },
  };
  const answer = await client.models.generateContent({ model: "up/m", contents: "go", config: { tools: [tool] } });
  assert.equal(answer.text, "done");
  assert.deepEqual(asked, [{ id: "call_1", name: "read", args: { path: "a.ts" } }]);
  const [, , result] = lastAsked().messages;
  assert.deepEqual(result, { role: "tool", tool_call_id: "call_1", content: "text" });
});

test("Claude's thinking goes through Gemini's client and comes back to Claude", async () => {
  const thinking = { kind: "reasoning", deltas: ["Let me ", "think."] } as const;
  claude.play((request) => {
    const script = toolThenText({ name: "read", arguments: { path: "a" } }, "done")(request);
    return { ...script, blocks: [thinking, ...(script.blocks ?? [])] };
  });
  const request = {
    model: `anthropic/${CLAUDE}`,
    config: {
      tools: [{ functionDeclarations: [{ name: "read", parametersJsonSchema: { type: "object", properties: {} } }] }],
      thinkingConfig: { includeThoughts: true },
    },
  };
  const question: Content = { role: "user", parts: [{ text: "read it" }] };
  const parts: Part[] = [];
  for await (const chunk of await client.models.generateContentStream({ ...request, contents: [question] }))
    parts.push(...(chunk.candidates?.[0]?.content?.parts ?? []));
  const thoughts = parts.filter(({ thought }) => thought === true);
  assert.equal(thoughts.map(({ text }) => text).join(""), "Let me think.");
  assert.match(thoughts.at(-1)?.thoughtSignature ?? "", /^ghost1:/);
  const called = parts.find(({ functionCall }) => functionCall !== undefined)?.functionCall;
  const response = { id: called?.id ?? "", name: "read", response: { output: "text" } };
  const contents = [question, { role: "model", parts }, { role: "user", parts: [{ functionResponse: response }] }];
  const last = await client.models.generateContent({ ...request, contents });
  claude.play({});
  assert.equal(last.text, "done");
  const body = claude.requests.at(-1)?.bodyText ?? "";
  assert.match(body, /"thinking":"Let me think\.","signature":"[^"]+"/);
  assert.ok(!body.includes("ghost1:"));
  assert.deepEqual(claude.refusals, []);
});

for (const path of [
  "/v1beta/models/up/m:generateContent",
  "/v1beta/models/up%2Fm:generateContent",
  "/v1beta/models/up%2Fm%3AgenerateContent",
  "/v1/models/up/m:generateContent",
  "/v1beta/models/gemini-2.5-pro:generateContent",
]) {
  test(`${path} finds its model`, async () => {
    host.playOnce({ tokens: ["ok"] });
    const reply = await post(path, ask());
    assert.deepEqual([reply.status, textIn(reply.json)], [200, "ok"], reply.text);
    assert.equal(reply.headers.get("x-ghost-model"), "up/m");
  });
}

test("a model with slashes and a colon in its name is found", async () => {
  host.playOnce({ tokens: ["ok"] });
  const reply = await post("/v1beta/models/up/org/m:2:generateContent", ask());
  assert.equal(reply.headers.get("x-ghost-model"), "up/org/m:2", reply.text);
});

test("with alt=sse pieces are events with CRLF, without it one JSON list", async () => {
  host.playOnce({ tokens: ["a", "b"] });
  const events = await post("/v1beta/models/up/m:streamGenerateContent?alt=sse", ask());
  assert.match(events.headers.get("content-type") ?? "", /^text\/event-stream/);
  assert.match(events.text, /^(data: \{[^\n]*\}\r\n\r\n)+$/);
  assert.equal(sse(events.text).chunks.map(textIn).join(""), "ab");
  host.playOnce({ tokens: ["a", "b"] });
  const list = await post("/v1beta/models/up/m:streamGenerateContent", ask());
  assert.match(list.headers.get("content-type") ?? "", /^application\/json/);
  assert.equal(z.array(z.unknown()).parse(list.json).map(textIn).join(""), "ab");
});

test("a model that breaks off ends with an error in Gemini's shape and a cut connection, as events and as a list", async () => {
  for (const path of ["streamGenerateContent?alt=sse", "streamGenerateContent"]) {
    host.playOnce({
      tokens: ["a", "b", "c"],
      fault: { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" },
    });
    const reply = await post(`/v1beta/models/up/m:${path}`, ask());
    assert.equal(reply.status, 200);
    assert.ok(reply.isCut, reply.text);
    assert.match(reply.text, /\{"error":\{"code":50\d,"message":"[^"]+","status":"UNAVAILABLE"/);
    assert.doesNotMatch(reply.text, /"finishReason"/);
  }
  host.playOnce({ tokens: ["a", "b"], fault: { kind: "cut", afterTokens: 1, where: "between-frames", how: "reset" } });
  const reading = async () => {
    for await (const _chunk of await client.models.generateContentStream({ model: "up/m", contents: "hi" }));
  };
  await assert.rejects(reading, (error) => error instanceof ApiError && error.status >= 500);
});

test("the key comes in x-goog-api-key or as a bearer; in the address it is refused, whoever sends it", async () => {
  const path = "/v1beta/models/up/m:generateContent";
  host.playOnce({ tokens: ["ok"] });
  assert.equal((await call(daemon, path, { body: ask() })).status, 200);
  const refusals = [
    [await post(path, ask(), { headers: { "x-goog-api-key": "wrong" } }), /the key is wrong/],
    [await post(path, ask(), { headers: {} }), /no key/],
    [await post(`${path}?key=${daemon.modelKey}`, ask(), { headers: {} }), /x-goog-api-key/],
    [await post(`${path}?alt=sse&key=${daemon.modelKey}`, ask()), /x-goog-api-key/],
  ] as const;
  for (const [reply, message] of refusals) {
    const error = errorOf(reply);
    assert.deepEqual([error.code, error.status], [401, "UNAUTHENTICATED"]);
    assert.match(error.message, message);
    assert.ok(!reply.text.includes(daemon.modelKey));
  }
  assert.ok(!JSON.stringify(daemon.logs()).includes(daemon.modelKey));
});

const refusals: readonly [name: string, path: string, body: object, status: number, word: string, message: RegExp][] = [
  ["an unknown model", "models/nobody/x:generateContent", ask(), 404, "NOT_FOUND", /nobody\/x/],
  ["no model", "models/:generateContent", ask(), 404, "NOT_FOUND", /no model/],
  ["an unknown method", "models/up/m:dance", ask(), 404, "NOT_FOUND", /"dance"/],
  ["no method", "models/up/m", ask(), 404, "NOT_FOUND", /no method/],
  ["an unknown path", "files", {}, 404, "NOT_FOUND", /no POST/],
  ["no contents", "models/up/m:generateContent", {}, 400, "INVALID_ARGUMENT", /`contents`/],
  [
    "a file that Google keeps",
    "models/up/m:generateContent",
    { contents: [{ parts: [{ fileData: { fileUri: "https://x/files/1" } }] }] },
    400,
    "INVALID_ARGUMENT",
    /fileData/,
  ],
  [
    "several answers",
    "models/up/m:generateContent",
    ask({ generationConfig: { candidateCount: 2 } }),
    400,
    "INVALID_ARGUMENT",
    /candidateCount/,
  ],
  [
    "content that Google keeps",
    "models/up/m:generateContent",
    ask({ cachedContent: "cachedContents/1" }),
    400,
    "INVALID_ARGUMENT",
    /cachedContent/,
  ],
];

for (const [name, path, body, status, word, message] of refusals) {
  test(`${name} is refused in Gemini's shape`, async () => {
    const error = errorOf(await post(`/v1beta/${path}`, body));
    assert.deepEqual([error.code, error.status], [status, word]);
    assert.match(error.message, message);
  });
}

test("JSON that is none, and a rate limit with the time to wait", async () => {
  const path = "/v1beta/models/up/m:generateContent";
  const broken = errorOf(await call(daemon, path, { rawBody: "{", headers: { "x-goog-api-key": daemon.modelKey } }));
  assert.deepEqual([broken.code, broken.status], [400, "INVALID_ARGUMENT"]);
  host.playOnce({ status: { code: 429, body: "json", retryAfterS: 7 } });
  const limited = await post(path, ask());
  assert.deepEqual(errorOf(limited).details.at(-1)?.["retryDelay"], "7s");
  host.playOnce({ status: { code: 429, body: "json", retryAfterS: 7 } });
  await assert.rejects(
    client.models.generateContent({ model: "up/m", contents: "hi" }),
    (error) => error instanceof ApiError && error.status === 429 && error.message.includes("RESOURCE_EXHAUSTED"),
  );
});

test("what a model cannot be told is named, and Google's own tools are left to Google", async () => {
  host.playOnce({ tokens: ["ok"] });
  const reply = await post(
    "/v1beta/models/up/m:generateContent",
    ask({
      tools: [{ googleSearch: {} }],
      safetySettings: [{ category: "x", threshold: "y" }],
      // As the Gemini CLI always sends it.
      generationConfig: { temperature: 1, topP: 0.95, topK: 64, thinkingConfig: { thinkingBudget: 8192 } },
    }),
  );
  assert.equal(reply.status, 200, reply.text);
  const dropped = reply.headers.get("x-ghost-dropped")?.split(", ").toSorted();
  assert.deepEqual(dropped, ["hosted tools", "safetySettings", "thinking budget", "top_k"]);
});

test("a large body is read as well", async () => {
  host.playOnce({ tokens: ["ok"] });
  const text = "x".repeat(600 * 1024);
  const reply = await post("/v1beta/models/up/m:generateContent", { contents: [{ parts: [{ text }] }] });
  assert.equal(reply.status, 200, reply.text.slice(0, 500));
  assert.deepEqual(lastAsked().messages, [{ role: "user", content: text }]);
});

test("models are listed in pages, and one by one", async () => {
  const names: string[] = [];
  for await (const { name } of await client.models.list({ config: { pageSize: 2 } })) names.push(name ?? "");
  for (const name of ["models/up/m", "models/ghost/auto", "models/gemini-2.5-pro", `models/gemini/${GEMINI}`])
    assert.ok(names.includes(name), `${name} in ${names.join(" ")}`);
  assert.equal(new Set(names).size, names.length);
  const one = await client.models.get({ model: `gemini/${GEMINI}` });
  assert.equal(one.name, `models/gemini/${GEMINI}`);
  assert.ok((one.inputTokenLimit ?? 0) > 1000);
  const embedder = await client.models.get({ model: `gemini/${EMBEDDER}` });
  assert.deepEqual(embedder.supportedActions, ["embedContent"]);
  const get = (path: string) => call(daemon, path, { key: null, headers: { "x-goog-api-key": daemon.modelKey } });
  const under = await get("/v1/models?pageSize=1");
  assert.match(under.text, /^\{"models":\[\{"name":"models\/ghost\/auto"/);
  assert.match((await get("/v1/models/up%2Fm")).text, /"name":"models\/up\/m"/);
  assert.equal(errorOf(await get("/v1beta/models?pageToken=nothing")).status, "INVALID_ARGUMENT");
  assert.equal(errorOf(await get("/v1beta/models/nobody/x")).status, "NOT_FOUND");
  assert.match((await call(daemon, "/v1/models")).text, /"object":"list"/);
});

test("tokens are counted where somebody can, else estimated", async () => {
  const { totalTokens } = await client.models.countTokens({ model: "up/m", contents: "x".repeat(400) });
  assert.equal(totalTokens, 100);
  const guessed = await post("/v1beta/models/up/m:countTokens", { generateContentRequest: ask() });
  assert.equal(guessed.headers.get("x-ghost-estimated"), "true");
  const counted = await post(`/v1beta/models/gemini/${GEMINI}:countTokens`, ask());
  assert.equal(counted.status, 200, counted.text);
  assert.equal(counted.headers.get("x-ghost-estimated"), null);
  const tools = [{ functionDeclarations: [{ name: "read", description: "d" }] }];
  const inside = { generateContentRequest: ask({ tools, generationConfig: { temperature: 1 } }) };
  const more = await post(`/v1beta/models/gemini/${GEMINI}:countTokens`, inside);
  assert.equal(more.status, 200, more.text);
  assert.deepEqual(JSON.parse(google.requests.at(-1)?.bodyText ?? ""), {
    generateContentRequest: { contents: [HELLO], tools, model: `models/${GEMINI}` },
  });
});

test("embeddings, of one text and of several", async () => {
  const { embeddings } = await client.models.embedContent({ model: "up/m", contents: ["x", "y"] });
  assert.equal(embeddings?.length, 2);
  assert.ok((embeddings?.[0]?.values?.length ?? 0) > 0);
  const length = embeddings?.[0]?.values?.length ?? 0;
  const content = { parts: [{ text: "x" }] };
  const one = await post("/v1beta/models/up/m:embedContent", { content, taskType: "RETRIEVAL_QUERY" });
  const { embedding } = z.object({ embedding: z.object({ values: z.array(z.number()) }) }).parse(one.json);
  assert.deepEqual([embedding.values, one.headers.get("x-ghost-dropped")], [embeddings?.[0]?.values, "taskType"]);
  const shorter = { content, outputDimensionality: length + 1 };
  assert.match(errorOf(await post("/v1beta/models/up/m:embedContent", shorter)).message, /dimensions/);
  const same = { content, outputDimensionality: length };
  assert.equal((await post("/v1beta/models/up/m:embedContent", same)).status, 200);
  const image = { content: { parts: [{ inlineData: { mimeType: "image/png", data: "AA==" } }] } };
  assert.match(errorOf(await post("/v1beta/models/up/m:embedContent", image)).message, /only text/);
  const relayed = await client.models.embedContent({ model: `gemini/${EMBEDDER}`, contents: "x" });
  assert.equal(relayed.embeddings?.length, 1);
});

test("Gemini itself gets the body as it came, and its answer passes as it is", async () => {
  const rawBody = `{ "contents":[{"role":"user","parts":[{"text":"h\\u00ef"}]}] , "tools":[{"googleSearch":{}}],"safetySettings":[] }`;
  const headers = { "x-goog-api-key": daemon.modelKey };
  for (const [method, upstream] of [
    ["generateContent", "generateContent"],
    ["streamGenerateContent?alt=sse", "streamGenerateContent?alt=sse"],
    ["streamGenerateContent", "streamGenerateContent?alt=sse"],
  ] as const) {
    google.playOnce(textScript("Grüße ", "🦊"));
    const reply = await call(daemon, `/v1beta/models/gemini/${GEMINI}:${method}`, { rawBody, headers, key: null });
    assert.equal(reply.status, 200, reply.text);
    const asked = google.requests.at(-1);
    assert.equal(asked?.bodyText, rawBody);
    assert.equal(asked?.path, `/v1beta/models/${GEMINI}:${upstream}`);
    assert.equal(asked?.headers["x-goog-api-key"], KEY);
    assert.equal(reply.headers.get("x-ghost-dropped"), null);
    assert.match(reply.text, new RegExp(`"modelVersion":"${GEMINI}"`));
    const all = method === "generateContent" ? [reply.json] : (reply.json ?? sse(reply.text).chunks);
    assert.equal(z.array(z.unknown()).parse(all).map(textIn).join(""), "Grüße 🦊");
  }
  assert.deepEqual(google.refusals, []);
});

test("a conversation with another maker's seal is written anew for Gemini, without it", async () => {
  const seal = `ghost1:${Buffer.from(JSON.stringify({ maker: "up", data: "" })).toString("base64")}`;
  google.playOnce(textScript("yes"));
  const reply = await post(`/v1beta/models/gemini/${GEMINI}:streamGenerateContent?alt=sse`, {
    contents: [HELLO, { role: "model", parts: [{ text: "a", thoughtSignature: seal }] }, HELLO],
    safetySettings: [{ category: "HARM_CATEGORY_HARASSMENT", threshold: "BLOCK_NONE" }],
  });
  assert.equal(reply.status, 200, reply.text);
  assert.ok(!(google.requests.at(-1)?.bodyText ?? "").includes("ghost1:"));
  assert.equal(reply.headers.get("x-ghost-dropped"), "safetySettings");
  assert.match(reply.text, new RegExp(`"modelVersion":"gemini/${GEMINI}"`));
});

test("a call that another model made goes on at Gemini, as a relay", async () => {
  host.playOnce({ toolCalls: [{ id: "call_1", name: "read", arguments: ['{"path":"a"}'] }] });
  const tools = [
    { functionDeclarations: [{ name: "read", parametersJsonSchema: { type: "object", properties: {} } }] },
  ];
  const first = await client.models.generateContent({ model: "up/m", contents: "read it", config: { tools } });
  const content = first.candidates?.[0]?.content;
  assert.ok(content !== undefined);
  const functionResponse = { id: "call_1", name: "read", response: { output: "text" } };
  const contents = [
    { role: "user", parts: [{ text: "read it" }] },
    content,
    { role: "user", parts: [{ functionResponse }] },
  ];
  google.playOnce(textScript("done"));
  const last = await client.models.generateContent({ model: `gemini/${GEMINI}`, contents, config: { tools } });
  assert.deepEqual([last.text, last.modelVersion], ["done", GEMINI]);
  assert.deepEqual(google.refusals, []);
});

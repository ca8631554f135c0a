/** Accounts at servers that speak Responses: their models, keys, counted tokens and embeddings. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { chat, completion, failsWith, never } from "../../../test/fakes/ollama-provider-kit.ts";
import { responsesWorld as world } from "../../../test/fakes/responses-provider-kit.ts";
import type { ToolSpec } from "../stream.ts";

const read: ToolSpec = { kind: "function", name: "read", description: undefined, parameters: { type: "object" } };

test("tokens are counted by the server, for the same prompt", async (context) => {
  const { host, provider, model, lastBody } = await world(context);
  const target = await model("gpt-5.5");
  host.playOnce({ usage: { inputTokens: 4321 } });
  const request = chat("hi", { tools: [read], reasoning: { effort: "low" } });
  assert.equal(await provider.countTokens?.(request, target, never), 4321);
  assert.match(host.requests.at(-1)?.path ?? "", /\/responses\/input_tokens$/);
  assert.deepEqual(Object.keys(lastBody()).toSorted(), ["input", "model", "reasoning", "tool_choice", "tools"]);
  host.playOnce(() => ({ status: { code: 404, errorCode: "unknown_url" } }));
  assert.equal(await provider.countTokens?.(request, target, never), undefined);
  host.playOnce(() => ({ status: { code: 429 } }));
  await assert.rejects(async () => provider.countTokens?.(request, target, never), failsWith("upstream_rate_limited"));
});

test("embeddings come from their own route, and no plain text is continued", async (context) => {
  const { provider, model } = await world(context);
  const target = await model("text-embedding-3-small");
  assert.deepEqual([target.capabilities.embeddings, target.capabilities.chat], [true, false]);
  const { vectors } = await provider.embed(["a", "b"], target, never);
  assert.equal(vectors.length, 2);
  const relayed = await provider.relayEmbeddings(
    Buffer.from(JSON.stringify({ model: target.name, input: "a", encoding_format: "base64" })),
    never,
  );
  assert.match(relayed.toString(), /"embedding":"/);
  await assert.rejects(provider.complete(completion(), await model("gpt-5.5"), never), failsWith("capability_missing"));
});

test("the models of the account are listed with what their family can do, as the settings pick them", async (context) => {
  const models = [
    "gpt-6-astra",
    "gpt-5.4-nano",
    "gpt-4.1",
    "whisper-1",
    "gpt-realtime-2",
    "gpt-9-hyper",
    "text-embedding-3-small",
  ];
  const { provider } = await world(context, { models });
  const listed = await provider.models(never);
  assert.deepEqual(
    listed.map(({ name, contextWindow, capabilities }) => [
      name,
      contextWindow,
      capabilities.reasoning,
      capabilities.chat,
    ]),
    [
      ["gpt-6-astra", 1_050_000, true, true],
      ["gpt-5.4-nano", 400_000, true, true],
      ["gpt-4.1", 1_047_576, false, true],
      ["gpt-9-hyper", undefined, true, true],
      ["text-embedding-3-small", undefined, undefined, false],
    ],
  );
  const [status] = provider.status();
  assert.deepEqual([status?.id, status?.kind, status?.state, status?.models], ["openai", "openai", "ok", 5]);
  const picked = await world(context, { models, config: { models: ["gpt-5*", "an-alias"] } });
  assert.deepEqual(
    (await picked.provider.models(never)).map(({ ref }) => ref),
    ["openai/gpt-5.4-nano", "openai/an-alias"],
  );
});

test("without a key nothing is asked; with a wrong one it is told", async (context) => {
  const without = await world(context, { key: null });
  assert.deepEqual(await without.provider.models(never), []);
  assert.deepEqual([without.provider.status()[0]?.state, without.host.requests.length], ["absent", 0]);
  const wrong = await world(context, { key: "sk-wrong-0123456789", expectsRefusals: true });
  assert.deepEqual(await wrong.provider.models(never), []);
  const [status] = wrong.provider.status();
  assert.equal(status?.state, "refused");
  assert.ok(!status.problem?.includes("sk-wrong-0123456789"));
  await assert.rejects(async () => wrong.provider.testKey?.(never), failsWith("upstream_auth"));
  const good = await world(context);
  assert.deepEqual(await good.provider.testKey?.(never), {
    ok: true,
    detail: "openai takes the key and lists 6 models",
  });
});

test("a server that is away has no models, and says why", async (context) => {
  const { provider } = await world(context, { baseUrl: "http://127.0.0.1:9/v1" });
  assert.deepEqual(await provider.models(never), []);
  assert.equal(provider.status()[0]?.state, "unreachable");
});

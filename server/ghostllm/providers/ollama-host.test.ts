/** What the provider learns about its hosts, against fake hosts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startOllamaHost } from "../../../test/fakes/ollama-host.ts";
import {
  chat,
  completion,
  eventsOf,
  failsWith,
  never,
  nowhere,
  provide,
  setUp,
} from "../../../test/fakes/ollama-provider-kit.ts";
import type { OllamaConfig } from "./ollama.ts";

test("models are listed with what they can do, where they run and how much they hold", async (context) => {
  const { provider, host } = await setUp(
    context,
    [
      { name: "coder", sizeBytes: 5e9, contextLength: 4096, capabilities: ["completion", "insert", "tools"] },
      { name: "chat:7b", contextLength: 131_072, capabilities: ["completion", "vision"] },
      { name: "embedder", contextLength: 512, capabilities: ["embedding"] },
      { name: "far", contextLength: 200_000, remoteHost: "https://ollama.com:443" },
    ],
    { config: { num_ctx: { "chat:7b": 16_384 } } },
  );
  const models = await provider.models(never);
  assert.deepEqual(
    models.map((model) => [model.ref, model.name, model.locality, model.contextWindow]),
    [
      ["ollama/coder@ws", "coder:latest", "machine", 4096],
      ["ollama/chat:7b@ws", "chat:7b", "machine", 16_384],
      ["ollama/embedder@ws", "embedder:latest", "machine", 512],
      ["ollama/far@ws", "far:latest", "cloud", 200_000],
    ],
  );
  assert.deepEqual(models[0]?.capabilities, {
    chat: true,
    complete: true,
    fim: true,
    embeddings: false,
    tools: true,
    vision: false,
    jsonSchema: true,
    reasoning: false,
  });
  assert.deepEqual(models[2]?.capabilities, {
    chat: false,
    complete: false,
    fim: false,
    embeddings: true,
    tools: false,
    vision: false,
    jsonSchema: false,
    reasoning: false,
  });
  assert.match(models[3]?.note ?? "", /ollama\.com/);
  assert.deepEqual(
    provider.status().map((row) => [row.id, row.state, row.models]),
    [["ollama@ws", "ok", 4]],
  );
  await provider.models(never);
  assert.equal(host.calls.filter((call) => call === "POST /api/show").length, 4, "descriptions are kept by digest");
});

test("where a host is, its owner says; a model that only looks local stays in the cloud", async (context) => {
  const models = [{ name: "here" }, { name: "far", remoteHost: "https://ollama.com:443" }];
  for (const locality of ["machine", "lan", "cloud"] as const) {
    const { provider } = await setUp(context, models, { config: { locality } });
    const found = (await provider.models(never)).map((model) => model.locality);
    assert.deepEqual(found, [locality, "cloud"]);
    assert.equal(provider.status()[0]?.locality, locality);
  }
});

test("every kind of request carries the same window, so that nothing is ever loaded twice", async (context) => {
  const { provider, host, model } = await setUp(context, [
    { name: "coder", contextLength: 131_072, capabilities: ["completion", "insert"] },
  ]);
  const coder = await model("coder");
  await provider.preload(coder, never);
  await eventsOf(await provider.chat(chat("a", { sampling: { temperature: 0, seed: 1 } }), coder, never));
  await eventsOf(await provider.complete(completion(), coder, never));
  await eventsOf(
    await provider.complete(
      completion({ suffix: "x", output: { maxTokens: 3, stop: ["\n"], format: { kind: "text" } } }),
      coder,
      never,
    ),
  );
  assert.equal(host.count("loaded"), 1);
  assert.deepEqual(
    host.snapshot().runners.map((runner) => runner.numCtx),
    [8192],
  );
  assert.ok(host.requests.every((request) => request.options.numCtx === 8192 && request.keepAliveMs === 600_000));
});

test("a model that others have loaded keeps their window, and keeps it when it is unloaded later", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder", contextLength: 131_072 }]);
  const load = (body: object) =>
    fetch(`${host.url}/api/generate`, { method: "POST", body: JSON.stringify({ model: "coder", ...body }) });
  const coder = await model("coder");
  await (await load({ options: { num_ctx: 20_000 } })).text();
  await eventsOf(await provider.chat(chat(), coder, never));
  assert.equal(host.count("loaded"), 1);
  await (await load({ keep_alive: 0 })).text();
  await host.until("it is unloaded", () => host.count("unloaded") === 1);
  await eventsOf(await provider.chat(chat(), await model("coder"), never));
  assert.deepEqual(
    host.events.filter((event) => event.kind === "loaded").map((event) => event.numCtx),
    [20_000, 20_000],
  );
});

test("configured windows win, by name with and without its tag", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "a" }, { name: "b" }, { name: "c" }], {
    config: { num_ctx: { a: 1000, "b:latest": 2000 }, default_num_ctx: 3000 },
  });
  for (const name of ["a", "b", "c"]) await eventsOf(await provider.chat(chat(), await model(name), never));
  assert.deepEqual(
    host.events.filter((event) => event.kind === "loaded").map((event) => event.numCtx),
    [1000, 2000, 3000],
  );
});

test("hosts are looked at side by side: one that hangs and one that is gone hide nothing of the third", async (context) => {
  const good = await startOllamaHost({ models: [{ name: "coder" }] });
  const hanging = await startOllamaHost({ models: [{ name: "coder" }] });
  const gone = await startOllamaHost({ models: [] });
  await gone.stop();
  context.after(() => Promise.all([good.stop(), hanging.stop()]));
  hanging.inject({ kind: "silent", on: "tags" });
  const host = (url: string) => ({ url, parallel: 1, num_ctx: {} });
  const config = {
    discover: false,
    keep_alive: "10m",
    hosts: { good: host(good.url), hanging: host(hanging.url), gone: host(gone.url) },
  };
  const { provider, logged } = provide(context, config, nowhere);
  assert.deepEqual(
    provider.status().map((row) => row.state),
    ["idle", "idle", "idle"],
  );
  const models = await provider.models(never);
  assert.deepEqual(
    models.map((model) => model.ref),
    ["ollama/coder@good"],
  );
  const rows = provider.status();
  assert.deepEqual(
    rows.map((row) => row.state),
    ["ok", "unreachable", "unreachable"],
  );
  assert.match(rows[1]?.problem ?? "", /did not answer within/);
  assert.match(rows[2]?.problem ?? "", /cannot reach/);
  assert.equal(logged.filter((fields) => fields.event === "ollama.host").length, 3);
  const again = await provider.models(never);
  assert.deepEqual(
    again.map((model) => model.ref),
    ["ollama/coder@good", "ollama/coder@hanging"],
  );
});

test("a slow host does not hold up a chat with another one", async (context) => {
  const good = await startOllamaHost({ speed: 100, models: [{ name: "coder" }] });
  const hanging = await startOllamaHost({ models: [{ name: "coder" }] });
  context.after(() => Promise.all([good.stop(), hanging.stop()]));
  const host = (url: string) => ({ url, parallel: 1, num_ctx: {} });
  const { provider } = provide(
    context,
    { discover: false, keep_alive: "10m", hosts: { good: host(good.url), hanging: host(hanging.url) } },
    nowhere,
  );
  const [coder] = await provider.models(never);
  assert.ok(coder !== undefined);
  hanging.inject({ kind: "silent", on: "tags" });
  let listed = false;
  const listing = provider.models(never).then(() => {
    listed = true;
  });
  await hanging.until("the list is asked for", () => hanging.count("fault") === 1);
  await eventsOf(await provider.chat(chat(), coder, never));
  assert.equal(listed, false);
  await listing;
});

test("aborting a look at the hosts ends it", async (context) => {
  const { provider, host } = await setUp(context, []);
  host.inject({ kind: "silent", on: "tags" });
  const controller = new AbortController();
  const looking = provider.models(controller.signal);
  await host.until("the list is asked for", () => host.count("fault") === 1);
  controller.abort();
  await assert.rejects(looking, failsWith("cancelled"));
});

test("a host on this machine is found by itself, and its absence is no problem", async (context) => {
  const host = await startOllamaHost({ models: [{ name: "coder" }] });
  const config = { discover: true, keep_alive: "10m", hosts: {} };
  const { provider, logged } = provide(context, config, host.url);
  assert.deepEqual(
    (await provider.models(never)).map((model) => model.ref),
    ["ollama/coder@local"],
  );
  await host.stop();
  assert.deepEqual(await provider.models(never), []);
  const [row] = provider.status();
  assert.equal(row?.state, "absent");
  assert.equal(row?.problem, undefined);
  assert.ok(logged.every((fields) => fields["problem"] === undefined));
});

test("nothing is looked for where a configured host has the address, however it is spelled, or where it is switched off", async (context) => {
  const host = (url: string) => ({ ws: { url, parallel: 1, num_ctx: {} } });
  const names = (config: OllamaConfig) =>
    provide(context, config, "http://127.0.0.1:11434")
      .provider.status()
      .map((row) => row.id);
  assert.deepEqual(names({ discover: true, keep_alive: "10m", hosts: host("http://localhost:11434/") }), ["ollama@ws"]);
  assert.deepEqual(names({ discover: true, keep_alive: "10m", hosts: host("http://127.0.0.1:11435") }), [
    "ollama@ws",
    "ollama@local",
  ]);
  assert.deepEqual(names({ discover: false, keep_alive: "10m", hosts: {} }), []);
});

test("something else at the address is no host, and says so", async (context) => {
  const { provider, host } = await setUp(context, []);
  host.inject({ kind: "status", status: 200, body: "<html>", on: "tags" });
  assert.deepEqual(await provider.models(never), []);
  assert.match(provider.status()[0]?.problem ?? "", /is not an Ollama host/);
});

test("a model whose description cannot be had is listed with what the list says", async (context) => {
  const { provider, host } = await setUp(context, [{ name: "coder", capabilities: ["completion", "tools"] }]);
  host.inject({ kind: "status", status: 500, body: "{}", on: "show" });
  const [coder] = await provider.models(never);
  assert.deepEqual([coder?.capabilities.tools, coder?.contextWindow], [true, 8192]);
});

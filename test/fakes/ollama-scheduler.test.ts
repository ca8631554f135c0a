/** The fake host's queues, loads and evictions, seen through Ollama's own client. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { clean, GIB, post, start, user } from "./ollama-test-kit.ts";

test("one load at a time, head of line: a model that would fit waits behind one that loads", async (context) => {
  const { host, client } = await start(context, {
    models: [
      { name: "a", loadMs: 5000 },
      { name: "b", loadMs: 10 },
    ],
  });
  const first = client.generate({ model: "a", prompt: "x" });
  await host.until("a loads", () => host.count("loading", "a") === 1);
  const second = await client.generate({ model: "b", prompt: "x" });
  await first;
  const order = host.events
    .filter((event) => event.kind === "loading" || event.kind === "loaded")
    .map((event) => `${event.kind} ${event.model}`);
  assert.deepEqual(order, ["loading a:latest", "loaded a:latest", "loading b:latest", "loaded b:latest"]);
  assert.ok(second.load_duration > 1_000_000_000, "the wait for the other load counts as load_duration");
});

test("requests to a loaded model wait for its slots without bound, and no field says so", async (context) => {
  const { host, client } = await start(context, { parallel: 2, maxQueue: 1, models: [{ name: "a" }] });
  await client.generate({ model: "a", prompt: "" });
  host.inject({ kind: "hang", afterTokens: 0, times: 2 });
  const all = Promise.all(Array.from({ length: 20 }, () => client.generate({ model: "a", prompt: "x" })));
  await host.until("18 wait", () => host.snapshot().runners[0]?.waiting === 18);
  assert.equal(host.snapshot().runners[0]?.running, 2);
  assert.equal(host.snapshot().pending, 0);
  const [running] = (await client.ps()).models;
  assert.equal(
    Object.keys(running ?? {}).some((key) => /queue|pending|load/.test(key)),
    false,
  );
  host.resume();
  const answers = await all;
  assert.ok(answers.every((answer) => answer.done));
});

test("503 comes only when the pending channel is full", async (context) => {
  const { host } = await start(context, {
    maxQueue: 1,
    models: [{ name: "a", loadMs: 60_000 }, { name: "b" }, { name: "c" }],
  });
  const gone = new AbortController();
  const ask = (model: string) =>
    post(host, "/api/generate", { model, prompt: "x" }, gone.signal).catch(() => undefined);
  const first = ask("a");
  await host.until("a loads", () => host.count("loading") === 1);
  const second = ask("b");
  await host.until("b is pending", () => host.snapshot().pending === 1);
  const third = await ask("c");
  assert.equal(third?.status, 503);
  assert.match(third?.text ?? "", /server busy, please try again\. {2}maximum pending requests exceeded/);
  gone.abort();
  await Promise.all([first, second]);
});

test("another num_ctx loads the model anew; sampling does not; absent equals absent", async (context) => {
  const { host, client } = await start(context, { defaultContext: 4096, models: [{ name: "a", contextLength: 8192 }] });
  const ask = (options: object) => client.generate({ model: "a", prompt: "x", options });
  await ask({});
  await ask({ temperature: 0, top_k: 1, seed: 7 });
  await ask({ num_ctx: 4096 });
  assert.equal(host.count("loaded"), 1);
  await ask({ num_ctx: 2048 });
  assert.equal(host.count("loaded"), 2);
  await ask({ num_ctx: 2048, num_batch: 256 });
  assert.equal(host.count("loaded"), 3);
  await ask({ num_ctx: 100_000 });
  await ask({ num_ctx: 8192 });
  assert.equal(host.count("loaded"), 4, "both are the training context");
  await post(host, "/api/generate", { model: "a", prompt: "x", shift: false, options: { num_ctx: 8192 } });
  assert.equal(host.count("loaded"), 5);
  clean(host);
});

test("the default window goes by the Modelfile, then by total VRAM", async (context) => {
  const small = await start(context, {
    vramBytes: 8 * GIB,
    models: [{ name: "a" }, { name: "own", modelfileNumCtx: 1000 }],
  });
  const large = await start(context, { vramBytes: 24 * GIB, models: [{ name: "a", contextLength: 131_072 }] });
  await small.client.generate({ model: "a", prompt: "" });
  await small.client.generate({ model: "own", prompt: "" });
  await large.client.generate({ model: "a", prompt: "" });
  assert.deepEqual(
    small.host.events.filter((event) => event.kind === "loaded").map((event) => event.numCtx),
    [4096, 1000],
  );
  assert.deepEqual(
    large.host.snapshot().runners.map((runner) => runner.numCtx),
    [32_768],
  );
});

test("keep_alive: a number is seconds, negative is for ever, the latest value wins, 0 unloads at once", async (context) => {
  const { host, client } = await start(context, { keepAliveMs: 3_600_000, models: [{ name: "a" }] });
  await client.generate({ model: "a", prompt: "", keep_alive: -1 });
  const [forever] = (await client.ps()).models;
  assert.ok(Date.parse(String(forever?.expires_at)) > Date.now() + 100 * 365 * 86_400_000);
  await client.generate({ model: "a", prompt: "x", keep_alive: "2h" });
  const [hours] = (await client.ps()).models;
  assert.ok(Date.parse(String(hours?.expires_at)) > Date.now() + 3_600_000);
  const unload = await client.generate({ model: "a", prompt: "", keep_alive: 0 });
  assert.equal(unload.done_reason, "unload");
  assert.deepEqual((await client.ps()).models, []);
  await client.generate({ model: "a", prompt: "x", keep_alive: 1 });
  await host.until("it goes after a second", () => host.count("unloaded") === 2);
  clean(host);
});

test("beside another model a new one must fit into 80 % of the free VRAM, else the idle one with the shortest keep_alive goes", async (context) => {
  const { host, client } = await start(context, {
    vramBytes: 10 * GIB,
    models: ["a", "b", "c"].map((name) => ({ name, sizeBytes: 4 * GIB, kvBytesPerToken: 0 })),
  });
  await client.generate({ model: "a", prompt: "", keep_alive: "1h" });
  await client.generate({ model: "b", prompt: "", keep_alive: "10m" });
  assert.equal(host.count("evicting"), 0, "4 of 6 free GiB are less than 80 %");
  await client.generate({ model: "c", prompt: "" });
  assert.deepEqual(
    host.events.filter((event) => event.kind === "evicting").map((event) => event.model),
    ["b:latest"],
  );
  const evicting = host.events.findIndex((event) => event.kind === "unloaded");
  assert.ok(
    evicting < host.events.findIndex((event) => event.kind === "loading" && event.model === "c:latest"),
    "it waits for the VRAM to return",
  );
});

test("a busy victim is waited for, and steady traffic with keep_alive starves the load and all behind it", async (context) => {
  const { host, client } = await start(context, {
    vramBytes: 6 * GIB,
    parallel: 2,
    models: [
      { name: "a", sizeBytes: 4 * GIB },
      { name: "b", sizeBytes: 4 * GIB },
      { name: "c", sizeBytes: 1 },
    ],
  });
  await client.generate({ model: "a", prompt: "" });
  host.inject({ kind: "hang", afterTokens: 0, model: "a:latest" });
  const busy = client.generate({ model: "a", prompt: "x" });
  await host.until("a is busy", () => host.snapshot().runners[0]?.running === 1);
  const wanted = client.generate({ model: "b", prompt: "x" });
  await host.until("b waits for a", () => host.count("waitingForVictim", "a") === 1);
  const behind = client.generate({ model: "c", prompt: "x" });
  await host.until("c is pending", () => host.snapshot().pending === 1);
  await client.generate({ model: "a", prompt: "more", keep_alive: "10s" });
  host.resume();
  await busy;
  assert.equal(host.count("unloading", "a"), 0, "the new keep_alive has cancelled the early end");
  assert.equal(host.count("loading", "b"), 0);
  assert.equal(host.count("loading", "c"), 0, "a model that fits waits, too");
  await Promise.all([wanted, behind]);
  assert.equal(host.count("unloaded", "a"), 1);
  clean(host);
});

test("maxLoaded evicts even where there is room", async (context) => {
  const { host, client } = await start(context, {
    maxLoaded: 1,
    models: [
      { name: "a", sizeBytes: 1 },
      { name: "b", sizeBytes: 1 },
    ],
  });
  await client.generate({ model: "a", prompt: "" });
  await client.generate({ model: "b", prompt: "" });
  assert.deepEqual(
    host.snapshot().runners.map((runner) => runner.model),
    ["b:latest"],
  );
});

test("embedding models take one request at a time whatever NUM_PARALLEL says", async (context) => {
  const { host, client } = await start(context, {
    parallel: 4,
    models: [{ name: "e", capabilities: ["embedding"], promptTokensPerSecond: 1 }],
  });
  await client.embed({ model: "e", input: "" });
  const both = Promise.all([
    client.embed({ model: "e", input: "a b c d" }),
    client.embed({ model: "e", input: "a b c d" }),
  ]);
  await host.until("the second waits", () => host.snapshot().runners[0]?.waiting === 1);
  await both;
});

test("a client that goes away is cancelled while pending, and its place is skipped", async (context) => {
  const { host, client } = await start(context, { models: [{ name: "a", loadMs: 5000 }, { name: "b" }] });
  const first = client.generate({ model: "a", prompt: "x" });
  await host.until("a loads", () => host.count("loading") === 1);
  const gone = new AbortController();
  const second = post(host, "/api/generate", { model: "b", prompt: "x" }, gone.signal);
  await host.until("b is pending", () => host.snapshot().pending === 1);
  gone.abort();
  await assert.rejects(second);
  await host.until("it is noticed", () => host.count("cancelled") === 1);
  assert.equal(host.snapshot().pending, 1, "it holds its place");
  await first;
  await host.until("it is skipped", () => host.count("skipped", "b") === 1);
  assert.equal(host.count("loading", "b"), 0);
});

test("a client that goes away while its model loads takes the load down", async (context) => {
  const { host } = await start(context, { models: [{ name: "a", loadMs: 60_000 }] });
  const gone = new AbortController();
  const asked = post(host, "/api/generate", { model: "a", prompt: "x" }, gone.signal);
  await host.until("a loads", () => host.count("loading") === 1);
  gone.abort();
  await assert.rejects(asked);
  await host.until("the load is given up", () => host.count("loadAborted") === 1);
  assert.deepEqual(host.snapshot().runners, []);
});

test("a client that goes away in the slot queue or in mid-answer frees its place", async (context) => {
  const { host, client } = await start(context, { models: [{ name: "a" }] });
  await client.generate({ model: "a", prompt: "" });
  host.inject({ kind: "hang", afterTokens: 2 });
  const stream = await client.chat({ model: "a", messages: user("x"), stream: true });
  await host.until("it hangs", () => host.count("fault") === 1);
  const gone = new AbortController();
  const waiting = post(host, "/api/generate", { model: "a", prompt: "x" }, gone.signal);
  await host.until("it waits for the slot", () => host.snapshot().runners[0]?.waiting === 1);
  gone.abort();
  await assert.rejects(waiting);
  await host.until("the waiting one is gone", () => host.snapshot().runners[0]?.waiting === 0);
  stream.abort();
  await host.until("the running one is gone", () => host.snapshot().runners[0]?.running === 0);
  assert.deepEqual(
    host.events.filter((event) => event.kind === "cancelled").map((event) => event.detail),
    ["slot", "running"],
  );
});

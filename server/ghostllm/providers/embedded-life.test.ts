/** What may befall the embedded engine: aborts, crashes, hangs, full queues, idleness, broken files. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { startDownloadHost } from "../../../test/fakes/download-host.ts";
import {
  CODE,
  code,
  completeWith,
  completion,
  MODELS,
  never,
  read,
  SOURCE,
  until,
  world,
} from "../../../test/support/embedded.ts";
import { testFolder } from "../../../test/support/folder.ts";
import { GhostError } from "../../base/errors.ts";
import { Permit } from "../../platform/permit-mint.ts";
import { systemClock } from "../../platform/system-clock.ts";
import type { Attempt } from "../stream.ts";

test("the built-in model is listed with what its file says, and nothing is started for that", async () => {
  await using w = await world();
  const { contextWindow, capabilities, note, sizeBytes, demonstration } = w.model;
  assert.deepEqual(
    { contextWindow, sizeBytes, demonstration },
    { contextWindow: 512, sizeBytes: 7_019_136, demonstration: true },
  );
  assert.deepEqual(capabilities, {
    chat: true,
    complete: true,
    fim: true,
    embeddings: true,
    tools: false,
    vision: false,
    jsonSchema: true,
  });
  assert.match(note ?? "", /cannot chat/);
  assert.deepEqual(w.provider.engineState(), { state: "idle" });
  assert.equal(w.provider.status()[0]?.state, "idle");
});

test("a full queue refuses with engine_busy, and says when to come back", async () => {
  await using w = await world({ max_queue: 2 });
  const stop = new AbortController();
  const begin = () => w.provider.complete(completion(CODE, { output: { maxTokens: 400 } }), w.model, stop.signal);
  const waiting = [begin(), begin()];
  // They are in the queue once their file was looked at.
  await until(() => w.provider.engineState().state !== "idle");
  await systemClock.sleep(5);
  await assert.rejects(
    begin(),
    (error: unknown) => code("engine_busy")(error) && error instanceof GhostError && (error.retryAfterMs ?? 0) > 0,
  );
  stop.abort();
  for (const attempt of waiting) await assert.rejects(attempt, code("cancelled"));
});

test("a request can be aborted while it waits, loads, reads its prompt, and answers", async () => {
  await using w = await world();
  const begin = (signal: AbortSignal, prefix = CODE, maxTokens = 450) =>
    w.provider.complete(completion(prefix, { output: { maxTokens } }), w.model, signal);
  const aborted = async (signal: AbortController, attempt: Promise<Attempt>) => {
    const at = systemClock.monotonic();
    signal.abort();
    await assert.rejects(attempt, code("cancelled"));
    return systemClock.monotonic() - at;
  };
  // The child is not there yet.
  const loading = new AbortController();
  const first = begin(loading.signal);
  await until(() => w.provider.engineState().state === "starting");
  assert.ok((await aborted(loading, first)) < 500);
  // All four sequences are taken: the fifth waits.
  const running = new AbortController();
  const streams = await Promise.all([1, 2, 3, 4].map(() => begin(running.signal)));
  const queued = new AbortController();
  assert.ok((await aborted(queued, begin(queued.signal))) < 500);
  // Answers that are being read throw, and their places are free again: the child has confirmed.
  const readings = streams.map((attempt) => assert.rejects(read(attempt), code("cancelled")));
  running.abort();
  await Promise.all(readings);
  // Before the first token of a long prompt.
  const reading = new AbortController();
  const attempt = begin(reading.signal, SOURCE.slice(0, 1200));
  await systemClock.sleep(2);
  assert.ok((await aborted(reading, attempt)) < 500);
  const next = await completeWith(w);
  assert.equal(next.usage.completionTokens, 24);
  // Whoever leaves the loop early stops the answer too.
  for await (const _frame of (await begin(never)).frames) break;
  assert.equal((await completeWith(w)).text, next.text);
});

test("an aborted answer is not written on where nobody sees it", async () => {
  await using w = await world();
  const output = { maxTokens: 440 };
  const whole = (await completeWith(w, CODE, { output })).text;
  const stop = new AbortController();
  const begin = () => w.provider.complete(completion(CODE, { output }), w.model, stop.signal);
  await Promise.all([begin(), begin(), begin(), begin()]);
  stop.abort();
  // Four at once take the first run's sequence too, so what is remembered now is how far they had come.
  const { cachedTokens } = (await completeWith(w, CODE + whole, { output: { maxTokens: 1 } })).usage;
  assert.ok(cachedTokens !== undefined && cachedTokens > 10 && cachedTokens < 300, String(cachedTokens));
});

test("aborting before anything happened asks nothing of the engine", async () => {
  await using w = await world();
  await assert.rejects(w.provider.complete(completion(CODE), w.model, AbortSignal.abort()), code("cancelled"));
  assert.equal(w.provider.engineState().state, "idle");
});

test("a crash in mid-answer is an error in the stream; the next request works", async () => {
  await using w = await world();
  const { provider, model } = w;
  const attempt = await provider.complete(completion(CODE, { output: { maxTokens: 400 } }), model, never);
  const { pid } = provider.engineState();
  assert.ok(pid !== undefined);
  process.kill(pid, "SIGKILL");
  const broken = await read(attempt);
  assert.equal(broken.error, "engine_crashed");
  assert.equal(broken.reason, undefined);
  assert.ok(broken.text.length > 0);
  const next = await completeWith(w);
  assert.equal(next.usage.completionTokens, 24);
  assert.notEqual(provider.engineState().pid, pid);
});

test("a child that hangs is ended when it does not confirm an abort", async () => {
  const deadlines: (() => void)[] = [];
  const clock = {
    ...systemClock,
    after(delayMs: number, callback: () => void) {
      if (delayMs === 30_000) deadlines.push(callback);
      return systemClock.after(delayMs, callback);
    },
  };
  await using w = await world({}, { clock });
  const stop = new AbortController();
  const attempt = await w.provider.complete(completion(CODE, { output: { maxTokens: 450 } }), w.model, stop.signal);
  const { pid } = w.provider.engineState();
  assert.ok(pid !== undefined);
  process.kill(pid, "SIGSTOP");
  stop.abort();
  await assert.rejects(read(attempt), code("cancelled"));
  deadlines.at(-1)?.();
  assert.equal((await completeWith(w)).usage.completionTokens, 24);
  assert.notEqual(w.provider.engineState().pid, pid);
});

test("a child that cannot start is tried a few times, then the requests are told", async () => {
  await using w = await world({}, { nodeExecutable: "/bin/false" });
  await assert.rejects(completeWith(w), code("engine_crashed", /exit code 1/));
  assert.equal(w.provider.engineState().state, "crashed");
  await assert.rejects(completeWith(w), code("engine_crashed", /3 times in a row/));
  assert.equal(w.provider.status()[0]?.state, "refused");
});

test("the child has none of our environment, and ends when the provider does", async () => {
  process.env["OPENAI_API_KEY"] = "sk-test-never-inherited";
  const w = await world();
  await w.provider.prewarm(never);
  delete process.env["OPENAI_API_KEY"];
  const { pid, state } = w.provider.engineState();
  assert.equal(state, "ready");
  const environ = readFileSync(`/proc/${pid}/environ`, "utf8");
  assert.deepEqual(
    environ.split("\0").filter((line) => !line.startsWith("NODE_CHANNEL_") && line !== ""),
    [],
  );
  await w[Symbol.asyncDispose]();
  assert.throws(() => readFileSync(`/proc/${pid}/environ`));
});

/** Each is a parent's last action before it says where its child is and waits to be killed. */
const lastActions = {
  "at rest": "await completeWith(w);",
  "in the middle of four answers": `
    const begin = () => w.provider.complete(completion(CODE, { output: { maxTokens: 450 } }), w.model, never);
    const attempts = await Promise.all([begin(), begin(), begin(), begin()]);
    await attempts[0].frames[Symbol.asyncIterator]().next();`,
  "while it reads a long prompt": `
    void completeWith(w, SOURCE.slice(0, 1200), { output: { maxTokens: 400 } });
    await until(() => w.provider.engineState().state === "ready");`,
};
for (const [when, action] of Object.entries(lastActions)) {
  test(`the child ends when its parent is killed with -9 ${when}`, async () => {
    const support = new URL("../../../test/support/embedded.ts", import.meta.url).href;
    const program = `
      import { CODE, completeWith, completion, never, SOURCE, until, world } from ${JSON.stringify(support)};
      const w = await world();
      ${action}
      console.log(w.provider.engineState().pid);
      setInterval(() => {}, 1000);`;
    const parent = spawn(process.execPath, ["--no-warnings", "--input-type=module-typescript", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const pid = await new Promise<number>((resolve) => {
      parent.stdout.once("data", (text: Buffer) => resolve(Number(text.toString())));
    });
    assert.ok(existsSync(`/proc/${pid}/exe`));
    parent.kill("SIGKILL");
    // Of a zombie the link cannot be followed any more.
    await until(() => !existsSync(`/proc/${pid}/exe`));
  });
}

test("an idle engine is given up, and the next request starts it again", async () => {
  const timers: (() => void)[] = [];
  const clock = {
    ...systemClock,
    after(delayMs: number, callback: () => void) {
      if (delayMs === 30 * 60_000) timers.push(callback);
      return systemClock.after(delayMs, callback);
    },
  };
  await using w = await world({}, { clock });
  const text = (await completeWith(w)).text;
  timers.at(-1)?.();
  await until(() => w.provider.engineState().state === "idle");
  assert.equal((await completeWith(w)).text, text);
});

test("missing and damaged weights are typed errors by name, and the daemon lists them with the reason", async () => {
  const folder = testFolder();
  const file = folder.join("tiny-code-fim.gguf");
  await using w = await world({}, { builtinModelsFolder: folder.path });
  await assert.rejects(completeWith(w), code("weights_missing", /tiny-code-fim\.gguf/));
  writeFileSync(file, "not a model");
  await assert.rejects(completeWith(w), code("weights_corrupt", /does not begin with/));
  const [listed] = await w.provider.models(never);
  assert.match(listed?.note ?? "", /unusable/);
  assert.match(w.provider.status()[0]?.problem ?? "", /not a usable GGUF/);
  // A header that lies about what follows passes our look at it, and is the engine's to refuse.
  const bytes = readFileSync(`${MODELS}/tiny-code-fim.gguf`);
  writeFileSync(file, bytes.subarray(0, bytes.length - 100));
  await assert.rejects(completeWith(w), code("weights_corrupt", /cannot be loaded/));
  copyFileSync(`${MODELS}/tiny-code-fim.gguf`, file);
  assert.equal((await completeWith(w)).usage.completionTokens, 24);
  folder[Symbol.dispose]();
});

test("switched off, it has no models, starts nothing, and says so", async () => {
  await using on = await world();
  await using off = await world({ enabled: false });
  assert.deepEqual(await off.provider.models(never), []);
  assert.match(off.provider.status()[0]?.problem ?? "", /switched off/);
  await off.provider.prewarm(never);
  await assert.rejects(completeWith({ provider: off.provider, model: on.model }), code("model_not_found"));
  assert.equal(off.provider.engineState().state, "idle");
});

test("pulled weights can be used at once; removed ones are missed by name", async () => {
  await using w = await world();
  await using host = await startDownloadHost(readFileSync(`${MODELS}/tiny-code-fim.gguf`), '"v1"');
  const updates = await Array.fromAsync(
    w.provider.pull({ source: `${host.origin}/my-model.gguf` }, async (effect) => new Permit(effect, () => {}), never),
  );
  const done = updates.at(-1);
  assert.ok(done?.kind === "done");
  assert.deepEqual(
    [done.model.ref, done.model.contextWindow, done.model.demonstration],
    ["embedded/my-model", 512, true],
  );
  const models = await w.provider.models(never);
  assert.deepEqual(
    models.map(({ name }) => name),
    ["tiny-code-fim", "my-model"],
  );
  assert.equal((await completeWith({ ...w, model: done.model })).text, (await completeWith(w)).text);
  rmSync(done.path);
  await assert.rejects(completeWith({ ...w, model: done.model }), code("weights_missing"));
});

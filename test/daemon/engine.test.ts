/** Damaged, missing and dying parts of the embedded engine cost their own request only: the daemon and its other models go on. */
import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type TestDaemon, prepareFolder, startTestDaemon } from "../support/daemon.ts";
import { MODELS } from "../support/embedded.ts";
import { type TestFolder, testFolder } from "../support/folder.ts";
import { call, errorOf, sse } from "../support/http.ts";

const WEIGHTS = join(MODELS, "tiny-code-fim.gguf");
/** The model goes on with such a list for as long as it may. */
const LONG = Array.from({ length: 8 }, (_, n) => `const value${n} = ${n};\n`).join("");
const soon = () => AbortSignal.timeout(20_000);
const continuation = (model: string, more: object = {}) => ({
  model,
  prompt: "export function add(",
  max_tokens: 4,
  ...more,
});

/** A data folder with weights that are registered as `mine`, as a download leaves them. */
function withWeights(folder: TestFolder): string {
  const { dataDir } = prepareFolder(folder, {});
  const models = join(dataDir, "models");
  mkdirSync(models, { mode: 0o700 });
  const file = join(models, "mine.gguf");
  copyFileSync(WEIGHTS, file);
  const entry = {
    name: "mine",
    file: "mine.gguf",
    sha256: "0".repeat(64),
    source: "http://127.0.0.1/mine.gguf",
    sizeBytes: statSync(file).size,
  };
  writeFileSync(join(models, "registry.json"), JSON.stringify({ version: 1, models: [entry] }));
  return file;
}

async function othersWork(daemon: TestDaemon): Promise<void> {
  const reply = await call(daemon, "/v1/completions", { body: continuation("embedded/tiny-code-fim") });
  assert.equal(reply.status, 200, reply.text);
}

const CASES: readonly [what: string, damage: (file: string) => void, status: number, code: string][] = [
  ["whose file is gone", (file) => rmSync(file), 404, "weights_missing"],
  ["whose file holds something else", (file) => writeFileSync(file, "this is no model"), 400, "weights_corrupt"],
  ["whose file is empty", (file) => writeFileSync(file, ""), 400, "weights_corrupt"],
  ["whose file was cut in its header", (file) => truncateSync(file, 1000), 400, "weights_corrupt"],
  [
    "whose file was cut in its tensors",
    (file) => truncateSync(file, Math.floor(statSync(file).size * 0.7)),
    400,
    "weights_corrupt",
  ],
];
for (const [what, damage, status, code] of CASES) {
  for (const when of ["before the start", "while the daemon runs"] as const) {
    test(`a model ${what}, ${when}, is a typed error, and others work`, async () => {
      using folder = testFolder();
      const file = withWeights(folder);
      if (when === "before the start") damage(file);
      await using daemon = await startTestDaemon({ folder });
      if (when === "while the daemon runs") {
        assert.equal((await call(daemon, "/v1/models")).status, 200);
        damage(file);
      }
      for (let attempt = 0; attempt < 2; attempt += 1) {
        const reply = await call(daemon, "/v1/completions", { body: continuation("embedded/mine") });
        assert.equal(reply.status, status, reply.text);
        assert.equal(errorOf(reply).code, code);
        assert.ok(errorOf(reply).message.includes("mine.gguf"), errorOf(reply).message);
        await othersWork(daemon);
      }
      using client = await daemon.connect();
      assert.equal((await client.api.daemon.status({}, soon())).openAnswers, 0);
    });
  }
}

test("a list of downloads that cannot be read is kept aside and reported, and the built-in model works", async () => {
  using folder = testFolder();
  const file = withWeights(folder);
  const registry = join(file, "..", "registry.json");
  writeFileSync(registry, '{"version":1,"models":[{');
  await using daemon = await startTestDaemon({ folder });
  await othersWork(daemon);
  assert.equal(statSync(`${registry}.unreadable`).size, 24);
  using client = await daemon.connect();
  const { findings } = await client.api.daemon.doctor({}, soon());
  assert.ok(
    findings.some(({ message }) => message.includes("registry.json.unreadable")),
    JSON.stringify(findings),
  );
});

test("an engine that is killed in mid-stream ends that stream with an error and no [DONE]; the next request works", async () => {
  await using daemon = await startTestDaemon();
  await othersWork(daemon);
  using client = await daemon.connect();
  const pids = new Set<number>();
  for (let round = 0; round < 2; round += 1) {
    const { engine } = await client.api.daemon.status({}, soon());
    assert.equal(engine.state, "ready");
    assert.ok(engine.pid !== undefined && !pids.has(engine.pid), "a new engine was started");
    pids.add(engine.pid);
    const response = await fetch(`${daemon.http}/v1/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${daemon.modelKey}` },
      body: JSON.stringify(
        continuation("embedded/tiny-code-fim", { prompt: LONG, max_tokens: 400, stream: true, temperature: 0 }),
      ),
    });
    assert.equal(response.status, 200);
    assert.ok(response.body !== null);
    let text = "";
    let isKilled = false;
    try {
      for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        if (isKilled) continue;
        isKilled = true;
        process.kill(engine.pid, "SIGKILL");
      }
    } catch {
      // The connection is cut behind the error.
    }
    const { chunks, isDone } = sse(text);
    assert.equal(isDone, false);
    assert.ok(chunks.length >= 2, "something was shown before");
    assert.match(JSON.stringify(chunks.at(-1)), /"code":"engine_crashed"/);
    await othersWork(daemon);
  }
  assert.equal((await client.api.daemon.status({}, soon())).openAnswers, 0);
});

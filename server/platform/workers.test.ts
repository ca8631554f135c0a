import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { BugError, type GhostError, GhostError as AnyGhostError, UserError } from "../base/errors.ts";
import { systemClock } from "./system-clock.ts";
import { createWorkerPool, type WorkerLimits } from "./workers.ts";

const never = new AbortController().signal;
const pool = (size: number, limits: Partial<WorkerLimits> = {}) =>
  createWorkerPool({
    entry: new URL("./workers.fixture.worker.ts", import.meta.url),
    size,
    clock: systemClock,
    limits,
  });
const job = (command: string) => new Uint8Array(new TextEncoder().encode(command));
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

async function failure(work: Promise<unknown>): Promise<GhostError> {
  const thrown = await work.then(
    () => assert.fail("it did not fail"),
    (error: unknown) => error,
  );
  assert.ok(thrown instanceof AnyGhostError, String(thrown));
  return thrown;
}

describe("a worker pool", () => {
  it("does jobs on as many threads as it may, and starts none before the first", async () => {
    await using workers = pool(2);
    assert.equal(workers.size, 0);
    const results = await Promise.all(["a", "b", "c", "d"].map((word) => workers.run(job(`echo ${word}`), never)));
    assert.deepEqual(results.map(text), ["echo a", "echo b", "echo c", "echo d"]);
    assert.ok(workers.size <= 2);
  });

  it("moves a job's bytes where it can, and copies a part of a larger buffer", async () => {
    await using workers = pool(1);
    const whole = job("echo whole");
    await workers.run(whole, never);
    assert.equal(whole.byteLength, 0, "a buffer of its own is moved");
    const part = Buffer.from("xxecho partxx").subarray(2, 11);
    assert.equal(text(await workers.run(part, never)), "echo part");
    assert.equal(part.toString(), "echo part");
  });

  it("brings errors across with their family, code and details; others as bugs", async () => {
    await using workers = pool(1);
    const error = await failure(workers.run(job("refuse"), never));
    assert.ok(error instanceof UserError);
    assert.deepEqual([error.code, error.message, error.details], ["invalid_json", "line 3", { line: 3 }]);
    assert.ok((await failure(workers.run(job("throw"), never))) instanceof BugError);
    assert.equal(text(await workers.run(job("echo on"), never)), "echo on");
  });

  for (const crash of ["exit", "uncaught", "hang", "memory"]) {
    it(`a worker that ends by "${crash}" fails its own job, and the next gets a new one`, async () => {
      await using workers = pool(1, { maxJobMs: 1500, maxHeapMib: 32 });
      const failed = failure(workers.run(job(crash), never));
      const next = workers.run(job("echo next"), never);
      assert.match((await failed).code, crash === "hang" || crash === "memory" ? /overloaded/ : /internal/);
      assert.equal(text(await next), "echo next");
    });
  }

  it("refuses what its queue cannot hold, by number and by bytes", async () => {
    await using workers = pool(1, { maxQueuedJobs: 2, maxQueuedBytes: 100, maxJobMs: 60_000 });
    const open = Array.from({ length: 3 }, () => workers.run(job("hang"), never));
    for (const work of open) work.catch(() => {});
    assert.equal(workers.queued, 2);
    assert.equal((await failure(workers.run(job("echo"), never))).code, "overloaded");
    await using roomy = pool(1, { maxQueuedBytes: 100, maxJobMs: 60_000 });
    roomy.run(job("hang"), never).catch(() => {});
    assert.equal((await failure(roomy.run(new Uint8Array(101), never))).code, "overloaded");
  });

  it("an abort rejects at once: before the start, in the queue, and while a worker is busy with it", async () => {
    await using workers = pool(1, { abortGraceMs: 20 });
    assert.equal((await failure(workers.run(job("echo"), AbortSignal.abort()))).code, "cancelled");
    assert.equal(workers.size, 0);
    const busy = new AbortController();
    const waiting = new AbortController();
    const first = failure(workers.run(job("hang"), busy.signal));
    const second = failure(workers.run(job("echo 2"), waiting.signal));
    const third = workers.run(job("echo 3"), never);
    waiting.abort();
    assert.equal((await second).code, "cancelled");
    assert.equal(workers.queued, 1);
    busy.abort();
    assert.equal((await first).code, "cancelled");
    assert.equal(text(await third), "echo 3", "the hanging thread was replaced");
  });

  it("stops a thread that had nothing to do for a while, and starts one again", async () => {
    await using workers = pool(1, { idleMs: 20 });
    await workers.run(job("echo"), never);
    while (workers.size > 0) await nextTurn();
    assert.equal(text(await workers.run(job("echo again"), never)), "echo again");
  });

  it("fails open jobs when it is closed, and takes no more", async () => {
    const workers = pool(1);
    const open = [failure(workers.run(job("hang"), never)), failure(workers.run(job("echo"), never))];
    await workers[Symbol.asyncDispose]();
    assert.deepEqual(
      (await Promise.all(open)).map(({ code }) => code),
      ["daemon_stopping", "daemon_stopping"],
    );
    assert.equal((await failure(workers.run(job("echo"), never))).code, "daemon_stopping");
    assert.equal(workers.size, 0);
  });

  it("gives workers no environment", async () => {
    await using workers = pool(1);
    assert.equal(text(await workers.run(job("env"), never)), "{}");
  });
});

/** A full disk costs the requests that would have to grow a file, and nothing else: the daemon lives, what was acknowledged is there, and it goes on once there is room. */
import assert from "node:assert/strict";
import { chownSync, closeSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { call, configFor, errorOf, sse, textOf } from "../support/http.ts";
import { ORDINARY_UID, ordinaryFolder, reachableRepository, type TemporaryFolder, tinyDisk } from "./machine.ts";
import { type OrdinaryDaemon, startOrdinaryDaemon } from "./ordinary-daemon.ts";

const DISK_BYTES = 4 * 1024 * 1024;
const soon = () => AbortSignal.timeout(20_000);

let host: OpenAiHost;
before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
});
after(() => host[Symbol.asyncDispose]());

const question = (text: string, more: object = {}) => ({
  model: "up/m",
  messages: [{ role: "user", content: text }],
  ...more,
});

/** Takes every free byte of the disk; `remove` gives them back. */
function fill(disk: TemporaryFolder): { readonly remove: () => void } {
  const file = join(disk.path, "filler");
  const descriptor = openSync(file, "a");
  const block = Buffer.alloc(4096, 1);
  try {
    for (;;) writeSync(descriptor, block);
  } catch (error) {
    assert.ok(error instanceof Error && "code" in error && error.code === "ENOSPC", String(error));
  }
  closeSync(descriptor);
  return { remove: () => rmSync(file) };
}

async function titles(daemon: OrdinaryDaemon): Promise<readonly string[]> {
  using client = await daemon.connect();
  const { sessions } = await client.api.session.list({}, soon());
  return sessions.map(({ title }) => title).toSorted();
}

test("a disk that becomes full in mid-stream ends the stream with storage_full and no [DONE]; with room again, everything goes on and nothing is lost", async () => {
  using repository = reachableRepository();
  using home = ordinaryFolder();
  using disk = tinyDisk(DISK_BYTES);
  const dataDir = join(disk.path, "data");
  const places = { repository, home, dataDir, config: configFor(host.baseUrl) };
  let shown = "";
  {
    await using daemon = await startOrdinaryDaemon(places);
    assert.equal((await call(daemon, "/v1/chat/completions", { body: question("kept") })).status, 200);
    assert.deepEqual(await titles(daemon), ["kept"]);

    host.playOnce({ tokens: Array.from({ length: 100_000 }, (_, n) => `${n} ${"x".repeat(2000)} `), msPerToken: 2 });
    const count = host.requests.length;
    const stream = call(daemon, "/v1/chat/completions", { body: question("cut", { stream: true }) });
    await host.until(
      () =>
        host.requests.length > count &&
        host.requests.some(({ state, tokensSent }) => state === "open" && tokensSent > 5),
      "the stream is under way",
    );
    const filler = fill(disk);
    const { text, isCut } = await stream;
    const { chunks, isDone } = sse(text);
    assert.equal(isDone, false);
    assert.ok(isCut, "the connection is cut behind the error");
    assert.match(JSON.stringify(chunks.at(-1)), /"code":"storage_full"/);
    shown = textOf(chunks);
    assert.ok(shown.length > 2000, "something was shown before");
    await host.until(() => host.openRequests === 0, "the upstream was stopped");

    for (let attempt = 0; attempt < 3; attempt += 1) {
      fill(disk); // What was cut off again has made a little room.
      const refused = await call(daemon, "/v1/chat/completions", {
        body: question(`refused ${"y".repeat(20_000)}`, { stream: attempt === 1 }),
      });
      assert.equal(refused.status, 507, refused.text);
      assert.equal(errorOf(refused).code, "storage_full");
    }
    assert.equal((await call(daemon, "/healthz", { key: null })).status, 200);
    assert.ok((await titles(daemon)).includes("kept"), "what is stored can be read");
    using client = await daemon.connect();
    const { findings } = await client.api.daemon.doctor({}, soon());
    assert.equal(findings.find(({ subject }) => subject === "disk")?.state, "warning");

    filler.remove();
    assert.equal((await call(daemon, "/v1/chat/completions", { body: question("after") })).status, 200);
    const signal = soon();
    while ((await titles(daemon)).join() !== "after,cut,kept") signal.throwIfAborted();
  }
  await using daemon = await startOrdinaryDaemon(places);
  assert.deepEqual(await titles(daemon), ["after", "cut", "kept"]);
  using client = await daemon.connect();
  const { sessions } = await client.api.session.list({}, soon());
  const cut = sessions.find(({ title }) => title === "cut");
  assert.ok(cut !== undefined);
  const answer = (await client.api.session.get({ sessionId: cut.id }, soon())).entries.at(-1);
  assert.equal(answer?.answer?.state, "failed");
  assert.ok(answer?.text.startsWith(shown), "everything that was shown is kept");
});

test("on a disk that is full at the start, the daemon says so, and starts with everything once there is room", async () => {
  using repository = reachableRepository();
  using home = ordinaryFolder();
  using disk = tinyDisk(DISK_BYTES);
  const dataDir = join(disk.path, "data");
  const places = { repository, home, dataDir, config: configFor(host.baseUrl) };
  mkdirSync(dataDir, { mode: 0o700 });
  chownSync(dataDir, ORDINARY_UID, ORDINARY_UID);
  for (const state of ["empty", "used"] as const) {
    const filler = fill(disk);
    await assert.rejects(startOrdinaryDaemon(places), (error) => {
      assert.ok(error instanceof Error);
      assert.match(error.message, /^exit 1: ghostd: .*no space left|cannot grow/, state);
      assert.match(error.message, /Free some space/);
      assert.doesNotMatch(error.message, /^\s+at /m);
      return true;
    });
    filler.remove();
    await using daemon = await startOrdinaryDaemon(places);
    assert.equal((await call(daemon, "/v1/chat/completions", { body: question(state) })).status, 200);
    assert.ok((await titles(daemon)).includes(state));
  }
  await using daemon = await startOrdinaryDaemon(places);
  assert.deepEqual(await titles(daemon), ["empty", "used"]);
});

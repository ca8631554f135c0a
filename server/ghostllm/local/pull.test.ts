import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { type DownloadHost, startDownloadHost } from "../../../test/fakes/download-host.ts";
import { testFolder } from "../../../test/support/folder.ts";
import { GhostError, UserError } from "../../base/errors.ts";
import { createHttpClient } from "../../platform/http-client.ts";
import type { Log } from "../../platform/log.ts";
import { describeEffect, type EffectRequest } from "../../platform/permit.ts";
import { Permit, StandingPermit } from "../../platform/permit-mint.ts";
import { systemClock } from "../../platform/system-clock.ts";
import { ModelPuller, type PullEvent, type PullParams } from "./pull.ts";
import { ModelRegistry } from "./registry.ts";

const tiny = readFileSync(new URL("../../../models/tiny-code-fim.gguf", import.meta.url));
const sha256 = createHash("sha256").update(tiny).digest("hex");
const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };
const never = new AbortController().signal;
/** The waits between attempts are real, but a thousandth as long. */
const hasty = { ...systemClock, sleep: (ms: number, signal?: AbortSignal) => systemClock.sleep(ms / 1000, signal) };

interface World extends AsyncDisposable {
  readonly host: DownloadHost;
  readonly folder: string;
  readonly puller: ModelPuller;
  readonly registry: ModelRegistry;
  readonly asked: string[];
  pull(params?: Partial<PullParams>, signal?: AbortSignal): Promise<PullEvent[]>;
  stream(params?: Partial<PullParams>, signal?: AbortSignal): AsyncGenerator<PullEvent>;
  files(): string[];
}

async function world(authorize?: (effect: EffectRequest) => Promise<Permit>): Promise<World> {
  const temporary = testFolder();
  const folder = temporary.join("models");
  mkdirSync(folder);
  const host = await startDownloadHost(tiny, '"v1"');
  const http = createHttpClient();
  const permit = new StandingPermit("weights", [
    { capability: "fs.read", resource: { kind: "path", path: folder } },
    { capability: "fs.write", resource: { kind: "path", path: folder } },
  ]);
  const registry = new ModelRegistry({ folder, permit, log: silent });
  const puller = new ModelPuller({
    folder,
    permit,
    registry,
    http,
    clock: hasty,
    log: silent,
    reservedNames: ["tiny-code-fim"],
    huggingFaceUrl: host.origin,
  });
  const asked: string[] = [];
  const grant = async (effect: EffectRequest) => {
    asked.push(describeEffect(effect));
    return authorize === undefined ? new Permit(effect, () => {}) : authorize(effect);
  };
  const stream: World["stream"] = (params, signal = never) =>
    puller.pull({ source: `${host.origin}/weights.gguf`, ...params }, grant, signal);
  return {
    host,
    folder,
    puller,
    registry,
    asked,
    stream,
    pull: (params, signal) => Array.fromAsync(stream(params, signal)),
    files: () => readdirSync(folder).toSorted(),
    async [Symbol.asyncDispose]() {
      await puller[Symbol.asyncDispose]();
      await http[Symbol.asyncDispose]();
      assert.deepEqual(host.notModelled, []);
      await host[Symbol.asyncDispose]();
      temporary[Symbol.dispose]();
    },
  };
}

const code = (expected: string, says?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof GhostError, String(error));
  assert.equal(error.code, expected, error.message);
  if (says !== undefined) assert.match(error.message, says);
  return true;
};

test("a good download is checked, registered and tells its progress", async () => {
  await using w = await world();
  const events = await w.pull({ sha256: sha256.toUpperCase() });
  assert.deepEqual(events.at(0), { kind: "progress", receivedBytes: 0, totalBytes: tiny.length, resumedFromBytes: 0 });
  const progress = events.filter((event) => event.kind === "progress").map((event) => event.receivedBytes);
  assert.ok(progress.length >= 5 && progress.at(-1) === tiny.length, String(progress));
  assert.deepEqual(events.at(-2), { kind: "checking" });
  const entry = {
    name: "weights",
    file: "weights.gguf",
    sha256,
    source: `${w.host.origin}/weights.gguf`,
    sizeBytes: tiny.length,
  };
  assert.deepEqual(events.at(-1), { kind: "done", entry });
  assert.deepEqual(w.files(), ["registry.json", "weights.gguf"]);
  assert.ok(readFileSync(`${w.folder}/weights.gguf`).equals(tiny));
  assert.deepEqual(await w.registry.list(), [entry]);
  assert.deepEqual(w.asked, [`net.http GET ${w.host.origin}/weights.gguf`]);
});

test("a connection that drops again and again is resumed where it stopped, as long as there is progress", async () => {
  await using w = await world();
  // Nine cuts are more than the attempts without progress that are allowed.
  w.host.script(Array.from({ length: 9 }, () => ({ kind: "drop", afterBytes: 500_000 }) as const));
  const events = await w.pull({ sha256 });
  assert.equal(events.filter((event) => event.kind === "retrying").length, 9);
  assert.equal(events.at(-1)?.kind, "done");
  const starts = w.host.requests.map(({ range, ifRange }) => [range, ifRange]);
  assert.deepEqual(starts[0], [undefined, undefined]);
  assert.deepEqual(starts[1], ["bytes=500000-", '"v1"']);
  assert.deepEqual(starts.at(-1), ["bytes=4500000-", '"v1"']);
});

test("a later pull resumes what an earlier one left, and says from where", async () => {
  await using w = await world();
  const stop = new AbortController();
  w.host.script([{ kind: "stall", afterBytes: 2_000_000 }]);
  await assert.rejects(async () => {
    for await (const event of w.stream({}, stop.signal)) {
      if (event.kind === "progress" && event.receivedBytes > 1_000_000) stop.abort();
    }
  }, code("cancelled"));
  assert.deepEqual(w.files(), ["weights.gguf.part", "weights.gguf.part.json"]);
  const events = await w.pull({ sha256 });
  const [first] = events;
  assert.ok(first?.kind === "progress" && first.resumedFromBytes > 1_000_000);
  assert.equal(w.host.requests.at(-1)?.range, `bytes=${first.resumedFromBytes}-`);
  assert.equal(events.at(-1)?.kind, "done");
});

test("aborting gives the connection up at once", async () => {
  await using w = await world();
  const stop = new AbortController();
  w.host.script([{ kind: "stall", afterBytes: 100_000 }]);
  const pulling = w.pull({}, stop.signal);
  while (w.host.open === 0) await systemClock.sleep(1);
  stop.abort();
  await assert.rejects(pulling, code("cancelled"));
  while (w.host.open > 0) await systemClock.sleep(1);
});

test("a file that changed meanwhile is fetched anew from its beginning", async () => {
  await using w = await world();
  const other = Buffer.concat([tiny, Buffer.alloc(32)]);
  w.host.script([{ kind: "drop", afterBytes: 3_000_000 }]);
  const events: PullEvent[] = [];
  for await (const event of w.stream()) {
    events.push(event);
    if (event.kind === "retrying") w.host.serve(other, '"v2"');
  }
  assert.deepEqual(w.host.requests.at(-1), { path: "/weights.gguf", range: "bytes=3000000-", ifRange: '"v1"' });
  assert.ok(readFileSync(`${w.folder}/weights.gguf`).equals(other));
});

test("a server without ranges is read from the start each time; without a validator no range is asked for", async () => {
  await using w = await world();
  w.host.script([
    { kind: "drop", afterBytes: 1_000_000 },
    { kind: "ignoreRange", cutAfter: 2_000_000 },
    { kind: "ignoreRange" },
  ]);
  assert.equal((await w.pull({ sha256 })).at(-1)?.kind, "done");
  w.host.serve(tiny, undefined);
  w.host.script([{ kind: "drop", afterBytes: 1_000_000 }]);
  assert.equal((await w.pull({ sha256, name: "second" })).at(-1)?.kind, "done");
  assert.equal(w.host.requests.at(-1)?.range, undefined);
});

test("a complete part file needs no more than the server's word for its length", async () => {
  await using w = await world();
  w.host.script([{ kind: "drop", afterBytes: 1000 }]);
  const events: PullEvent[] = [];
  for await (const event of w.stream({ sha256 })) {
    events.push(event);
    if (event.kind === "retrying") writeFileSync(`${w.folder}/weights.gguf.part`, tiny);
  }
  assert.equal(events.at(-1)?.kind, "done");
  assert.equal(w.host.requests.at(-1)?.range, `bytes=${tiny.length}-`);
});

test("attempts without progress end with download_failed, and what came is kept", async () => {
  await using w = await world();
  w.host.script([
    { kind: "drop", afterBytes: 700_000 },
    ...Array.from({ length: 20 }, () => ({ kind: "drop", afterBytes: 0 }) as const),
  ]);
  await assert.rejects(w.pull(), code("download_failed"));
  assert.equal(w.host.requests.length, 6);
  assert.deepEqual(w.files(), ["weights.gguf.part", "weights.gguf.part.json"]);
});

test("servers that are busy are asked again; answers that stay the same are not", async () => {
  await using w = await world();
  w.host.script([
    { kind: "status", status: 503 },
    { kind: "status", status: 429, headers: { "retry-after": "2" } },
  ]);
  const events = await w.pull();
  assert.deepEqual(
    events.filter((event) => event.kind === "retrying").map((event) => event.inMs),
    [500, 2000],
  );
  for (const [status, says] of [
    [404, /no such file/],
    [401, /login/],
  ] as const) {
    w.host.script([{ kind: "status", status }]);
    const before = w.host.requests.length;
    await assert.rejects(w.pull({ name: "other" }), code("download_failed", says));
    assert.equal(w.host.requests.length, before + 1);
  }
});

test("what is not a GGUF is neither kept nor registered", async () => {
  await using w = await world();
  w.host.script([{ kind: "status", status: 200, body: "<html>please log in</html>" }]);
  await assert.rejects(w.pull(), code("weights_corrupt", /text\/html/));
  w.host.serve(Buffer.concat([Buffer.from("GGUF"), Buffer.alloc(500)]), '"bad"');
  await assert.rejects(w.pull(), code("weights_corrupt", /version is 0/));
  assert.deepEqual(w.files(), []);
});

test("a wrong checksum or length is download_mismatch, and nothing is left", async () => {
  await using w = await world();
  await assert.rejects(w.pull({ sha256: "0".repeat(64) }), code("download_mismatch", /sha256/));
  w.host.script([{ kind: "redirect", location: "/store", headers: { "x-linked-size": "12345" } }]);
  await assert.rejects(w.pull({ source: "hf:owner/repo/a.gguf" }), code("download_mismatch", /12345/));
  w.host.script([{ kind: "redirect", location: "/store", headers: { "x-linked-etag": `"${"a".repeat(64)}"` } }]);
  await assert.rejects(w.pull({ source: "hf:owner/repo/a.gguf" }), code("download_mismatch", /aaaa/));
  assert.deepEqual(w.files(), []);
});

test("a server that lies about the length is found out", async () => {
  await using w = await world();
  w.host.script([{ kind: "lie", contentLength: 4_000_000 }]);
  await assert.rejects(w.pull(), code("weights_corrupt", /cut off/));
  assert.deepEqual(w.files(), []);
  // Announced too much: the connection breaks, and asked for the rest the server says that there is none.
  w.host.script([{ kind: "lie", contentLength: tiny.length + 500 }]);
  assert.equal((await w.pull({ sha256 })).at(-1)?.kind, "done");
});

test("a body without a length is taken as it comes", async () => {
  await using w = await world();
  w.host.script([{ kind: "unknownLength" }]);
  const events = await w.pull({ sha256 });
  assert.deepEqual(events[0], { kind: "progress", receivedBytes: 0, resumedFromBytes: 0 });
  assert.equal(events.at(-1)?.kind, "done");
});

test("hf: sources follow the redirect to the store with a permit for each request", async () => {
  await using w = await world();
  await using store = await startDownloadHost(tiny, '"s"');
  const headers = { "x-linked-etag": `"${sha256}"`, "x-linked-size": String(tiny.length) };
  w.host.script([{ kind: "redirect", location: `${store.origin}/blob?sig=1`, headers }]);
  const events = await w.pull({ source: "hf:owner/repo/sub folder/Model-Q4.gguf" });
  const last = events.at(-1);
  assert.ok(last?.kind === "done" && last.entry.name === "Model-Q4" && last.entry.sha256 === sha256);
  assert.deepEqual(w.asked, [
    `net.http GET ${w.host.origin}/owner/repo/resolve/main/sub%20folder/Model-Q4.gguf`,
    `net.http GET ${store.origin}/blob?sig=1`,
  ]);
});

test("endless redirects and foreign schemes are refused", async () => {
  await using w = await world();
  w.host.script(Array.from({ length: 9 }, () => ({ kind: "redirect", location: "/again" }) as const));
  await assert.rejects(w.pull(), code("download_mismatch", /more than 5/));
  assert.equal(w.host.requests.length, 6);
  await using other = await world();
  other.host.script([{ kind: "redirect", location: "file:///etc/passwd" }]);
  await assert.rejects(other.pull(), code("download_mismatch", /nowhere/));
});

test("without a permit no request goes out", async () => {
  await using w = await world(async () => {
    throw new UserError("denied", "net.http is denied");
  });
  await assert.rejects(w.pull(), code("denied"));
  assert.deepEqual(w.host.requests, []);
});

test("two pulls of one name: the second is told", async () => {
  await using w = await world();
  w.host.script([{ kind: "stall", afterBytes: 1000 }]);
  const stop = new AbortController();
  const first = w.pull({}, stop.signal);
  while (w.host.requests.length === 0) await systemClock.sleep(1);
  await assert.rejects(w.pull(), code("overloaded", /being pulled already/));
  stop.abort();
  await assert.rejects(first, code("cancelled"));
});

test("two pulls of two names at once are both registered", async () => {
  await using w = await world();
  await Promise.all([w.pull({ name: "one" }), w.pull({ name: "two" })]);
  assert.deepEqual((await w.registry.list()).map(({ name }) => name).toSorted(), ["one", "two"]);
});

test("a full disk is storage_full", async () => {
  await using w = await world();
  symlinkSync("/dev/full", `${w.folder}/weights.gguf.part`);
  await assert.rejects(w.pull(), code("storage_full"));
  assert.ok(w.files().includes("weights.gguf.part"));
  assert.equal(w.host.requests.length, 1);
});

test("sources and names that make no sense are refused before any request", async () => {
  await using w = await world();
  for (const params of [
    { source: "ftp://example.com/a.gguf" },
    { source: "hf:owner/file.gguf" },
    { source: "hf:owner/repo/../x.gguf" },
    { source: "http://user:secret@example.com/a.gguf" },
    { source: `${w.host.origin}/` },
    { source: `${w.host.origin}/%2e%2e%2fevil.gguf` },
    { name: "tiny-code-fim" },
  ]) {
    await assert.rejects(w.pull(params), code("invalid_params"), JSON.stringify(params));
  }
  await assert.rejects(w.pull({ source: `${w.host.origin}/%zz.gguf` }), (error: unknown) => {
    assert.ok(error instanceof UserError, String(error));
    assert.equal(error.code, "invalid_params");
    assert.deepEqual(error.details, { field: "source" });
    assert.match(error.message, /%zz/);
    return true;
  });
  assert.deepEqual(w.host.requests, []);
});

test("a damaged registry is kept aside and reported", async () => {
  await using w = await world();
  writeFileSync(`${w.folder}/registry.json`, '{"version":1,"models":[');
  assert.deepEqual(await w.registry.list(), []);
  assert.match(w.registry.problem ?? "", /registry\.json\.unreadable/);
  assert.deepEqual(w.files(), ["registry.json.unreadable"]);
});

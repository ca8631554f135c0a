/** One daemon for each runtime folder and each data folder: a second one is refused and told whose it is, and a killed one stands in nobody's way. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { expectNoStart, startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { testFolder } from "../support/folder.ts";
import { call } from "../support/http.ts";

const RACES = 10;

const SHARED: readonly [
  what: string,
  other: (name: string) => { readonly dataDir?: string; readonly runtimeDir?: string },
][] = [
  ["both folders", () => ({})],
  ["the runtime folder", (name) => ({ dataDir: name })],
  ["the data folder", (name) => ({ runtimeDir: name })],
];
for (const [what, other] of SHARED) {
  test(`a second daemon on ${what} of the first is refused with its pid, and the first goes on unharmed`, async () => {
    using folder = testFolder();
    await using first = await startTestDaemon({ folder });
    using client = await first.connect();
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const { code, stderr } = await expectNoStart({ folder, ...other(folder.join("other")) });
      assert.equal(code, 1);
      assert.match(stderr, new RegExp(`is in use by the daemon with pid ${first.pid}\\n`));
      assert.match(stderr, /ghost status/);
      await works(first);
      assert.equal((await client.api.daemon.status({}, AbortSignal.timeout(10_000))).pid, first.pid);
    }
    // A daemon of other folders is nobody's business.
    await using elsewhere = await startTestDaemon();
    await works(elsewhere);
  });
}

test("a second daemon is refused with the first one's pid also while the first has not said where it listens", async () => {
  using folder = testFolder();
  await using first = await startTestDaemon({ folder });
  for (const dir of [first.dataDir, first.runtimeDir]) {
    writeFileSync(join(dir, "daemon.json"), JSON.stringify({ pid: first.pid, version: "0.0.0", startedAtMs: 1 }));
  }
  const { code, stderr } = await expectNoStart({ folder });
  assert.equal(code, 1);
  assert.match(stderr, new RegExp(`pid ${first.pid}\\n`));
});

test("a note of a process that is gone, or half a note, is not believed", async () => {
  using folder = testFolder();
  await using killed = await startTestDaemon({ folder });
  await killed.kill();
  const stale = readFileSync(join(killed.dataDir, "daemon.json"), "utf8");
  assert.ok(stale.includes(String(killed.pid)));
  await using first = await startTestDaemon({ folder });
  for (const note of [stale, stale.slice(0, 20)]) {
    for (const dir of [first.dataDir, first.runtimeDir]) writeFileSync(join(dir, "daemon.json"), note);
    const { code, stderr } = await expectNoStart({ folder });
    assert.equal(code, 1);
    assert.match(stderr, /is in use by another daemon\n/);
    assert.ok(!stderr.includes(String(killed.pid)));
  }
  await works(first);
});

test("after a kill -9 the next daemon takes over the socket and works at once", async () => {
  using folder = testFolder();
  let last: TestDaemon | undefined;
  for (let round = 0; round < 3; round += 1) {
    const daemon: TestDaemon = await startTestDaemon({ folder });
    last = daemon;
    await works(daemon);
    assert.deepEqual(await daemon.kill(), { code: null, signal: "SIGKILL" });
    assert.ok(existsSync(daemon.socket), "the socket of the killed daemon is still there");
  }
  await using daemon = await startTestDaemon({ folder });
  assert.equal(daemon.socket, last?.socket);
  await works(daemon);
  assert.deepEqual(await daemon.stop(), { code: 0, signal: null });
  assert.ok(!existsSync(daemon.socket), "a daemon that ends by itself takes its socket with it");
});

test("a file that lies where the socket should be is not taken for a daemon", async () => {
  using folder = testFolder();
  await using first = await startTestDaemon({ folder });
  await first.stop();
  writeFileSync(first.socket, "no socket at all");
  await using next = await startTestDaemon({ folder });
  await works(next);
});

test(`of two daemons that start at the same instant exactly one wins, ${RACES} times`, async () => {
  for (let race = 0; race < RACES; race += 1) {
    using folder = testFolder();
    const starts = await Promise.allSettled([startTestDaemon({ folder }), startTestDaemon({ folder })]);
    const winners = starts.flatMap((start) => (start.status === "fulfilled" ? [start.value] : []));
    const losers = starts.flatMap((start) => (start.status === "rejected" ? [String(start.reason)] : []));
    try {
      assert.equal(winners.length, 1, losers.join("\n"));
      const [winner] = winners;
      assert.ok(winner !== undefined);
      assert.match(losers[0] ?? "", new RegExp(`\\(exit 1\\):\\n.*is in use by the daemon with pid ${winner.pid}\\n`));
      await works(winner);
    } finally {
      for (const winner of winners) await winner.kill();
    }
  }
});

async function works(daemon: TestDaemon): Promise<void> {
  assert.equal((await call(daemon, "/v1/models")).status, 200);
  using client = await daemon.connect();
  assert.equal((await client.api.daemon.status({}, AbortSignal.timeout(10_000))).pid, daemon.pid);
}

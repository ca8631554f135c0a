import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { userIdSchema } from "../../protocol/ids.ts";
import { DisposableStore } from "../base/disposable.ts";
import { openLog } from "../platform/log.ts";
import { openDatabase } from "../platform/sqlite.ts";
import { systemIds } from "../platform/system-clock.ts";
import { Ledger, type LedgerEntry, ledgerMigrations } from "./ledger.ts";
import { ManualClock } from "./manual-clock.ts";
import { bootPermit } from "./warden.ts";

const ada = userIdSchema.parse("ada");
const entry = (resource: string): LedgerEntry => ({
  userId: ada,
  actor: "flow",
  capability: "fs.write",
  resource,
  decision: "allowed",
  decidedBy: "a rule",
  outcome: "unknown",
});

test("rows survive closing, an outcome is written once, and one that never came stays unknown", async () => {
  const folder = await mkdtemp(join(tmpdir(), "ledger-"));
  const permit = bootPermit("data", [{ capability: "fs.write", resource: { kind: "path", path: folder } }]);
  const clock = new ManualClock();
  const open = async (store: DisposableStore) => {
    const log = store.use(openLog(permit, { file: join(folder, "log"), level: "debug", clock }));
    const file = join(folder, "ghost.db");
    const database = store.use(
      (await openDatabase(permit, { file, migrations: ledgerMigrations, clock, log })).database,
    );
    return new Ledger({ database, clock, ids: systemIds, log });
  };
  await using cleanUp = new DisposableStore();
  cleanUp.defer(() => rm(folder, { recursive: true, force: true }));
  {
    await using store = new DisposableStore();
    const ledger = await open(store);
    const [first = "", second = ""] = await ledger.record([entry("/1"), entry("/2"), entry("/3")], { durable: true });
    ledger.settle(first, "done");
    ledger.settle(first, "failed", "too late");
    ledger.settle(second, "failed", "x".repeat(5000));
    ledger.settle("eff_unknown", "done");
    await ledger.flush();
    await ledger.record([entry("y".repeat(100_000))], { durable: false });
  }
  await using store = new DisposableStore();
  const rows = (await (await open(store)).list(ada, { limit: 10 })).toReversed();
  assert.deepEqual(
    rows.map(({ outcome, detail }) => [outcome, detail?.length]),
    [
      ["done", undefined],
      ["failed", 1001],
      ["unknown", undefined],
      ["unknown", undefined],
    ],
  );
  assert.equal(rows[3]?.resource.length, 8001);
  assert.equal(rows[0]?.atMs, clock.now());
});

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { copyFile, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import fc from "fast-check";
import { GhostError } from "../base/errors.ts";
import { StandingPermit } from "./permit-mint.ts";
import { openSpool, type SpoolOptions, type TornSegment } from "./spool.ts";

async function setUp(context: TestContext) {
  const folder = await mkdtemp(join(tmpdir(), "spool-"));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const permit = new StandingPermit("test", [{ capability: "fs.write", resource: { kind: "path", path: folder } }]);
  return { folder, open: (options: Omit<SpoolOptions, "folder"> = {}) => openSpool(permit, { folder, ...options }) };
}

async function replayed(spool: ReturnType<typeof openSpool>) {
  const torn: TornSegment[] = [];
  const records: { readonly position: number; readonly text: string }[] = [];
  for await (const { position, bytes } of spool.replay((segment) => void torn.push(segment))) {
    records.push({ position, text: bytes.toString("utf8") });
  }
  return { torn, records };
}

const isFull = (error: unknown) => error instanceof GhostError && error.code === "storage_full";

test("what was appended is replayed by the next process, across segments, with its positions", async (context) => {
  const { open } = await setUp(context);
  const texts = Array.from({ length: 50 }, (_, index) => `record ${index} ${"x".repeat(index)}`);
  const first = open({ segmentBytes: 300 });
  const positions = texts.map((text) => first.append([Buffer.from(text.slice(0, 3)), Buffer.from(text.slice(3))]));
  await first[Symbol.asyncDispose]();
  const second = open();
  const { torn, records } = await replayed(second);
  assert.deepEqual(
    records,
    texts.map((text, index) => ({ position: positions[index], text })),
  );
  assert.deepEqual(torn, []);
  assert.ok(second.append([Buffer.from("later")]) > Math.max(...positions));
  await second[Symbol.asyncDispose]();
});

test("positions grow for ever, also when everything was released between two processes", async (context) => {
  const { folder, open } = await setUp(context);
  let last = -1;
  for (let process = 0; process < 4; process += 1) {
    const spool = open({ segmentBytes: 64 });
    await spool.releaseEarlier();
    for (let count = 0; count < 5; count += 1) {
      const position = spool.append([Buffer.from("0123456789012345678901234567890")]);
      assert.ok(position > last);
      last = position;
    }
    spool.release(spool.next);
    await spool[Symbol.asyncDispose]();
    assert.equal((await readdir(folder)).length, 1);
  }
});

test("a segment is deleted exactly when all of it was released", async (context) => {
  const { folder, open } = await setUp(context);
  const spool = open({ segmentBytes: 100 });
  const positions = Array.from({ length: 9 }, () => spool.append([Buffer.alloc(42, "a")]));
  assert.equal((await readdir(folder)).length, 5);
  spool.release(positions[3] ?? 0);
  spool.release(positions[1] ?? 0);
  await spool[Symbol.asyncDispose]();
  const { records } = await replayed(open());
  assert.equal(records[0]?.position, positions[2]);
  assert.equal(records.length, 7);
});

test("cut off at any byte, a segment yields exactly its whole records and the next segment is read on", async (context) => {
  const { folder, open } = await setUp(context);
  const texts = ["one", "two, a little longer", "three"];
  const spool = open();
  const ends = texts.map((text) => spool.append([Buffer.from(text)]) + 8 + text.length);
  await spool[Symbol.asyncDispose]();
  const [name = ""] = await readdir(folder);
  const whole = join(folder, name);
  const { size } = await stat(whole);
  for (let cut = 0; cut <= size; cut += 1) {
    const copy = await setUp(context);
    await copyFile(whole, join(copy.folder, name));
    await truncate(join(copy.folder, name), cut);
    const next = copy.open();
    next.append([Buffer.from("after the crash")]);
    await next[Symbol.asyncDispose]();
    const { records, torn } = await replayed(copy.open());
    const expected = texts.filter((_, index) => (ends[index] ?? 0) <= cut);
    assert.deepEqual(
      records.map(({ text }) => text),
      [...expected, "after the crash"],
      `cut at ${cut}`,
    );
    const isWhole = cut === 0 || ends.includes(cut);
    assert.equal(torn.length, isWhole ? 0 : 1, `cut at ${cut}`);
  }
});

test("no damaged byte ever yields a record that was not written", async (context) => {
  const { folder, open } = await setUp(context);
  const texts = Array.from({ length: 6 }, (_, index) => `record number ${index}`);
  const spool = open();
  for (const text of texts) spool.append([Buffer.from(text)]);
  await spool[Symbol.asyncDispose]();
  const file = join(folder, (await readdir(folder))[0] ?? "");
  const sound = await readFile(file);
  await fc.assert(
    fc.asyncProperty(fc.nat(sound.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      const damaged = Buffer.from(sound);
      damaged.writeUInt8(damaged.readUInt8(at) ^ flip, at);
      await writeFile(file, damaged);
      const { records, torn } = await replayed(open());
      assert.deepEqual(
        records.map(({ text }) => text),
        texts.slice(0, records.length),
      );
      assert.ok(records.length < texts.length && torn.length === 1);
    }),
    { numRuns: 100 },
  );
});

test("a tail of zeros, as a lost power supply leaves it, is torn and not a row of empty records", async (context) => {
  const { folder, open } = await setUp(context);
  const spool = open();
  spool.append([Buffer.from("kept")]);
  await spool[Symbol.asyncDispose]();
  const file = join(folder, (await readdir(folder))[0] ?? "");
  await writeFile(file, Buffer.concat([await readFile(file), Buffer.alloc(4096)]));
  const { records, torn } = await replayed(open());
  assert.deepEqual(
    records.map(({ text }) => text),
    ["kept"],
  );
  assert.equal(torn[0]?.lostBytes, 4096);
});

test("a spool that nobody empties fails with storage_full at its limit, and works again when it was released", async (context) => {
  const { open } = await setUp(context);
  const spool = open({ segmentBytes: 100, maxBytes: 500 });
  const fill = () => {
    for (;;) spool.append([Buffer.alloc(50, "f")]);
  };
  assert.throws(fill, isFull);
  await assert.rejects(spool.appendLarge(Buffer.alloc(1_000)), isFull);
  spool.release(spool.next);
  spool.append([Buffer.alloc(50, "g")]);
  await spool[Symbol.asyncDispose]();
});

const noLoss = (error: unknown) => assert.fail(`a record was lost: ${String(error)}`);

test("what is staged waits for the next record that may not wait, or for the end of the turn", async (context) => {
  const { folder, open } = await setUp(context);
  const spool = open();
  const written = async () => (await replayed(open())).records.map(({ text }) => text);
  const sizeOf = () => statSync(join(folder, readdirSync(folder)[0] ?? "")).size;
  const first = spool.stage([Buffer.from("one")], noLoss);
  const second = spool.stage([Buffer.from("tw"), Buffer.from("o")], noLoss);
  assert.deepEqual([first, second, spool.next, sizeOf()], [0, 11, 22, 0]);
  assert.equal(spool.append([Buffer.from("three")]), 22);
  assert.equal(sizeOf(), 35);
  spool.stage([Buffer.from("four")], noLoss);
  assert.equal(sizeOf(), 35);
  spool.stage([Buffer.from("five")], noLoss);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(sizeOf(), 59);
  spool.stage([Buffer.from("six")], noLoss);
  await spool[Symbol.asyncDispose]();
  assert.deepEqual(await written(), ["one", "two", "three", "four", "five", "six"]);
});

test("a record is read back while it is not released, from whichever segment", async (context) => {
  const { open } = await setUp(context);
  const spool = open({ segmentBytes: 100 });
  const texts = Array.from({ length: 12 }, (_, index) => `${index}:${"r".repeat(40)}`);
  const positions = texts.map((text) => spool.append([Buffer.from(text)]));
  for (const [index, position] of positions.entries()) assert.equal(spool.read(position).toString(), texts[index]);
  spool.release(positions[6] ?? 0);
  assert.equal(spool.read(positions[6] ?? 0).toString(), texts[6]);
  assert.throws(() => spool.read(positions[0] ?? 0), /released/);
  assert.throws(() => spool.read((positions[7] ?? 0) + 1), /damaged/);
  const staged = spool.stage([Buffer.from("staged")], noLoss);
  assert.throws(() => spool.read(staged), /not written/);
  await spool[Symbol.asyncDispose]();
});

test("in whatever way records are written, they are replayed in their order and at their positions", async (context) => {
  const kinds = fc.constantFrom("append", "stage", "turn");
  const steps = fc.array(fc.tuple(kinds, fc.integer({ min: 1, max: 400 })), { minLength: 1, maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(steps, async (plan) => {
      const { open } = await setUp(context);
      const spool = open({ segmentBytes: 1_000 });
      const expected: { readonly position: number; readonly text: string }[] = [];
      for (const [index, [kind, length]] of plan.entries()) {
        // Some are larger than what is written together.
        const text = `${index}:`.padEnd(length % 50 === 0 ? 300_000 : length, "x");
        if (kind === "turn") await new Promise((resolve) => setImmediate(resolve));
        else {
          const parts = [Buffer.from(text)];
          expected.push({ position: kind === "append" ? spool.append(parts) : spool.stage(parts, noLoss), text });
        }
      }
      await spool[Symbol.asyncDispose]();
      assert.deepEqual(await replayed(open()), { torn: [], records: expected });
    }),
    { numRuns: 40 },
  );
});

test("when the file cannot grow, each whose record waited is told, and no position is used twice", async (context) => {
  const { folder, open } = await setUp(context);
  const script = `
    import { openSpool } from ${JSON.stringify(join(import.meta.dirname, "spool.ts"))};
    import { StandingPermit } from ${JSON.stringify(join(import.meta.dirname, "permit-mint.ts"))};
    const folder = ${JSON.stringify(folder)};
    const spool = openSpool(new StandingPermit("test", [{ capability: "fs.write", resource: { kind: "path", path: folder } }]), { folder });
    const kept = [spool.append([Buffer.from("before")])], lost = [], given = [];
    const stage = (text, size) => given.push(spool.stage([Buffer.from(text), Buffer.alloc(size, "s")], (error) => lost.push(text + " " + error.code)));
    stage("a", 100); stage("b", 30_000);
    let code;
    try { spool.append([Buffer.alloc(60_000, "c")]); } catch (error) { code = error.code; }
    kept.push(spool.append([Buffer.from("after")]));
    stage("d", 50_000); stage("e", 50_000);
    await new Promise((resolve) => setImmediate(resolve));
    stage("f", 1_000);
    await new Promise((resolve) => setImmediate(resolve));
    kept.push(given.at(-1));
    await spool[Symbol.asyncDispose]();
    console.log(JSON.stringify({ kept, lost, given, code }));
  `;
  const command = 'ulimit -f 64; exec "$0" --input-type=module-typescript -e "$1"';
  const { stdout } = await promisify(execFile)("bash", ["-c", command, process.execPath, script]);
  const seen: { readonly kept: readonly number[]; readonly given: readonly number[] } = JSON.parse(stdout);
  const lost = ["a", "b", "d", "e"].map((name) => `${name} storage_full`);
  assert.deepEqual(seen, { ...seen, lost, code: "storage_full" });
  const all = [seen.kept[0], ...seen.given.slice(0, 2), seen.kept[1], ...seen.given.slice(2)];
  assert.deepEqual(
    all,
    [...new Set(all)].toSorted((a = 0, b = 0) => a - b),
  );
  const { records, torn } = await replayed(open());
  assert.deepEqual([records.map(({ position }) => position), torn], [seen.kept, []]);
  assert.deepEqual(
    records.map(({ text }) => text.slice(0, 6)),
    ["before", "after", "fsssss"],
  );
  assert.ok(open().next >= (all.at(-1) ?? 0));
});

test("when the file cannot grow, the record is cut off again and earlier and later ones stay readable", async (context) => {
  const { folder, open } = await setUp(context);
  // A real limit of the kernel: files of this process end at 64 KiB, with a partial write at the edge, as on a full disk.
  const script = `
    import { openSpool } from ${JSON.stringify(join(import.meta.dirname, "spool.ts"))};
    import { StandingPermit } from ${JSON.stringify(join(import.meta.dirname, "permit-mint.ts"))};
    const folder = ${JSON.stringify(folder)};
    const spool = openSpool(new StandingPermit("test", [{ capability: "fs.write", resource: { kind: "path", path: folder } }]), { folder });
    let written = 0, code;
    try { for (;;) { spool.append([Buffer.alloc(1000, "a")]); written += 1; } } catch (error) { code = error.code; }
    spool.append([Buffer.from("small")]);
    console.log(JSON.stringify({ written, code }));
  `;
  const command = 'ulimit -f 64; exec "$0" --input-type=module-typescript -e "$1"';
  const { stdout } = await promisify(execFile)("bash", ["-c", command, process.execPath, script]);
  assert.deepEqual(JSON.parse(stdout), { written: 65, code: "storage_full" });
  const { records, torn } = await replayed(open());
  assert.equal(records.length, 66);
  assert.equal(records.at(-1)?.text, "small");
  assert.deepEqual(torn, []);
});

test("large bodies lie beside the records until they are removed or earlier processes are released", async (context) => {
  const { folder, open } = await setUp(context);
  const first = open();
  const kept = await first.appendLarge(Buffer.alloc(300_000, "k"));
  const removed = await first.appendLarge(Buffer.from("gone"));
  first.append([Buffer.from(`${kept} ${removed}`)]);
  await first.removeLarge(removed);
  await first[Symbol.asyncDispose]();
  const second = open();
  const own = await second.appendLarge(Buffer.from("mine"));
  assert.equal((await second.readLarge(kept))?.length, 300_000);
  assert.equal(await second.readLarge(removed), undefined);
  await second.releaseEarlier();
  assert.equal(await second.readLarge(kept), undefined);
  assert.equal((await second.readLarge(own))?.toString(), "mine");
  await assert.rejects(second.readLarge("../secret"));
  await second[Symbol.asyncDispose]();
  assert.equal((await readdir(folder)).length, 2);
});

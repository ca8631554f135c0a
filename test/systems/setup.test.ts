/** The set-up as an ordinary user: in a folder of somebody else's, on a full disk, and where it may do all it needs. */
import assert from "node:assert/strict";
import { chownSync, existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { makeSkeleton, type Skeleton, workingNpm } from "../setup-skeleton.ts";
import { ORDINARY_UID, type Finished, reachableRepository, runAsOrdinary, tinyDisk } from "./machine.ts";

const NODE = "node_modules/.bin/node";

test("in a folder that belongs to somebody else, set-up says whose it is and what to do, and changes nothing", async () => {
  using repository = reachableRepository();
  using skeleton = makeSkeleton(workingNpm, { node: join(repository.path, NODE) });
  const before = readdirSync(skeleton.path, { recursive: true, encoding: "utf8" }).toSorted();
  const result = await setUp(skeleton);
  assert.equal(result.code, 1, result.stderr);
  assert.match(result.stderr, /no permission to write to .*\(EACCES\)/);
  assert.match(result.stderr, new RegExp(`user with id 0, and you are ${ORDINARY_UID}[\\s\\S]*chown`));
  assert.deepEqual(readdirSync(skeleton.path, { recursive: true, encoding: "utf8" }).toSorted(), before);
});

test("in a folder of its own, the ordinary user sets up, and finds it ready the next time", async () => {
  using repository = reachableRepository();
  using skeleton = makeSkeleton(workingNpm, { node: join(repository.path, NODE) });
  giveAway(skeleton.path);
  const first = await setUp(skeleton);
  assert.equal(first.code, 0, first.stderr);
  assert.deepEqual(await setUp(skeleton), { code: 0, stdout: "", stderr: "" });
});

test("on a full disk, set-up says so, releases its lock and leaves no claim to be ready", async () => {
  using disk = tinyDisk(1024 * 1024);
  using repository = reachableRepository();
  using skeleton = makeSkeleton('head -c 2000000 /dev/zero >"$ROOT/filler"\nrm -f "$ROOT/filler"\nexit 1\n', {
    parent: disk.path,
    node: join(repository.path, NODE),
  });
  giveAway(skeleton.path);
  const result = await setUp(skeleton);
  assert.equal(result.code, 1, result.stderr);
  assert.match(result.stderr, /No space left on device[\s\S]*disk is full/);
  assert.equal(existsSync(join(skeleton.path, ".cache/setup.lock")), false);
  assert.equal(existsSync(join(skeleton.path, "node_modules")), false);
});

function setUp(skeleton: Skeleton): Promise<Finished> {
  return runAsOrdinary([join(skeleton.path, "bin/node"), join(skeleton.path, "tools/setup.mjs")], {
    cwd: skeleton.path,
    env: skeleton.env,
  });
}

function giveAway(folder: string): void {
  for (const name of ["", ...readdirSync(folder, { recursive: true, encoding: "utf8" })]) {
    if (!name.startsWith("bin/")) chownSync(join(folder, name), ORDINARY_UID, ORDINARY_UID);
  }
}

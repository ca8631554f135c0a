/** tools/setup.mjs in a small repository of its own (test/setup-skeleton.ts): what it runs, what it leaves alone, and what it says when something is missing. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { boundToEngine, missingPlatformPackages, platformOf } from "../tools/complete-lock.mjs";
import { diagnose } from "../tools/setup/advice.mjs";
import { root } from "../tools/source-files.ts";
import { lockFile, makeSkeleton, type Skeleton, workingNpm } from "./setup-skeleton.ts";

const allThree = ["ci", "rebuild", "bin.js"];

test("a fresh clone is set up once, and the second time nothing is run or said", async () => {
  using skeleton = makeSkeleton(workingNpm);
  const first = await setUp(skeleton);
  assert.equal(first.code, 0, first.text);
  assert.match(
    first.text,
    /installing 2 packages.*done[\s\S]*Node.*done[\s\S]*SQLite.*done[\s\S]*Set-up done in \d+ s/,
  );
  assert.deepEqual(calls(skeleton), allThree);
  assert.deepEqual(await setUp(skeleton), { code: 0, text: "" });
  assert.deepEqual(calls(skeleton), allThree);
});

test("where SQLite's native part cannot be fetched, it is compiled", async () => {
  using skeleton = makeSkeleton(workingNpm);
  const result = await setUp({ ...skeleton, env: { ...skeleton.env, NO_PREBUILT: "1" } });
  assert.equal(result.code, 0, result.text);
  assert.match(
    result.text,
    /fetching SQLite's native part: not to be had here[\s\S]*compiling SQLite here instead, 1 to 3 minutes: done/,
  );
  assert.deepEqual(calls(skeleton), [...allThree, "node-gyp.js"]);
});

test("a changed lock file sets up anew, and SQLite is not compiled a second time", async () => {
  using skeleton = makeSkeleton(workingNpm);
  await setUp(skeleton);
  writeFileSync(join(skeleton.path, "package-lock.json"), lockFile("2.0.0"));
  const again = await setUp(skeleton);
  assert.equal(again.code, 0, again.text);
  assert.match(again.text, /differ from package-lock\.json[\s\S]*the copy built earlier/);
  assert.deepEqual(calls(skeleton).slice(3), ["ci", "rebuild"]);
});

test("what is missing is mended alone: the pinned Node, or SQLite's native part", async () => {
  using skeleton = makeSkeleton(workingNpm);
  await setUp(skeleton);
  rmSync(join(skeleton.path, "node_modules/.bin/node"));
  assert.equal((await setUp(skeleton)).code, 0);
  assert.deepEqual(calls(skeleton).slice(3), ["rebuild"]);
});

test("packages that somebody installed by hand are taken as they are", async () => {
  using skeleton = makeSkeleton(workingNpm);
  await setUp(skeleton);
  rmSync(join(skeleton.path, "node_modules/.ghoststack-setup.json"));
  assert.deepEqual(await setUp(skeleton), { code: 0, text: "" });
  assert.deepEqual(calls(skeleton), allThree);
});

test("two set-ups at once run npm once; the second waits and says so", async () => {
  using skeleton = makeSkeleton(workingNpm);
  const slow = { ...skeleton, env: { ...skeleton.env, SLOW: "2" } };
  const both = await Promise.all([setUp(slow), setUp(slow)]);
  assert.deepEqual(
    both.map(({ code }) => code),
    [0, 0],
    both.map(({ text }) => text).join("\n---\n"),
  );
  assert.deepEqual(calls(skeleton), allThree);
  assert.equal(both.filter(({ text }) => text.includes("waiting for it")).length, 1);
});

test("the lock of a set-up that was killed is taken over", async () => {
  using skeleton = makeSkeleton(workingNpm);
  const gone = spawn("true");
  await new Promise((resolve) => gone.on("close", resolve));
  mkdirSync(join(skeleton.path, ".cache/setup.lock"), { recursive: true });
  const holder = {
    pid: gone.pid,
    startedAt: "1",
    token: "gone",
    child: { pid: process.pid, startedAt: "another process of this number" },
  };
  writeFileSync(join(skeleton.path, ".cache/setup.lock/holder.json"), JSON.stringify(holder));
  const result = await setUp(skeleton);
  assert.equal(result.code, 0, result.text);
  assert.equal(existsSync(join(skeleton.path, ".cache/setup.lock")), false);
});

test("a failing npm ends in its own last words, what they mean, and a code that is not 0", async () => {
  using skeleton = makeSkeleton('echo "npm error code ENOTFOUND" >&2\nexit 1\n');
  const result = await setUp(skeleton);
  assert.equal(result.code, 1);
  assert.match(
    result.text,
    /Set-up failed: \[1\/3\].*\n.*npm error code ENOTFOUND[\s\S]*cannot reach its registry[\s\S]*setup\.log/,
  );
  assert.equal(existsSync(join(skeleton.path, ".cache/setup.lock")), false, "the lock is released");
});

test("without npm it says which package brings it", async () => {
  using skeleton = makeSkeleton("");
  rmSync(join(skeleton.path, "bin/npm"));
  const result = await setUp({ ...skeleton, env: { PATH: join(skeleton.path, "bin") } });
  assert.equal(result.code, 1);
  assert.match(result.text, /npm is not installed[\s\S]*pacman -S npm[\s\S]*apt install npm/);
});

test("each kind of failure has its advice", () => {
  const nothing = "/nonexistent";
  const everything = process.env["PATH"] ?? "";
  const cases: readonly (readonly [string, string, RegExp])[] = [
    [
      "gyp ERR! stack Error: not found: make",
      nothing,
      /a C\+\+ compiler, make, Python 3[\s\S]*base-devel[\s\S]*build-essential/,
    ],
    ["npm error code EAI_AGAIN", everything, /npm ping/],
    ["npm error code SELF_SIGNED_CERT_IN_CHAIN", everything, /cafile/],
    ["npm error code EINTEGRITY", everything, /npm cache verify/],
    ["npm error code EUSAGE", everything, /npm install/],
    ["npm error code EACCES", everything, /who owns/],
    ["npm error ENOSPC: no space left on device", everything, /disk is full/],
    ["something new", everything, /node_modules/],
  ];
  for (const [text, path, advice] of cases) assert.match(diagnose(text, path).join("\n"), advice, text);
});

test("package-lock.json has every platform's build of each package, skips none on an old Node, and names no registry", () => {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  assert.ok(Object.keys(lock.packages).length > 100);
  assert.deepEqual(missingPlatformPackages(lock.packages), [], "run `npm run lock`");
  assert.deepEqual(boundToEngine(lock.packages), [], "run `npm run lock`");
  assert.doesNotMatch(JSON.stringify(lock), /"resolved"/);
});

test("a package's platform is read from its name", () => {
  assert.deepEqual(platformOf("@biomejs/cli-linux-arm64-musl"), { os: ["linux"], cpu: ["arm64"], libc: ["musl"] });
  assert.deepEqual(platformOf("@oxlint/binding-linux-arm-gnueabihf"), { os: ["linux"], cpu: ["arm"], libc: ["glibc"] });
  assert.deepEqual(platformOf("@node-llama-cpp/mac-x64"), { os: ["darwin"], cpu: ["x64"] });
  assert.throws(() => platformOf("left-pad"), /does not name its platform/);
});

function setUp(
  skeleton: Pick<Skeleton, "path" | "env">,
): Promise<{ readonly code: number | null; readonly text: string }> {
  const child = spawn(process.execPath, [join(skeleton.path, "tools/setup.mjs")], {
    cwd: skeleton.path,
    env: { ...skeleton.env },
  });
  const chunks: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => chunks.push(chunk));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, text: Buffer.concat(chunks).toString("utf8") }));
  });
}

/** The first word of each call of npm. */
function calls(skeleton: Skeleton): readonly string[] {
  return readFileSync(join(skeleton.path, "calls"), "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split(" ")[0] ?? "");
}

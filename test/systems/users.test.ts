/** The daemon and the machine's users: it runs as an ordinary one, refuses root and what belongs to others, and is closed to everybody else. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  lchownSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { call } from "../support/http.ts";
import { ORDINARY_UID, ordinaryFolder, reachableRepository, runAsOrdinary, type TemporaryFolder } from "./machine.ts";
import { startOrdinaryDaemon } from "./ordinary-daemon.ts";

const MAIN = fileURLToPath(new URL("../../server/daemon/main.ts", import.meta.url));
/** Another ordinary user than the one who runs the daemon. */
const STRANGER_UID = 65_533;
const soon = () => AbortSignal.timeout(20_000);

/** A folder of the ordinary user's below `home`. */
function own(home: TemporaryFolder, name: string, mode = 0o700): string {
  const path = join(home.path, name);
  mkdirSync(path);
  chmodSync(path, mode);
  chownSync(path, ORDINARY_UID, ORDINARY_UID);
  return path;
}

test("an ordinary user runs the daemon from the first key to a clean end", async () => {
  using repository = reachableRepository();
  using home = ordinaryFolder();
  const dataDir = join(home.path, "made", "by", "the-daemon");
  await using daemon = await startOrdinaryDaemon({ repository, home, dataDir });
  const reply = await call(daemon, "/v1/completions", {
    body: { model: "embedded/tiny-code-fim", prompt: "export function add(", max_tokens: 4 },
  });
  assert.equal(reply.status, 200, reply.text);
  using client = await daemon.connect();
  const { engine } = await client.api.daemon.status({}, soon());
  assert.ok(engine.pid !== undefined);
  assert.equal(statSync(`/proc/${engine.pid}`).uid, ORDINARY_UID, "the engine's child runs as the same user");
  const { findings } = await client.api.daemon.doctor({}, soon());
  assert.ok(!findings.some(({ subject }) => subject === "user"), "nothing to say about root");
  for (const name of readdirSync(dataDir, { recursive: true, encoding: "utf8" })) {
    assert.equal(statSync(join(dataDir, name)).uid, ORDINARY_UID, name);
  }
  assert.deepEqual(await daemon.stop(), { code: 0, signal: null });
});

test("root is refused without --allow-root, and nothing was made", () => {
  using home = ordinaryFolder();
  const dataDir = join(home.path, "data");
  const flags = ["--port", "0", "--data-dir", dataDir, "--runtime-dir", join(home.path, "run")];
  const { status, stderr } = spawnSync(process.execPath, [MAIN, ...flags], {
    encoding: "utf8",
    env: { HOME: home.path },
    timeout: 30_000,
  });
  assert.equal(status, 1, stderr);
  assert.match(stderr, /not as root; pass --allow-root/);
  assert.doesNotMatch(stderr, /^\s+at /m);
  assert.deepEqual(readdirSync(home.path), []);
});

const REFUSED: readonly [
  what: string,
  make: (home: TemporaryFolder) => { readonly dataDir: string; readonly config?: string },
  says: RegExp,
][] = [
  [
    "a data folder of somebody else",
    (home) => {
      const dataDir = own(home, "data");
      chownSync(dataDir, STRANGER_UID, STRANGER_UID);
      chmodSync(dataDir, 0o777);
      return { dataDir };
    },
    /data belongs to user 65533, not to you \(65534\)/,
  ],
  [
    "a link of somebody else to the user's own folder",
    (home) => {
      const path = join(home.path, "link");
      symlinkSync(own(home, "data"), path);
      lchownSync(path, STRANGER_UID, STRANGER_UID);
      return { dataDir: path };
    },
    /link belongs to user 65533, not to you/,
  ],
  [
    "a data folder that cannot be read",
    (home) => ({ dataDir: own(home, "data", 0o300) }),
    /data cannot be used \(EACCES\)/,
  ],
  [
    "a data folder that cannot be written",
    (home) => ({ dataDir: own(home, "data", 0o500) }),
    /data cannot be used \(EACCES\)/,
  ],
  [
    "a data folder in a closed one",
    (home) => ({ dataDir: join(own(home, "closed", 0o000), "data") }),
    /closed\/data cannot be used \(EACCES\)/,
  ],
  [
    "a key that cannot be read",
    (home) => {
      const dataDir = own(home, "data");
      writeFileSync(join(dataDir, "face.key"), "x".repeat(50), { mode: 0o600 });
      return { dataDir };
    },
    /face\.key cannot be read \(EACCES\)/,
  ],
  [
    "a database that cannot be opened",
    (home) => {
      const dataDir = own(home, "data");
      writeFileSync(join(dataDir, "ghost.db"), "x".repeat(50), { mode: 0o600 });
      return { dataDir };
    },
    /ghost\.db cannot be opened \(EACCES\)/,
  ],
  [
    "settings that cannot be read",
    (home) => {
      writeFileSync(join(home.path, "ghost.toml"), "", { mode: 0o600 });
      return { dataDir: own(home, "data") };
    },
    /ghost\.toml cannot be read \(EACCES\)/,
  ],
];
for (const [what, make, says] of REFUSED) {
  test(`${what} ends the start with exit 1 and the path`, async () => {
    using repository = reachableRepository();
    using home = ordinaryFolder();
    const start = startOrdinaryDaemon({ repository, home, ...make(home) });
    await assert.rejects(start, (error) => {
      assert.ok(error instanceof Error);
      assert.match(error.message, /^exit 1: ghostd: /);
      assert.match(error.message, says);
      assert.doesNotMatch(error.message, /^\s+at /m);
      return true;
    });
  });
}

test("another user can neither read the keys nor connect to the socket, under any umask of the daemon's user", async () => {
  using repository = reachableRepository();
  using home = ordinaryFolder();
  // As open as its owner can make what lies above: what protects is what the daemon itself closed.
  chmodSync(home.path, 0o777);
  const before = process.umask(0);
  try {
    const dataDir = own(home, "data", 0o777);
    await using daemon = await startOrdinaryDaemon({ repository, home, dataDir });
    const stranger = (...argv: [string, ...string[]]) =>
      runAsOrdinary(argv, { cwd: "/", uid: STRANGER_UID, env: { PATH: process.env["PATH"] ?? "", HOME: "/" } });
    for (const name of ["model.key", "face.key", "ghost.db", "ghostd.log", "daemon.json"]) {
      const { code, stdout, stderr } = await stranger("cat", join(dataDir, name));
      assert.notEqual(code, 0, name);
      assert.equal(stdout, "");
      assert.match(stderr, /Permission denied/);
    }
    const script = `require("node:net").connect(process.argv[1]).on("error", ({ code }) => console.log(code)).on("connect", function () {
      console.log("connected");
      this.destroy();
    })`;
    const node = join(repository.path, "node_modules/.bin/node");
    assert.equal((await stranger(node, "-e", script, daemon.socket)).stdout.trim(), "EACCES");
    // The owner can, so it is the user that makes the difference.
    using client = await daemon.connect();
    assert.equal((await client.api.daemon.status({}, soon())).socket, daemon.socket);
  } finally {
    process.umask(before);
  }
});

/**
 * What the daemon makes of its command line, its files and its folders: it starts, or it ends with one clear error that names the thing and says what
 * to do, and never with a stack.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:net";
import { basename, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { connectSocket } from "../../protocol/node/socket-transport.ts";
import { expectNoStart, prepareFolder, rootFlags, startTestDaemon, type TestDaemonOptions } from "../support/daemon.ts";
import { testFolder } from "../support/folder.ts";
import { call } from "../support/http.ts";

const MAIN = fileURLToPath(new URL("../../server/daemon/main.ts", import.meta.url));
const { version } = z
  .object({ version: z.string() })
  .parse(JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")));

function run(...args: string[]) {
  return spawnSync(process.execPath, [MAIN, ...args], {
    encoding: "utf8",
    env: { PATH: process.env["PATH"] ?? "" },
    timeout: 30_000,
  });
}

test("--help and --version answer on stdout and start nothing", () => {
  const help = run("--help");
  assert.equal(help.status, 0, help.stderr);
  for (const flag of ["--config", "--data-dir", "--runtime-dir", "--port", "--ready-json", "--allow-root"])
    assert.ok(help.stdout.includes(flag), flag);
  const result = run("--version");
  assert.deepEqual([result.status, result.stdout, result.stderr], [0, `${version}\n`, ""]);
});

const WRONG_COMMAND_LINES: readonly [what: string, args: readonly string[], says: RegExp][] = [
  ["an unknown flag", ["--prot", "1"], /--prot/],
  ["a word that is no flag", ["start"], /start/],
  ["a port that is no number", ["--port", "http"], /--port takes a whole number from 0 to 65535, not "http"/],
  ["an empty port", ["--port", ""], /--port takes .* not ""/],
  ["a port out of range", ["--port", "65536"], /not "65536"/],
  ["a negative port", ["--port=-1"], /not "-1"/],
  ["a flag without its value", ["--data-dir"], /--data-dir/],
  [
    "settings that are not there",
    [...rootFlags(), "--config", "/nowhere/ghost.toml"],
    /\/nowhere\/ghost\.toml, and there is no such file/,
  ],
];
for (const [what, args, says] of WRONG_COMMAND_LINES) {
  test(`${what} ends with exit 2, an explanation and the way to help`, () => {
    const { status, stdout, stderr } = run(...args);
    assert.equal(status, 2, stderr);
    assert.equal(stdout, "");
    assert.match(stderr, says);
    assert.match(stderr, /--help/);
    assertClear(stderr);
  });
}

test("with --ready-json the first line of stdout says where the daemon is, and it is there", async () => {
  await using daemon = await startTestDaemon();
  assert.equal(daemon.version, version);
  assert.match(daemon.http, /^http:\/\/127\.0\.0\.1:[1-9]\d*$/);
  assert.equal(daemon.socket, join(daemon.runtimeDir, "ghostd-1.sock"));
  assert.equal((await call(daemon, "/healthz", { key: null })).status, 200);
  using client = await daemon.connect();
  const status = await client.api.daemon.status({}, AbortSignal.timeout(10_000));
  assert.deepEqual(
    [status.pid, status.http, status.socket, status.version],
    [daemon.pid, daemon.http, daemon.socket, version],
  );
  assert.deepEqual([status.dataDir, status.configFile], [daemon.dataDir, daemon.configFile]);
});

/** What is written into ghost.toml or warden.toml, and what stderr must say about it. */
const BROKEN_FILES: readonly [what: string, options: TestDaemonOptions, says: readonly RegExp[]][] = [
  ["broken TOML", { config: "[http]\nport = 4747\nmax_body_mib = = 3\n" }, [/ghost\.toml:3:16: /]],
  ["an unclosed table", { config: "[http\n" }, [/ghost\.toml:1:\d+: /]],
  ["an unknown key", { config: "[http]\nprot = 1\n" }, [/ghost\.toml:2:1: /, /http\.prot/, /`?port`?/]],
  ["an unknown section", { config: "\n[provders.ollama]\ndiscover = false\n" }, [/ghost\.toml:2:\d+: /, /providers/]],
  ["a value of the wrong type", { config: '[http]\nport = "4747"\n' }, [/ghost\.toml:2:8: /, /http\.port/, /number/]],
  ["a value out of range", { config: "[http]\nport = 70000\n" }, [/ghost\.toml:2:8: /, /65535/]],
  [
    "a key in the wrong place",
    { config: '[providers.compatible.x]\nbase_url = "http://127.0.0.1:1"\napi_key = "sk-very-secret"\n' },
    [/ghost\.toml:3:\d+: /, /key_env/],
  ],
  ["broken rules", { warden: '[capabilities]\nfs.write = "allow\n' }, [/warden\.toml:2:\d+: /]],
  [
    "a capability that does not exist",
    { warden: '[capabilities]\nfs.wirte = "allow"\n' },
    [/warden\.toml:2:\d+: /, /fs\.write/],
  ],
  [
    "a verdict that does not exist",
    { warden: '[capabilities]\nfs.write = "yes"\n' },
    [/warden\.toml:2:\d+: /, /allow/],
  ],
];
for (const [what, options, says] of BROKEN_FILES) {
  test(`${what} ends the start with exit 1 and file, line and column`, async () => {
    const { code, stderr } = await expectNoStart(options);
    assert.equal(code, 1, stderr);
    for (const pattern of says) assert.match(stderr, pattern);
    assert.doesNotMatch(stderr, /very-secret/);
    assertClear(stderr);
  });
}

test("a port that another program has is named, and nothing is left behind", async () => {
  const other = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => other.once("listening", resolve));
  try {
    const address = other.address();
    assert.ok(address !== null && typeof address === "object");
    using folder = testFolder();
    const { code, stderr } = await expectNoStart({ folder, args: ["--port", String(address.port)] });
    assert.equal(code, 1);
    assert.match(stderr, new RegExp(`port ${address.port} `));
    assert.match(stderr, /--port N/);
    assertClear(stderr);
    await using _daemon = await startTestDaemon({ folder });
  } finally {
    other.close();
  }
});

/** What lies where the daemon wants a file or folder of its own, and the file that stderr must name. */
const OBSTACLES: readonly [what: string, make: (dataDir: string) => void, names: string][] = [
  ["a folder for the log", (dir) => mkdirSync(join(dir, "ghostd.log")), "ghostd.log"],
  ["a folder for the database", (dir) => mkdirSync(join(dir, "ghost.db")), "ghost.db"],
  ["a folder for a key", (dir) => mkdirSync(join(dir, "face.key")), "face.key"],
  ["a folder for the lock", (dir) => mkdirSync(join(dir, "daemon.lock")), "daemon.lock"],
  [
    "a lock file of somebody else",
    (dir) => writeFileSync(join(dir, "daemon.lock"), "this is something else entirely"),
    "daemon.lock",
  ],
  ["a file for the spool", (dir) => writeFileSync(join(dir, "spool"), ""), "spool"],
  [
    "a folder in the spool",
    (dir) => mkdirSync(join(dir, "spool", "0000000000000000.spool"), { recursive: true }),
    "spool/0000000000000000.spool",
  ],
  ["an emptied key", (dir) => writeFileSync(join(dir, "model.key"), ""), "model.key"],
  ["a shortened key", (dir) => writeFileSync(join(dir, "face.key"), "ghost-face-1\n"), "face.key"],
  [
    "a key of two lines",
    (dir) => writeFileSync(join(dir, "face.key"), `${"a".repeat(40)}\n${"b".repeat(40)}\n`),
    "face.key",
  ],
];
for (const [what, make, name] of OBSTACLES) {
  test(`${what} ends the start with exit 1 and the file's name`, async () => {
    using folder = testFolder();
    const { dataDir } = prepareFolder(folder, {});
    make(dataDir);
    const { code, stderr } = await expectNoStart({ folder });
    assert.equal(code, 1, stderr);
    assert.ok(stderr.includes(join(dataDir, name)), stderr);
    assertClear(stderr);
  });
}

test("a data folder that is a file is named", async () => {
  using folder = testFolder();
  writeFileSync(folder.join("data-file"), "mine");
  for (const flag of ["--data-dir", "--runtime-dir"]) {
    const { code, stderr } = await expectNoStart({ folder, args: [flag, folder.join("data-file")] });
    assert.equal(code, 1);
    assert.match(stderr, /data-file is not a folder/);
    assertClear(stderr);
  }
  assert.equal(readFileSync(folder.join("data-file"), "utf8"), "mine");
});

test("a runtime folder whose socket would not fit is refused before anything is made", async () => {
  using folder = testFolder();
  const long = folder.join("r".repeat(100));
  const { code, stderr } = await expectNoStart({ folder, args: ["--runtime-dir", long] });
  assert.equal(code, 1);
  assert.match(stderr, /has \d+ bytes, and the system allows 103: pass a shorter --runtime-dir/);
  assertClear(stderr);
  assert.ok(!readdirSync(folder.path).includes("r".repeat(100)));
});

test("the longest runtime folder whose socket fits does work", async () => {
  using folder = testFolder();
  const name = "r".repeat(103 - "/ghostd-1.sock".length - folder.path.length - 1);
  await using daemon = await startTestDaemon({ folder, runtimeDir: folder.join(name) });
  assert.equal(Buffer.byteLength(daemon.socket), 103);
  using client = await daemon.connect();
  assert.equal((await client.api.daemon.status({}, AbortSignal.timeout(10_000))).socket, daemon.socket);
});

test("one folder may be both the data folder and the runtime folder, also under two names", async () => {
  using folder = testFolder();
  const dataDir = folder.join("both");
  mkdirSync(dataDir);
  symlinkSync(dataDir, folder.join("link"));
  for (const runtimeDir of [dataDir, folder.join("link")]) {
    await using daemon = await startTestDaemon({ folder, dataDir, runtimeDir });
    // A face trusts no link: it takes the socket's real name.
    const socket = join(dataDir, basename(daemon.socket));
    using client = await connectSocket(socket, { key: daemon.faceKey, clientName: "test" });
    assert.equal((await client.api.daemon.status({}, AbortSignal.timeout(10_000))).dataDir, dataDir);
  }
});

test("the settings of the design start the daemon, with a warning for what is not built yet", async () => {
  await using daemon = await startTestDaemon({ config: DESIGN_EXAMPLE, warden: DESIGN_WARDEN });
  const warnings = daemon.logs().filter(({ event }) => event === "config.warning");
  assert.ok(
    warnings.some(({ message }) => String(message).includes("jarvis")),
    JSON.stringify(warnings),
  );
  using client = await daemon.connect();
  const { settings } = await client.api.settings.get({}, AbortSignal.timeout(10_000));
  const value = (path: string) => settings.find((setting) => setting.path === path);
  assert.deepEqual(value("providers.ollama.hosts.ws4090.parallel"), {
    path: "providers.ollama.hosts.ws4090.parallel",
    value: 2,
    source: "file",
  });
  const { capabilities } = await client.api.policy.get({}, AbortSignal.timeout(10_000));
  assert.equal(capabilities.find(({ capability }) => capability === "cmd.exec")?.verdict, "deny");
});

test("everything that the daemon makes is closed to others, also under an umask that closes nothing", async () => {
  using folder = testFolder();
  const dataDir = folder.join("fresh", "data");
  const runtimeDir = folder.join("fresh", "run");
  const before = process.umask(0);
  try {
    await using daemon = await startTestDaemon({ folder, dataDir, runtimeDir });
    assert.equal((await call(daemon, "/v1/models")).status, 200);
    using client = await daemon.connect();
    await client.api.session.list({}, AbortSignal.timeout(10_000));
    const modes = [...walk(dataDir), ...walk(runtimeDir)];
    assert.ok(modes.length >= 10, "the folders hold what is to be looked at");
    for (const { path, kind, mode } of modes)
      assert.equal(mode, kind === "folder" ? 0o700 : 0o600, `${path} has mode ${mode.toString(8)}`);
  } finally {
    process.umask(before);
  }
});

test("a folder that is open to others is closed", async () => {
  using folder = testFolder();
  const { dataDir, runtimeDir } = prepareFolder(folder, {});
  for (const dir of [dataDir, runtimeDir]) chmodSync(dir, 0o777);
  await using _daemon = await startTestDaemon({ folder });
  for (const dir of [dataDir, runtimeDir]) assert.equal(statSync(dir).mode & 0o777, 0o700);
});

test("keys are made once, differ, and are the same after a restart", async () => {
  using folder = testFolder();
  const keys = async () => {
    await using daemon = await startTestDaemon({ folder });
    assert.equal((await call(daemon, "/v1/models")).status, 200);
    using _client = await daemon.connect();
    return [daemon.modelKey, daemon.faceKey];
  };
  const first = await keys();
  for (const key of first) assert.match(key, /^ghost-(model|face)-[A-Za-z0-9_-]{43}$/);
  assert.notEqual(first[0], first[1]);
  assert.deepEqual(await keys(), first);
  await using other = await startTestDaemon();
  assert.notEqual(other.modelKey, first[0], "another data folder has keys of its own");
});

test("what listens accepts loopback only", async () => {
  await using daemon = await startTestDaemon();
  const port = Number(new URL(daemon.http).port);
  const reached = await new Promise<string>((resolve) => {
    const socket = connect({ host: "127.0.0.2", port });
    socket.once("connect", () => {
      socket.destroy();
      resolve("connected");
    });
    socket.once("error", (error) => resolve("code" in error ? String(error.code) : "error"));
  });
  assert.equal(reached, "ECONNREFUSED", "only 127.0.0.1 is listened on");
});

/** An error for people: what, and what to do; no stack, no word of ours about bugs. */
function assertClear(stderr: string): void {
  assert.doesNotMatch(stderr, /^\s+at /m);
  assert.doesNotMatch(stderr, /unexpected failure|BugError/);
  assert.match(stderr, /^ghostd: .+\n {2}\S.+\n$/);
}

function* walk(
  folder: string,
): Generator<{ readonly path: string; readonly kind: "folder" | "file"; readonly mode: number }> {
  const own = statSync(folder);
  yield { path: folder, kind: "folder", mode: own.mode & 0o777 };
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* walk(path);
    else yield { path, kind: "file", mode: statSync(path).mode & 0o777 };
  }
}

const DESIGN_EXAMPLE = `
[providers.anthropic]                     # key: \`ghost keys set anthropic\`
[providers.openai]                        # likewise xai, gemini, copilot
[providers.compatible.lmstudio]           # any OpenAI-compatible server; its models are lmstudio/<model>
base_url = "http://127.0.0.1:1234/v1"
locality = "machine"
[providers.ollama.hosts.ws4090]
url = "http://127.0.0.1:11434"
vram_gib = 24
parallel = 2
num_ctx = { "deepseek-coder-v2" = 32768 }
[providers.ollama.hosts.srv3070]
url = "http://192.0.2.7:11434"
vram_gib = 8
[routing]
weights = { quality = 1.0, cost = 0.6, latency = 0.4 }
auto_swap = false
[routing.intents]
code   = ["ollama/deepseek-coder-v2@ws4090", "anthropic/*", "openai/*"]
crypto = ["xai/*", "anthropic/*"]
[routing.aliases]                         # names of the user's own: tried in order, swapped in mid-answer after a cut
"fast-code" = ["ollama/qwen2.5-coder@ws4090", "openai/gpt-5*"]
[quotas.anthropic]
usd_per_day = 10.0
[context]
store = "sqlite"                          # or "redis://…"
[jarvis.hosts.srv3070]
ssh = "srv"
[jarvis.checks.btrfs]
cron = "*/15 * * * *"
tool = "btrfs.health"
host = "srv3070"
`;
const DESIGN_WARDEN = `
[capabilities]
fs.write = "prompt"
cmd.exec = "deny"
net.http = "allow"
[scopes]
"repo:ghostctl".fs.write = "allow"
`;

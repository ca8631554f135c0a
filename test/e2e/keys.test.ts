/** `ghost keys` as a script, a pipe and a person at a terminal use it, against the real daemon and a server that checks the key. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { keyListResult, keySetResult, keyTestResult } from "../../protocol/key.ts";
import { missingTools } from "../../tools/system-tools.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { GHOST, runGhost } from "../support/cli.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { openTerminal, type Terminal } from "../support/terminal.ts";

const isMissing = missingTools("test", process.env["PATH"] ?? "").some(({ command }) => command === "tmux");
const atTerminal = { skip: isMissing && "tmux is not installed" };

const KEY = `sk-${randomBytes(24).toString("base64url")}`;
const FINGERPRINT = createHash("sha256").update(KEY).digest("hex").slice(-4);
let host: OpenAiHost;
let daemon: TestDaemon;
const stack = new AsyncDisposableStack();
before(async () => {
  host = stack.use(await startOpenAiHost({ models: ["m"], apiKey: KEY }));
  const server = (name: string) =>
    `[providers.compatible.${name}]\nbase_url = "${host.baseUrl}"\nlocality = "machine"\n`;
  const config = `[providers.ollama]\ndiscover = false\n${server("openrouter")}${server("second")}key_env = "SECOND_KEY"\n`;
  daemon = stack.use(await startTestDaemon({ config, env: { SECOND_KEY: KEY } }));
});
after(() => stack.disposeAsync());

const ghost = (args: readonly string[], stdin = "") => runGhost(["keys", ...args], { env: daemon.env, stdin });
const isStored = async () => {
  const { rows } = keyListResult.parse(JSON.parse((await ghost(["--json"])).stdout));
  return rows.find(({ provider }) => provider === "openrouter")?.fingerprint;
};

test("a key is piped in, listed, tested and removed, with exit codes that a script can use", async () => {
  const none = await ghost(["test", "openrouter"]);
  assert.deepEqual(
    [none.code, /✗ openrouter has no key yet: `ghost keys set openrouter`/.test(none.stdout)],
    [1, true],
  );

  const set = await ghost(["set", "openrouter"], `${KEY}\n`);
  assert.equal(set.code, 0, set.stderr);
  assert.equal(set.stdout, `✓ the key of openrouter is stored in an encrypted file (${FINGERPRINT})\n`);

  const list = await ghost([]);
  assert.equal(list.code, 0);
  assert.match(list.stdout, new RegExp(`^openrouter +in an encrypted file +${FINGERPRINT} +\\d{4}-\\d\\d-\\d\\d`, "m"));
  assert.match(list.stdout, new RegExp(`^second +from \\$SECOND_KEY +${FINGERPRINT}$`, "m"));

  const good = await ghost(["test", "openrouter"]);
  assert.deepEqual(
    [good.code, /^✓ openrouter takes the key and lists 1 model \(\d/.test(good.stdout)],
    [0, true],
    good.stdout,
  );

  const removed = await ghost(["rm", "openrouter"]);
  assert.deepEqual([removed.code, /removed the key of openrouter/.test(removed.stdout)], [0, true]);
  const again = await ghost(["rm", "openrouter"]);
  assert.deepEqual([again.code, /no key of openrouter is stored/.test(again.stderr)], [1, true]);
  for (const { stdout, stderr } of [set, list, good, removed]) assert.ok(!(stdout + stderr).includes(KEY));
});

test("with --json every command prints one document of the protocol's shape", async () => {
  const document = async (args: readonly string[], stdin = ""): Promise<unknown> =>
    JSON.parse((await ghost([...args, "--json"], stdin)).stdout);
  assert.equal(keySetResult.parse(await document(["set", "openrouter"], KEY)).row.fingerprint, FINGERPRINT);
  assert.ok(keyListResult.parse(await document([])).rows.some(({ provider }) => provider === "second"));
  assert.equal(keyTestResult.parse(await document(["test", "openrouter"])).ok, true);
  assert.deepEqual(await document(["rm", "openrouter"]), { removed: "openrouter" });
});

const REFUSED: readonly [what: string, args: readonly string[], stdin: string, says: RegExp, code: number][] = [
  ["a key as an argument", ["set", "openrouter", KEY], "", /never given on the command line: .*replace it/, 2],
  ["a key as an option", ["set", "openrouter", `--value=${KEY}`], "", /never given on the command line/, 2],
  ["a key before the name", ["set", KEY, "openrouter"], "", /never given on the command line/, 2],
  ["a key in the name's place", ["set", KEY], KEY, /looks like a key/, 2],
  ["a key as a name to test", ["test", KEY], "", /looks like a key/, 2],
  ["nothing", ["set", "openrouter"], "\n", /no key came/, 2],
  ["a text", ["set", "openrouter"], "this is no key, is it?", /visible ASCII characters only/, 2],
  ["two lines", ["set", "openrouter"], `${KEY}\n${KEY}\n`, /without spaces and line breaks/, 2],
  ["a short one", ["set", "openrouter"], "sk-1", /at least 8 characters/, 2],
  [
    "an unknown provider",
    ["set", "openruoter"],
    KEY,
    /no provider "openruoter" takes a key\. Did you mean `openrouter`\?/,
    1,
  ],
  ["no provider at all", ["set"], KEY, /missing required argument 'provider'/, 2],
];
for (const [what, args, stdin, says, expected] of REFUSED) {
  test(`${what} is refused with what to do, and repeated nowhere`, async () => {
    for (const json of [false, true]) {
      const { code, stdout, stderr } = await ghost([...args, ...(json ? ["--json"] : [])], stdin);
      assert.equal(code, expected, stderr);
      assert.match(stderr, says);
      assert.ok(!(stdout + stderr).includes(KEY.slice(0, 12)), stderr + stdout);
      if (json) assert.match(stdout, /^\{"error":\{"code":/);
    }
    assert.equal(await isStored(), undefined);
    assert.ok(!readFileSync(`${daemon.dataDir}/ghostd.log`, "utf8").includes(KEY.slice(0, 12)));
  });
}

test("every command has a --help with an example", async () => {
  for (const name of [[], ["list"], ["set"], ["rm"], ["test"]]) {
    const { code, stdout } = await ghost([...name, "--help"]);
    assert.equal(code, 0);
    assert.match(stdout, /Examples:\n {2}ghost keys/);
  }
});

const openPrompt = (...args: readonly string[]): Promise<Terminal> =>
  openTerminal({
    command: [
      "sh",
      "-c",
      `"$@"; code=$?; stty -a | grep -o -- '-\\?\\becho\\b'; exit $code`,
      "sh",
      process.execPath,
      GHOST,
      "keys",
      "set",
      ...args,
    ],
    env: { ...daemon.env, NO_COLOR: "1" },
  });

test(
  "at a terminal the key is typed or pasted without being shown, and the terminal shows what is typed again",
  atTerminal,
  async () => {
    for (const enter of ["type", "paste"] as const) {
      await using terminal = await openPrompt("openrouter");
      await terminal.waitFor(/Key of openrouter \(it is not shown\):/);
      await terminal[enter](KEY);
      await terminal.press("Enter");
      const screen = await terminal.waitFor(/stored in an encrypted file[^]*echo/);
      assert.equal(await terminal.exitCode(), 0);
      assert.ok(screen.includes(FINGERPRINT));
      assert.ok(!screen.includes(KEY.slice(0, 6)), screen);
      assert.match(screen, /^echo$/m, "the terminal echoes again");
      await ghost(["rm", "openrouter"]);
    }
  },
);

test("what was mistyped can be taken back", atTerminal, async () => {
  await using terminal = await openPrompt("openrouter");
  await terminal.waitFor(/not shown\):/);
  await terminal.type("all of this is wrong");
  await terminal.press("C-u");
  await terminal.type(`${KEY}xy`);
  await terminal.press("BSpace", "Left", "BSpace", "Enter");
  await terminal.waitFor(/stored in an encrypted file/);
  assert.equal(await isStored(), FINGERPRINT);
  await ghost(["rm", "openrouter"]);
});

test(
  "Ctrl-C stores nothing and exits with 130, Ctrl-D with 2; both leave the terminal as it was",
  atTerminal,
  async () => {
    for (const [key, expected, says] of [
      ["C-c", 130, /echo/],
      ["C-d", 2, /no key came/],
    ] as const) {
      await using terminal = await openPrompt("openrouter");
      await terminal.waitFor(/not shown\):/);
      if (key === "C-c") await terminal.type(KEY);
      await terminal.press(key);
      await terminal.waitFor(says);
      assert.equal(await terminal.exitCode(), expected);
      assert.match(await terminal.screen(), /^echo$/m);
      assert.ok(!(await terminal.screen()).includes(KEY.slice(0, 6)));
      assert.equal(await isStored(), undefined);
    }
  },
);

test("an unknown provider is refused before a key is asked for", atTerminal, async () => {
  await using terminal = await openPrompt("openruoter");
  const screen = await terminal.waitFor(/Did you mean `openrouter`/);
  assert.doesNotMatch(screen, /not shown/);
  assert.equal(await terminal.exitCode(), 1);
});

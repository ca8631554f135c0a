/** The daemon's life by command: start, stop, status, doctor, logs, and the words when it is not there. */
import assert from "node:assert/strict";
import { chmodSync, cpSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { startOpenAiHost } from "../fakes/openai-host.ts";
import { GHOST, runGhost, spawnGhost, spawnProgram } from "../support/cli.ts";
import { prepareFolder, startTestDaemon } from "../support/daemon.ts";
import { type TestFolder, testFolder } from "../support/folder.ts";

const startedSchema = z.object({ alreadyRunning: z.boolean(), pid: z.int(), http: z.string(), socket: z.string() });
const errorSchema = z.object({ error: z.object({ code: z.string(), advice: z.string() }) });

/** Folders for a daemon that the test starts by command; it is stopped in the end, whatever happens. */
function commandFolder(config = "[http]\nport = 0\n[providers.ollama]\ndiscover = false\n") {
  const folder: TestFolder = testFolder();
  const { env, dataDir, runtimeDir, configFile, wardenFile } = prepareFolder(folder, { config });
  return {
    folder,
    env,
    dataDir,
    runtimeDir,
    configFile,
    wardenFile,
    ghost: (...args: readonly string[]) => runGhost(args, { env }),
    async [Symbol.asyncDispose]() {
      await runGhost(["stop"], { env });
      folder[Symbol.dispose]();
    },
  };
}

test("start brings up a daemon that outlives the command; start again finds it; stop ends it", async () => {
  await using place = commandFolder();
  const first = await place.ghost("start", "--json");
  assert.equal(first.code, 0, first.stderr);
  const started = startedSchema.parse(JSON.parse(first.stdout));
  assert.equal(started.alreadyRunning, false);
  assert.equal(process.getuid?.() === 0, /running as root/.test(first.stderr));
  process.kill(started.pid, 0);
  const health = await fetch(`${started.http}/healthz`);
  assert.equal(health.status, 200);
  const second = startedSchema.parse(JSON.parse((await place.ghost("start", "--json")).stdout));
  assert.deepEqual({ ...second, alreadyRunning: false }, started);
  assert.match((await place.ghost("start")).stdout, /runs already \(pid \d+/);
  assert.match((await place.ghost("status")).stdout, new RegExp(`pid ${started.pid}[^]+${started.http}`));
  const stopped = await place.ghost("stop");
  assert.match(stopped.stdout, new RegExp(`pid ${started.pid}\\) has stopped`));
  assert.throws(() => process.kill(started.pid, 0));
  const nothing = await place.ghost("stop");
  assert.equal(nothing.code, 0);
  assert.match(nothing.stdout, /No daemon runs/);
});

test("two starts at once leave one daemon, and both say which", async () => {
  await using place = commandFolder();
  const both = await Promise.all([place.ghost("start", "--json"), place.ghost("start", "--json")]);
  assert.deepEqual(
    both.map(({ code }) => code),
    [0, 0],
    both.map(({ stderr }) => stderr).join("\n"),
  );
  const [one, two] = both.map(({ stdout }) => startedSchema.parse(JSON.parse(stdout)).pid);
  assert.equal(one, two);
});

test("a daemon that cannot start is explained in its own words", async () => {
  await using place = commandFolder("[http]\nprot = 1\n");
  const { code, stderr } = await place.ghost("start");
  assert.equal(code, 1);
  assert.match(stderr, /prot[^]+port/);
  assert.equal((await place.ghost("start", "--port", "notanumber")).code, 2);
});

test("start --foreground ends with the daemon, which SIGINT drains", async () => {
  await using place = commandFolder();
  const running = spawnGhost(["start", "--foreground"], { env: place.env });
  await running.waitFor(/runs in the foreground on http:\/\/127\.0\.0\.1:\d+/);
  assert.equal((await place.ghost("status")).code, 0);
  running.signal("SIGINT");
  assert.equal((await running.finished).code, 0);
  assert.equal((await place.ghost("status")).code, 1);
});

test("one Ctrl-C that arrives twice, from the terminal and from npm, drains all the same", async () => {
  await using host = await startOpenAiHost({ models: ["m"] });
  const upstream = `[providers.compatible.up]\nbase_url = "${host.baseUrl}"\n`;
  await using place = commandFolder(`[http]\nport = 0\n[providers.ollama]\ndiscover = false\n${upstream}`);
  const running = spawnGhost(["start", "--foreground"], { env: place.env });
  await running.waitFor(/runs in the foreground/);
  host.playOnce({ tokens: ["The ", "whole ", "answer."], msPerToken: 700 });
  const asking = spawnGhost(["chat", "-m", "up/m", "go"], { env: place.env });
  await asking.waitFor(/The /);
  running.signal("SIGINT");
  await running.waitFor(/stopping; answers/);
  running.signal("SIGINT");
  assert.equal((await asking.finished).stdout, "The whole answer.\n");
  assert.equal((await running.finished).code, 0);
});

test("a runtime folder that is open to others is refused before anything is started in it", async () => {
  await using place = commandFolder();
  const folder = place.runtimeDir;
  mkdirSync(folder, { recursive: true });
  chmodSync(folder, 0o755);
  for (const args of [["start"], ["start", "--foreground"], ["chat", "hello"]]) {
    const { code, stderr } = await place.ghost(...args);
    assert.equal(code, 1, args.join(" "));
    assert.match(stderr, /is open to other users \(mode 0755\): chmod 700/, args.join(" "));
    assert.equal(statSync(folder).mode & 0o777, 0o755, "it is left as it was");
    assert.deepEqual(readdirSync(folder), []);
  }
  chmodSync(folder, 0o700);
  assert.equal((await place.ghost("start")).code, 0);
});

test("without a daemon, commands fail with the remedy, for people and for programs", async () => {
  await using place = commandFolder();
  for (const args of [["models"], ["sessions"], ["env"], ["usage"], ["complete", GHOST], ["logs", "-f"]]) {
    const { code, stdout, stderr } = await place.ghost(...args);
    assert.equal(code, 1, args.join(" "));
    assert.equal(stdout, "");
    assert.match(stderr, /^ghost: no daemon answers[^]+`ghost start`/);
  }
  const asJson = await place.ghost("models", "--json");
  assert.equal(errorSchema.parse(JSON.parse(asJson.stdout)).error.code, "daemon_unreachable");
  const status = await place.ghost("status", "--json");
  assert.equal(status.code, 1);
  assert.equal(z.object({ running: z.boolean() }).parse(JSON.parse(status.stdout)).running, false);
});

test("chat starts the daemon by itself and says so", async () => {
  await using place = commandFolder();
  const { code, stdout, stderr } = await place.ghost("chat", "--max-tokens", "4", "function add(");
  assert.equal(code, 0, stderr);
  assert.match(stderr, /no daemon runs: starting one/);
  assert.notEqual(stdout, "");
  assert.equal((await place.ghost("status")).code, 0);
});

test("a key that the daemon does not take is an error, not a crash", async () => {
  await using daemon = await startTestDaemon();
  writeFileSync(`${daemon.dataDir}/face.key`, `ghost-face-${"x".repeat(43)}\n`);
  const { code, stderr } = await runGhost(["models"], { env: daemon.env });
  assert.equal(code, 1);
  assert.match(stderr, /^ghost: .*key/i);
  const { stdout } = await runGhost(["doctor"], { env: daemon.env });
  assert.match(stdout, /✗ daemon: .*key/i);
});

test("doctor works without a daemon: it finds the broken file, the taken port and the open folder, each with its remedy", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  const address = await new Promise<unknown>((resolve) => server.once("listening", () => resolve(server.address())));
  const { port } = z.object({ port: z.int() }).parse(address);
  await using place = commandFolder(`[http]\nport = ${port}\n`);
  writeFileSync(place.wardenFile, "[capabilities]\nnet.http = allow\n");
  const { code, stdout } = await place.ghost("doctor");
  server.close();
  assert.equal(code, 1);
  assert.match(stdout, /✗ daemon: no daemon answers[^]+→ ghost start\n/);
  assert.match(stdout, /✓ settings: /);
  assert.match(stdout, /✗ rules: [^]*warden\.toml, line 2, column \d+[^]+→ .*\+2 .*warden\.toml/);
  assert.match(stdout, new RegExp(`✗ port ${port}: [^]+→ ghost start --port 0`));
  assert.match(stdout, /✓ embedded engine: installed/);
});

test("logs without a daemon come from its file", async () => {
  await using place = commandFolder();
  await place.ghost("start");
  await place.ghost("stop");
  const { code, stdout, stderr } = await place.ghost("logs", "-n", "2");
  assert.equal(code, 0);
  assert.match(stderr, /no daemon answers; these are the last lines/);
  assert.match(stdout, /daemon\.stopped/);
});

/** Makes Node say that it is another version, before the program asks. */
const pretend = (version: string) =>
  `data:text/javascript,Object.defineProperty(process,"versions",{value:{...process.versions,node:"${version}"}})`;

test("on an older Node, ghost hands over to the one that npm installed, with arguments, streams, exit code and signals", async () => {
  await using place = commandFolder();
  const old = (...args: readonly string[]) =>
    spawnProgram([process.execPath, "--import", pretend("18.20.0"), GHOST, ...args], { env: place.env });
  assert.match((await old("--version").finished).stdout, /^\d+\.\d+\.\d+\n$/);
  const failed = await old("chta").finished;
  assert.equal(failed.code, 2);
  assert.match(failed.stderr, /Did you mean chat/);
  await place.ghost("start");
  const following = old("logs", "-f");
  await following.waitFor(/daemon\.ready/);
  following.signal("SIGINT");
  assert.equal((await following.finished).code, 130);
});

test("where nothing is set up, ghost explains itself", async () => {
  using folder = testFolder();
  const copy = folder.join("clients", "cli", "bin", "ghost.mjs");
  mkdirSync(folder.join("clients", "cli", "bin"), { recursive: true });
  cpSync(fileURLToPath(new URL("../../clients/cli/bin/ghost.mjs", import.meta.url)), copy);
  const env = { PATH: process.env["PATH"] ?? "" };
  const bare = await spawnProgram([process.execPath, copy, "status"], { env }).finished;
  assert.equal(bare.code, 1);
  assert.match(bare.stderr, /not set up yet[^]+npm run setup/);
  mkdirSync(folder.join("node_modules", "commander"), { recursive: true });
  const old = await spawnProgram([process.execPath, "--import", pretend("20.0.0"), copy, "status"], { env }).finished;
  assert.equal(old.code, 1);
  assert.match(old.stderr, /Node 20\.0\.0 is too old[^]+npm run setup/);
});

/** `npm start` from its banner to Ctrl-C, as a pipe and as a person at a terminal of 80 columns see it. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { missingTools } from "../../tools/system-tools.ts";
import { openTerminal } from "../support/terminal.ts";
import { type RunningGhost, runGhost, spawnProgram } from "../support/cli.ts";
import { prepareFolder, startTestDaemon } from "../support/daemon.ts";
import { testFolder } from "../support/folder.ts";

const isMissing = missingTools("test", process.env["PATH"] ?? "").some(({ command }) => command === "tmux");
const options = { skip: isMissing && "tmux is not installed" };

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const START = fileURLToPath(new URL("../../tools/start.ts", import.meta.url));
const CONFIG = "[providers.ollama]\ndiscover = false\n";
const READY = /stop the daemon {7}Ctrl-C\n/;

function spawnStart(env: Readonly<Record<string, string>>, ...args: readonly string[]): RunningGhost {
  return spawnProgram([process.execPath, START, "--port", "0", ...args], { env });
}

test("npm start shows addresses and models, completes a real file with its route decision, and Ctrl-C drains", async () => {
  using folder = testFolder();
  const { env } = prepareFolder(folder, { config: CONFIG });
  const starting = spawnStart(env);
  await starting.waitFor(READY);
  assert.equal((await runGhost(["status"], { env })).code, 0);
  // As when a terminal, a shell and npm all pass the same Ctrl-C on.
  starting.signal("SIGINT");
  starting.signal("SIGTERM");
  const { code, stdout, stderr } = await starting.finished;
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^GhostStack \d+\.\d+\.\d+/);
  assert.match(stdout, /HTTP +http:\/\/127\.0\.0\.1:\d+\/v1/);
  assert.match(stdout, /embedded\/tiny-code-fim +machine[^]+demonstration weights[^]+cannot chat/);
  const [, place = "", line = ""] = /A completion at (\S+):(\d+)\n/.exec(stdout) ?? [];
  const source = readFileSync(new URL(`../../${place}`, import.meta.url), "utf8").split("\n");
  const [, before = "", shown = ""] =
    new RegExp(`^ *${line} │ (.*)\n`, "m").exec(stdout)?.[0].match(/│ ( *)(.*)\n/) ?? [];
  const real = `${source[Number(line) - 1]}`.trim();
  assert.ok(before.length > 0 && real.startsWith(shown.slice(0, 20)), `${shown} does not begin as ${real} does`);
  assert.match(stdout, /embedded\/tiny-code-fim answers: \S/);
  assert.match(stdout, /\d+ tokens, the first after .+, all after .+ \(with the engine's start\)/);
  assert.match(stdout, /Stopping[^]+The daemon has stopped\.\n$/);
  assert.ok(!stdout.includes("\u001b"), "no colours in a pipe");
  for (const shownLine of stdout.split("\n")) {
    assert.ok(shownLine.length <= 80 || shownLine.includes("socket"), `longer than 80 columns: ${shownLine}`);
  }
  assert.equal((await runGhost(["status"], { env })).code, 1);
});

test('npm start -- "prompt" answers the prompt too', async () => {
  using folder = testFolder();
  const { env } = prepareFolder(folder, { config: CONFIG });
  const starting = spawnStart(env, "function add(");
  await starting.waitFor(READY);
  starting.signal("SIGTERM");
  const { code, stdout, stderr } = await starting.finished;
  assert.equal(code, 0);
  assert.match(stdout, /> function add\(\n\S/);
  assert.match(stderr, /tokens in, \d+ out/);
});

test(
  "under npm at a terminal of 80 columns, one Ctrl-C drains, however many processes pass it on",
  options,
  async () => {
    using folder = testFolder();
    const { env, dataDir } = prepareFolder(folder, { config: CONFIG });
    const command = ["npm", "start", "--", "--port", "0"];
    await using terminal = await openTerminal({ command, env, columns: 80, rows: 50, cwd: ROOT });
    await terminal.waitFor(/Next\n[^]+stop the daemon +Ctrl-C/);
    await terminal.press("C-c");
    // The shell between npm and us may count its own Ctrl-C as its end (130); ours is said on the screen and in the log.
    assert.ok([0, 130].includes(await terminal.exitCode()));
    await terminal.waitFor(/Stopping[^]+The daemon has stopped\./);
    assert.match(readFileSync(`${dataDir}/ghostd.log`, "utf8"), /daemon\.stopped/);
  },
);

test("a daemon that runs already is used for the demonstration, and left running", async () => {
  await using daemon = await startTestDaemon();
  const { code, stdout } = await spawnStart(daemon.env).finished;
  assert.equal(code, 0);
  assert.match(stdout, new RegExp(`runs already on these folders \\(pid ${daemon.pid}\\)[^]+answers: `));
  assert.match(stdout, /stop the daemon +npx ghost stop\n$/);
  assert.equal((await runGhost(["status"], { env: daemon.env })).code, 0);
});

test("a daemon that dies ends npm start with 1 and says so", async () => {
  using folder = testFolder();
  const { env } = prepareFolder(folder, { config: CONFIG });
  const starting = spawnStart(env);
  await starting.waitFor(READY);
  const [, pid = ""] = /pid (\d+)/.exec((await runGhost(["status"], { env })).stdout) ?? [];
  process.kill(Number(pid), "SIGKILL");
  const { code, stderr } = await starting.finished;
  assert.equal(code, 1);
  assert.match(stderr, /the daemon was ended by SIGKILL/);
});

test("a daemon that cannot start is explained in its own words, and a wrong flag exits with 2", async () => {
  using folder = testFolder();
  const { env } = prepareFolder(folder, { config: "[http\n" });
  const failed = await spawnStart(env).finished;
  assert.equal(failed.code, 1);
  assert.match(failed.stderr, /did not start: .+ghost\.toml:1:6: not valid TOML[^]+Mend the file/);
  const misused = await spawnStart(env, "--nonsense").finished;
  assert.equal(misused.code, 2);
  assert.match(misused.stderr, /--nonsense[^]+npm start -- "prompt"/);
});

/** `ghost models pull` from end to end: a server with a bad day, the consent of a person, and a model that answers afterwards. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { z } from "zod";
import { ledgerRowSchema } from "../../protocol/ledger.ts";
import { modelPullUpdate } from "../../protocol/model.ts";
import { missingTools } from "../../tools/system-tools.ts";
import { type DownloadHost, startDownloadHost } from "../fakes/download-host.ts";
import { GHOST, runGhost, spawnGhost } from "../support/cli.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { openTerminal, type Terminal } from "../support/terminal.ts";

const isMissing = missingTools("test", process.env["PATH"] ?? "").some(({ command }) => command === "tmux");
const options = { skip: isMissing && "tmux is not installed" };

const weights = readFileSync(new URL("../../models/tiny-code-fim.gguf", import.meta.url));
const sha256 = createHash("sha256").update(weights).digest("hex");
const MIB = 1024 * 1024;

let host: DownloadHost;
/** Downloads without asking. */
let lenient: TestDaemon;
/** Asks, as it does by default. */
let asking: TestDaemon;
const stack = new AsyncDisposableStack();
before(async () => {
  host = stack.use(await startDownloadHost(weights, '"v1"'));
  lenient = stack.use(await startTestDaemon({ warden: '[capabilities]\nnet.http = "allow"\nfs.write = "allow"\n' }));
  asking = stack.use(await startTestDaemon());
});
after(() => stack.disposeAsync());

const source = () => `${host.origin}/weights.gguf`;

test("a download that is cut twice resumes by itself, is checked, and the model is listed and answers", async () => {
  host.script([
    { kind: "drop", afterBytes: 2 * MIB },
    { kind: "drop", afterBytes: MIB },
  ]);
  const pulled = await runGhost(["models", "pull", source(), "--name", "cut", "--sha256", sha256, "--json"], {
    env: lenient.env,
  });
  assert.equal(pulled.code, 0, pulled.stderr);
  const updates = pulled.stdout
    .trimEnd()
    .split("\n")
    .map((line) => modelPullUpdate.parse(JSON.parse(line)));
  assert.ok(updates.some(({ kind }) => kind === "retrying"));
  const done = updates.at(-1);
  assert.ok(done?.kind === "done" && done.sha256 === sha256);
  const ledger = JSON.parse((await runGhost(["ledger", "--json"], { env: lenient.env })).stdout);
  const rows = z.object({ rows: z.array(ledgerRowSchema) }).parse(ledger).rows;
  assert.deepEqual(
    rows.filter(({ resource }) => resource === `GET ${source()}`).map(({ outcome, detail }) => [outcome, detail]),
    [["done", "at the try number 3"]],
    "one row an address",
  );
  assert.match((await runGhost(["models"], { env: lenient.env })).stdout, /embedded\/cut +machine/);
  const file = new URL("../../server/base/text.ts", import.meta.url).pathname;
  assert.equal((await runGhost(["complete", `${file}:20`, "-m", "embedded/cut"], { env: lenient.env })).code, 0);
});

test("Ctrl-C stops with 130 and names the command that resumes, which does", async () => {
  host.script([{ kind: "stall", afterBytes: 3 * MIB }]);
  const args = ["models", "pull", source(), "--name", "stopped"];
  const pulling = spawnGhost([...args, "--json"], { env: lenient.env });
  await pulling.waitFor(/"receivedBytes":[1-9]/);
  pulling.signal("SIGINT");
  const { code, stderr } = await pulling.finished;
  assert.equal(code, 130);
  assert.match(stderr, new RegExp(`the same command resumes:\n +ghost models pull ${source()} --name stopped`));
  const again = await runGhost(args, { env: lenient.env });
  assert.equal(again.code, 0, again.stderr);
  assert.match(again.stderr, /resuming at [1-9]/);
  assert.match(again.stdout, /✓ embedded\/stopped is ready/);
});

test("a wrong checksum is an error, and nothing is registered", async () => {
  host.script([]);
  const args = ["models", "pull", source(), "--name", "wrong", "--sha256", "0".repeat(64)];
  const { code, stderr } = await runGhost(args, { env: lenient.env });
  assert.equal(code, 1);
  assert.match(stderr, /Check the address and the checksum/);
  assert.ok(!(await runGhost(["models"], { env: lenient.env })).stdout.includes("embedded/wrong"));
});

test("a question shows who, why and what; `a` allows it, and the bar shows the progress", options, async () => {
  host.script([{ kind: "stall", afterBytes: 5 * MIB }]);
  await using terminal = await openPull("allowed");
  const question = await terminal.waitFor(/\[a\]llow once \/ \[d\]eny/);
  assert.match(question, /GhostWarden asks: .+\n +why: .+\n +· net\.http /);
  const before = host.requests.length;
  await terminal.press("Enter", "y", "Space", "x");
  assert.equal((await openQuestions()).length, 1);
  assert.equal(host.requests.length, before);
  await terminal.press("a");
  await terminal.waitFor(/allowed once[^]+\[█+░+\] +[1-9]\d? % +.+ MiB of 6\.7 MiB/);
  await terminal.press("C-c");
  assert.equal(await terminal.exitCode(), 130);
});

test(
  "other keys than `a` and `d` do nothing; `d` denies, nothing is fetched, and the command says why",
  options,
  async () => {
    host.script([]);
    const before = host.requests.length;
    await using terminal = await openPull("denied");
    await terminal.waitFor(/\[a\]llow once \/ \[d\]eny/);
    await terminal.press("Enter", "y", "Space", "x", "d");
    assert.equal(await terminal.exitCode(), 1);
    assert.match(await terminal.screen(), /denied \([^]*ghost: you said no to net\.http GET /);
    assert.equal(host.requests.length, before);
  },
);

test("another face that answers first is shown, and the work goes on", options, async () => {
  host.script([]);
  await using terminal = await openPull("elsewhere");
  await terminal.waitFor(/\[a\]llow once \/ \[d\]eny/);
  using other = await asking.connect("other-face");
  const [id = ""] = await openQuestions();
  const outcome = await other.api.approval.respond({ id, outcome: "allow_once" }, AbortSignal.timeout(10_000));
  assert.equal(outcome.kind, "accepted");
  await terminal.waitFor(/\(allowed by .+\)[^]+✓ embedded\/elsewhere is ready/);
  assert.equal(await terminal.exitCode(), 0);
});

test("a question that others have settled meanwhile is not shown when its turn comes", options, async () => {
  host.script([{ kind: "stall", afterBytes: 5 * MIB }]);
  await using terminal = await openPull("patient");
  await terminal.waitFor(/\[a\]llow once \/ \[d\]eny/);
  const known = await openQuestions();
  using other = await asking.connect("other-face");
  const pulling = Array.fromAsync(
    other.api.model.pull({ source: `${host.origin}/second.gguf` }, AbortSignal.timeout(60_000)),
  );
  pulling.catch(() => {}); // It is denied below.
  let second: string | undefined;
  while (second === undefined) [second] = await openQuestions(known);
  await other.api.approval.respond({ id: second, outcome: "reject_once" }, AbortSignal.timeout(10_000));
  await assert.rejects(pulling, { code: "denied" });
  await terminal.waitFor(/\(denied by /);
  await terminal.press("a");
  const screen = await terminal.waitFor(/allowed once[^]+\[█+░+\] +[1-9]\d? % +.+ MiB of 6\.7 MiB/);
  assert.doesNotMatch(screen, /second\.gguf/);
  assert.equal(screen.match(/GhostWarden asks/g)?.length, 1);
  await terminal.press("C-c");
  assert.equal(await terminal.exitCode(), 130);
});

async function openPull(name: string): Promise<Terminal> {
  const command = [process.execPath, GHOST, "models", "pull", source(), "--name", name];
  return await openTerminal({ command, env: { ...asking.env, NO_COLOR: "1" } });
}

/** The ids of what GhostWarden asks now, but for those that are known. */
async function openQuestions(known: readonly string[] = []): Promise<readonly string[]> {
  using client = await asking.connect("looker");
  const ids: string[] = [];
  const stop = AbortSignal.timeout(500);
  try {
    for await (const update of client.api.approval.watch({}, stop)) {
      if (update.kind === "asked" && !known.includes(update.approval.id)) ids.push(update.approval.id);
      if (ids.length > 0) break;
    }
  } catch (error) {
    if (!stop.aborted) throw error;
  }
  return ids;
}

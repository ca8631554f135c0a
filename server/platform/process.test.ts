import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { BugError } from "../base/errors.ts";
import { THIS_MACHINE } from "./permit.ts";
import { Permit, type PermitReport } from "./permit-mint.ts";
import { type Child, type ChildOptions, startChild } from "./process.ts";
import { systemClock } from "./system-clock.ts";

const ECHO =
  'process.on("disconnect", () => process.exit()); process.on("message", (m) => process.send({ got: m, environment: process.env }));';
const STUBBORN = 'process.on("SIGTERM", () => {}); setInterval(() => {}, 1000); process.send("up");';
const TALKATIVE =
  'console.error("one\\ntwo"); process.stderr.write("x".repeat(100000) + "\\nlast"); process.disconnect();';

function start(
  script: string,
  options: Partial<ChildOptions> = {},
): { child: Child; outcomes: PermitReport[]; messages: unknown[]; lines: string[] } {
  const [executable, args, cwd] = [process.execPath, ["-e", script], process.cwd()];
  const outcomes: PermitReport[] = [];
  const messages: unknown[] = [];
  const lines: string[] = [];
  const effect = {
    capability: "cmd.exec",
    resource: { kind: "argv", executable, args, cwd },
    host: THIS_MACHINE,
  } as const;
  const permit = new Permit(effect, (outcome) => outcomes.push(outcome));
  const child = startChild(permit, {
    executable,
    args,
    cwd,
    environment: {},
    clock: systemClock,
    onMessage: (message) => messages.push(message),
    onLine: (line) => lines.push(line),
    onExit: () => {},
    ...options,
  });
  return { child, outcomes, messages, lines };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await systemClock.sleep(2);
}

test("a child hears, answers, and has no variable of ours", async () => {
  process.env["GHOST_TEST_SECRET"] = "sk-1234567890";
  const { child, messages, outcomes } = start(ECHO, { environment: { LISTED: "yes" } });
  const environ = readFileSync(`/proc/${child.pid}/environ`, "utf8");
  child.send({ n: 1 });
  await until(() => messages.length > 0);
  delete process.env["GHOST_TEST_SECRET"];
  assert.deepEqual(messages, [{ got: { n: 1 }, environment: { LISTED: "yes" } }]);
  assert.ok(!environ.includes("sk-1234567890") && !environ.includes("HOME="), environ);
  await child[Symbol.asyncDispose]();
  assert.deepEqual(outcomes, [{ kind: "done" }]);
});

test("a child that ignores SIGTERM is killed", async () => {
  const hasty = { ...systemClock, after: (ms: number, run: () => void) => systemClock.after(ms / 100, run) };
  const { child, messages } = start(STUBBORN, { clock: hasty });
  await until(() => messages.length > 0);
  await child[Symbol.asyncDispose]();
  assert.equal((await child.exited).signal, "SIGKILL");
});

test("lines are forwarded, and long ones are cut", async () => {
  const { child, lines } = start(TALKATIVE);
  await child.exited;
  assert.deepEqual(
    lines.map((line) => line.length),
    [3, 3, 4096, 4],
  );
});

test("a program that is not there is reported once, and sending to it does not throw", async () => {
  const missing = "/nowhere/program";
  const outcomes: PermitReport[] = [];
  const effect = {
    capability: "cmd.exec",
    resource: { kind: "argv", executable: missing, args: [], cwd: "/" },
    host: THIS_MACHINE,
  } as const;
  let exits = 0;
  const child = startChild(new Permit(effect, (outcome) => outcomes.push(outcome)), {
    executable: missing,
    args: [],
    cwd: "/",
    environment: {},
    clock: systemClock,
    onMessage() {},
    onLine() {},
    onExit: () => void (exits += 1),
  });
  child.send({ n: 1 });
  assert.match((await child.exited).startError?.message ?? "", /ENOENT/);
  await child[Symbol.asyncDispose]();
  assert.equal(exits, 1);
  assert.equal(outcomes[0]?.kind, "failed");
});

test("without a fitting permit nothing starts", () => {
  const effect = {
    capability: "cmd.exec",
    resource: { kind: "argv", executable: "/bin/true", args: [], cwd: "/" },
    host: THIS_MACHINE,
  } as const;
  const options = {
    executable: "/bin/false",
    args: [],
    cwd: "/",
    environment: {},
    clock: systemClock,
    onMessage() {},
    onLine() {},
    onExit() {},
  };
  assert.throws(() => startChild(new Permit(effect, () => {}), options), BugError);
});

test("a child ends when its parent is killed with -9", async () => {
  // A parent of its own: it starts the echoing child and says its pid.
  const here = fileURLToPath(new URL(".", import.meta.url));
  const program = `
    import { startChild } from ${JSON.stringify(`${here}process.ts`)};
    import { StandingPermit } from ${JSON.stringify(`${here}permit-mint.ts`)};
    import { systemClock } from ${JSON.stringify(`${here}system-clock.ts`)};
    const executable = process.execPath;
    const permit = new StandingPermit("test", [{ capability: "cmd.exec", resource: { kind: "argv", executable, args: [], cwd: "/" } }]);
    const child = startChild(permit, { executable, args: ["-e", ${JSON.stringify(ECHO)}], cwd: "/", environment: {}, clock: systemClock,
      onMessage: () => console.log(child.pid), onLine() {}, onExit() {} });
    child.send({});`;
  const parent = spawn(process.execPath, ["--no-warnings", "--input-type=module-typescript", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const pid = await new Promise<number>((resolve) => {
    parent.stdout.once("data", (text: Buffer) => resolve(Number(text.toString())));
  });
  assert.ok(isAlive(pid));
  parent.kill("SIGKILL");
  await until(() => !isAlive(pid));
});

function isAlive(pid: number): boolean {
  try {
    // A process that nobody has buried yet is a zombie.
    return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return false;
  }
}

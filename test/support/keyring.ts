/**
 * A real OS keyring for tests: a session bus of its own and GNOME Keyring on it, both in the test's folder, out of reach of the user's.
 * The bus starts no services by itself, so that what is not running stays so; a locked keyring then has no window in which to ask for its password.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { findCredentialsAsync } from "@napi-rs/keyring";
import type { TestFolder } from "./folder.ts";

export interface KeyringProcess extends AsyncDisposable {
  /** Ends the keyring; the bus stays. */
  stop(): Promise<void>;
}

export interface SessionBus extends AsyncDisposable {
  /** For `DBUS_SESSION_BUS_ADDRESS`. */
  readonly address: string;
  /** Starts the keyring: `unlocked` with its password, or `locked`. What was stored is there again. */
  startKeyring(state: "unlocked" | "locked"): Promise<KeyringProcess>;
  /** What an unlocked keyring holds for a service, as any program of the user's may read it. */
  credentials(service: string): Promise<readonly { readonly account: string; readonly password: string }[]>;
}

const READY_MS = 30_000;
const LOOK_EVERY_MS = 20;
const PASSWORD = "the password of this test's keyring";
const BUS = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
`;

const running = new Set<ChildProcess>();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

export async function startSessionBus(folder: TestFolder): Promise<SessionBus> {
  const [home, config] = [folder.join("keyring-home"), folder.join("bus.conf")];
  mkdirSync(folder.join("keyring-home", "run"), { recursive: true, mode: 0o700 });
  writeFileSync(config, BUS);
  const env = { PATH: process.env["PATH"] ?? "", HOME: home, XDG_RUNTIME_DIR: folder.join("keyring-home", "run") };
  const bus = spawn("dbus-daemon", [`--config-file=${config}`, "--nofork", "--print-address=1"], {
    env,
    stdio: ["ignore", "pipe", "ignore"],
  });
  running.add(bus);
  const [line] = await once(createInterface({ input: bus.stdout }), "line");
  const address = String(line);
  return {
    address,
    async startKeyring(state) {
      const unlock = state === "unlocked" ? ["--unlock"] : [];
      const child = spawn("gnome-keyring-daemon", ["--foreground", "--components=secrets", ...unlock], {
        env: { ...env, DBUS_SESSION_BUS_ADDRESS: address },
        stdio: ["pipe", "ignore", "ignore"],
      });
      running.add(child);
      child.stdin.end(state === "unlocked" ? PASSWORD : "");
      await untilAnswers(address);
      return { stop: () => end(child), [Symbol.asyncDispose]: () => end(child) };
    },
    credentials: (service) => withBus(address, () => findCredentialsAsync(service)),
    [Symbol.asyncDispose]: () => end(bus),
  };
}

async function end(child: ChildProcess): Promise<void> {
  if (!running.delete(child)) return;
  const closed = once(child, "close");
  child.kill("SIGTERM");
  await closed;
}

/** It says nothing of its own when it is ready: whoever asks it learns that. */
async function untilAnswers(address: string): Promise<void> {
  const deadline = performance.now() + READY_MS;
  for (;;) {
    try {
      await withBus(address, () => findCredentialsAsync("ghoststack-test-probe"));
      return;
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(LOOK_EVERY_MS);
    }
  }
}

/** The library takes the address from the environment only. */
async function withBus<Result>(address: string, work: () => Promise<Result>): Promise<Result> {
  const before = process.env["DBUS_SESSION_BUS_ADDRESS"];
  process.env["DBUS_SESSION_BUS_ADDRESS"] = address;
  try {
    return await work();
  } finally {
    if (before === undefined) delete process.env["DBUS_SESSION_BUS_ADDRESS"];
    else process.env["DBUS_SESSION_BUS_ADDRESS"] = before;
  }
}

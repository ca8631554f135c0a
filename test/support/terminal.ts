/**
 * A robot user at a real terminal (tmux): presses keys, waits for what becomes visible, never sleeps blindly.
 * Each terminal is a tmux server of its own, out of reach of the user's.
 */
import { execFile, execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);
const LIMIT_MS = 60_000;
const LOOK_EVERY_MS = 40;
/**
 * Shows the exit code and keeps the window open, so that the last screen can be read. The shell shares the keyboard's signals with the command and
 * must survive them; with a handler, unlike with an ignored signal, the command starts with the default.
 */
const WRAPPER = `trap : INT; "$@"; printf '\\n[exit code %s]\\n' "$?"; exec cat`;

export interface TerminalOptions {
  readonly command: readonly string[];
  /** The whole environment of the command. */
  readonly env: Readonly<Record<string, string>>;
  readonly columns?: number;
  readonly rows?: number;
  readonly cwd?: string;
}

export interface Terminal extends AsyncDisposable {
  /** Types text as it is. */
  type(text: string): Promise<void>;
  /** Presses keys by their names in tmux: `Enter`, `C-c`, `Up`. */
  press(...keys: readonly string[]): Promise<void>;
  /** Pastes; a program that asked for bracketed paste gets it. */
  paste(text: string): Promise<void>;
  screen(): Promise<string>;
  /** Waits until the screen matches, and returns it. Fails with the screen as it is after a minute. */
  waitFor(pattern: RegExp): Promise<string>;
  /** Waits for the command's end and returns its exit code. */
  exitCode(): Promise<number>;
}

export async function openTerminal(options: TerminalOptions): Promise<Terminal> {
  const name = `ghost-test-${process.pid}-${randomBytes(4).toString("hex")}`;
  const env = { PATH: process.env["PATH"] ?? "", HOME: tmpdir(), TERM: "xterm-256color", LANG: "C.UTF-8" };
  const tmux = async (...args: readonly string[]) =>
    (await run("tmux", ["-L", name, "-f", "/dev/null", ...args], { env })).stdout;
  const kill = () => {
    try {
      execFileSync("tmux", ["-L", name, "kill-server"], { env, stdio: "ignore" });
    } catch {
      // It has ended by itself.
    }
  };
  process.once("exit", kill);
  const assignments = Object.entries(options.env).map(([key, value]) => `${key}=${value}`);
  const size = ["-x", String(options.columns ?? 100), "-y", String(options.rows ?? 40)];
  const folder = options.cwd === undefined ? [] : ["-c", options.cwd];
  await tmux(
    "new-session",
    "-d",
    ...size,
    ...folder,
    "--",
    "env",
    "-i",
    ...assignments,
    "sh",
    "-c",
    WRAPPER,
    "sh",
    ...options.command,
  );

  const screen = async () => (await tmux("capture-pane", "-p", "-S", "-")).trimEnd();
  const until = async <Value>(look: () => Promise<Value | undefined>, what: string): Promise<Value> => {
    const deadline = performance.now() + LIMIT_MS;
    for (;;) {
      const value = await look();
      if (value !== undefined) return value;
      if (performance.now() > deadline) throw new Error(`${what} did not come. The screen:\n${await screen()}`);
      await sleep(LOOK_EVERY_MS);
    }
  };
  return {
    type: async (text) => void (await tmux("send-keys", "-l", "--", text)),
    press: async (...keys) => void (await tmux("send-keys", ...keys)),
    async paste(text) {
      await tmux("set-buffer", "--", text);
      await tmux("paste-buffer", "-p");
    },
    screen,
    waitFor: (pattern) =>
      until(async () => {
        const text = await screen();
        return pattern.test(text) ? text : undefined;
      }, String(pattern)),
    exitCode: () =>
      until(async () => {
        const found = /^\[exit code (\d+)\]$/m.exec(await screen());
        return found === null ? undefined : Number(found[1]);
      }, "the end of the command"),
    async [Symbol.asyncDispose]() {
      process.off("exit", kill);
      kill();
      await Promise.resolve();
    },
  };
}

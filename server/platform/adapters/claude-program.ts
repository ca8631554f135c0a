/**
 * The user's own `claude` program (Claude Code), started once for each question, as its manual says for use by other programs
 * (https://code.claude.com/docs/en/headless).
 * 1. It gets no tools, no settings, no servers and no memory: `ARGUMENTS`. What is asked goes in by stdin, since arguments can be read by everybody.
 * 2. Its environment is what it needs to find its own account, and nothing of ours (I5). Its credentials are its own: they are never read here.
 * 3. It runs in an empty folder. It is ended when nobody listens any more, and when it says too much: politely, since it writes files of its own; then killed.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import type { Readable } from "node:stream";
import type { Clock, Environment } from "../../base/clock.ts";
import { OperationalError } from "../../base/errors.ts";
import { preparePrivateFolder } from "../filesystem.ts";
import { type StandingPermit, THIS_MACHINE } from "../permit.ts";

export interface ClaudePlace {
  /** Covers `cmd.exec` of the command, and reading and writing in the folder. */
  readonly permit: StandingPermit;
  readonly command: string;
  /** Stays empty. */
  readonly folder: string;
}

export interface ClaudeQuestion {
  /** None: the account's default. */
  readonly model: string | undefined;
  readonly effort: string | undefined;
  readonly prompt: string;
}

export interface ClaudeWatch {
  /** A line of its stream, unchecked. */
  onLine(line: string): void;
  /** It has ended; called once. `words`: the last that it wrote to stderr. */
  onExit(exit: { readonly words: string }): void;
}

export interface ClaudeProgram extends AsyncDisposable {
  /** Why it cannot be started; undefined where it can. */
  problem(): string | undefined;
  /** Disposing the result kills it. @throws OperationalError `upstream_unreachable`, `upstream_overloaded` where too many are open */
  ask(question: ClaudeQuestion, watch: ClaudeWatch): Disposable;
}

/** (1). With a system prompt of ours, that of a coding agent stays away. */
const ARGUMENTS: readonly string[] = [
  "--print",
  "--output-format",
  "stream-json",
  "--include-partial-messages",
  "--verbose",
  "--tools",
  "",
  "--setting-sources",
  "",
  "--strict-mcp-config",
  "--disable-slash-commands",
  "--no-session-persistence",
  "--system-prompt",
  "You are the assistant of the conversation in the user's message. Where it begins with <instructions>, those are the instructions of whoever runs you.",
];
/** (2) */
const VARIABLES = ["HOME", "PATH", "USER", "LANG", "CLAUDE_CONFIG_DIR"] as const;
/** Its own switches: nothing goes out but the question. */
const SWITCHES = { CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1", DISABLE_AUTOUPDATER: "1" } as const;
/** Each holds some 200 MB. */
const MAX_OPEN = 4;
const BUSY_RETRY_MS = 2_000;
/** A line repeats the whole answer so far; longer than this is nonsense. */
const MAX_LINE_CHARACTERS = 16 * 1024 * 1024;
/** How long it may take to end itself. */
const KILL_AFTER_MS = 2_000;
const MAX_ERROR_CHARACTERS = 2_000;

interface ProgramOptions {
  readonly environment: Environment;
  readonly clock: Clock;
}

export function createClaudeProgram(place: ClaudePlace, options: ProgramOptions): ClaudeProgram {
  return new OneShotProgram(place, options);
}

class OneShotProgram implements ClaudeProgram {
  readonly #place: ClaudePlace;
  readonly #environment: Environment;
  readonly #clock: Clock;
  readonly #open = new Set<Run>();

  constructor(place: ClaudePlace, { environment, clock }: ProgramOptions) {
    this.#place = place;
    this.#environment = environment;
    this.#clock = clock;
  }

  problem(): string | undefined {
    const { command } = this.#place;
    const folders = (this.#environment.get("PATH") ?? "").split(delimiter);
    const candidates = isAbsolute(command) ? [command] : folders.map((folder) => join(folder, command));
    return candidates.some(isExecutable) ? undefined : `there is no program \`${command}\``;
  }

  ask({ model, effort, prompt }: ClaudeQuestion, watch: ClaudeWatch): Disposable {
    const { permit, command, folder } = this.#place;
    if (this.#open.size >= MAX_OPEN) {
      const message = `${MAX_OPEN} questions are already with \`${command}\``;
      throw new OperationalError("upstream_overloaded", message, { retryAfterMs: BUSY_RETRY_MS });
    }
    const problem = this.problem();
    if (problem !== undefined) throw new OperationalError("upstream_unreachable", problem);
    preparePrivateFolder(permit, folder, this.#environment.uid);
    const args = [
      ...ARGUMENTS,
      ...(model === undefined ? [] : ["--model", model]),
      ...(effort === undefined ? [] : ["--effort", effort]),
    ];
    const spent = permit.spend({
      capability: "cmd.exec",
      resource: { kind: "argv", executable: command, args, cwd: folder },
      host: THIS_MACHINE,
    });
    const child = spawn(command, args, { cwd: folder, env: this.#variables(), stdio: ["pipe", "pipe", "pipe"] });
    const onEnd = (detail: string | undefined) => {
      this.#open.delete(run);
      spent.settle(detail === undefined ? { kind: "done" } : { kind: "failed", detail });
    };
    const run = followRun(child, { watch, onEnd, clock: this.#clock });
    this.#open.add(run);
    child.stdin.on("error", () => {}); // It ended before it had read the question: `onExit` tells.
    child.stdin.end(prompt);
    return { [Symbol.dispose]: () => run.kill() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const runs = [...this.#open];
    for (const run of runs) run.kill();
    await Promise.all(runs.map(({ ended }) => ended));
  }

  #variables(): Readonly<Record<string, string>> {
    const own = VARIABLES.flatMap((name) => {
      const value = this.#environment.get(name);
      return value === undefined ? [] : [[name, value] as const];
    });
    return { ...Object.fromEntries(own), ...SWITCHES };
  }
}

interface Run {
  kill(): void;
  readonly ended: Promise<void>;
}

type Piped = ChildProcess & { readonly stdout: Readable; readonly stderr: Readable };

interface Following {
  readonly watch: ClaudeWatch;
  /** Called once, with what went wrong. */
  readonly onEnd: (detail: string | undefined) => void;
  readonly clock: Clock;
}

function followRun(child: Piped, { watch, onEnd, clock }: Following): Run {
  const ended = Promise.withResolvers<void>();
  let deadline: Disposable | undefined;
  const kill = () => {
    if (isOver || deadline !== undefined) return;
    child.kill("SIGTERM");
    deadline = clock.after(KILL_AFTER_MS, () => child.kill("SIGKILL"));
  };
  let words = "";
  let rest = "";
  let isOver = false;
  let flood: string | undefined;
  const end = (detail: string | undefined) => {
    if (isOver) return;
    isOver = true;
    deadline?.[Symbol.dispose]();
    onEnd(detail);
    watch.onExit({ words: detail ?? words });
    ended.resolve();
  };
  const tooMuch = () => {
    if (flood !== undefined) return;
    flood = `it wrote a line of more than ${MAX_LINE_CHARACTERS} characters`;
    // Nothing more is read, and it cannot go on writing.
    child.stdout.destroy();
    rest = "";
    kill();
  };
  child.stdout.setEncoding("utf8");
  child.stdout.on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "" && !isOver) watch.onLine(line);
    // (3)
    if (rest.length > MAX_LINE_CHARACTERS) tooMuch();
  });
  child.stderr.setEncoding("utf8");
  child.stderr.on("data", (text: string) => {
    words = (words + text).slice(-MAX_ERROR_CHARACTERS);
  });
  child.on("error", (error) => end(error.message));
  // Its last lines are read by then.
  child.on("close", () => end(flood));
  return { kill, ended: ended.promise };
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false; // It is looked for elsewhere.
  }
}

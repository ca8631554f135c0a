/**
 * Runs a real coding agent without a person: in a home and a work folder of its own, as a process group of its own, on a network that has loopback only
 * where the machine lets us make one.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { agentsFolder } from "../../tools/agents.mjs";
import { type TestFolder, testFolder } from "../support/folder.ts";

/** The slowest of them takes half a minute on two busy cores. */
const TIME_LIMIT_MS = 120_000;
const MAX_OUTPUT_CHARACTERS = 200_000;

export interface AgentRun {
  readonly code: number | null;
  readonly output: string;
}

export interface AgentHome extends Disposable {
  readonly home: string;
  readonly work: string;
  /** What stands in a file of the work folder; undefined where there is none. */
  read(path: string): string | undefined;
  /** Runs lines of sh in the work folder. */
  run(script: string, env: Readonly<Record<string, string>>): Promise<AgentRun>;
}

/** Where an agent's own program lies. */
export const agentProgram = (name: string): string => join(agentsFolder, "node_modules", ".bin", name);

export function agentHome(): AgentHome {
  const folder: TestFolder = testFolder();
  const [home, work] = [folder.join("home"), folder.join("work")];
  for (const path of [home, work]) mkdirSync(path);
  spawnSync("git", ["init", "-q"], { cwd: work });
  return {
    home,
    work,
    read(path) {
      const file = join(work, path);
      return existsSync(file) ? readFileSync(file, "utf8") : undefined;
    },
    run: (script, env) => run(script, { home, work, env }),
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

async function run(
  script: string,
  { home, work, env }: { readonly home: string; readonly work: string; readonly env: Readonly<Record<string, string>> },
): Promise<AgentRun> {
  const child = spawn("sh", ["-c", script], {
    cwd: work,
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
    env: {
      PATH: `${dirname(process.execPath)}:${process.env["PATH"] ?? ""}`,
      HOME: home,
      XDG_CONFIG_HOME: join(home, ".config"),
      XDG_DATA_HOME: join(home, ".local/share"),
      XDG_CACHE_HOME: join(home, ".cache"),
      XDG_STATE_HOME: join(home, ".local/state"),
      CI: "1",
      NO_COLOR: "1",
      TERM: "dumb",
      ...env,
    },
  });
  let output = "";
  const collect = (text: string) => {
    output = (output + text).slice(-MAX_OUTPUT_CHARACTERS);
  };
  child.stdout.setEncoding("utf8").on("data", collect);
  child.stderr.setEncoding("utf8").on("data", collect);
  const killGroup = () => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // It is gone already.
    }
  };
  const timer = setTimeout(killGroup, TIME_LIMIT_MS);
  try {
    await once(child, "close");
    return { code: child.exitCode, output };
  } finally {
    clearTimeout(timer);
    killGroup();
  }
}

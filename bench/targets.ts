/** What the gateway benchmark compares: the upstream itself, the plain proxies, and ghostd; each started as a process of its own. */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { TargetAddress } from "./chat-request.ts";
import { type StartedProcess, startNode } from "./processes.ts";

export const TARGET_NAMES = ["direct", "plain", "plain-parse", "ghostd"] as const;
export type TargetName = (typeof TARGET_NAMES)[number];

export interface Target extends AsyncDisposable {
  readonly name: TargetName;
  readonly address: TargetAddress;
  /** Undefined for the upstream itself: its cost is not what is measured. */
  readonly pid: number | undefined;
}

export interface Upstream extends AsyncDisposable {
  readonly port: number;
  readonly baseUrl: string;
}

export interface Ghostd extends AsyncDisposable {
  readonly process: StartedProcess;
  readonly port: number;
  readonly socket: string;
  readonly version: string;
  readonly modelKey: string;
  readonly faceKey: string;
  /** Its log so far, a JSON object a line. */
  log(): Promise<string>;
}

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const DAEMON = join(ROOT, "server/daemon/main.ts");

export async function startUpstream(models: readonly string[]): Promise<Upstream> {
  const args = [join(ROOT, "test/fakes/openai-host.ts"), "--port", "0", "--models", models.join(",")];
  const process = await startNode({ args });
  const { baseUrl } = z.object({ baseUrl: z.string() }).parse(process.ready);
  return { port: Number(new URL(baseUrl).port), baseUrl, [Symbol.asyncDispose]: () => process[Symbol.asyncDispose]() };
}

export async function startTarget(name: TargetName, upstream: Upstream): Promise<Target> {
  switch (name) {
    case "direct": {
      const address = { port: upstream.port, modelPrefix: "" };
      return { name, address, pid: undefined, async [Symbol.asyncDispose]() {} };
    }
    case "plain":
    case "plain-parse": {
      const args = [join(ROOT, "bench/plain-proxy.ts"), "--upstream", new URL(upstream.baseUrl).origin];
      const process = await startNode({ args: name === "plain" ? args : [...args, "--parse"] });
      const { port } = z.object({ port: z.number() }).parse(process.ready);
      const dispose = () => process[Symbol.asyncDispose]();
      return { name, address: { port, modelPrefix: "" }, pid: process.pid, [Symbol.asyncDispose]: dispose };
    }
    case "ghostd": {
      const provider = `[providers.compatible.bench]\nbase_url = "${upstream.baseUrl}"\nlocality = "machine"\n`;
      const daemon = await startGhostd(provider);
      const address = { port: daemon.port, key: daemon.modelKey, modelPrefix: "bench/" };
      return { name, address, pid: daemon.process.pid, [Symbol.asyncDispose]: () => daemon[Symbol.asyncDispose]() };
    }
  }
}

export function hasDaemon(): boolean {
  return existsSync(DAEMON);
}

/**
 * Starts ghostd with `config` in folders of its own, which go with it, and an environment that knows nothing of the user's.
 * @param keys environment variables with the keys of fake providers
 */
export async function startGhostd(config: string, keys: Readonly<Record<string, string>> = {}): Promise<Ghostd> {
  const home = await mkdtemp(join(tmpdir(), "ghost-bench-"));
  try {
    const dataDir = join(home, "data");
    const runtimeDir = join(home, "run");
    const configFile = join(home, "ghost.toml");
    await mkdir(dataDir, { mode: 0o700 });
    await mkdir(runtimeDir, { mode: 0o700 });
    await writeFile(configFile, config);
    const asRoot = process.getuid?.() === 0 ? ["--allow-root"] : [];
    const folders = ["--config", configFile, "--data-dir", dataDir, "--runtime-dir", runtimeDir];
    const args = [DAEMON, ...folders, "--port", "0", "--ready-json", ...asRoot];
    const env = { PATH: process.env["PATH"] ?? "", HOME: home, XDG_CONFIG_HOME: home, XDG_DATA_HOME: home, ...keys };
    const daemon = await startNode({ args, env });
    const ready = z.object({ http: z.string(), socket: z.string(), version: z.string() }).parse(daemon.ready);
    return {
      process: daemon,
      port: Number(new URL(ready.http).port),
      socket: ready.socket,
      version: ready.version,
      modelKey: (await readFile(join(dataDir, "model.key"), "utf8")).trim(),
      faceKey: (await readFile(join(dataDir, "face.key"), "utf8")).trim(),
      log: () => readFile(join(dataDir, "ghostd.log"), "utf8"),
      async [Symbol.asyncDispose]() {
        await daemon[Symbol.asyncDispose]();
        await rm(home, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await rm(home, { recursive: true, force: true });
    throw error;
  }
}

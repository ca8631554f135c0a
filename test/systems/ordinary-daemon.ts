/**
 * The daemon as an ordinary user runs it: started from a repository that the user can read, in folders that belong to the user.
 * It ends with its test: `await using` stops it, and the end of the test's process kills what is left.
 */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, chownSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { z } from "zod";
import type { GhostClient } from "../../protocol/ghost-client.ts";
import { connectSocket } from "../../protocol/node/socket-transport.ts";
import type { ExitStatus } from "../support/daemon.ts";
import { ORDINARY_UID, spawnAsOrdinary, type TemporaryFolder } from "./machine.ts";

export interface OrdinaryPlaces {
  readonly repository: TemporaryFolder;
  /** Holds the runtime folder and ghost.toml; belongs to the ordinary user. */
  readonly home: TemporaryFolder;
  readonly dataDir: string;
  /** The text of ghost.toml. */
  readonly config?: string;
}

export interface OrdinaryDaemon extends AsyncDisposable {
  readonly http: string;
  readonly socket: string;
  readonly pid: number;
  readonly dataDir: string;
  readonly modelKey: string;
  readonly faceKey: string;
  connect(): Promise<GhostClient>;
  stop(): Promise<ExitStatus>;
  logs(): string;
}

const running = new Set<ChildProcess>();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));
const readySchema = z.object({ ready: z.literal(true), http: z.string(), socket: z.string() });

/** @throws Error with the exit code and what was written to stderr when it does not become ready. */
export async function startOrdinaryDaemon(places: OrdinaryPlaces): Promise<OrdinaryDaemon> {
  const { repository, home, dataDir, config = "[providers.ollama]\ndiscover = false\n" } = places;
  const configFile = join(home.path, "ghost.toml");
  if (!existsSync(configFile) || places.config !== undefined) {
    writeFileSync(configFile, config);
    chownSync(configFile, ORDINARY_UID, ORDINARY_UID);
  }
  const runtimeDir = join(home.path, "run");
  if (!existsSync(runtimeDir)) {
    mkdirSync(runtimeDir, { mode: 0o700 });
    chownSync(runtimeDir, ORDINARY_UID, ORDINARY_UID);
  }
  const flags = [
    "--ready-json",
    "--port",
    "0",
    "--config",
    configFile,
    "--data-dir",
    dataDir,
    "--runtime-dir",
    runtimeDir,
  ];
  const child = spawnAsOrdinary(
    [join(repository.path, "node_modules/.bin/node"), join(repository.path, "server/daemon/main.ts"), ...flags],
    {
      cwd: home.path,
      env: { PATH: process.env["PATH"] ?? "", HOME: home.path },
    },
  );
  running.add(child);
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const exited = new Promise<ExitStatus>((resolve) => {
    child.once("close", (code, signal) => {
      running.delete(child);
      resolve({ code, signal });
    });
  });
  const line = await Promise.race([once(createInterface({ input: child.stdout }), "line"), exited]);
  const ready = readySchema.safeParse(Array.isArray(line) ? JSON.parse(String(line[0])) : undefined);
  if (!ready.success) {
    const { code } = await exited;
    throw new Error(`exit ${code}: ${stderr}`);
  }
  const key = (name: string) => readFileSync(join(dataDir, name), "utf8").trim();
  const stop = async () => {
    if (running.has(child)) child.kill("SIGTERM");
    return await exited;
  };
  return {
    ...ready.data,
    pid: child.pid ?? 0,
    dataDir,
    modelKey: key("model.key"),
    faceKey: key("face.key"),
    connect: () =>
      connectSocket(ready.data.socket, { key: key("face.key"), clientName: "test", ownerUid: ORDINARY_UID }),
    stop,
    logs: () => readFileSync(join(dataDir, "ghostd.log"), "utf8"),
    async [Symbol.asyncDispose]() {
      await stop();
    },
  };
}

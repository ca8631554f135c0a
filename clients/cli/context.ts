/** What every command gets: where the daemon is, how to talk to it, where to write, and when to stop. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { z } from "zod";
import { GhostApiError } from "../../protocol/errors.ts";
import type { GhostClient } from "../../protocol/ghost-client.ts";
import { defaultLocations, type Locations } from "../../protocol/node/locations.ts";
import { connectSocket } from "../../protocol/node/socket-transport.ts";
import { createOutput, failure, type Output } from "./output.ts";

export interface CliContext {
  readonly output: Output;
  readonly locations: Locations;
  readonly folders: Folders;
  /** Aborts when the user presses Ctrl-C. */
  readonly signal: AbortSignal;
  readonly interrupts: Interrupts;
  /** @throws GhostApiError `daemon_unreachable` when none answers, `unauthenticated` when it does not take our key. */
  connect(): Promise<GhostClient>;
}

/** The folders that the user named; the others have their defaults. */
export interface Folders {
  readonly dataDir?: string | undefined;
  readonly runtimeDir?: string | undefined;
}

export const globalOptions = z.object({
  json: z.boolean().default(false),
  dataDir: z.string().optional(),
  runtimeDir: z.string().optional(),
});

/** Does the work of one command. A number is its exit code; nothing is 0. */
export type CommandBody = (context: CliContext, command: Command) => Promise<number | void>;
/** Makes a command's action out of its body; main.ts has the one implementation. */
export type Runner = (body: CommandBody) => (...parameters: unknown[]) => Promise<void>;

/**
 * Who handles Ctrl-C: by default it aborts the command's signal, and a second one ends the program. Whoever takes it over has it until disposed.
 */
export class Interrupts {
  readonly #handlers: (() => void)[];

  constructor(base: () => void) {
    this.#handlers = [base];
  }

  raise(): void {
    this.#handlers.at(-1)?.();
  }

  take(handler: () => void): Disposable {
    this.#handlers.push(handler);
    return {
      [Symbol.dispose]: () => {
        const index = this.#handlers.lastIndexOf(handler);
        if (index > 0) this.#handlers.splice(index, 1);
      },
    };
  }
}

export function createContext(
  options: z.output<typeof globalOptions>,
  signal: AbortSignal,
  interrupts: Interrupts,
): CliContext {
  const locations = defaultLocations(options);
  return {
    output: createOutput(options.json),
    locations,
    folders: { dataDir: options.dataDir, runtimeDir: options.runtimeDir },
    signal,
    interrupts,
    connect: () => connect(locations),
  };
}

/** Connects as the command line, with the face credential of the data folder. */
export async function connect(locations: Locations): Promise<GhostClient> {
  const key = await readFaceKey(locations);
  try {
    return await connectSocket(locations.socket, { key, clientName: "ghost" });
  } catch (error) {
    if (!(error instanceof GhostApiError && error.code === "unauthenticated")) throw error;
    throw failure(
      "unauthenticated",
      `the daemon at ${locations.socket} does not take the key in ${locations.faceKeyFile}: it runs with another --data-dir, or the file was changed`,
      { socket: locations.socket, path: locations.faceKeyFile },
    );
  }
}

async function readFaceKey(locations: Locations): Promise<string> {
  const file = locations.faceKeyFile;
  try {
    return (await readFile(file, "utf8")).trim();
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    if (code !== "ENOENT") {
      throw failure("folder_unusable", `the face credential cannot be read: ${file} (${String(code)})`, { path: file });
    }
    // The daemon writes the key at its first start.
    throw failure(
      "daemon_unreachable",
      `no daemon answers: none has run with the data folder ${locations.dataDir} yet`,
      {
        dataDir: locations.dataDir,
      },
    );
  }
}

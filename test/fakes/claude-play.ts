/** How the fake `claude` is told to answer, and how a test finds what it was asked. */
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { TestFolder } from "../support/folder.ts";

/** Everything is optional: the default is a short healthy answer. */
export interface ClaudePlay {
  readonly thinking?: string;
  readonly deltas?: readonly string[];
  readonly stopReason?: string;
  /** What happens behind the deltas. `give-up`: the message is abandoned, as before another try. */
  readonly after?: "hang" | "die" | "flood" | "give-up";
  /** The API refused, and it is going to try again. */
  readonly retry?: { readonly status: number | null; readonly error: string };
  /** Ends with an error in its own words. */
  readonly result?: string;
  readonly status?: number;
  /** Ends with words on stderr only. */
  readonly stderr?: string;
}

const askedSchema = z.object({
  args: z.array(z.string()),
  prompt: z.string(),
  cwd: z.string(),
  files: z.array(z.string()),
  env: z.record(z.string(), z.string()),
});
export type ClaudeAsked = z.infer<typeof askedSchema>;

export interface FakeClaude {
  /** An executable file. */
  readonly command: string;
  play(play: ClaudePlay): void;
  asked(): readonly ClaudeAsked[];
}

const PROGRAM = fileURLToPath(new URL("claude-program.ts", import.meta.url));

export function fakeClaude(folder: TestFolder): FakeClaude {
  const place = folder.join("claude.json");
  const command = folder.join("claude");
  const script = `#!/bin/sh\nFAKE_CLAUDE='${place}' exec '${process.execPath}' --disable-warning=ExperimentalWarning '${PROGRAM}' "$@"\n`;
  writeFileSync(command, script);
  chmodSync(command, 0o755);
  const play = (wanted: ClaudePlay) => writeFileSync(place, JSON.stringify(wanted));
  play({});
  return {
    command,
    play,
    asked() {
      const file = `${place}.asked`;
      if (!existsSync(file)) return [];
      const lines = readFileSync(file, "utf8").split("\n").filter(Boolean);
      return lines.map((line) => askedSchema.parse(JSON.parse(line)));
    },
  };
}

/** The lines typed into `ghost chat`, kept in a file of mode 0600 in the data folder: one JSON string a line, the latest last. */
import { appendFileSync, chmodSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { z } from "zod";

/** As many as anyone scrolls back through. */
const MAX_LINES = 1000;
/** A pasted file is not worth repeating. */
const MAX_LINE_CHARACTERS = 10_000;

const linesSchema = z.string();

export interface History {
  /** The latest first, each on one line, as readline wants them. */
  readonly lines: readonly string[];
  add(message: string): void;
}

/** A file that cannot be read or written costs the history, never the conversation: `warn` is told once. */
export function openHistory(file: string, warn: (problem: string) => void): History {
  let lines = load(file);
  let isWritable = true;
  const attempt = (work: () => void) => {
    if (!isWritable) return;
    try {
      work();
    } catch (error) {
      isWritable = false;
      warn(`the history is not kept: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  if (lines.length > MAX_LINES) {
    lines = lines.slice(-MAX_LINES);
    attempt(() => {
      writeFileSync(`${file}.new`, lines.map(encode).join(""), { mode: 0o600 });
      renameSync(`${file}.new`, file);
    });
  }
  return {
    get lines() {
      return lines.map((line) => line.replaceAll("\n", " ")).toReversed();
    },
    add(message) {
      if (message.length > MAX_LINE_CHARACTERS || message === lines.at(-1)) return;
      lines = [...lines, message].slice(-MAX_LINES);
      attempt(() => {
        appendFileSync(file, encode(message), { mode: 0o600 });
        chmodSync(file, 0o600);
      });
    },
  };
}

function encode(line: string): string {
  return `${JSON.stringify(line)}\n`;
}

function load(file: string): readonly string[] {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    return []; // There is none yet.
  }
  return text.split("\n").flatMap((line) => {
    try {
      return [linesSchema.parse(JSON.parse(line))];
    } catch {
      return []; // Half a line, from a program that was killed while it wrote.
    }
  });
}

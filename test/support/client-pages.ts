/**
 * The pages of docs/clients as their readers use them: files are written where the page says, shell lines are run in the page's order, programs are run
 * by the project's own node. So a page that is wrong fails.
 */
import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { root } from "../../tools/source-files.ts";
import { GHOST } from "./cli.ts";
import type { TestDaemon } from "./daemon.ts";

const FOLDER = join(root, "docs", "clients");

export interface Block {
  readonly language: string;
  readonly text: string;
  /** The file that it belongs into: the last that the paragraph before it names, `~/…` or `ghost.toml`. */
  readonly file: string | undefined;
  /** The paragraph before it. */
  readonly lead: string;
}

export interface ClientPage {
  readonly name: string;
  readonly text: string;
  readonly blocks: readonly Block[];
}

export function clientPages(): readonly ClientPage[] {
  const files = readdirSync(FOLDER).filter((file) => file.endsWith(".md") && file !== "README.md");
  const names = files.map((file) => file.replace(/\.md$/, ""));
  return names.toSorted().map((name) => readPage(name));
}

export function readPage(name: string): ClientPage {
  const text = readFileSync(join(FOLDER, `${name}.md`), "utf8");
  const fences = [...text.matchAll(/^```(\w*)\n([^]*?)^```$/gm)];
  const blocks = fences.map(({ 1: language = "", 2: content = "", index }) => {
    const lead = text.slice(0, index).trimEnd().split("\n\n").at(-1) ?? "";
    const file = [...lead.matchAll(/`(~\/[^`\s]+|ghost\.toml)`/g)].at(-1)?.[1];
    return { language, text: content, file: lead.endsWith(":") ? file : undefined, lead };
  });
  return { name, text, blocks };
}

export interface Doors extends Pick<TestDaemon, "http" | "modelKey" | "env"> {
  /** Where the keyless Ollama front listens. */
  readonly ollama?: string;
}

/** The page's words for this daemon's address and key, replaced by what they stand for. */
export function fillIn(text: string, { http, modelKey, ollama }: Doors): string {
  return text
    .replaceAll("http://127.0.0.1:4747", http)
    .replaceAll("http://127.0.0.1:11435", ollama ?? "http://127.0.0.1:11435")
    .replaceAll("the key that ghost env prints", modelKey);
}

/** A program as the page's shell finds it. */
export interface Shim {
  readonly name: string;
  /** What it does, as lines of sh; `"$@"` are its arguments. */
  readonly script: string;
}

export interface PlacedPage {
  /** Runs all of the page's shell lines and programs, one after the other; the first that fails ends it. */
  readonly script: string;
  /** The `ghost` of this daemon, and the shims, before everything else. */
  readonly path: string;
  /** The files of the home folder that the page asked for. */
  readonly files: readonly string[];
}

/** What comes before the output of each program, with its number. */
export const MARK = "== program ";

/**
 * Writes what the page asks for into a home folder.
 * @param edit settings that only a test needs: no updates, no questions
 */
export function placePage(
  page: ClientPage,
  home: string,
  options: {
    readonly doors: Doors;
    readonly shims: readonly Shim[];
    readonly edit?: ((text: string) => string) | undefined;
    /** Only the shell blocks that match. */
    readonly only?: RegExp | undefined;
  },
): PlacedPage {
  const { doors, shims, edit = (text: string) => text, only } = options;
  const files: string[] = [];
  const lines: string[] = ["set -eu"];
  for (const [index, block] of page.blocks.entries()) {
    const text = fillIn(block.text, doors);
    if (block.file?.startsWith("~/") === true) {
      write(join(home, block.file.slice(2)), edit(text));
      files.push(block.file);
    } else if (block.language === "sh") {
      if (only?.test(text) !== false) lines.push(text);
    } else if (block.language === "ts") {
      write(join(home, "programs", `${index}.ts`), text);
      lines.push(`printf '\\n${MARK}${index}\\n'`, `"${process.execPath}" "$HOME/programs/${index}.ts"`);
    }
  }
  if (page.blocks.some(({ language }) => language === "ts")) {
    write(join(home, "programs", "package.json"), '{"type":"module"}');
    symlinkSync(join(root, "node_modules"), join(home, "programs", "node_modules"));
  }
  const bin = join(home, "shims");
  const settings = Object.entries(doors.env).filter(([name]) => name.startsWith("XDG_") || name === "HOME");
  const found = settings.map(([name, value]) => `${name}='${value}'`).join(" ");
  const ghost = { name: "ghost", script: `${found} exec "${process.execPath}" "${GHOST}" "$@"` };
  for (const { name, script } of [ghost, ...shims]) {
    write(join(bin, name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(bin, name), 0o755);
  }
  return { script: lines.join("\n"), path: `${bin}:${dirname(process.execPath)}:${process.env["PATH"] ?? ""}`, files };
}

function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

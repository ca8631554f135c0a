/** `ghost complete FILE[:LINE[:COL]]`: what an editor shows as ghost text, for a place in a real file. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { z } from "zod";
import { showAnswer } from "../answer.ts";
import type { CliContext, Runner } from "../context.ts";
import { examples, wholeNumber } from "../options.ts";
import { failure } from "../output.ts";

/** More than any model's window; what is farther away than this is not even sent. */
const MAX_PREFIX_CHARACTERS = 1_000_000;
const MAX_SUFFIX_CHARACTERS = 250_000;

const completeOptions = z.object({
  model: z.string().optional(),
  maxTokens: z.number().optional(),
  multiline: z.boolean().default(false),
});

export function registerComplete(program: Command, run: Runner): void {
  program
    .command("complete <place>")
    .description("continue the code at FILE[:LINE[:COLUMN]]: the file's end, a line's end, or a column counted from 1")
    .option("-m, --model <name>", "a model, a virtual one like ghost/fast, or an alias")
    .option("--max-tokens <number>", "the longest continuation (default: 32)", wholeNumber(1, 4096))
    .option("--multiline", "go on after the end of the line")
    .addHelpText(
      "after",
      examples(
        "ghost complete src/main.ts",
        "ghost complete src/main.ts:12",
        "ghost complete src/main.ts:12:20 --json",
      ),
    )
    .action(run((context, command) => complete(context, command.args, completeOptions.parse(command.opts()))));
}

async function complete(
  context: CliContext,
  [place = ""]: readonly string[],
  options: z.output<typeof completeOptions>,
): Promise<void> {
  const { file, line, column } = parsePlace(place);
  const text = await readSource(file);
  const cursor = findCursor(text, line, column, file);
  using client = await context.connect();
  const updates = client.api.completion.create(
    {
      prefix: text.slice(Math.max(0, cursor - MAX_PREFIX_CHARACTERS), cursor),
      suffix: text.slice(cursor, cursor + MAX_SUFFIX_CHARACTERS),
      ...(options.model === undefined ? {} : { model: options.model }),
      ...(options.maxTokens === undefined ? {} : { maxTokens: options.maxTokens }),
      ...(options.multiline ? { stop: [] } : {}),
    },
    context.signal,
  );
  const { text: continuation } = await showAnswer(context.output, updates);
  if (continuation.trim() === "" && !context.output.json) context.output.note("no suggestion");
}

interface Place {
  readonly file: string;
  readonly line: number | undefined;
  readonly column: number | undefined;
}

/** `a.ts`, `a.ts:3`, `a.ts:3:7`; a colon that no number follows belongs to the name. */
export function parsePlace(place: string): Place {
  const [, file = place, line, column] = /^(.+?)(?::(\d+))?(?::(\d+))?$/.exec(place) ?? [];
  const number = (digits: string | undefined) => (digits === undefined ? undefined : Number(digits));
  return { file, line: number(line), column: number(column) };
}

/**
 * The offset of a place. Lines and columns count from 1; a column counts UTF-16 units, as editors do, and one past the last is the line's end.
 * @throws GhostApiError `usage` for a place that the file does not have.
 */
export function findCursor(text: string, line: number | undefined, column: number | undefined, file: string): number {
  if (line === undefined) return text.length;
  let start = 0;
  for (let current = 1; current < line; current += 1) {
    const end = text.indexOf("\n", start);
    if (end === -1) throw failure("usage", `${file} has only ${current} lines`);
    start = end + 1;
  }
  if (line < 1) throw failure("usage", "lines count from 1");
  const end = text.indexOf("\n", start);
  const length = (end === -1 ? text.length : end) - start;
  const hasReturn = text[start + length - 1] === "\r";
  const width = hasReturn ? length - 1 : length;
  if (column === undefined) return start + width;
  if (column >= 1 && column <= width + 1) return start + column - 1;
  throw failure("usage", `line ${line} of ${file} has the columns 1 to ${width + 1}`);
}

async function readSource(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw failure("usage", `cannot read ${file}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** `ghost logs`: the daemon's log, readable; from the file itself when no daemon answers, because that is when it is needed most. */
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import type { CliContext, Runner } from "../context.ts";
import { tryConnect } from "../daemon-process.ts";
import { examples, wholeNumber } from "../options.ts";
import { failure, type Output } from "../output.ts";
import { escapeJson, escapeLine } from "../terminal-text.ts";

/** As many bytes of the file's end as hold more lines than anyone asks for. */
const TAIL_BYTES = 4 * 1024 * 1024;
const LEVEL_FORMATS = { debug: "dim", info: "cyan", warn: "yellow", error: "red" } as const;

const logsOptions = z.object({ follow: z.boolean().default(false), lines: z.number().default(100) });
const lineSchema = z.looseObject({
  at: z.string(),
  level: z.enum(["debug", "info", "warn", "error"]),
  event: z.string(),
});

export function registerLogs(program: Command, run: Runner): void {
  program
    .command("logs")
    .description("print the daemon's log (with --json as it is stored: one JSON object a line)")
    .option("-f, --follow", "go on with new lines as they are written")
    .option("-n, --lines <number>", "how many of the latest lines (default: 100)", wholeNumber(0, 10_000))
    .addHelpText("after", examples("ghost logs", "ghost logs -n 20 -f", "ghost logs --json | jq .event"))
    .action(run((context, command) => logs(context, logsOptions.parse(command.opts()))));
}

async function logs(context: CliContext, options: z.output<typeof logsOptions>): Promise<void> {
  const { output, locations, signal } = context;
  using client = await tryConnect(locations);
  if (client !== undefined) {
    for await (const { line } of client.api.daemon.logs(options, signal)) printLine(output, line);
    return;
  }
  if (options.follow)
    throw failure("daemon_unreachable", `no daemon answers at ${locations.socket}: nothing to follow`);
  output.note("no daemon answers; these are the last lines of its log file");
  for (const line of await tail(join(locations.dataDir, "ghostd.log"), options.lines)) printLine(output, line);
}

async function tail(file: string, count: number): Promise<readonly string[]> {
  try {
    await using handle = await open(file, "r");
    const { size } = await handle.stat();
    const length = Math.min(size, TAIL_BYTES);
    const { buffer } = await handle.read({ buffer: Buffer.alloc(length), position: size - length });
    return count === 0 ? [] : buffer.toString("utf8").split("\n").filter(Boolean).slice(-count);
  } catch (cause) {
    throw failure("daemon_unreachable", `no daemon answers, and there is no log at ${file}`, { path: file });
  }
}

function printLine(output: Output, line: string): void {
  if (output.json) return output.line(output.isTerminal ? escapeJson(line) : line);
  const parsed = lineSchema.safeParse(parseJson(line));
  if (!parsed.success) return output.line(escapeLine(line));
  const { at, level, event, ...fields } = parsed.data;
  const rest = Object.entries(fields).map(([name, value]) => `${name}=${fieldText(value)}`);
  const time = output.paint("dim", at.replace("T", " ").replace("Z", ""));
  const head = `${time} ${output.paint(LEVEL_FORMATS[level], level.padEnd(5))} ${escapeLine(event)}`;
  output.line([head, ...rest.map(escapeLine)].join(" "));
}

function fieldText(value: unknown): string {
  return typeof value === "string" && !value.includes(" ") ? value : JSON.stringify(value);
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined; // The daemon was killed while it wrote this line.
  }
}

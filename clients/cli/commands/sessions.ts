/** `ghost sessions`: what was said, kept by the daemon. */
import type { Command } from "commander";
import { z } from "zod";
import type { GhostApi } from "../../../protocol/ghost-api.ts";
import type { SessionEntry, SessionSummary } from "../../../protocol/session.ts";
import { sessionIdSchema, threadIdSchema } from "../../../protocol/ids.ts";
import type { CliContext, Runner } from "../context.ts";
import { asCalled, commandName } from "../invocation.ts";
import { examples, wholeNumber } from "../options.ts";
import { failure, type Output, table } from "../output.ts";
import { escapeLine, escapeText, formatTime, plural } from "../terminal-text.ts";

type Shown = Awaited<ReturnType<GhostApi["session"]["get"]>>;

const listOptions = z.object({ limit: z.number().default(50), cursor: z.string().optional() });
const showOptions = z.object({ thread: z.string().optional() });

export function registerSessions(program: Command, run: Runner): void {
  const sessions = program
    .command("sessions")
    .description("list, show and delete stored conversations")
    .addHelpText(
      "after",
      examples("ghost sessions", "ghost sessions show ses_…", "ghost sessions rm ses_…", "ghost chat --session ses_…"),
    );
  sessions
    .command("list", { isDefault: true })
    .description("list them, the one changed last first")
    .option("-n, --limit <number>", "how many (default: 50)", wholeNumber(1, 1000))
    .option("--cursor <text>", "go on where a page ended; each page that has a next one names its cursor")
    .addHelpText("after", examples("ghost sessions list -n 10", "ghost sessions --json"))
    .action(run((context, command) => list(context, listOptions.parse(command.opts()))));
  sessions
    .command("show <id>")
    .description("print a conversation")
    .option("--thread <id>", "another of its threads")
    .addHelpText("after", examples("ghost sessions show ses_…", "ghost sessions show ses_… --json"))
    .action(run((context, command) => show(context, command.args, showOptions.parse(command.opts()).thread)));
  sessions
    .command("rm <ids...>")
    .description("delete conversations for good")
    .addHelpText("after", examples("ghost sessions rm ses_…"))
    .action(run((context, command) => remove(context, command.args)));
}

async function list(context: CliContext, { limit, cursor }: z.output<typeof listOptions>): Promise<void> {
  const { output, signal } = context;
  using client = await context.connect();
  const found = await client.api.session.list({ limit, cursor }, signal);
  if (output.json) return output.document(found);
  listSessions(output, found.sessions);
  if (found.nextCursor === undefined) return;
  output.note(`more: ${commandName()} sessions list -n ${limit} --cursor ${escapeLine(found.nextCursor)}`);
}

export function listSessions(output: Output, sessions: readonly SessionSummary[]): void {
  if (sessions.length === 0) return output.line(asCalled("There are no sessions yet. `ghost chat` begins one."));
  table(output, sessions, [
    { title: "SESSION", text: (session) => session.id, format: () => "bold" },
    { title: "CHANGED", text: (session) => formatTime(session.updatedAtMs) },
    { title: "MSGS", text: (session) => String(session.messages), align: "right" },
    { title: "TITLE", text: (session) => session.title, flexible: true },
  ]);
}

async function show(context: CliContext, [id = ""]: readonly string[], thread: string | undefined): Promise<void> {
  const { output, signal } = context;
  checkId(id);
  if (thread !== undefined && !threadIdSchema.safeParse(thread).success) {
    throw failure("usage", `"${thread}" is not the id of a thread; \`ghost sessions show ${id}\` lists them`);
  }
  using client = await context.connect();
  const found = await client.api.session.get(
    thread === undefined ? { sessionId: id } : { sessionId: id, threadId: thread },
    signal,
  );
  if (output.json) return output.document(found);
  const { session, threads, entries } = found;
  output.note(`${session.id}, begun ${formatTime(session.createdAtMs)} by ${escapeLine(session.client)}`);
  if (threads.length > 1) listThreads(output, found);
  showEntries(output, entries);
}

/** A conversation that was taken up again in its middle has several; one is shown. */
function listThreads(output: Output, { session, threads, threadId }: Shown): void {
  output.note(`${plural(threads.length, "thread")}, the one changed last first:`);
  for (const { id, updatedAtMs } of threads.toSorted((a, b) => b.updatedAtMs - a.updatedAtMs)) {
    const mark = id === threadId ? "   (shown)" : "";
    output.note(`  ${id}   changed ${formatTime(updatedAtMs)}${mark}`);
  }
  output.note(`another one: ${commandName()} sessions show ${session.id} --thread ID`);
}

const ROLE_FORMATS = { system: "dim", developer: "dim", user: "cyan", assistant: "green", tool: "magenta" } as const;

export function showEntries(output: Output, entries: readonly SessionEntry[]): void {
  for (const { role, answer, text, toolCalls } of entries) {
    const who = answer === undefined ? role : `${role} (${escapeLine(answer.model)}${describeState(answer.state)})`;
    output.line(output.paint(ROLE_FORMATS[role], who));
    if (text !== "") output.line(output.isTerminal ? escapeText(text) : text);
    for (const call of toolCalls) output.line(`→ ${escapeLine(call.name)}(${escapeLine(call.arguments)})`);
    if (answer?.error !== undefined) output.line(output.paint("red", escapeLine(answer.error)));
    output.line();
  }
}

function describeState(state: NonNullable<SessionEntry["answer"]>["state"]): string {
  return state === "complete" ? "" : `, ${state}`;
}

async function remove(context: CliContext, ids: readonly string[]): Promise<void> {
  const { output, signal } = context;
  ids.forEach(checkId);
  using client = await context.connect();
  const removed: { id: string; deletedEntries: number }[] = [];
  for (const id of ids) {
    const { deletedEntries } = await client.api.session.delete({ sessionId: id }, signal);
    removed.push({ id, deletedEntries });
    if (!output.json) output.line(`deleted ${id} (${plural(deletedEntries, "message")})`);
  }
  if (output.json) output.document({ deleted: removed });
}

function checkId(id: string): void {
  if (sessionIdSchema.safeParse(id).success) return;
  throw failure("usage", `"${id}" is not the id of a session; \`ghost sessions\` lists them`);
}

/** What the daemon knows about itself, as tables: `usage`, `route explain`, `policy`, `ledger`, `settings`. */
import { Option, type Command } from "commander";
import { z } from "zod";
import { routeTaskSchema } from "../../../protocol/route.ts";
import type { CliContext, Runner } from "../context.ts";
import { examples, wholeNumber } from "../options.ts";
import { table } from "../output.ts";
import { escapeLine, formatTime } from "../terminal-text.ts";

const DAY_MS = 24 * 3600 * 1000;
const VERDICT_FORMATS = { allow: "green", prompt: "yellow", deny: "red" } as const;

const usageOptions = z.object({ days: z.number().optional() });
const explainOptions = z.object({ task: routeTaskSchema.default("chat") });
const ledgerOptions = z.object({ limit: z.number().default(30) });

export function registerReports(program: Command, run: Runner): void {
  program
    .command("usage")
    .description("answers and tokens by model")
    .option("--days <number>", "only the last days", wholeNumber(1, 36_500))
    .addHelpText("after", examples("ghost usage", "ghost usage --days 7 --json"))
    .action(run((context, command) => usage(context, usageOptions.parse(command.opts()).days)));
  program
    .command("route")
    .description("how models are chosen")
    .command("explain <model>")
    .description("which model would answer, and why; nothing is sent")
    .addOption(new Option("--task <task>", "for what (default: chat)").choices(routeTaskSchema.options))
    .addHelpText(
      "after",
      examples("ghost route explain ghost/auto", "ghost route explain ghost/fast --task completion"),
    )
    .action(run((context, command) => explain(context, command.args, explainOptions.parse(command.opts()).task)));
  program
    .command("policy")
    .description("what GhostWarden allows, asks about, and denies")
    .addHelpText("after", examples("ghost policy", "ghost policy --json"))
    .action(run((context) => policy(context)));
  program
    .command("ledger")
    .description("what was asked for, decided and done, the latest first")
    .option("-n, --limit <number>", "how many rows (default: 30)", wholeNumber(1, 1000))
    .addHelpText("after", examples("ghost ledger", "ghost ledger -n 5 --json"))
    .action(run((context, command) => ledger(context, ledgerOptions.parse(command.opts()).limit)));
  program
    .command("settings")
    .description("all settings, their values, and where each comes from")
    .addHelpText("after", examples("ghost settings", "ghost settings --json"))
    .action(run((context) => settings(context)));
}

async function usage(context: CliContext, days: number | undefined): Promise<void> {
  const { output, signal } = context;
  using client = await context.connect();
  const sinceMs = days === undefined ? 0 : Date.now() - days * DAY_MS;
  const found = await client.api.usage.summary({ sinceMs }, signal);
  if (output.json) return output.document(found);
  if (found.models.length === 0) return output.line("No answers yet.");
  table(output, found.models, [
    { title: "MODEL", text: (row) => row.model, flexible: true, format: () => "bold" },
    { title: "ANSWERS", text: (row) => String(row.answers), align: "right" },
    { title: "BROKEN OFF", text: (row) => String(row.interrupted), align: "right" },
    { title: "TOKENS IN", text: (row) => String(row.promptTokens), align: "right" },
    { title: "OUT", text: (row) => String(row.completionTokens), align: "right" },
    { title: "NOT COUNTED", text: (row) => String(row.answersWithoutUsage), align: "right" },
  ]);
}

async function explain(
  context: CliContext,
  [model = ""]: readonly string[],
  task: z.output<typeof routeTaskSchema>,
): Promise<void> {
  const { output, signal } = context;
  using client = await context.connect();
  const decision = await client.api.route.explain({ model, task }, signal);
  if (output.json) return output.document(decision);
  output.line(`${output.paint("bold", escapeLine(decision.plan.join(" → ")))}: ${escapeLine(decision.reason)}`);
  output.line();
  table(output, decision.candidates, [
    { title: "MODEL", text: (candidate) => candidate.model, flexible: true },
    { title: "WHERE", text: (candidate) => candidate.locality },
    {
      title: "SCORE",
      text: ({ rejectedBecause, score }) =>
        rejectedBecause ??
        Object.entries(score)
          .map(([part, value]) => `${part} ${Number(value.toFixed(3))}`)
          .join(", "),
      format: ({ rejectedBecause }) => (rejectedBecause === undefined ? "reset" : "red"),
    },
  ]);
}

async function policy(context: CliContext): Promise<void> {
  const { output, signal } = context;
  using client = await context.connect();
  const found = await client.api.policy.get({}, signal);
  if (output.json) return output.document(found);
  table(output, found.capabilities, [
    { title: "CAPABILITY", text: (row) => row.capability },
    { title: "VERDICT", text: (row) => row.verdict, format: (row) => VERDICT_FORMATS[row.verdict] },
    { title: "FROM", text: (row) => (row.line === undefined ? row.source : `line ${row.line} of your rules`) },
  ]);
  output.line();
  output.line(output.paint("dim", `your rules: ${escapeLine(found.file)}`));
  if (found.problem !== undefined) output.note(escapeLine(found.problem), "red");
}

async function ledger(context: CliContext, limit: number): Promise<void> {
  const { output, signal } = context;
  using client = await context.connect();
  const found = await client.api.ledger.list({ limit }, signal);
  if (output.json) return output.document(found);
  if (found.rows.length === 0) return output.line("Nothing has been asked for yet.");
  table(output, found.rows, [
    { title: "ID", text: (row) => String(row.id), align: "right" },
    { title: "WHEN", text: (row) => formatTime(row.atMs) },
    { title: "ACTOR", text: (row) => row.actor, flexible: true },
    { title: "EFFECT", text: (row) => `${row.capability} ${row.resource}`, flexible: true },
    {
      title: "DECISION",
      text: (row) => row.decision,
      format: ({ decision }) => (decision === "allowed" || decision === "approved" ? "green" : "red"),
    },
    { title: "OUTCOME", text: (row) => row.outcome },
  ]);
}

async function settings(context: CliContext): Promise<void> {
  const { output, signal } = context;
  using client = await context.connect();
  const found = await client.api.settings.get({}, signal);
  if (output.json) return output.document(found);
  table(output, found.settings, [
    { title: "SETTING", text: (row) => row.path },
    { title: "VALUE", text: (row) => JSON.stringify(row.value), flexible: true },
    { title: "FROM", text: (row) => row.source, format: ({ source }) => (source === "default" ? "dim" : "reset") },
  ]);
  output.line();
  output.line(output.paint("dim", `file: ${escapeLine(found.file)}`));
}

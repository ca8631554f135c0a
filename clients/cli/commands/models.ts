/** `ghost models`: what there is, and `ghost models pull`: fetching weights for the embedded engine. */
import type { Command } from "commander";
import { z } from "zod";
import type { GhostApi } from "../../../protocol/ghost-api.ts";
import type { ModelInfo } from "../../../protocol/model.ts";
import { askOnTerminal } from "../approvals.ts";
import type { CliContext, Runner } from "../context.ts";
import { asCalled, commandName } from "../invocation.ts";
import { examples, sha256Digits } from "../options.ts";
import { failure, type Output, table } from "../output.ts";
import { createPullProgress } from "../pull-progress.ts";
import { createTerminalInput } from "../terminal-input.ts";
import { escapeLine, formatBytes, plural, wrap } from "../terminal-text.ts";

type ModelList = Awaited<ReturnType<GhostApi["model"]["list"]>>;

const listOptions = z.object({ refresh: z.boolean().default(false) });
const pullOptions = z.object({ name: z.string().optional(), sha256: z.string().optional() });

export function registerModels(program: Command, run: Runner): void {
  const models = program
    .command("models")
    .description("list the models and the state of their servers")
    .option("--refresh", "ask the servers again")
    .addHelpText("after", examples("ghost models", "ghost models --refresh --json", "ghost models pull --help"))
    .action(run((context, command) => list(context, listOptions.parse(command.opts()).refresh)));
  models
    .command("pull <source>")
    .description("download GGUF weights and register them (an interrupted download resumes)")
    .option("--name <name>", "the model's name (default: that of the file)")
    .option("--sha256 <digits>", "refuse the file unless it has this checksum", sha256Digits)
    .addHelpText(
      "after",
      examples(
        "ghost models pull hf:OWNER/REPOSITORY/FILE.gguf",
        "ghost models pull https://example.org/weights.gguf --name mine",
      ),
    )
    .action(run((context, command) => pull(context, command.args, pullOptions.parse(command.opts()))));
}

async function list(context: CliContext, refresh: boolean): Promise<void> {
  using client = await context.connect();
  const found = await client.api.model.list({ refresh }, context.signal);
  if (context.output.json) context.output.document(found);
  else listModels(context.output, found);
}

/** The models and the state of their servers, as two tables. */
export function listModels(output: Output, { models, providers }: ModelList): void {
  if (models.length === 0) output.line(asCalled("There are no models. `ghost doctor` says what is missing."));
  else {
    table(output, models, [
      { title: "MODEL", text: (model) => model.ref, flexible: true, format: () => "bold" },
      { title: "WHERE", text: (model) => model.locality },
      { title: "CAN", text: (model) => describeCapabilities(model) },
      { title: "WINDOW", text: (model) => String(model.contextWindow ?? "?"), align: "right" },
      {
        title: "SIZE",
        text: (model) => (model.sizeBytes === undefined ? "" : formatBytes(model.sizeBytes)),
        align: "right",
      },
    ]);
  }
  for (const { name, note } of models) {
    if (note === undefined) continue;
    const lines = wrap(`${escapeLine(name)}: ${escapeLine(note)}`, Math.max(40, output.columns - 2));
    for (const line of lines) output.line(output.paint("yellow", `  ${line}`));
  }
  output.line();
  const absent = providers.filter(({ state }) => state === "absent");
  const present = providers.filter(({ state }) => state !== "absent");
  table(output, present, [
    { title: "PROVIDER", text: (provider) => provider.id },
    { title: "ADDRESS", text: (provider) => provider.address, flexible: true },
    { title: "WHERE", text: (provider) => provider.locality },
    {
      title: "STATE",
      text: ({ state }) => state,
      format: ({ state }) => (state === "ok" || state === "idle" ? "green" : "red"),
    },
    { title: "MODELS", text: (provider) => String(provider.models), align: "right" },
  ]);
  for (const { id, problem } of present) {
    if (problem !== undefined) output.line(output.paint("red", `  ${escapeLine(id)}: ${escapeLine(problem)}`));
  }
  listAbsent(output, absent);
}

/** What could be there and is not, in a line or two: no fault, and no row of a table. */
function listAbsent(output: Output, absent: ModelList["providers"]): void {
  const names = (isLocal: boolean) =>
    absent.filter(({ kind }) => (kind === "ollama") === isLocal).map(({ id }) => escapeLine(id));
  const [local, accounts] = [names(true), names(false)];
  const lines = [
    ...(local.length === 0 ? [] : [`not running: ${local.join(", ")}`]),
    ...(accounts.length === 0 ? [] : [asCalled(`no key yet (\`ghost keys set NAME\`): ${accounts.join(", ")}`)]),
  ];
  for (const text of lines) {
    for (const line of wrap(text, Math.max(40, output.columns - 2))) output.line(output.paint("dim", `  ${line}`));
  }
}

function describeCapabilities({ capabilities, demonstration }: ModelInfo): string {
  const names = [
    [demonstration === true ? false : capabilities.chat, "chat"],
    [capabilities.fim || capabilities.complete, "code"],
    [capabilities.embeddings, "embed"],
    [capabilities.tools, "tools"],
    [capabilities.vision, "images"],
    [demonstration === true, "(demo)"],
  ] as const;
  return names.flatMap(([can, name]) => (can ? [name] : [])).join(" ");
}

async function pull(
  context: CliContext,
  [source = ""]: readonly string[],
  options: z.output<typeof pullOptions>,
): Promise<void> {
  const { output, signal } = context;
  using client = await context.connect();
  const canAsk = process.stdin.isTTY && process.stderr.isTTY;
  using input = canAsk ? createTerminalInput(() => context.interrupts.raise()) : undefined;
  await using _asking = input === undefined ? undefined : askOnTerminal({ api: client.api, output, input });
  const progress = createPullProgress(output);
  try {
    for await (const update of client.api.model.pull({ source, ...options }, signal)) {
      if (output.json) output.item(update);
      else progress.show(update);
      if (update.kind !== "done") continue;
      if (!output.json) printPulled(output, update.model, update.sha256);
      return;
    }
    throw failure("download_failed", "the download ended without a result");
  } catch (error) {
    progress.end();
    if (signal.aborted) {
      output.note("stopped; what has arrived is kept, and the same command resumes:");
      output.note(`  ${repeatCommand(source, options)}`);
    }
    throw error;
  }
}

function printPulled(output: Output, model: ModelInfo, sha256: string): void {
  output.line(`${output.paint("green", "✓")} ${escapeLine(model.ref)} is ready (sha256 ${sha256}).`);
  if (model.note !== undefined) output.line(escapeLine(model.note));
  const can = describeCapabilities(model);
  output.note(
    `it can: ${can === "" ? plural(0, "thing") : can}; try: ${commandName()} chat --model ${escapeLine(model.ref)} "hello"`,
  );
}

function repeatCommand(source: string, { name, sha256 }: z.output<typeof pullOptions>): string {
  const flag = (flagName: string, value: string | undefined) => (value === undefined ? [] : [flagName, value]);
  return escapeLine(
    [`${commandName()} models pull`, source, ...flag("--name", name), ...flag("--sha256", sha256)].join(" "),
  );
}

/**
 * `ghost keys`: the keys of providers.
 * 1. A key is typed at a hidden prompt or piped in. On the command line it is refused: there the shell's history and every user of the machine see it.
 * 2. What is refused is never repeated, on the screen or to the daemon: it may be a key.
 */
import type { Command } from "commander";
import type { GhostApi } from "../../../protocol/ghost-api.ts";
import { keyProviderSchema, type KeyRow, keyValueSchema } from "../../../protocol/key.ts";
import type { CliContext, Runner } from "../context.ts";
import { askHidden } from "../hidden-input.ts";
import { asCalled, commandName } from "../invocation.ts";
import { examples } from "../options.ts";
import { failure, type Output, table } from "../output.ts";
import { readStdin } from "../stdin.ts";
import { escapeLine, formatDuration, formatTime } from "../terminal-text.ts";

type KeyList = Awaited<ReturnType<GhostApi["key"]["list"]>>;

const EXIT_FAILED = 1;

export function registerKeys(program: Command, run: Runner): void {
  const keys = program
    .command("keys")
    .description("store, list, test and remove the keys of providers")
    .addHelpText(
      "after",
      examples(
        "ghost keys                      which providers have a key",
        "ghost keys set anthropic        asks for the key, without showing it",
        "ghost keys set anthropic < file",
        "ghost keys test anthropic",
        "ghost keys rm anthropic",
      ),
    );
  keys
    .command("list", { isDefault: true })
    .description("list the providers that take a key, and where theirs comes from")
    .addHelpText("after", examples("ghost keys", "ghost keys --json"))
    .action(run((context) => list(context)));
  keys
    .command("set <provider>")
    .description("store a key, typed at a hidden prompt or piped in; never as an argument")
    // What is too much may be the key: commander would repeat it (2).
    .allowExcessArguments(true)
    .allowUnknownOption(true)
    .addHelpText("after", examples("ghost keys set anthropic", "pass show anthropic | ghost keys set anthropic"))
    .action(run((context, command) => set(context, command.args)));
  keys
    .command("rm <provider>")
    .description("remove a stored key")
    .addHelpText("after", examples("ghost keys rm anthropic"))
    .action(run((context, command) => remove(context, command.args)));
  keys
    .command("test <provider>")
    .description("ask the provider whether it takes the key (one cheap call)")
    .addHelpText("after", examples("ghost keys test anthropic", "ghost keys test anthropic --json"))
    .action(run((context, command) => test(context, command.args)));
}

async function list(context: CliContext): Promise<void> {
  const { output, signal } = context;
  using client = await context.connect();
  const found = await client.api.key.list({}, signal);
  if (output.json) output.document(found);
  else showKeys(output, found);
}

function showKeys(output: Output, { rows, problem }: KeyList): void {
  if (rows.length === 0) output.line("No provider takes a key: ghost.toml names none.");
  else {
    table(output, rows, [
      { title: "PROVIDER", text: (row) => row.provider, format: () => "bold" },
      {
        title: "KEY",
        text: describePlace,
        format: ({ source, problem: why }) => (why !== undefined ? "red" : source === "none" ? "dim" : "green"),
      },
      { title: "FINGERPRINT", text: (row) => row.fingerprint ?? "" },
      { title: "STORED", text: ({ updatedAtMs }) => (updatedAtMs === undefined ? "" : formatTime(updatedAtMs)) },
    ]);
  }
  for (const row of rows) {
    const { provider } = row;
    if (row.problem !== undefined) output.line(output.paint("red", `  ${escapeLine(`${provider}: ${row.problem}`)}`));
    if (row.note !== undefined) output.line(output.paint("yellow", `  ${escapeLine(`${provider}: ${row.note}`)}`));
  }
  if (problem !== undefined) output.note(escapeLine(problem), "red");
}

function describePlace({ source, variable = "", problem }: KeyRow): string {
  if (problem !== undefined) return "cannot be read";
  switch (source) {
    case "keyring":
      return "in the OS keyring";
    case "file":
      return "in an encrypted file";
    case "environment":
      return `from $${variable}`;
    case "none":
      return "none";
  }
}

async function set(context: CliContext, [name = "", ...rest]: readonly string[]): Promise<void> {
  const { output, signal } = context;
  if (rest.length > 0) {
    throw failure(
      "usage",
      `a key is never given on the command line: the shell's history and every user of this machine would see it. If that was one, replace it at its provider. Run \`ghost keys set ${nameOr(name, "<provider>")}\`, which asks for the key without showing it, or pipe it in`,
    );
  }
  const provider = checkProvider(name);
  using client = await context.connect();
  const value = await readKey(provider, client.api, context);
  const { row, note } = await client.api.key.set({ provider, value }, signal);
  if (output.json) return output.document({ row, ...(note === undefined ? {} : { note }) });
  output.line(
    `${output.paint("green", "✓")} the key of ${provider} is stored ${describePlace(row)} (${row.fingerprint})`,
  );
  if (note !== undefined) output.note(escapeLine(note), "yellow");
  output.note(`does ${provider} take it? ${commandName()} keys test ${provider}`);
}

/** Whether the provider is known is asked before the key is: nobody pastes a secret in vain. */
async function readKey(provider: string, api: GhostApi, context: CliContext): Promise<string> {
  const { output, signal } = context;
  const isTyped = process.stdin.isTTY;
  if (isTyped) await checkKnown(provider, api, signal);
  const text = isTyped
    ? await askHidden(`Key of ${provider} (it is not shown): `, context)
    : await readStdin(output, signal);
  const value = text?.trim() ?? "";
  if (value === "") throw failure("usage", `no key came: nothing was stored`);
  const parsed = keyValueSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw failure("usage", `${parsed.error.issues[0]?.message ?? "this is no key"}: nothing was stored`);
}

/** The daemon's own refusal names the nearest one; a test of its key is how to get it without a key. */
async function checkKnown(provider: string, api: GhostApi, signal: AbortSignal): Promise<void> {
  const { rows } = await api.key.list({}, signal);
  if (rows.some((row) => row.provider === provider)) return;
  await api.key.test({ provider }, signal);
}

async function remove(context: CliContext, [name = ""]: readonly string[]): Promise<void> {
  const { output, signal } = context;
  const provider = checkProvider(name);
  using client = await context.connect();
  const { note } = await client.api.key.remove({ provider }, signal);
  if (output.json) return output.document({ removed: provider, ...(note === undefined ? {} : { note }) });
  output.line(`removed the key of ${provider}; where it has leaked, revoke it at its provider, too`);
  if (note !== undefined) output.note(escapeLine(note), "yellow");
}

async function test(context: CliContext, [name = ""]: readonly string[]): Promise<number> {
  const { output, signal } = context;
  const provider = checkProvider(name);
  using client = await context.connect();
  const found = await client.api.key.test({ provider }, signal);
  if (output.json) output.document(found);
  else {
    const mark = found.ok ? output.paint("green", "✓") : output.paint("red", "✗");
    output.line(`${mark} ${escapeLine(asCalled(found.detail))} (${formatDuration(found.latencyMs)})`);
  }
  return found.ok ? 0 : EXIT_FAILED;
}

/** (2) */
function checkProvider(name: string): string {
  const parsed = keyProviderSchema.safeParse(name);
  if (parsed.success) return parsed.data;
  const why = parsed.error.issues[0]?.message ?? "this is no provider's name";
  throw failure("usage", `${why}; \`ghost keys list\` shows the names`);
}

function nameOr(name: string, otherwise: string): string {
  return keyProviderSchema.safeParse(name).success ? name : otherwise;
}

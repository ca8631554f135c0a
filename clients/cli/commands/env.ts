/** `ghost env`: the settings that point other programs at the daemon, as lines for a shell and nothing else on stdout. */
import process from "node:process";
import { Option, type Command } from "commander";
import { z } from "zod";
import type { CliContext, Runner } from "../context.ts";
import { asCalled } from "../invocation.ts";
import { examples } from "../options.ts";

const shellSchema = z.enum(["sh", "fish", "json"]);
/** Where these are set, clients take them instead of ours: Anthropic's SDK the first, Google's the second. */
const STRONGER = ["ANTHROPIC_API_KEY", "GOOGLE_API_KEY"] as const;
const envOptions = z.object({ shell: shellSchema.default("sh") });

export function registerEnv(program: Command, run: Runner): void {
  program
    .command("env")
    .description(
      "print the addresses and the key that OpenAI's, Anthropic's and Google's clients read, as lines for a shell",
    )
    .addOption(
      new Option("--shell <name>", "whose syntax (default: sh, which fish understands too)").choices(
        shellSchema.options,
      ),
    )
    .addHelpText("after", examples('eval "$(ghost env)"', "ghost env --shell fish | source", "ghost env --json"))
    .action(run((context, command) => env(context, envOptions.parse(command.opts()).shell)));
}

async function env(context: CliContext, asked: z.infer<typeof shellSchema>): Promise<void> {
  const { output, signal } = context;
  using client = await context.connect();
  const { key, openaiBaseUrl } = await client.api.key.model({}, signal);
  // Anthropic's and Google's clients put the version before the path themselves.
  const root = openaiBaseUrl.replace(/\/v1$/, "");
  const variables = {
    OPENAI_BASE_URL: openaiBaseUrl,
    OPENAI_API_KEY: key,
    ANTHROPIC_BASE_URL: root,
    ANTHROPIC_AUTH_TOKEN: key,
    GOOGLE_GEMINI_BASE_URL: root,
    GEMINI_API_KEY: key,
  };
  const shell = output.json ? "json" : asked;
  if (shell === "json") return output.document(variables);
  for (const [name, value] of Object.entries(variables)) {
    output.line(shell === "fish" ? `set -gx ${name} ${quoteFish(value)}` : `export ${name}=${quoteSh(value)}`);
  }
  for (const name of STRONGER) {
    const value = process.env[name];
    if (value !== undefined && value !== key) output.line(shell === "fish" ? `set -e ${name}` : `unset ${name}`);
  }
  if (output.isTerminal)
    output.note(
      `# to use it: ${asCalled(shell === "fish" ? "ghost env --shell fish | source" : 'eval "$(ghost env)"')}`,
    );
}

/** Single quotes take everything but a single quote. */
function quoteSh(value: string): string {
  return `'${value.replaceAll("'", `'\\''`)}'`;
}

/** In fish, a backslash escapes the two characters that end or escape inside single quotes. */
function quoteFish(value: string): string {
  return `'${value.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}

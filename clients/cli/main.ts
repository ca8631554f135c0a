/**
 * The `ghost` program. Exit codes: 0 done, 1 failed (the error and what to do about it on stderr), 2 a command line that was not understood,
 * 130 cancelled by Ctrl-C. A reader of stdout that goes away (`ghost logs | head`) ends the program quietly.
 */
import { Command, CommanderError } from "commander";
import { GhostApiError } from "../../protocol/errors.ts";
import { registerChat } from "./commands/chat.ts";
import { registerComplete } from "./commands/complete.ts";
import { registerDaemon } from "./commands/daemon.ts";
import { registerDoctor } from "./commands/doctor.ts";
import { registerEnv } from "./commands/env.ts";
import { registerKeys } from "./commands/keys.ts";
import { registerLogs } from "./commands/logs.ts";
import { registerModels } from "./commands/models.ts";
import { registerReports } from "./commands/reports.ts";
import { registerSessions } from "./commands/sessions.ts";
import { type CommandBody, createContext, globalOptions, Interrupts } from "./context.ts";
import { asCalled } from "./invocation.ts";
import { examples } from "./options.ts";
import { createOutput, failure } from "./output.ts";
import { escapeText } from "./terminal-text.ts";
import packageJson from "../../package.json" with { type: "json" };

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_CANCELLED = 130;
const EXIT_TERMINATED = 143;

const program = new Command("ghost");
let exitCode = 0;

const cancellation = new AbortController();
const interrupts = new Interrupts(() => {
  if (cancellation.signal.aborted) process.exit(EXIT_CANCELLED);
  cancellation.abort();
});
process.on("SIGINT", () => interrupts.raise());
process.on("SIGTERM", () => process.exit(EXIT_TERMINATED));
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : EXIT_FAILED));
process.stderr.on("error", () => {}); // Nobody reads the notes; the result still matters.

program
  .description("Talks to the GhostStack daemon: models, conversations, code completion.")
  .version(packageJson.version)
  .option("--json", "print JSON: one document, or one object a line for streams")
  .option("--data-dir <dir>", "the daemon's data folder (default: $XDG_DATA_HOME/ghoststack)")
  .option("--runtime-dir <dir>", "the folder of its socket (default: $XDG_RUNTIME_DIR/ghoststack)")
  .configureHelp({ showGlobalOptions: true })
  .showHelpAfterError(asCalled("(`ghost --help` shows all commands; every command has a --help of its own)"))
  .exitOverride()
  .addHelpText(
    "after",
    examples(
      "ghost start                             start the daemon in the background",
      'ghost chat "What does this do?" < server/base/text.ts',
      "ghost complete server/base/text.ts:12",
      'eval "$(ghost env)"                     point other programs at the daemon',
      "ghost doctor                            what is missing, and how to mend it",
    ),
  );

/** Every command's way from its action to its exit code. */
function runner(body: CommandBody): (...parameters: unknown[]) => Promise<void> {
  return async (...parameters) => {
    const command = parameters.at(-1);
    if (!(command instanceof Command)) throw new TypeError("commander hands the command over as the last parameter");
    const options = globalOptions.parse(command.optsWithGlobals());
    const context = createContext(options, cancellation.signal, interrupts);
    exitCode = (await body(context, command)) ?? 0;
  };
}

for (const register of [
  registerChat,
  registerComplete,
  registerModels,
  registerSessions,
  registerKeys,
  registerEnv,
  registerDaemon,
  registerDoctor,
  registerLogs,
  registerReports,
]) {
  register(program, runner);
}

try {
  await program.parseAsync();
} catch (thrown) {
  exitCode = report(thrown);
}
// A connection that is still closing must not hold the program back: its result is out.
process.exit(cancellation.signal.aborted ? EXIT_CANCELLED : exitCode);

function report(thrown: unknown): number {
  if (thrown instanceof CommanderError) return reportUsage(thrown);
  if (cancellation.signal.aborted) return EXIT_CANCELLED;
  const output = createOutput(program.opts()["json"] === true);
  if (thrown instanceof GhostApiError) {
    output.failure(thrown);
    return thrown.code === "usage" ? EXIT_USAGE : EXIT_FAILED;
  }
  const cause = thrown instanceof Error ? thrown : new Error(String(thrown));
  output.failure(new GhostApiError({ code: "internal", message: cause.message, details: {} }, { cause }));
  process.stderr.write(`${escapeText(cause.stack ?? "")}\n`);
  return EXIT_FAILED;
}

/** Commander has told people already. It reads no option behind a mistake, so `--json` is looked for in the words themselves. */
function reportUsage(thrown: CommanderError): number {
  if (thrown.exitCode === 0) return 0;
  if (program.opts()["json"] === true || process.argv.includes("--json")) {
    const isHelp = thrown.code === "commander.help";
    const message = isHelp ? "a command is missing; --help shows them" : thrown.message.replace(/^error: /, "");
    createOutput(true).error(failure("usage", message));
  }
  return EXIT_USAGE;
}

/** `ghost chat`: one prompt and its answer, or a conversation where nothing is asked yet and a person is at the keyboard. */
import type { Command } from "commander";
import { z } from "zod";
import { sessionIdSchema } from "../../../protocol/ids.ts";
import type { GhostClient } from "../../../protocol/ghost-client.ts";
import { showAnswer } from "../answer.ts";
import { askOnTerminal } from "../approvals.ts";
import { chatInteractively, type ChatSettings } from "../chat/interactive.ts";
import type { CliContext, Runner } from "../context.ts";
import { ensureDaemon, isRoot, ROOT_WARNING, tryConnect } from "../daemon-process.ts";
import { asCalled } from "../invocation.ts";
import { decimalNumber, examples, wholeNumber } from "../options.ts";
import { failure } from "../output.ts";
import { readStdin } from "../stdin.ts";
import { createTerminalInput } from "../terminal-input.ts";
import { escapeLine } from "../terminal-text.ts";

const chatOptions = z.object({
  session: z.string().optional(),
  model: z.string().optional(),
  system: z.string().optional(),
  maxTokens: z.number().optional(),
  temperature: z.number().optional(),
});

export function registerChat(program: Command, run: Runner): void {
  program
    .command("chat [prompt...]")
    .description("ask a model; without a prompt, talk to it (text on standard input is added to the prompt)")
    .option("-s, --session <id>", "go on with this session")
    .option("-m, --model <name>", "a model, a virtual one like ghost/auto, or an alias")
    .option("--system <text>", "instructions for the model")
    .option("--max-tokens <number>", "the longest answer", wholeNumber(1, 1_000_000))
    .option("--temperature <number>", "0 is the most predictable", decimalNumber(0, 2))
    .addHelpText(
      "after",
      examples(
        "ghost chat                                  a conversation; /help inside shows its commands",
        'ghost chat "Explain TCP slow start"         one answer',
        'git diff | ghost chat "Review this"         with text from a pipe',
        "ghost chat -m ollama/qwen3 --json hello     every update as JSON",
        'ghost chat --session ses_… "And then?"      go on',
      ),
    )
    .action(run((context, command) => chat(context, command.args, chatOptions.parse(command.opts()))));
}

async function chat(
  context: CliContext,
  words: readonly string[],
  options: z.output<typeof chatOptions>,
): Promise<void> {
  const { session, ...settings } = options;
  if (session !== undefined && !sessionIdSchema.safeParse(session).success) {
    throw failure("usage", `"${session}" is not the id of a session; \`ghost sessions\` lists them`);
  }
  const text = await collectPrompt(context, words.join(" "));
  const filled = { model: undefined, system: undefined, maxTokens: undefined, temperature: undefined, ...settings };
  if (text !== "") return await chatOnce(context, text, { sessionId: session, settings: filled });
  if (!process.stdin.isTTY || !context.output.isTerminal || context.output.json) {
    throw failure("usage", "there is no prompt: give one, pipe one in, or run it on a terminal without --json");
  }
  await chatInteractively(context, { sessionId: session, settings: filled }, connectOrStart);
}

async function collectPrompt({ output, signal }: CliContext, prompt: string): Promise<string> {
  if (process.stdin.isTTY) return prompt.trim();
  const piped = await readStdin(output, signal);
  return [prompt, piped].filter((part) => part.trim() !== "").join("\n\n");
}

interface OneShot {
  readonly sessionId: string | undefined;
  readonly settings: ChatSettings;
}

async function chatOnce(context: CliContext, text: string, { sessionId, settings }: OneShot): Promise<void> {
  const { output, signal } = context;
  using client = await connectOrStart(context);
  const canAsk = process.stdin.isTTY && process.stderr.isTTY;
  using input = canAsk ? createTerminalInput(() => context.interrupts.raise()) : undefined;
  await using _asking = input === undefined ? undefined : askOnTerminal({ api: client.api, output, input });
  try {
    await showAnswer(output, client.api.chat.send({ text, sessionId, ...settings }, signal));
  } catch (error) {
    if (signal.aborted) output.note(asCalled("cancelled; what arrived is kept (`ghost sessions`)"));
    throw error;
  }
}

/** Of all commands, only chat starts the daemon by itself, and says so. */
async function connectOrStart(context: CliContext): Promise<GhostClient> {
  const { output, folders, locations, signal } = context;
  const running = await tryConnect(locations);
  if (running !== undefined) return running;
  output.note(asCalled("no daemon runs: starting one (`ghost stop` ends it)"));
  if (isRoot()) output.note(ROOT_WARNING, "yellow");
  const started = await ensureDaemon(folders, signal);
  output.note(`the daemon runs on ${escapeLine(started.http)}`);
  return await context.connect();
}

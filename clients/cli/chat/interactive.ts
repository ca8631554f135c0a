/**
 * `ghost chat` on a terminal: a conversation.
 * 1. Ctrl-C cancels the answer, never the program; at an empty prompt twice, or Ctrl-D, ends it.
 * 2. A daemon that goes away costs the answer that was being written and nothing else: the next message connects again and goes on in the session.
 */
import { join } from "node:path";
import { GhostApiError } from "../../../protocol/errors.ts";
import type { GhostClient } from "../../../protocol/ghost-client.ts";
import { showAnswer } from "../answer.ts";
import { askOnTerminal } from "../approvals.ts";
import type { CliContext } from "../context.ts";
import { asCalled, commandName } from "../invocation.ts";
import { adviceFor, type Output } from "../output.ts";
import { createTerminalInput, type TerminalInput } from "../terminal-input.ts";
import { escapeLine } from "../terminal-text.ts";
import { openHistory } from "./history.ts";
import { runSlashCommand } from "./slash-commands.ts";

export interface ChatSettings {
  readonly model: string | undefined;
  readonly system: string | undefined;
  readonly maxTokens: number | undefined;
  readonly temperature: number | undefined;
}

/** What the conversation knows; slash commands change it. */
export interface Conversation {
  sessionId: string | undefined;
  settings: ChatSettings;
  /** Who answered last and why, as it was shown. */
  lastRoute?: string | undefined;
}

/** Connects, starting a daemon where none runs. */
export type Connector = (context: CliContext) => Promise<GhostClient>;

export async function chatInteractively(
  context: CliContext,
  conversation: Conversation,
  connectOrStart: Connector,
): Promise<void> {
  const { output, locations } = context;
  using _interrupts = context.interrupts.take(() => {}); // Ctrl-C arrives as a key.
  await using link = new Link(context, connectOrStart);
  using input = createTerminalInput(() => {});
  link.input = input;
  await link.client();
  greet(output, conversation);
  const history = openHistory(join(locations.dataDir, "chat-history"), (problem) => output.note(problem, "yellow"));
  let isLeaving = false;
  for (;;) {
    const event = await input.readMessage("you> ", history.lines);
    if (event.kind === "end") break;
    if (event.kind === "interrupt") {
      if (event.wasEmpty && isLeaving) break;
      isLeaving = event.wasEmpty;
      if (isLeaving) output.note("(Ctrl-C again, or Ctrl-D, ends the program)");
      continue;
    }
    isLeaving = false;
    const text = event.text.trim();
    if (text === "") continue;
    history.add(text);
    if ((await take(text, { context, conversation, link, input })) === "leave") break;
  }
  if (conversation.sessionId !== undefined) {
    output.note(`to go on later: ${commandName()} chat --session ${conversation.sessionId}`);
  }
}

interface Turn {
  readonly context: CliContext;
  readonly conversation: Conversation;
  readonly link: Link;
  readonly input: TerminalInput;
}

/** Runs one message or slash command; failures are shown, and the conversation goes on. */
async function take(text: string, turn: Turn): Promise<"stay" | "leave"> {
  const { context, conversation, link, input } = turn;
  const stop = new AbortController();
  using _keys = input.watchKeys(() => stop.abort());
  try {
    const { api } = await link.client();
    if (/^\/[a-z]+(\s|$)/.test(text)) {
      return await runSlashCommand(text, { api, output: context.output, conversation, signal: stop.signal });
    }
    const { settings, sessionId, lastRoute } = conversation;
    const updates = api.chat.send({ text, sessionId, ...settings }, stop.signal);
    const onStarted = (id: string | undefined) => {
      conversation.sessionId = id;
    };
    const { route } = await showAnswer(context.output, updates, { onStarted, lastRoute });
    conversation.lastRoute = route;
  } catch (error) {
    showFailure(context.output, error, stop.signal);
  }
  return "stay";
}

function showFailure(output: Output, error: unknown, signal: AbortSignal): void {
  if (signal.aborted) return output.note("cancelled; what arrived is kept");
  if (!(error instanceof GhostApiError)) throw error;
  output.note(escapeLine(asCalled(error.message)), "red");
  output.note(`  ${adviceFor(error)}`);
}

/** The connection of a conversation, made anew when it has gone (2), with the asking for consent that belongs to it. */
class Link implements AsyncDisposable {
  readonly #context: CliContext;
  readonly #connect: Connector;
  input: TerminalInput | undefined;
  #client: GhostClient | undefined;
  #asking: AsyncDisposable | undefined;

  constructor(context: CliContext, connectOrStart: Connector) {
    this.#context = context;
    this.#connect = connectOrStart;
  }

  async client(): Promise<GhostClient> {
    if (this.#client !== undefined) return this.#client;
    const client = await this.#connect(this.#context);
    this.#client = client;
    const { output } = this.#context;
    if (this.input !== undefined) this.#asking = askOnTerminal({ api: client.api, output, input: this.input });
    const forget = () => {
      if (this.#client === client) this.#client = undefined;
    };
    client.closed.then(forget, forget);
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    await this.#asking?.[Symbol.asyncDispose]();
    client?.[Symbol.dispose]();
  }
}

function greet(output: Output, conversation: Conversation): void {
  const where = conversation.sessionId === undefined ? "a new session" : `session ${conversation.sessionId}`;
  output.note(`${where}; /help shows the commands, Ctrl-C cancels an answer, Ctrl-D ends`);
}

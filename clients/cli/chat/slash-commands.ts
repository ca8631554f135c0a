/** The commands inside `ghost chat`. */
import type { GhostApi } from "../../../protocol/ghost-api.ts";
import { listModels } from "../commands/models.ts";
import { listSessions, showEntries } from "../commands/sessions.ts";
import type { Output } from "../output.ts";
import { escapeLine, plural } from "../terminal-text.ts";
import type { Conversation } from "./interactive.ts";

interface SlashContext {
  readonly api: GhostApi;
  readonly output: Output;
  readonly conversation: Conversation;
  readonly signal: AbortSignal;
}

interface SlashCommand {
  readonly name: string;
  readonly argument?: string;
  readonly what: string;
  run(context: SlashContext, argument: string): Promise<"leave" | void>;
}

/** How much of a session is shown when it is resumed. */
const SHOWN_ENTRIES = 6;
const LISTED_SESSIONS = 15;

const commands: readonly SlashCommand[] = [
  {
    name: "/model",
    argument: "[NAME]",
    what: "answer with this model from now on; without a name, show which",
    async run({ api, output, conversation, signal }, name) {
      if (name === "") return output.note(`model: ${escapeLine(conversation.settings.model ?? "ghost/auto")}`);
      const decision = await api.route.explain({ model: name, task: "chat" }, signal);
      conversation.settings = { ...conversation.settings, model: name };
      output.note(`model: ${escapeLine(name)} (${escapeLine(decision.reason)})`);
    },
  },
  {
    name: "/models",
    what: "list the models",
    run: async ({ api, output, signal }) => listModels(output, await api.model.list({}, signal)),
  },
  {
    name: "/new",
    what: "begin a new session",
    async run({ output, conversation }) {
      conversation.sessionId = undefined;
      output.note("a new session");
    },
  },
  {
    name: "/sessions",
    what: "list the latest sessions",
    async run({ api, output, signal }) {
      listSessions(output, (await api.session.list({ limit: LISTED_SESSIONS }, signal)).sessions);
    },
  },
  {
    name: "/resume",
    argument: "ID",
    what: "go on with a session",
    async run({ api, output, conversation, signal }, id) {
      if (id === "") return output.note("which one? /sessions lists them", "yellow");
      const found = await api.session.get({ sessionId: id }, signal);
      conversation.sessionId = found.session.id;
      output.note(`${found.session.id}: ${plural(found.entries.length, "message")}`);
      showEntries(output, found.entries.slice(-SHOWN_ENTRIES));
    },
  },
  { name: "/exit", what: "end the program (as Ctrl-D does)", run: async () => "leave" },
  {
    name: "/help",
    what: "show this",
    async run({ output }) {
      for (const { name, argument = "", what } of commands) output.note(`${`${name} ${argument}`.padEnd(15)} ${what}`);
    },
  },
];

/** Runs the command that `text` begins with; an unknown one is named and nothing is sent. */
export async function runSlashCommand(text: string, context: SlashContext): Promise<"stay" | "leave"> {
  const [name = "", ...rest] = text.split(/\s+/);
  const command = commands.find((candidate) => candidate.name === name);
  if (command === undefined) {
    context.output.note(`there is no ${escapeLine(name)}; /help shows the commands`, "yellow");
    return "stay";
  }
  return (await command.run(context, rest.join(" "))) ?? "stay";
}

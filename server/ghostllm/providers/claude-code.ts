/**
 * The user's own signed-in `claude` program, for a Claude plan (docs/providers.md has the terms).
 * 1. Off unless the user turns it on. It is the unmodified program, with an account of its own: no token of it is read, kept or sent by us.
 * 2. Text only: a conversation goes in as one prompt, text comes out. No tools, no images, no going on from a partial answer.
 */
import { modelRefSchema } from "../../../protocol/ids.ts";
import type { ModelInfo, ProviderStatus } from "../../../protocol/model.ts";
import type { Clock } from "../../base/clock.ts";
import { OperationalError, toGhostError, UserError } from "../../base/errors.ts";
import type { ClaudeProgram, ClaudeQuestion } from "../../platform/adapters/claude-program.ts";
import { carry } from "../carriage.ts";
import { stopAt } from "../frames/stopped.ts";
import type { Attempt, ChatRequest, CompletionRequest, Embeddings, ReasoningOptions } from "../stream.ts";
import { ClaudeReader } from "./claude-code-answer.ts";
import { afterFirst, EventFeed } from "./event-feed.ts";
import { literalNames } from "./model-patterns.ts";
import { promptText } from "./prompt-text.ts";
import type { Provider } from "./provider.ts";

export interface ClaudeCodeConfig {
  readonly command: string;
  readonly models: readonly string[];
}

interface ClaudeCodeOptions {
  readonly config: ClaudeCodeConfig;
  readonly program: ClaudeProgram;
  readonly clock: Clock;
}

const ID = "claude-code";
/** The name by which the account's own default is asked for. */
const DEFAULT_MODEL = "default";
/** Claude thinks for minutes; a program that says nothing for longer hangs. */
const SILENCE_MS = 10 * 60_000;

export function createClaudeCodeProvider(options: ClaudeCodeOptions): Provider {
  return new ClaudeCodeProvider(options);
}

class ClaudeCodeProvider implements Provider {
  readonly id = ID;
  readonly #options: ClaudeCodeOptions;
  #status: ProviderStatus;

  constructor(options: ClaudeCodeOptions) {
    this.#options = options;
    const address = `\`${options.config.command}\`, in a child process`;
    this.#status = { id: ID, kind: ID, address, locality: "cloud", state: "idle", models: 0 };
  }

  status(): readonly ProviderStatus[] {
    return [this.#status];
  }

  async models(_signal: AbortSignal): Promise<readonly ModelInfo[]> {
    const { config, program } = this.#options;
    const { problem: _gone, ...status } = this.#status;
    const problem = program.problem();
    if (problem !== undefined) {
      this.#status = { ...status, state: "unreachable", models: 0, problem };
      return [];
    }
    const models = literalNames(config.models).map(describe);
    this.#status = { ...status, state: "ok", models: models.length };
    return models;
  }

  async chat(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    const lost = carry(request, "text-only", model.ref);
    const { system, prompt } = promptText(await request.messages());
    const instructions = system === "" ? "" : `<instructions>\n${system}\n</instructions>\n\n`;
    const feed = this.#ask(
      {
        model: model.name === DEFAULT_MODEL ? undefined : model.name,
        effort: effortOf(request.reasoning),
        prompt: instructions + prompt,
      },
      signal,
    );
    const frames = await afterFirst(feed);
    const { stop } = request.output;
    return {
      model: model.ref,
      frames: stop.length === 0 ? frames : stopAt(frames, stop),
      trimmedCharacters: 0,
      dropped: lost,
    };
  }

  async complete(_request: CompletionRequest, { ref }: ModelInfo, _signal: AbortSignal): Promise<Attempt> {
    throw new UserError("capability_missing", `${ref} answers chats only`);
  }

  async embed(_texts: readonly string[], { ref }: ModelInfo, _signal: AbortSignal): Promise<Embeddings> {
    throw new UserError("capability_missing", `${ref} makes no embeddings`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#options.program[Symbol.asyncDispose]();
  }

  #ask(question: ClaudeQuestion, signal: AbortSignal): EventFeed {
    const { program, clock } = this.#options;
    signal.throwIfAborted();
    const reader = new ClaudeReader();
    let running: Disposable | undefined;
    let silence: Disposable | undefined;
    let isOver = false;
    const stayPatient = () => {
      silence?.[Symbol.dispose]();
      const late = new OperationalError("upstream_timeout", `${ID} said nothing for ${SILENCE_MS / 60_000} minutes`);
      silence = clock.after(SILENCE_MS, () => over(late));
    };
    const onAbort = () => over(signal.reason);
    const close = () => {
      isOver = true;
      silence?.[Symbol.dispose]();
      signal.removeEventListener("abort", onAbort);
      running?.[Symbol.dispose]();
    };
    const feed = new EventFeed(close);
    const over = (end: unknown) => {
      if (end === true) feed.end();
      else feed.fail(toGhostError(end));
      // At once, not when it is read: the program would go on by itself.
      close();
    };
    running = program.ask(question, {
      onLine(line) {
        if (isOver) return;
        stayPatient();
        const { events, end } = reader.read(line);
        feed.push(events);
        if (end !== undefined) over(end);
      },
      onExit({ words }) {
        if (!isOver) over(reader.exit(words));
      },
    });
    signal.addEventListener("abort", onAbort, { once: true });
    stayPatient();
    return feed;
  }
}

/** Its levels begin with `low`. */
function effortOf(wish: ReasoningOptions | undefined): string | undefined {
  const effort = wish?.effort;
  return effort === "none" || effort === "minimal" ? "low" : effort;
}

function describe(name: string): ModelInfo {
  return {
    ref: modelRefSchema.parse(`${ID}/${name}`),
    provider: ID,
    name,
    locality: "cloud",
    capabilities: {
      chat: true,
      complete: false,
      fim: false,
      embeddings: false,
      tools: false,
      vision: false,
      jsonSchema: false,
      reasoning: true,
    },
    continuation: "none",
    note: "Text only, by your own `claude` program and its account.",
  };
}

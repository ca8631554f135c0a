/**
 * GitHub Copilot, by its official SDK, with the user's own GitHub account (docs/providers.md says what that means).
 * 1. Off unless the user turns it on, and without a token nothing is started.
 * 2. A request is one question to the runtime, the conversation in its prompt: nothing of it is kept there, so that any model may take over at any time.
 * 3. The client's tools are told to the model, and run by the client.
 */
import { z } from "zod";
import { modelRefSchema } from "../../../protocol/ids.ts";
import type { ModelInfo, ProviderStatus } from "../../../protocol/model.ts";
import type { Clock } from "../../base/clock.ts";
import { OperationalError, toGhostError, UserError } from "../../base/errors.ts";
import { present } from "../../base/optional.ts";
import type { CopilotQuestion, CopilotRuntime } from "../../platform/adapters/copilot-runtime.ts";
import { carry } from "../carriage.ts";
import { isRecord } from "../frames/json.ts";
import { stopAt } from "../frames/stopped.ts";
import type { Attempt, ChatRequest, CompletionRequest, Embeddings, ReasoningOptions } from "../stream.ts";
import { OPENAI_NAMES, wireTools } from "../tool-names.ts";
import { CopilotReader } from "./copilot-answer.ts";
import { afterFirst, EventFeed } from "./event-feed.ts";
import { describeModels, KEY_TEST_TIMEOUT_MS, type KeyVerdict } from "./key-check.ts";
import type { FoundKey, ProviderKeys } from "./keys.ts";
import { isListed } from "./model-patterns.ts";
import { promptText } from "./prompt-text.ts";
import type { Provider } from "./provider.ts";
import { mapFrames } from "./upstream.ts";

export interface CopilotConfig {
  readonly key_env?: string | undefined;
  readonly models?: readonly string[] | undefined;
}

interface CopilotOptions {
  readonly config: CopilotConfig;
  readonly runtime: CopilotRuntime;
  readonly keys: ProviderKeys;
  readonly clock: Clock;
}

const ID = "copilot";
const ADDRESS = "its runtime, in a child process";
/** The first look starts the runtime and asks GitHub. */
const LIST_TIMEOUT_MS = 15_000;
/** An account's models change seldom, and a look would keep the runtime awake. */
const LIST_FRESH_MS = 60 * 60_000;
/** Models think for minutes; a runtime that says nothing for longer hangs. */
const SILENCE_MS = 10 * 60_000;

const EFFORTS = ["low", "medium", "high", "xhigh"] as const;
type Effort = (typeof EFFORTS)[number];

const listedModel = z.looseObject({
  id: z.string().min(1).max(200),
  policy: z.looseObject({ state: z.string() }).nullish().catch(undefined),
  capabilities: z
    .looseObject({
      limits: z
        .looseObject({
          max_context_window_tokens: z.int().positive().nullish().catch(undefined),
          max_output_tokens: z.int().positive().nullish().catch(undefined),
        })
        .nullish()
        .catch(undefined),
    })
    .nullish()
    .catch(undefined),
  supportedReasoningEfforts: z.array(z.string()).nullish().catch(undefined),
});
type ListedModel = z.infer<typeof listedModel>;

export function createCopilotProvider(options: CopilotOptions): Provider {
  return new CopilotProvider(options);
}

class CopilotProvider implements Provider {
  readonly id = ID;
  readonly #options: CopilotOptions;
  #list: { readonly token: string; readonly models: readonly ListedModel[]; readonly atMs: number } | undefined;
  #status: ProviderStatus = { id: ID, kind: ID, address: ADDRESS, locality: "cloud", state: "idle", models: 0 };

  constructor(options: CopilotOptions) {
    this.#options = options;
    options.keys.declare({ provider: ID, keyEnv: options.config.key_env, variables: ["COPILOT_GITHUB_TOKEN"] });
  }

  status(): readonly ProviderStatus[] {
    return [this.#status];
  }

  async models(signal: AbortSignal): Promise<readonly ModelInfo[]> {
    const { problem: _gone, ...status } = this.#status;
    try {
      const key = await this.#options.keys.find(ID, signal);
      if (key === undefined) {
        this.#status = { ...status, state: "absent", models: 0 };
        return [];
      }
      const models = (await this.#listModels(key, { signal, timeoutMs: LIST_TIMEOUT_MS })).map(describe);
      this.#status = { ...status, state: "ok", models: models.length };
      return models;
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const error = toGhostError(thrown);
      const problem = error.code === "cancelled" ? `no answer within ${LIST_TIMEOUT_MS} ms` : error.message;
      const state = error.code === "key_unreadable" ? "refused" : "unreachable";
      this.#status = { ...status, state, models: 0, problem: this.#options.keys.clean(problem) };
      return [];
    }
  }

  async chat(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    const { runtime, keys, clock } = this.#options;
    const lost = carry(request, ID, model.ref);
    const tools = wireTools(request, OPENAI_NAMES);
    const key = await keys.find(ID, signal);
    if (key === undefined) throw new UserError("key_missing", `${ID} has no GitHub token: \`ghost keys set ${ID}\``);
    const { system, prompt } = promptText(await request.messages());
    const effort = this.#effortOf(model.name, request.reasoning);
    const question: CopilotQuestion = {
      model: model.name,
      system,
      prompt,
      effort,
      tools: tools.choice === "none" ? [] : tools.functions.map(toTool),
    };
    const feed = this.#ask({ question, key, signal }, { runtime, clock });
    const frames = mapFrames(await afterFirst(feed), (frame) => tools.restore(frame));
    const { stop } = request.output;
    const isEffortLost = request.reasoning?.effort !== undefined && effort === undefined;
    return {
      model: model.ref,
      frames: stop.length === 0 ? frames : stopAt(frames, stop),
      trimmedCharacters: 0,
      dropped: isEffortLost ? [...lost, "reasoning"] : lost,
    };
  }

  async complete(_request: CompletionRequest, { ref }: ModelInfo, _signal: AbortSignal): Promise<Attempt> {
    throw new UserError("capability_missing", `${ref} answers chats only`);
  }

  async embed(_texts: readonly string[], { ref }: ModelInfo, _signal: AbortSignal): Promise<Embeddings> {
    throw new UserError("capability_missing", `${ref} makes no embeddings`);
  }

  async testKey(signal: AbortSignal): Promise<KeyVerdict> {
    const key = await this.#options.keys.find(ID, signal);
    if (key === undefined) throw new UserError("key_missing", `${ID} has no GitHub token: \`ghost keys set ${ID}\``);
    this.#list = undefined;
    const models = await this.#listModels(key, { signal, timeoutMs: KEY_TEST_TIMEOUT_MS });
    return { ok: true, detail: describeModels(ID, models.length) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#options.runtime[Symbol.asyncDispose]();
  }

  /** The answer's events, from the moment at which the runtime has the question. */
  #ask(
    {
      question,
      key,
      signal,
    }: { readonly question: CopilotQuestion; readonly key: FoundKey; readonly signal: AbortSignal },
    { runtime, clock }: Pick<CopilotOptions, "runtime" | "clock">,
  ): EventFeed {
    const reader = new CopilotReader((text) => this.#options.keys.clean(text));
    let conversation: Disposable | undefined;
    let isOver = false;
    let silence: Disposable | undefined;
    const stayPatient = () => {
      silence?.[Symbol.dispose]();
      if (isOver) return;
      const late = new OperationalError("upstream_timeout", `${ID} said nothing for ${SILENCE_MS / 60_000} minutes`);
      silence = clock.after(SILENCE_MS, () => over(late));
    };
    const onAbort = () => over(signal.reason ?? new OperationalError("cancelled", "the request was cancelled"));
    const close = () => {
      isOver = true;
      silence?.[Symbol.dispose]();
      signal.removeEventListener("abort", onAbort);
      conversation?.[Symbol.dispose]();
    };
    const feed = new EventFeed(close);
    const over = (end: unknown) => {
      if (end === true) feed.end();
      else feed.fail(toGhostError(end));
      // At once, not when it is read: the runtime would go on by itself.
      close();
    };
    const onEvent = (type: string, data: unknown) => {
      if (isOver) return;
      stayPatient();
      const { events, end } = reader.read(type, data);
      feed.push(events);
      if (end !== undefined) over(end);
    };
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    stayPatient();
    runtime.ask(key.secret, question, { onEvent, onGone: over }).then((opened) => {
      conversation = opened;
      if (isOver) opened[Symbol.dispose]();
    }, over);
    return feed;
  }

  async #listModels(key: FoundKey, look: { readonly signal: AbortSignal; readonly timeoutMs: number }) {
    const { runtime, clock, config } = this.#options;
    const token = key.secret.reveal();
    const known = this.#list;
    if (known === undefined || known.token !== token || clock.monotonic() - known.atMs > LIST_FRESH_MS) {
      const bounded = AbortSignal.any([look.signal, AbortSignal.timeout(look.timeoutMs)]);
      const listed = await runtime.listModels(key.secret, bounded);
      const models = listed.flatMap((model) => listedModel.safeParse(model).data ?? []);
      this.#list = { token, models, atMs: clock.monotonic() };
    }
    const models = this.#list?.models ?? [];
    return models.filter(({ id, policy }) => isListed(id, config.models) && policy?.state !== "disabled");
  }

  /** What the model takes: the level itself, else the next lower one. */
  #effortOf(name: string, wish: ReasoningOptions | undefined): Effort | undefined {
    if (wish?.effort === undefined) return undefined;
    const taken = this.#list?.models.find(({ id }) => id === name)?.supportedReasoningEfforts ?? [];
    const wanted = wish.effort === "max" ? "xhigh" : wish.effort;
    const upTo = EFFORTS.slice(0, EFFORTS.findIndex((effort) => effort === wanted) + 1);
    return upTo.findLast((effort) => taken.includes(effort)) ?? EFFORTS.find((effort) => taken.includes(effort));
  }
}

function toTool({ name, description, parameters }: ReturnType<typeof wireTools>["functions"][number]) {
  return { name, description: description ?? "", parameters: isRecord(parameters) ? parameters : { type: "object" } };
}

function describe({ id, capabilities, supportedReasoningEfforts }: ListedModel): ModelInfo {
  const { max_context_window_tokens: window, max_output_tokens: output } = capabilities?.limits ?? {};
  return {
    ref: modelRefSchema.parse(`${ID}/${id}`),
    provider: ID,
    name: id,
    locality: "cloud",
    capabilities: {
      chat: true,
      complete: false,
      fim: false,
      embeddings: false,
      tools: true,
      vision: false,
      jsonSchema: false,
      reasoning: (supportedReasoningEfforts ?? []).length > 0,
    },
    ...present("contextWindow", window),
    ...present("maxOutputTokens", output),
    continuation: "anchored",
    note: "Through GitHub Copilot's runtime: its own words stand around the prompt.",
  };
}

/**
 * The embedded engine as a provider: `embedded/<name>`, in a child process of ours, without a network.
 * 1. Nothing is started before the first request (or `prewarm`); listing models reads the headers of their files only.
 * 2. A model whose file is missing or damaged stays listed with a note, and a request for it gets the typed error.
 */
import { join } from "node:path";
import type { DaemonStatus } from "../../../protocol/daemon.ts";
import type { WireError } from "../../../protocol/errors.ts";
import { modelRefSchema } from "../../../protocol/ids.ts";
import type { ModelInfo, ModelPullUpdate, ProviderStatus } from "../../../protocol/model.ts";
import type { Clock, Ids } from "../../base/clock.ts";
import { toGhostError, UserError } from "../../base/errors.ts";
import type { HttpClient } from "../../platform/http-client.ts";
import type { Log } from "../../platform/log.ts";
import type { AnyPermit } from "../../platform/permit.ts";
import { createEngine, type Engine, type Generation } from "../local/engine.ts";
import type { EngineGrammar, EngineMessage, EngineModel, EngineTask } from "../local/engine-protocol.ts";
import { ModelPuller, type PullAuthorizer, type PullParams } from "../local/pull.ts";
import { ModelRegistry, type WeightsFacts } from "../local/registry.ts";
import { reduceSchema } from "../local/schema-subset.ts";
import { carry, carryCompletion } from "../carriage.ts";
import {
  type Attempt,
  type ChatRequest,
  type CompletionRequest,
  type Embeddings,
  eventsFrame,
  type Frame,
  type Message,
  type ModelRequest,
  type TextFormat,
} from "../stream.ts";
import type { Provider } from "./provider.ts";

export interface EmbeddedConfig {
  readonly enabled: boolean;
  readonly threads: number;
  /** Tokens of prompt and answer together, at most; more needs more memory. Absent: `DEFAULT_CONTEXT_TOKENS`. */
  readonly context_size?: number | undefined;
  readonly idle_unload_minutes: number;
  /** Requests that may wait, in each lane. */
  readonly max_queue: number;
  /** Files that lie elsewhere, by the name of their model. */
  readonly models: Readonly<Record<string, string>>;
}

export interface EmbeddedOptions {
  readonly config: EmbeddedConfig;
  readonly builtinModelsFolder: string;
  /** Where pulled models and their registry are: a private folder of ours. */
  readonly modelsFolder: string;
  readonly permits: {
    /** A standing permit: `cmd.exec` of `nodeExecutable`. */
    readonly engine: AnyPermit;
    /** A standing permit: `fs.read` of both folders, `fs.write` of the models folder. */
    readonly files: AnyPermit;
  };
  readonly http: HttpClient;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: Log;
  /** The Node that runs the child: the daemon's own. */
  readonly nodeExecutable: string;
  /** Where `hf:` sources are; tests put their own server here. */
  readonly huggingFaceUrl?: string;
}

export interface EmbeddedProvider extends Provider {
  /** Starts the child and loads the model that was used last (or the built-in one), so that the first request is fast. Never throws. */
  prewarm(signal: AbortSignal): Promise<void>;
  engineState(): DaemonStatus["engine"];
  /** Downloads weights and registers them. @throws as `ModelPuller.pull` does. */
  pull(params: PullParams, authorize: PullAuthorizer, signal: AbortSignal): AsyncIterable<ModelPullUpdate>;
}

const PROVIDER_ID = "embedded";
/** Its name here, and what its file calls itself (`general.name`). */
const BUILTIN_NAME = "tiny-code-fim";
const BUILTIN_NOTE = "demonstration weights: continues code-shaped lines, cannot chat";
/** Enough for a file and its surroundings; the KV memory of a 7-billion model stays near 1 GiB. */
const DEFAULT_CONTEXT_TOKENS = 8192;
/** Where the file does not say what it was trained on. */
const UNKNOWN_CONTEXT_TOKENS = 2048;
/** Answers at once, each with a context of its own: small contexts cost nothing. */
const SEQUENCES_OF_SMALL_CONTEXT = 4;
const SEQUENCES_OF_LARGE_CONTEXT = 2;
const SMALL_CONTEXT_TOKENS = 2048;
/** No text has more characters than this for each of its tokens (blanks aside); longer ones are not even sent to the engine. */
const MAX_CHARACTERS_PER_TOKEN = 32;
/** What llama.cpp itself uses. */
const DEFAULT_TEMPERATURE = 0.8;
const DEFAULT_TOP_P = 0.95;
/** One answer holds the vectors of all of them. */
const MAX_EMBEDDING_TEXTS = 2048;
/** Models that only make embeddings; all others generate text. */
const ENCODERS = new Set([
  "bert",
  "nomic-bert",
  "nomic-bert-moe",
  "neo-bert",
  "jina-bert-v2",
  "jina-bert-v3",
  "modern-bert",
  "gemma-embedding",
  "t5encoder",
]);

interface LocalModel {
  readonly name: string;
  readonly path: string;
  readonly isBuiltin: boolean;
}

export function createEmbeddedProvider(options: EmbeddedOptions): EmbeddedProvider {
  return new LocalProvider(options);
}

class LocalProvider implements EmbeddedProvider {
  readonly id = PROVIDER_ID;
  readonly #options: EmbeddedOptions;
  readonly #engine: Engine;
  readonly #registry: ModelRegistry;
  readonly #puller: ModelPuller;
  #seen = 0;
  #problem: string | undefined;
  #lastUsed: string | undefined;

  constructor(options: EmbeddedOptions) {
    this.#options = options;
    const { config, clock, log, nodeExecutable, modelsFolder, permits, http } = options;
    this.#engine = createEngine({
      permit: permits.engine,
      nodeExecutable,
      threads: config.threads,
      maxQueue: config.max_queue,
      idleUnloadMs: config.idle_unload_minutes * 60_000,
      clock,
      log,
    });
    const registry = new ModelRegistry({ folder: modelsFolder, permit: permits.files, log });
    this.#registry = registry;
    this.#puller = new ModelPuller({
      folder: modelsFolder,
      permit: permits.files,
      registry,
      http,
      clock,
      log,
      reservedNames: [BUILTIN_NAME],
      huggingFaceUrl: options.huggingFaceUrl ?? "https://huggingface.co",
    });
  }

  async models(_signal: AbortSignal): Promise<readonly ModelInfo[]> {
    if (!this.#options.config.enabled) return [];
    const problems: string[] = [];
    const models = await Promise.all((await this.#list()).map((model) => this.#describe(model, problems)));
    if (this.#registry.problem !== undefined) problems.push(this.#registry.problem);
    this.#seen = models.length;
    this.#problem = problems.length === 0 ? undefined : problems.join("; ");
    return models;
  }

  status(): readonly ProviderStatus[] {
    const problem = this.#options.config.enabled ? this.#problem : "it is switched off in ghost.toml";
    const state = !this.#options.config.enabled || this.#engine.state().state === "idle" ? "idle" : "ok";
    return [
      {
        id: PROVIDER_ID,
        kind: "embedded",
        address: "in a child process",
        locality: "machine",
        state: this.#engine.state().state === "crashed" ? "refused" : state,
        models: this.#seen,
        ...(problem === undefined ? {} : { problem }),
      },
    ];
  }

  async chat(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    const dropped = carry(request, "embedded", model.ref);
    const messages = (await request.messages()).map((message) => toEngineMessage(message, model));
    return { ...(await this.#generate(request, model, { kind: "chat", messages }, signal)), dropped };
  }

  async complete(request: CompletionRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    const { prefix, suffix, overflow } = request;
    const dropped = carryCompletion(request, model.ref);
    const attempt = await this.#generate(request, model, { kind: "completion", prefix, suffix, overflow }, signal);
    return { ...attempt, dropped };
  }

  async embed(texts: readonly string[], model: ModelInfo, signal: AbortSignal): Promise<Embeddings> {
    if (texts.length > MAX_EMBEDDING_TEXTS) {
      throw new UserError("invalid_params", `${texts.length} texts at once; at most ${MAX_EMBEDDING_TEXTS}`, {
        details: { field: "input" },
      });
    }
    const { engineModel } = await this.#prepare(model);
    for (const text of texts) refuseHopeless(text.length, engineModel);
    const { vectors, promptTokens } = await this.#engine.embed(engineModel, texts, signal);
    return { model: model.ref, vectors, promptTokens };
  }

  async prewarm(signal: AbortSignal): Promise<void> {
    if (!this.#options.config.enabled) return;
    try {
      const models = await this.#list();
      const model = models.find(({ name }) => name === this.#lastUsed) ?? models[0];
      if (model === undefined) return;
      await this.#engine.load(
        engineModelOf(model.path, await this.#registry.facts(model.path), this.#options.config),
        signal,
      );
    } catch (error) {
      // The first request will say it to somebody.
      this.#options.log.warn({ event: "engine.prewarm.failed", error });
    }
  }

  engineState(): DaemonStatus["engine"] {
    return this.#engine.state();
  }

  async *pull(params: PullParams, authorize: PullAuthorizer, signal: AbortSignal): AsyncGenerator<ModelPullUpdate> {
    for await (const update of this.#puller.pull(params, authorize, signal)) {
      if (update.kind !== "done") yield update;
      else {
        const { entry } = update;
        const path = this.#registry.path(entry);
        const model = await this.#describe({ name: entry.name, path, isBuiltin: false }, []);
        yield { kind: "done", model, sha256: entry.sha256, path };
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#puller[Symbol.asyncDispose]();
    await this.#engine[Symbol.asyncDispose]();
  }

  async #generate(request: ModelRequest, model: ModelInfo, task: EngineTask, signal: AbortSignal): Promise<Attempt> {
    const { facts, engineModel } = await this.#prepare(model);
    refuseIncapable(task, facts, model);
    const characters =
      task.kind === "chat"
        ? task.messages.reduce((sum, message) => sum + message.text.length, 0)
        : task.prefix.length + task.suffix.length;
    const cut = task.kind === "completion" && task.overflow === "trim" ? cutHopeless(task, engineModel) : undefined;
    if (cut === undefined) refuseHopeless(characters, engineModel);
    const { output, sampling } = request;
    const generation = await this.#engine.generate(
      {
        model: engineModel,
        task: cut?.task ?? task,
        stop: [...output.stop],
        grammar: toGrammar(output.format),
        temperature: sampling.temperature ?? DEFAULT_TEMPERATURE,
        topP: sampling.topP ?? DEFAULT_TOP_P,
        seed: toSeed(sampling.seed ?? Buffer.from(this.#options.ids.secret(4), "base64url").readUInt32LE()),
        lane: request.lane,
        ...(output.maxTokens === undefined ? {} : { maxTokens: output.maxTokens }),
      },
      signal,
    );
    return {
      model: model.ref,
      frames: toFrames(generation),
      trimmedCharacters: generation.trimmedCharacters + (cut?.droppedCharacters ?? 0),
    };
  }

  async #prepare(model: ModelInfo): Promise<{ facts: WeightsFacts; engineModel: EngineModel }> {
    const local = (await this.#list()).find(({ name }) => name === model.name);
    if (local === undefined || !this.#options.config.enabled) {
      throw new UserError("model_not_found", `the embedded engine has no model \`${model.name}\``, {
        details: { model: model.ref },
      });
    }
    const facts = await this.#registry.facts(local.path);
    this.#lastUsed = local.name;
    return { facts, engineModel: engineModelOf(local.path, facts, this.#options.config) };
  }

  async #list(): Promise<readonly LocalModel[]> {
    const builtin = {
      name: BUILTIN_NAME,
      path: join(this.#options.builtinModelsFolder, `${BUILTIN_NAME}.gguf`),
      isBuiltin: true,
    };
    const registered = await this.#registry.list();
    const configured = Object.entries(this.#options.config.models).map(([name, path]) => ({
      name,
      path,
      isBuiltin: false,
    }));
    const taken = new Set([BUILTIN_NAME, ...registered.map(({ name }) => name)]);
    return [
      builtin,
      ...configured.filter(({ name }) => !taken.has(name)),
      ...registered.map((entry) => ({ name: entry.name, path: this.#registry.path(entry), isBuiltin: false })),
    ];
  }

  async #describe(model: LocalModel, problems: string[]): Promise<ModelInfo> {
    const base = {
      ref: modelRefSchema.parse(`${PROVIDER_ID}/${model.name}`),
      provider: PROVIDER_ID,
      name: model.name,
      locality: "machine",
    } as const;
    try {
      const facts = await this.#registry.facts(model.path);
      const generates = !ENCODERS.has(facts.architecture);
      return {
        ...base,
        capabilities: {
          chat: generates && facts.hasChatTemplate,
          complete: generates,
          fim: generates && facts.hasInfillTokens,
          embeddings: true,
          tools: false,
          vision: false,
          jsonSchema: generates,
        },
        continuation: generates ? "native" : "none",
        contextWindow: engineModelOf(model.path, facts, this.#options.config).contextSize,
        sizeBytes: facts.sizeBytes,
        // Wherever they lie and whatever they are called: the file itself says which weights it holds.
        ...(model.isBuiltin || facts.name === BUILTIN_NAME ? { note: BUILTIN_NOTE, demonstration: true } : {}),
      };
    } catch (error) {
      const { message } = toGhostError(error);
      problems.push(`${base.ref}: ${message}`);
      // Everything is claimed, so that a request by name reaches the typed error instead of a wrong "cannot".
      const capabilities = {
        chat: true,
        complete: true,
        fim: true,
        embeddings: true,
        tools: false,
        vision: false,
        jsonSchema: true,
      };
      return {
        ...base,
        capabilities,
        note: `unusable: ${message}`,
        unusable: true,
        ...(model.isBuiltin ? { demonstration: true } : {}),
      };
    }
  }
}

function engineModelOf(file: string, facts: WeightsFacts, config: EmbeddedConfig): EngineModel {
  const contextSize = Math.min(
    facts.contextLength ?? UNKNOWN_CONTEXT_TOKENS,
    config.context_size ?? DEFAULT_CONTEXT_TOKENS,
  );
  const sequences = contextSize <= SMALL_CONTEXT_TOKENS ? SEQUENCES_OF_SMALL_CONTEXT : SEQUENCES_OF_LARGE_CONTEXT;
  return { file, version: facts.version, contextSize, sequences };
}

function refuseIncapable(task: EngineTask, facts: WeightsFacts, model: ModelInfo): void {
  const lacks = (what: string) =>
    new UserError("capability_missing", `${model.ref} ${what}`, { details: { model: model.ref } });
  if (ENCODERS.has(facts.architecture)) throw lacks("only makes embeddings");
  if (task.kind === "chat" && !facts.hasChatTemplate) throw lacks("has no chat template: it can only continue text");
  if (task.kind === "completion" && task.suffix !== "" && !facts.hasInfillTokens)
    throw lacks("has no infill tokens: it cannot use a suffix");
}

/** Texts that cannot fit whatever they say are refused here: sending them to the child would hold up the daemon. */
function refuseHopeless(characters: number, { contextSize }: EngineModel): void {
  const limit = contextSize * MAX_CHARACTERS_PER_TOKEN;
  if (characters <= limit) return;
  throw new UserError(
    "context_too_long",
    `the prompt has ${characters} characters; the model's window has ${contextSize} tokens, which is less than ${limit} characters`,
    { details: { characters, contextWindow: contextSize } },
  );
}

/** What trimming would drop in any case; the child drops the rest by tokens. Undefined when nothing needs to go. */
function cutHopeless(task: Extract<EngineTask, { kind: "completion" }>, { contextSize }: EngineModel) {
  const limit = (contextSize * MAX_CHARACTERS_PER_TOKEN) / 2;
  const prefix = task.prefix.slice(-limit).slice(task.prefix.length > limit ? lineStart(task.prefix.slice(-limit)) : 0);
  const suffix = task.suffix.slice(0, limit);
  const droppedCharacters = task.prefix.length + task.suffix.length - prefix.length - suffix.length;
  return { task: { ...task, prefix, suffix }, droppedCharacters };
}

/** Where the first whole line begins; 0 when there is but one. */
function lineStart(text: string): number {
  return text.indexOf("\n") + 1;
}

function toEngineMessage(message: Message, model: ModelInfo): EngineMessage {
  const role =
    message.role === "assistant"
      ? "assistant"
      : message.role === "system" || message.role === "developer"
        ? "system"
        : "user";
  const texts = message.parts.map((part) => {
    switch (part.kind) {
      case "text":
        return part.text;
      case "toolCall":
        return `${part.name}(${part.arguments})`;
      case "toolResult":
        return part.text;
      case "reasoning":
        return "";
      case "image":
      case "file":
        throw new UserError("capability_missing", `${model.ref} cannot see ${part.kind}s`, {
          details: { model: model.ref },
        });
    }
  });
  return { role, text: texts.join("\n") };
}

function toGrammar(format: TextFormat): EngineGrammar {
  if (format.kind === "schema") return { kind: "schema", schema: reduceSchema(format.schema) };
  return format.kind === "json" ? { kind: "json" } : { kind: "none" };
}

/** Seeds are 32 bits wide in the engine. */
function toSeed(seed: number): number {
  return Math.abs(Math.trunc(seed)) % 2 ** 32;
}

async function* toFrames(generation: Generation): AsyncGenerator<Frame> {
  try {
    for await (const event of generation.events) {
      if (event.kind === "text") yield eventsFrame([event]);
      else
        yield eventsFrame([
          { kind: "usage", usage: event.usage },
          { kind: "finish", reason: event.reason },
        ]);
    }
  } catch (thrown) {
    const error = toGhostError(thrown);
    if (error.code === "cancelled") throw error;
    const wire: WireError = { code: error.code, message: error.message, details: error.details };
    yield eventsFrame([
      { kind: "error", error: error.retryAfterMs === undefined ? wire : { ...wire, retryAfterMs: error.retryAfterMs } },
    ]);
  }
}

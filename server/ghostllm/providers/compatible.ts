/**
 * Any server that speaks OpenAI's chat completions: vLLM, llama-server, LM Studio, OpenRouter, …
 * 1. A client's own bytes are relayed with another model name and nothing else changed; the answer's frames are relayed as they came.
 * 2. `[DONE]` or a finish reason says that an answer is whole.
 */
import { z } from "zod";
import { modelRefSchema } from "../../../protocol/ids.ts";
import type { Locality, ModelInfo, ProviderStatus } from "../../../protocol/model.ts";
import { OperationalError, toGhostError, UserError } from "../../base/errors.ts";
import { header, type HttpClient, type HttpResponse, readBody } from "../../platform/http-client.ts";
import type { Ids } from "../../base/clock.ts";
import type { StandingPermit } from "../../platform/permit.ts";
import { openAiFrame } from "../frames/openai.ts";
import { sseData, sseFrames } from "../frames/sse.ts";
import type { Attempt, ChatRequest, CompletionRequest, Embeddings } from "../stream.ts";
import { describeModels, KEY_TEST_TIMEOUT_MS, type KeyVerdict } from "./key-check.ts";
import type { ProviderKeys } from "./keys.ts";
import { carry } from "../carriage.ts";
import { createChatRepair } from "./chat-repair.ts";
import { chatBody, completionBody } from "./openai-body.ts";
import { openAiRejection } from "./openai-rejection.ts";
import type { Provider } from "./provider.ts";
import {
  type FrameFormat,
  MAX_ANSWER_BYTES,
  MAX_MODEL_LIST_BYTES,
  openStream,
  openWhole,
  parseJson,
  type Server,
  translated,
} from "./upstream.ts";

export interface CompatibleConfig {
  readonly base_url: string;
  readonly locality?: Locality | undefined;
  /** The environment variable that holds the key. */
  readonly key_env?: string | undefined;
  readonly models?: readonly string[] | undefined;
  /** The server fills in between `prompt` and `suffix` on /completions. */
  readonly fim?: boolean | undefined;
  readonly headers_timeout_s: number;
  readonly idle_timeout_s: number;
}

interface CompatibleOptions {
  readonly id: string;
  readonly config: CompatibleConfig;
  readonly locality: Locality;
  readonly http: HttpClient;
  readonly permit: StandingPermit;
  readonly keys: ProviderKeys;
  readonly ids: Ids;
}

const MODEL_LIST_TIMEOUT_MS = 3_000;
/** What a key's own page answers is short. */
const MAX_KEY_PAGE_BYTES = 64 * 1024;

/** Servers that many have an account with, by host: where their users' key is, and the path at which a key is told whether it is one. */
const KNOWN_SERVERS: Readonly<Record<string, { readonly variables: readonly string[]; readonly keyPath: string }>> = {
  // https://openrouter.ai/docs/api-reference/api-keys/get-current-api-key
  "openrouter.ai": { variables: ["OPENROUTER_API_KEY"], keyPath: "key" },
};

const modelList = z.looseObject({
  data: z.array(
    z.looseObject({
      id: z.string().min(1).max(200),
      context_length: z.int().positive().nullish().catch(undefined),
      max_model_len: z.int().positive().nullish().catch(undefined),
    }),
  ),
});
const embeddingList = z.looseObject({
  data: z.array(z.looseObject({ embedding: z.array(z.number()) })),
  usage: z.looseObject({ prompt_tokens: z.int().nonnegative().nullish() }).nullish(),
});

/** A provider whose server speaks the dialect in which embeddings are asked for, too. */
export interface RelayingProvider extends Provider {
  /** Sends the client's own body and gives back the server's own answer. */
  relayEmbeddings(body: Buffer, signal: AbortSignal): Promise<Buffer>;
}

export function createCompatibleProvider(options: CompatibleOptions): RelayingProvider {
  return new CompatibleProvider(options);
}

/** One small question to the server. */
interface Look {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

class CompatibleProvider implements RelayingProvider {
  readonly id: string;
  readonly #options: CompatibleOptions;
  readonly #base: URL;
  readonly #server: Server;
  #status: ProviderStatus;

  constructor(options: CompatibleOptions) {
    const { id, config, keys } = options;
    this.id = id;
    this.#options = options;
    this.#base = new URL(config.base_url.endsWith("/") ? config.base_url : `${config.base_url}/`);
    const variables = KNOWN_SERVERS[this.#base.hostname]?.variables ?? [];
    keys.declare({ provider: id, keyEnv: config.key_env, variables });
    this.#server = { id, clean: (text) => keys.clean(text) };
    this.#status = {
      id,
      kind: "compatible",
      address: config.base_url,
      locality: options.locality,
      state: "idle",
      models: 0,
    };
  }

  status(): readonly ProviderStatus[] {
    return [this.#status];
  }

  async models(signal: AbortSignal): Promise<readonly ModelInfo[]> {
    const { problem: _gone, ...status } = this.#status;
    try {
      const models = await this.#listModels(signal);
      this.#status = { ...status, state: "ok", models: models.length };
      return models;
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const error = toGhostError(thrown);
      const problem = error.code === "cancelled" ? `no answer within ${MODEL_LIST_TIMEOUT_MS} ms` : error.message;
      const isKey = error.code === "upstream_auth" || error.code === "key_unreadable";
      const state = isKey ? "refused" : "unreachable";
      this.#status = { ...status, state, models: 0, problem };
      return [];
    }
  }

  async chat(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    const call = { format: chatFormat(request), path: "chat/completions", stream: request.stream } as const;
    if (request.origin?.dialect === "openai-chat")
      return this.#open({ ...call, body: request.origin.bodyFor(model.name) }, model, signal);
    const dropped = carry(request, "openai-chat", model.ref);
    const { body, tools } = await chatBody(request, model.name);
    const attempt = await this.#open({ ...call, body }, model, signal);
    const repair = createChatRepair(this.#options.ids);
    const frames = translated(this.#server, attempt.frames, (frame) => tools.restore(repair(frame)));
    return { ...attempt, dropped, frames };
  }

  async complete(request: CompletionRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    if (request.suffix !== "" && !model.capabilities.fim) {
      throw new UserError(
        "capability_missing",
        `${model.ref} is not known to fill in before a suffix; set \`fim = true\` for ${this.id} if it can`,
      );
    }
    const call = { format: COMPLETION_FRAMES, path: "completions", stream: request.stream } as const;
    if (request.origin?.dialect === "openai-completion")
      return this.#open({ ...call, body: request.origin.bodyFor(model.name) }, model, signal);
    const attempt = await this.#open({ ...call, body: completionBody(request, model.name) }, model, signal);
    return { ...attempt, frames: translated(this.#server, attempt.frames, (frame) => frame) };
  }

  async embed(texts: readonly string[], model: ModelInfo, signal: AbortSignal): Promise<Embeddings> {
    const body = Buffer.from(JSON.stringify({ model: model.name, input: texts, encoding_format: "float" }));
    const parsed = embeddingList.safeParse(parseJson(await this.relayEmbeddings(body, signal)));
    if (!parsed.success) {
      throw new OperationalError("upstream_failed", `${this.id} sent something that is not a list of embeddings`);
    }
    return {
      model: model.ref,
      vectors: parsed.data.data.map(({ embedding }) => embedding),
      promptTokens: parsed.data.usage?.prompt_tokens ?? undefined,
    };
  }

  async relayEmbeddings(body: Buffer, signal: AbortSignal): Promise<Buffer> {
    return readBody(await this.#post("embeddings", body, "application/json", signal), MAX_ANSWER_BYTES);
  }

  /** A list that anybody gets says nothing about the key: then its own page is asked, or it is said that nobody knows. */
  async testKey(signal: AbortSignal): Promise<KeyVerdict> {
    const look = { signal, timeoutMs: KEY_TEST_TIMEOUT_MS };
    const keyPath = KNOWN_SERVERS[this.#base.hostname]?.keyPath;
    if (keyPath !== undefined) {
      const page = await this.#get(keyPath, await this.#authorization(signal), look);
      if (page.status !== 200) throw await openAiRejection(this.#server, page);
      await readBody(page, MAX_KEY_PAGE_BYTES);
    }
    const models = await this.#fetchModels(look);
    const detail = describeModels(this.id, models.length);
    if (keyPath !== undefined) return { ok: true, detail };
    const without = await this.#get("models", {}, look);
    await readBody(without, MAX_MODEL_LIST_BYTES);
    if (without.status !== 200) return { ok: true, detail };
    const open = `${this.id} answers and lists ${models.length} models, as it does without a key: whether it takes this one shows with the first question`;
    return { ok: true, detail: open };
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #listModels(signal: AbortSignal): Promise<readonly ModelInfo[]> {
    const { config } = this.#options;
    if (config.models !== undefined) return config.models.map((name) => describe(this.#options, name, undefined));
    return this.#fetchModels({ signal, timeoutMs: MODEL_LIST_TIMEOUT_MS });
  }

  async #fetchModels(look: Look): Promise<readonly ModelInfo[]> {
    const { config } = this.#options;
    const waiting = AbortSignal.any([look.signal, AbortSignal.timeout(look.timeoutMs)]);
    const response = await this.#get("models", await this.#authorization(waiting), look);
    if (response.status !== 200) throw await openAiRejection(this.#server, response);
    const parsed = modelList.safeParse(parseJson(await readBody(response, MAX_MODEL_LIST_BYTES)));
    if (!parsed.success) {
      throw new OperationalError("upstream_failed", `${this.id}: ${config.base_url}models is not a model list`);
    }
    return parsed.data.data.map((model) =>
      describe(this.#options, model.id, model.context_length ?? model.max_model_len ?? undefined),
    );
  }

  async #open(
    call: {
      readonly format: FrameFormat;
      readonly path: string;
      readonly body: Buffer;
      readonly stream: boolean;
    },
    { ref: model }: ModelInfo,
    signal: AbortSignal,
  ): Promise<Attempt> {
    const response = await this.#post(
      call.path,
      call.body,
      call.stream ? "text/event-stream" : "application/json",
      signal,
    );
    const isStream = header(response, "content-type")?.startsWith("text/event-stream") ?? false;
    const frames = await (isStream ? openStream : openWhole)(this.#server, call.format, response);
    return { model, frames, trimmedCharacters: 0 };
  }

  async #authorization(signal: AbortSignal): Promise<Readonly<Record<string, string>>> {
    const key = await this.#options.keys.find(this.id, signal);
    return key === undefined ? {} : { authorization: `Bearer ${key.secret.reveal()}` };
  }

  #get(
    path: string,
    authorization: Readonly<Record<string, string>>,
    { signal, timeoutMs }: Look,
  ): Promise<HttpResponse> {
    const { http, permit } = this.#options;
    return http.send(
      permit,
      {
        method: "GET",
        origin: this.#base.origin,
        path: this.#base.pathname + path,
        headers: { ...authorization, accept: "application/json" },
        headersTimeoutMs: timeoutMs,
        idleTimeoutMs: timeoutMs,
      },
      AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    );
  }

  async #post(path: string, body: Buffer, accept: string, signal: AbortSignal): Promise<HttpResponse> {
    const { http, permit, config } = this.#options;
    const authorization = await this.#authorization(signal);
    const response = await http.send(
      permit,
      {
        method: "POST",
        origin: this.#base.origin,
        path: this.#base.pathname + path,
        headers: { ...authorization, "content-type": "application/json", accept },
        body,
        headersTimeoutMs: config.headers_timeout_s * 1000,
        idleTimeoutMs: config.idle_timeout_s * 1000,
      },
      signal,
    );
    if (response.status < 200 || response.status > 299) throw await openAiRejection(this.#server, response);
    return response;
  }
}

function describe(options: CompatibleOptions, name: string, contextWindow: number | undefined): ModelInfo {
  return {
    ref: modelRefSchema.parse(`${options.id}/${name}`),
    provider: options.id,
    name,
    locality: options.locality,
    // Compatible servers do not say what a model can do: a request that it cannot take comes back as its own error.
    capabilities: {
      chat: true,
      complete: true,
      fim: options.config.fim ?? false,
      embeddings: true,
      tools: true,
      vision: true,
      jsonSchema: true,
    },
    continuation: "anchored",
    ...(contextWindow === undefined ? {} : { contextWindow }),
  };
}

/** Without `[DONE]`: whoever writes to the client says it when the whole answer is stored. */
const CHAT_FRAMES = chatFrames("openai-chat");
/** Each of several choices has a finish reason of its own: only `[DONE]` says that all are over. */
const CHOICES_FRAMES: FrameFormat = { ...CHAT_FRAMES, isEnd: hasDone };
const COMPLETION_FRAMES = chatFrames("openai-completion");

export const chatFormat = ({ extras }: ChatRequest): FrameFormat =>
  extras?.["n"] === undefined ? CHAT_FRAMES : CHOICES_FRAMES;

function chatFrames(dialect: "openai-chat" | "openai-completion"): FrameFormat {
  return {
    frame: (bytes) => openAiFrame(dialect, bytes),
    // Models write `[DONE]`, too; quotes stand escaped in what they write.
    isEnd: (bytes) => hasFinishReason(bytes) || hasDone(bytes),
    mayFail: (bytes) => bytes.includes('"error"'),
    strip: (bytes) =>
      bytes.includes("[DONE]")
        ? Buffer.concat(sseFrames(bytes).filter((frame) => !sseData(frame).some(isDone)))
        : bytes,
  };
}

function hasDone(bytes: Buffer): boolean {
  return bytes.includes("[DONE]") && sseData(bytes).some(isDone);
}

const isDone = (data: string) => data.trimEnd() === "[DONE]";

/** Some servers say "" with every chunk, which is no reason. */
function hasFinishReason(bytes: Buffer): boolean {
  const isNamed = bytes.includes('"finish_reason":"') || bytes.includes('"finish_reason": "');
  return isNamed && /"finish_reason": ?"[^"]/.test(bytes.toString("latin1"));
}

/**
 * Gemini, by Google's own API (https://ai.google.dev/api), with the user's own API key.
 * 1. A client of the same dialect is relayed: its body and the answer's frames, byte for byte. All other requests are written anew (`gemini-body.ts`), and
 *    their answers are read (`gemini-answer.ts`).
 * 2. The key travels in a header only: an address gets logged.
 * 3. Without a key nothing is asked, of anybody.
 * 4. A request that is refused for something that the client can do without is sent once more without it.
 */
import { z } from "zod";
import { modelRefSchema } from "../../../protocol/ids.ts";
import type { Locality, ModelInfo, ProviderStatus } from "../../../protocol/model.ts";
import type { Ids } from "../../base/clock.ts";
import { OperationalError, toGhostError, UserError } from "../../base/errors.ts";
import { present } from "../../base/optional.ts";
import { header, type HttpClient, type HttpResponse, readBody } from "../../platform/http-client.ts";
import type { StandingPermit } from "../../platform/permit.ts";
import { carry } from "../carriage.ts";
import { countAt, isRecord, parseRecord } from "../frames/json.ts";
import { stopAt } from "../frames/stopped.ts";
import type { Attempt, ChatRequest, CompletionRequest, Embeddings, Frame } from "../stream.ts";
import { geminiFrames, readHops, readRejection, relayedFrames } from "./gemini-answer.ts";
import { countBody, cureFor, type GeminiRequest, geminiRequest, type GenerateBody } from "./gemini-body.ts";
import { familyOf, type ListedModel, modelPage, toListed } from "./gemini-models.ts";
import { describeModels, KEY_TEST_TIMEOUT_MS, type KeyVerdict } from "./key-check.ts";
import type { ProviderKeys } from "./keys.ts";
import { isListed, literalNames } from "./model-patterns.ts";
import type { Provider } from "./provider.ts";
import {
  type FrameFormat,
  mapFrames,
  MAX_ANSWER_BYTES,
  MAX_MODEL_LIST_BYTES,
  openStream,
  openWhole,
  parseJson,
  type Server,
} from "./upstream.ts";

export interface GeminiConfig {
  readonly base_url: string;
  readonly key_env?: string | undefined;
  readonly models?: readonly string[] | undefined;
  readonly headers_timeout_s: number;
  readonly idle_timeout_s: number;
}

interface GeminiOptions {
  readonly config: GeminiConfig;
  readonly locality: Locality;
  readonly http: HttpClient;
  readonly permit: StandingPermit;
  readonly keys: ProviderKeys;
  readonly ids: Ids;
}

const ID = "gemini";
const KIND = "gemini";
/** A list takes a fraction of a second; the catalogue waits for nobody much longer. */
const LIST_TIMEOUT_MS = 8_000;
/** The largest page that the API gives. */
const PAGE_SIZE = 1_000;
/** Far beyond any real list: a server whose pages never end is not followed. */
const MAX_PAGES = 20;
const MAX_COUNT_BYTES = 64 * 1024;
/** The API takes no more texts at once. */
const MAX_EMBEDDED_TEXTS = 100;

const embeddingList = z.looseObject({
  embeddings: z.array(z.looseObject({ values: z.array(z.number()) })),
  usageMetadata: z.looseObject({ promptTokenCount: z.int().nonnegative().nullish() }).nullish(),
});

export function createGeminiProvider(options: GeminiOptions): Provider {
  return new GeminiProvider(options);
}

interface Look {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

class GeminiProvider implements Provider {
  readonly id = ID;
  readonly #options: GeminiOptions;
  readonly #base: URL;
  readonly #server: Server;
  #status: ProviderStatus;

  constructor(options: GeminiOptions) {
    const { config, keys, locality } = options;
    this.#options = options;
    this.#base = new URL(config.base_url.endsWith("/") ? config.base_url : `${config.base_url}/`);
    keys.declare({ provider: ID, keyEnv: config.key_env, variables: ["GEMINI_API_KEY", "GOOGLE_API_KEY"] });
    this.#server = { id: ID, clean: (text) => keys.clean(text) };
    this.#status = { id: ID, kind: KIND, address: config.base_url, locality, state: "idle", models: 0 };
  }

  status(): readonly ProviderStatus[] {
    return [this.#status];
  }

  async models(signal: AbortSignal): Promise<readonly ModelInfo[]> {
    const { problem: _gone, ...status } = this.#status;
    try {
      if ((await this.#options.keys.find(ID, signal)) === undefined) {
        this.#status = { ...status, state: "absent", models: 0 };
        return [];
      }
      const models = await this.#listModels({ signal, timeoutMs: LIST_TIMEOUT_MS });
      this.#status = { ...status, state: "ok", models: models.length };
      return models.map((model) => describe(model, this.#options.locality));
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const error = toGhostError(thrown);
      const problem = error.code === "cancelled" ? `no answer within ${LIST_TIMEOUT_MS} ms` : error.message;
      const isKey = ["upstream_auth", "upstream_quota", "key_unreadable"].includes(error.code);
      this.#status = { ...status, state: isKey ? "refused" : "unreachable", models: 0, problem };
      return [];
    }
  }

  async chat(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    return request.origin?.dialect === KIND
      ? this.#relay(request.origin, { request, model }, signal)
      : this.#translate(request, model, signal);
  }

  async #relay(
    { bodyFor, headers }: NonNullable<ChatRequest["origin"]>,
    { request, model }: { readonly request: ChatRequest; readonly model: ModelInfo },
    signal: AbortSignal,
  ): Promise<Attempt> {
    const response = await this.#post(methodPath(model.name, request.stream), bodyFor(model.name), signal, headers);
    if (!isOk(response)) throw (await readRejection(this.#server, response)).error;
    const frames = await opened(this.#server, relayedFrames(this.#server), response);
    return { model: model.ref, frames, trimmedCharacters: 0 };
  }

  async #translate(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    const lost = carry(request, KIND, model.ref);
    const asked = await geminiRequest(request, factsOf(model));
    const mended: string[] = [];
    let { body } = asked;
    for (;;) {
      const call = { model: model.name, body, isStream: request.stream };
      const response = await this.#generate(call, signal);
      if (isOk(response)) {
        const frames = await this.#read(response, { ...call, asked }, signal);
        const dropped = [...new Set([...lost, ...asked.dropped, ...mended])];
        return { model: model.ref, frames, trimmedCharacters: 0, dropped };
      }
      const { error, status, said } = await readRejection(this.#server, response);
      const cure = status === 400 ? cureFor(said, body) : undefined;
      if (cure === undefined || cure.names.some((name) => mended.includes(name))) throw error;
      mended.push(...cure.names);
      ({ body } = cure);
    }
  }

  async complete(_request: CompletionRequest, { ref }: ModelInfo, _signal: AbortSignal): Promise<Attempt> {
    throw new UserError("capability_missing", `${ref} answers chats only`);
  }

  async embed(texts: readonly string[], model: ModelInfo, signal: AbortSignal): Promise<Embeddings> {
    if (!model.capabilities.embeddings) throw new UserError("capability_missing", `${model.ref} makes no embeddings`);
    const vectors: (readonly number[])[] = [];
    let promptTokens: number | undefined = 0;
    for (let start = 0; start < texts.length; start += MAX_EMBEDDED_TEXTS) {
      const batch = texts.slice(start, start + MAX_EMBEDDED_TEXTS);
      const requests = batch.map((text) => ({ model: `models/${model.name}`, content: { parts: [{ text }] } }));
      const json = await this.#ask(`${pathOf(model.name)}:batchEmbedContents`, { requests }, MAX_ANSWER_BYTES, signal);
      const parsed = embeddingList.safeParse(json);
      if (!parsed.success || parsed.data.embeddings.length !== batch.length)
        throw new OperationalError("upstream_failed", `${ID} sent something that is not a list of embeddings`);
      vectors.push(...parsed.data.embeddings.map(({ values }) => values));
      const count = parsed.data.usageMetadata?.promptTokenCount ?? undefined;
      promptTokens = promptTokens === undefined || count === undefined ? undefined : promptTokens + count;
    }
    return { model: model.ref, vectors, promptTokens };
  }

  async countTokens(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<number> {
    const { origin } = request;
    const body =
      origin?.dialect === KIND
        ? relayedCount(parseRecord(origin.bodyFor(model.name).toString("utf8")) ?? {}, model.name)
        : countBody(await geminiRequest(request, factsOf(model)), model.name);
    const json = await this.#ask(`${pathOf(model.name)}:countTokens`, body, MAX_COUNT_BYTES, signal);
    const tokens = isRecord(json) ? countAt(json, "totalTokens") : undefined;
    if (tokens === undefined) throw new OperationalError("upstream_failed", `${ID} sent something that is no count`);
    return tokens;
  }

  async testKey(signal: AbortSignal): Promise<KeyVerdict> {
    const models = await this.#listModels({ signal, timeoutMs: KEY_TEST_TIMEOUT_MS });
    return { ok: true, detail: describeModels(ID, models.length) };
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  /** The whole answer, all of its hops. */
  async #read(response: HttpResponse, call: OpenCall, signal: AbortSignal): Promise<AsyncIterable<Frame>> {
    const { tools, ownStops } = call.asked;
    const first = await this.#open(response, { isFirst: true });
    const hops = readHops(first, {
      server: this.#server,
      newCallId: () => this.#options.ids.next("call"),
      signal,
      open: async (continuationToken) => {
        const next = await this.#generate({ ...call, body: { ...call.body, continuationToken } }, signal);
        if (!isOk(next)) throw (await readRejection(this.#server, next)).error;
        return this.#open(next, { isFirst: false });
      },
    });
    const restored = mapFrames(hops, (frame) => tools.restore(frame));
    return ownStops.length === 0 ? restored : stopAt(restored, ownStops);
  }

  #open(response: HttpResponse, how: { readonly isFirst: boolean }): Promise<AsyncIterable<Frame>> {
    return opened(this.#server, geminiFrames(this.#server, how), response);
  }

  async #listModels(look: Look): Promise<readonly ListedModel[]> {
    const { models: patterns } = this.#options.config;
    const listed = await this.#fetchModels(look);
    const found = listed.filter(({ name }) => isListed(name, patterns));
    // Names that the user wrote out are there whether they are listed or not: previews and tuned models are not.
    const unlisted = literalNames(patterns ?? []).filter((name) => found.every((model) => model.name !== name));
    return [...found, ...unlisted.map(unlistedModel)];
  }

  async #fetchModels({ signal, timeoutMs }: Look): Promise<readonly ListedModel[]> {
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    const models: ListedModel[] = [];
    let token: string | undefined;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const from = token === undefined ? "" : `&pageToken=${encodeURIComponent(token)}`;
      const path = `models?pageSize=${PAGE_SIZE}${from}`;
      const response = await this.#send({ method: "GET", path, timeoutMs, idleMs: timeoutMs }, bounded);
      if (!isOk(response)) throw (await readRejection(this.#server, response)).error;
      const parsed = modelPage.safeParse(parseJson(await readBody(response, MAX_MODEL_LIST_BYTES)));
      if (!parsed.success)
        throw new OperationalError("upstream_failed", `${ID}: ${this.#base.href}models is not a list of models`);
      models.push(...parsed.data.models.flatMap(toListed));
      const next = parsed.data.nextPageToken;
      if (next === undefined || next === null || next === "" || next === token) break;
      token = next;
    }
    return models;
  }

  #generate({ model, body, isStream }: Call, signal: AbortSignal): Promise<HttpResponse> {
    return this.#post(methodPath(model, isStream), toBytes(body), signal);
  }

  /** A small question: its answer as JSON. */
  async #ask(path: string, body: object, maxBytes: number, signal: AbortSignal): Promise<unknown> {
    const response = await this.#post(path, toBytes(body), signal);
    if (!isOk(response)) throw (await readRejection(this.#server, response)).error;
    return parseJson(await readBody(response, maxBytes));
  }

  #post(
    path: string,
    body: Buffer,
    signal: AbortSignal,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<HttpResponse> {
    const { headers_timeout_s: headersS, idle_timeout_s: idleS } = this.#options.config;
    const sent = { method: "POST", path, body, headers, timeoutMs: headersS * 1000, idleMs: idleS * 1000 } as const;
    return this.#send(sent, signal);
  }

  async #send(
    sent: {
      readonly method: "GET" | "POST";
      readonly path: string;
      readonly body?: Buffer;
      readonly headers?: Readonly<Record<string, string>>;
      readonly timeoutMs: number;
      readonly idleMs: number;
    },
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const { http, permit, keys } = this.#options;
    const key = await keys.find(ID, signal);
    if (key === undefined) throw new UserError("key_missing", `${ID} has no key: \`ghost keys set ${ID}\``);
    return http.send(
      permit,
      {
        method: sent.method,
        origin: this.#base.origin,
        path: this.#base.pathname + sent.path,
        headers: {
          ...sent.headers,
          "x-goog-api-key": key.secret.reveal(),
          ...(sent.body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...present("body", sent.body),
        headersTimeoutMs: sent.timeoutMs,
        idleTimeoutMs: sent.idleMs,
      },
      signal,
    );
  }
}

interface Call {
  readonly model: string;
  readonly body: GenerateBody;
  readonly isStream: boolean;
}
interface OpenCall extends Call {
  readonly asked: GeminiRequest;
}

const isOk = ({ status }: HttpResponse) => status >= 200 && status <= 299;
const toBytes = (body: object) => Buffer.from(JSON.stringify(body));
const pathOf = (name: string) => `models/${encodeURIComponent(name)}`;

function methodPath(name: string, isStream: boolean): string {
  return `${pathOf(name)}:${isStream ? "streamGenerateContent?alt=sse" : "generateContent"}`;
}

function opened(server: Server, format: FrameFormat, response: HttpResponse): Promise<AsyncIterable<Frame>> {
  const isStream = header(response, "content-type")?.startsWith("text/event-stream") ?? false;
  return (isStream ? openStream : openWhole)(server, format, response);
}

function factsOf({ name, ref, maxOutputTokens }: ModelInfo) {
  return { maker: ID, ref, facts: familyOf(name), maxOutputTokens };
}

/** What a client of the same dialect wants counted: its contents, or a whole request, which may stand inside or be the body itself. */
function relayedCount(body: Readonly<Record<string, unknown>>, name: string): object {
  const { generateContentRequest: inside, generate_content_request: older, ...outside } = body;
  const asked = [inside, older].find(isRecord) ?? outside;
  // How it is to be answered counts nothing.
  const { generationConfig: _answer, generation_config: _older, ...prompt } = asked;
  return { generateContentRequest: { ...prompt, model: `models/${name}` } };
}

function unlistedModel(name: string): ListedModel {
  const kind = /embed/.test(name) ? "embedding" : "chat";
  return { name, kind, contextWindow: undefined, maxOutputTokens: undefined };
}

function describe({ name, kind, contextWindow, maxOutputTokens }: ListedModel, locality: Locality): ModelInfo {
  const isChat = kind === "chat";
  const facts = familyOf(name);
  return {
    ref: modelRefSchema.parse(`${ID}/${name}`),
    provider: ID,
    name,
    locality,
    capabilities: {
      chat: isChat,
      complete: false,
      fim: false,
      embeddings: !isChat,
      tools: isChat && facts.takesTools,
      vision: isChat,
      jsonSchema: isChat,
      ...(isChat ? { reasoning: facts.thinking.kind !== "none" } : {}),
    },
    ...present("contextWindow", contextWindow),
    ...(isChat ? present("maxOutputTokens", maxOutputTokens) : {}),
    ...(isChat ? { continuation: "anchored" } : {}),
  };
}

/**
 * Claude, by Anthropic's Messages API, with the user's own API key.
 * 1. A client of the same dialect is relayed: its body with another model name, its `anthropic-version` and `anthropic-beta`, and nothing else changed.
 *    All other requests are written anew (`anthropic-body.ts`).
 * 2. Without a key nothing is asked, of anybody.
 * 3. A request that is refused for something that was written here is written once more without it: thinking that is bound to another conversation, or
 *    more strict tools than the model takes.
 * 4. Only API keys: tokens of a Claude plan are for Anthropic's own programs.
 */
import type { ModelRef } from "../../../protocol/ids.ts";
import type { Locality, ModelInfo, ProviderStatus } from "../../../protocol/model.ts";
import { OperationalError, toGhostError, UserError } from "../../base/errors.ts";
import { header, type HttpClient, type HttpResponse, readBody } from "../../platform/http-client.ts";
import type { StandingPermit } from "../../platform/permit.ts";
import { carry } from "../carriage.ts";
import { countAt, isRecord, parseRecord } from "../frames/json.ts";
import type { Attempt, ChatRequest, CompletionRequest, Embeddings } from "../stream.ts";
import { answerAsText, messageFrames, readRejection, type Rejection } from "./anthropic-answer.ts";
import {
  API_VERSION,
  countBody,
  forgetThinking,
  hasStrictTools,
  type MessagesBody,
  messagesRequest,
  pickCounted,
  SAMPLING_VERSION,
  withoutStrictTools,
} from "./anthropic-body.ts";
import {
  type ClaudeFacts,
  describeClaude,
  factsOf,
  familyOf,
  isUsable,
  type ListedModel,
  modelPage,
} from "./anthropic-models.ts";
import { EARLIER_THINKING } from "./anthropic-turns.ts";
import { describeModels, type KeyVerdict } from "./key-check.ts";
import type { ProviderKeys } from "./keys.ts";
import { isListed, literalNames } from "./model-patterns.ts";
import type { Provider } from "./provider.ts";
import { MAX_MODEL_LIST_BYTES, openStream, openWhole, parseJson, type Server, translated } from "./upstream.ts";

export interface AnthropicConfig {
  readonly base_url: string;
  readonly key_env?: string | undefined;
  readonly models?: readonly string[] | undefined;
  readonly headers_timeout_s: number;
  readonly idle_timeout_s: number;
}

interface AnthropicOptions {
  readonly config: AnthropicConfig;
  readonly locality: Locality;
  readonly http: HttpClient;
  readonly permit: StandingPermit;
  readonly keys: ProviderKeys;
}

const ID = "anthropic";
const DIALECT = "anthropic-messages";
/** A list takes a fraction of a second; the catalogue waits for nobody much longer. */
const LIST_TIMEOUT_MS = 8_000;
/** The largest page that the API gives. */
const PAGE_SIZE = 1_000;
/** Far beyond any real list: a server whose pages never end is not followed. */
const MAX_PAGES = 20;
const MAX_COUNT_BYTES = 64 * 1024;
/** What a client that does not say means: the version of all clients before versions had a choice. */
const RELAY_VERSION = SAMPLING_VERSION;
/** Begins tokens that a Claude plan issues (4). */
const PLAN_TOKEN = "sk-ant-oat";

export function createAnthropicProvider(options: AnthropicOptions): Provider {
  return new AnthropicProvider(options);
}

class AnthropicProvider implements Provider {
  readonly id = ID;
  readonly #options: AnthropicOptions;
  readonly #base: URL;
  readonly #server: Server;
  /** What the last list said of each model. */
  #facts: ReadonlyMap<string, ClaudeFacts> = new Map();
  /** Seals of thinking that was refused: the conversation goes on without it, as it did when that was found out. */
  readonly #refused = new Set<string>();
  #status: ProviderStatus;

  constructor(options: AnthropicOptions) {
    const { config, keys } = options;
    this.#options = options;
    this.#base = new URL(config.base_url.endsWith("/") ? config.base_url : `${config.base_url}/`);
    keys.declare({ provider: ID, keyEnv: config.key_env, variables: ["ANTHROPIC_API_KEY"] });
    this.#server = { id: ID, clean: (text) => keys.clean(text) };
    const { locality } = options;
    this.#status = { id: ID, kind: "anthropic", address: config.base_url, locality, state: "idle", models: 0 };
  }

  status(): readonly ProviderStatus[] {
    return [this.#status];
  }

  async models(signal: AbortSignal): Promise<readonly ModelInfo[]> {
    const { problem: _gone, ...status } = this.#status;
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(LIST_TIMEOUT_MS)]);
    try {
      if ((await this.#options.keys.find(ID, bounded)) === undefined) {
        this.#status = { ...status, state: "absent", models: 0 };
        return [];
      }
      const models = await this.#listModels(bounded);
      this.#facts = new Map(models.map((model) => [model.id, factsOf(model)]));
      this.#status = { ...status, state: "ok", models: models.length };
      return models.map((model) => describeClaude(model, { provider: ID, locality: this.#options.locality }));
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const error = toGhostError(thrown);
      const problem = error.code === "cancelled" ? `no answer within ${LIST_TIMEOUT_MS} ms` : error.message;
      const isKey = error.code === "upstream_auth" || error.code === "key_unreadable";
      this.#status = { ...status, state: isKey ? "refused" : "unreachable", models: 0, problem };
      return [];
    }
  }

  async chat(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    return request.origin?.dialect === DIALECT
      ? this.#relay(request.origin, { request, model }, signal)
      : this.#translate(request, model, signal);
  }

  async complete(_request: CompletionRequest, { ref }: ModelInfo, _signal: AbortSignal): Promise<Attempt> {
    throw new UserError("capability_missing", `${ref} answers chats only`);
  }

  async embed(_texts: readonly string[], { ref }: ModelInfo, _signal: AbortSignal): Promise<Embeddings> {
    throw new UserError("capability_missing", `${ref} makes no embeddings: Anthropic has no model that does`);
  }

  async countTokens(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<number> {
    const { origin } = request;
    const isRelay = origin?.dialect === DIALECT;
    const body = isRelay
      ? pickCounted(parseRecord(origin.bodyFor(model.name).toString("utf8")) ?? {})
      : countBody(await messagesRequest(request, this.#modelFacts(model)));
    const response = await this.#post(
      { path: "messages/count_tokens", body: toBytes(body), accept: "application/json" },
      isRelay ? relayHeaders(origin) : { "anthropic-version": API_VERSION },
      signal,
    );
    if (!isOk(response)) throw (await readRejection(this.#server, response)).error;
    const json = parseJson(await readBody(response, MAX_COUNT_BYTES));
    const tokens = isRecord(json) ? countAt(json, "input_tokens") : undefined;
    if (tokens === undefined) throw new OperationalError("upstream_failed", `${ID} sent something that is no count`);
    return tokens;
  }

  async testKey(signal: AbortSignal): Promise<KeyVerdict> {
    const models = await this.#listModels(signal);
    return { ok: true, detail: describeModels(ID, models.length) };
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #relay(
    origin: NonNullable<ChatRequest["origin"]>,
    { request, model }: { readonly request: ChatRequest; readonly model: ModelInfo },
    signal: AbortSignal,
  ): Promise<Attempt> {
    const call = { path: "messages", body: origin.bodyFor(model.name), accept: acceptOf(request) };
    const response = await this.#post(call, relayHeaders(origin), signal);
    if (!isOk(response)) throw (await readRejection(this.#server, response)).error;
    return this.#attempt(model.ref, response, { isRelay: true });
  }

  async #translate(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    const lost = carry(request, DIALECT, model.ref);
    let message = await messagesRequest(request, this.#modelFacts(model));
    const accept = acceptOf(request);
    const versioned = { "anthropic-version": message.version };
    const mended: string[] = [];
    for (;;) {
      const call = { path: "messages", body: toBytes(message.body), accept };
      const response = await this.#post(call, versioned, signal);
      if (isOk(response)) {
        const attempt = await this.#attempt(model.ref, response, { isRelay: false });
        const frames = translated(
          this.#server,
          attempt.frames,
          message.isAnswerTool ? answerAsText : message.tools.restore,
        );
        return { ...attempt, frames, dropped: [...new Set([...lost, ...message.dropped, ...mended])] };
      }
      const rejection = await readRejection(this.#server, response);
      const cure = cureFor(rejection, message.body);
      if (cure === undefined || mended.includes(cure.name)) throw rejection.error;
      mended.push(cure.name);
      this.#refuse(cure.seals);
      message = { ...message, body: cure.body };
    }
  }

  async #attempt(
    model: ModelRef,
    response: HttpResponse,
    { isRelay }: { readonly isRelay: boolean },
  ): Promise<Attempt> {
    const isStream = header(response, "content-type")?.startsWith("text/event-stream") ?? false;
    const format = messageFrames(this.#server, { isRelay });
    const frames = await (isStream ? openStream : openWhole)(this.#server, format, response);
    return { model, frames, trimmedCharacters: 0 };
  }

  #modelFacts({ name }: ModelInfo) {
    const isRefused = (seal: string) => this.#refused.has(seal);
    return { maker: ID, name, facts: this.#facts.get(name) ?? familyOf(name), isRefused };
  }

  #refuse(seals: readonly string[]): void {
    for (const seal of seals) this.#refused.add(seal);
    for (const oldest of this.#refused) {
      if (this.#refused.size <= MAX_REFUSED_SEALS) return;
      this.#refused.delete(oldest);
    }
  }

  async #listModels(signal: AbortSignal): Promise<readonly ListedModel[]> {
    const { models: patterns } = this.#options.config;
    const listed = await this.#fetchModels(signal);
    // A server that has no list has the models that the user names.
    const models = listed ?? literalNames(patterns ?? []).map((id): ListedModel => ({ id }));
    return models.filter((model) => isUsable(model) && isListed(model.id, patterns));
  }

  /** Undefined where the server has no list, and the user says which models it has. */
  async #fetchModels(signal: AbortSignal): Promise<readonly ListedModel[] | undefined> {
    const models: ListedModel[] = [];
    let after: string | undefined;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const from = after === undefined ? "" : `&after_id=${encodeURIComponent(after)}`;
      const response = await this.#get(`models?limit=${PAGE_SIZE}${from}`, signal);
      if (!isOk(response)) {
        const { error, status } = await readRejection(this.#server, response);
        if (status === 404 && literalNames(this.#options.config.models ?? []).length > 0) return undefined;
        throw error;
      }
      const parsed = modelPage.safeParse(parseJson(await readBody(response, MAX_MODEL_LIST_BYTES)));
      if (!parsed.success) {
        throw new OperationalError("upstream_failed", `${ID}: ${this.#base.href}models is not a list of models`);
      }
      models.push(...parsed.data.data);
      const next = parsed.data.last_id ?? parsed.data.data.at(-1)?.id;
      if (parsed.data.has_more !== true || next === undefined || next === after) break;
      after = next;
    }
    return models;
  }

  async #get(path: string, signal: AbortSignal): Promise<HttpResponse> {
    const { http, permit } = this.#options;
    return http.send(
      permit,
      {
        method: "GET",
        origin: this.#base.origin,
        path: this.#base.pathname + path,
        headers: { ...(await this.#keyHeader(signal)), "anthropic-version": API_VERSION, accept: "application/json" },
        headersTimeoutMs: LIST_TIMEOUT_MS,
        idleTimeoutMs: LIST_TIMEOUT_MS,
      },
      signal,
    );
  }

  async #post(
    call: { readonly path: string; readonly body: Buffer; readonly accept: string },
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const { http, permit, config } = this.#options;
    const { path, body, accept } = call;
    return http.send(
      permit,
      {
        method: "POST",
        origin: this.#base.origin,
        path: this.#base.pathname + path,
        headers: { ...headers, ...(await this.#keyHeader(signal)), "content-type": "application/json", accept },
        body,
        headersTimeoutMs: config.headers_timeout_s * 1000,
        idleTimeoutMs: config.idle_timeout_s * 1000,
      },
      signal,
    );
  }

  async #keyHeader(signal: AbortSignal): Promise<Readonly<Record<string, string>>> {
    const key = await this.#options.keys.find(ID, signal);
    if (key === undefined) throw new UserError("key_missing", `${ID} has no key: \`ghost keys set ${ID}\``);
    const text = key.secret.reveal();
    if (!text.startsWith(PLAN_TOKEN)) return { "x-api-key": text };
    const message = `${ID} needs an API key: a token of a Claude plan is for Anthropic's own programs`;
    throw new UserError("upstream_auth", message, { details: { provider: ID } });
  }
}

const toBytes = (body: object) => Buffer.from(JSON.stringify(body));
const isOk = ({ status }: HttpResponse) => status >= 200 && status <= 299;
const acceptOf = ({ stream }: ChatRequest) => (stream ? "text/event-stream" : "application/json");

/** (1) */
function relayHeaders({ headers }: NonNullable<ChatRequest["origin"]>): Readonly<Record<string, string>> {
  return { "anthropic-version": RELAY_VERSION, ...headers };
}

/** `messages.3.content.0: Invalid `signature` in `thinking` block. …`; redacted thinking has `data`. */
const FOREIGN_THINKING = /Invalid `\w+` in `(?:redacted_)?thinking`/;
const THINKING_PLACE = /^messages\.(\d+)\.content\.(\d+):/;

/** Seals are some hundred characters, and their sessions end: the oldest are forgotten. */
const MAX_REFUSED_SEALS = 4_096;
/** Said of tools that must be followed to the letter, and are too many or too large for that. */
const TOO_STRICT = /\bstrict\b|additionalProperties|compiled grammar/i;

interface Cure {
  readonly name: string;
  readonly body: MessagesBody;
  /** Of thinking that is not sent again. */
  readonly seals: readonly string[];
}

/** The same request without what it was refused for (3). */
function cureFor({ status, said }: Rejection, body: MessagesBody): Cure | undefined {
  if (status !== 400) return undefined;
  if (FOREIGN_THINKING.test(said)) {
    const [, turn = 0, block = 0] = THINKING_PLACE.exec(said) ?? [];
    const { seals, body: mended } = forgetThinking(body, { turn: Number(turn), block: Number(block) });
    return seals.length === 0 ? undefined : { name: EARLIER_THINKING, body: mended, seals };
  }
  if (!TOO_STRICT.test(said) || !hasStrictTools(body)) return undefined;
  return { name: "strict tools", body: withoutStrictTools(body), seals: [] };
}

/**
 * The providers that speak OpenAI's Responses: OpenAI, Azure OpenAI and xAI. What tells them apart is in a `ResponsesFlavour`, one small file each.
 * 1. A client of the same dialect is relayed: its own bytes with another model name, and the frames as they came. All others are asked in our words.
 * 2. What a server refuses of a relay only because it is another maker's, or too new for it, is asked again in our words, once; so is what it cannot
 *    read of earlier reasoning, without that. Nothing was sent to the client by then.
 * 3. An answer is whole when its terminal event was seen.
 * 4. Without a key nothing is asked, and there are no models.
 */
import { z } from "zod";
import { modelRefSchema } from "../../../protocol/ids.ts";
import type { ErrorCode } from "../../../protocol/errors.ts";
import type { Locality, ModelInfo, ModelPrices, ProviderStatus } from "../../../protocol/model.ts";
import { type GhostError, OperationalError, ReportedError, toGhostError, UserError } from "../../base/errors.ts";
import { present } from "../../base/optional.ts";
import { header, type HttpClient, type HttpResponse, readBody } from "../../platform/http-client.ts";
import type { StandingPermit } from "../../platform/permit.ts";
import { parseRecord } from "../frames/json.ts";
import { responsesFrame } from "../frames/responses.ts";
import { sseData, sseFrames } from "../frames/sse.ts";
import { stopAt } from "../frames/stopped.ts";
import type { Attempt, ChatRequest, CompletionRequest, Embeddings, Frame } from "../stream.ts";
import { chatFormat, type RelayingProvider } from "./compatible.ts";
import { describeModels, KEY_TEST_TIMEOUT_MS, type KeyVerdict } from "./key-check.ts";
import type { ProviderKeys } from "./keys.ts";
import { isListed, literalNames } from "./model-patterns.ts";
import {
  inputTokensBody,
  type Omissions,
  responsesBody,
  type ResponsesDraft,
  type ResponsesTarget,
} from "./responses-body.ts";
import type { ResponsesFamily } from "./responses-family.ts";
import { refusalError, wordsOf } from "./responses-refusal.ts";
import { firstWay, nextWay, type RelayRules, type Way } from "./responses-way.ts";
import {
  type FrameFormat,
  MAX_ANSWER_BYTES,
  MAX_MODEL_LIST_BYTES,
  openStream,
  openWhole,
  parseJson,
  readRefusal,
  type Server,
  translated,
} from "./upstream.ts";

export interface ResponsesConfig {
  readonly base_url: string;
  /** The environment variable that holds the key. */
  readonly key_env?: string | undefined;
  /** Patterns of the models that are offered. */
  readonly models?: readonly string[] | undefined;
  readonly headers_timeout_s: number;
  readonly idle_timeout_s: number;
}

/** One model, as far as its server tells. */
export interface ListedModel {
  readonly name: string;
  readonly vision?: boolean;
  readonly prices?: ModelPrices;
}

/** What tells one of these providers from the others. */
export interface ResponsesFlavour {
  readonly id: "openai" | "azure" | "xai";
  /** Environment variables in which its users have their key anyway. */
  readonly keyVariables: readonly string[];
  authorization(key: string): Readonly<Record<string, string>>;
  /** By the name that goes into a body. */
  familyOf(name: string): ResponsesFamily;
  /** `read`: the list's body, undefined for what is none. `known`: they stand in the settings. */
  readonly list: { readonly path: string } & (
    | { readonly read: (json: unknown) => readonly ListedModel[] | undefined }
    | { readonly known: readonly ListedModel[] }
  );
  readonly relay: RelayRules;
  /** Fields of clients' dialects that it takes under the same name. */
  readonly extras: ReadonlySet<string>;
  /** Pads its deltas unless it is told not to. */
  readonly isPadding: boolean;
  readonly countsTokens: boolean;
  readonly continuation?: ModelInfo["continuation"];
}

export interface ResponsesOptions {
  readonly flavour: ResponsesFlavour;
  readonly config: ResponsesConfig;
  readonly locality: Locality;
  readonly http: HttpClient;
  readonly permit: StandingPermit;
  readonly keys: ProviderKeys;
}

/** The lists of far servers; nobody waits longer for them. */
const MODEL_LIST_TIMEOUT_MS = 5_000;

const embeddingList = z.looseObject({
  data: z.array(z.looseObject({ embedding: z.array(z.number()) })),
  usage: z.looseObject({ prompt_tokens: z.int().nonnegative().nullish() }).nullish(),
});
const inputTokens = z.looseObject({ input_tokens: z.int().nonnegative() });

export function createResponsesProvider(options: ResponsesOptions): RelayingProvider {
  return new ResponsesProvider(options);
}

interface Call {
  readonly path: string;
  readonly body: Buffer;
  readonly accept: string;
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

class ResponsesProvider implements RelayingProvider {
  readonly id: string;
  readonly #options: ResponsesOptions;
  readonly #base: URL;
  readonly #server: Server;
  readonly #formats: { readonly relay: FrameFormat; readonly own: FrameFormat };
  #status: ProviderStatus;

  constructor(options: ResponsesOptions) {
    const { flavour, config, keys, locality } = options;
    const { id } = flavour;
    this.id = id;
    this.#options = options;
    this.#base = new URL(config.base_url.endsWith("/") ? config.base_url : `${config.base_url}/`);
    keys.declare({ provider: id, keyEnv: config.key_env, variables: flavour.keyVariables });
    this.#server = { id, clean: (text) => keys.clean(text) };
    this.#formats = {
      relay: responsesFormat(this.#server, withoutDone),
      own: responsesFormat(this.#server, withoutEcho),
    };
    this.#status = { id, kind: id, address: config.base_url, locality, state: "idle", models: 0 };
  }

  status(): readonly ProviderStatus[] {
    return [this.#status];
  }

  async models(signal: AbortSignal): Promise<readonly ModelInfo[]> {
    const { problem: _gone, ...status } = this.#status;
    try {
      if ((await this.#options.keys.find(this.id, signal)) === undefined) {
        this.#status = { ...status, state: "absent", models: 0, problem: this.#noKey() };
        return [];
      }
      const models = await this.#offered({ signal, timeoutMs: MODEL_LIST_TIMEOUT_MS });
      this.#status = { ...status, state: "ok", models: models.length };
      return models;
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const error = toGhostError(thrown);
      const problem = error.code === "cancelled" ? `no answer within ${MODEL_LIST_TIMEOUT_MS} ms` : error.message;
      const state = KEY_PROBLEMS.includes(error.code) ? "refused" : "unreachable";
      this.#status = { ...status, state, models: 0, problem };
      return [];
    }
  }

  async chat(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    const { flavour } = this.#options;
    const family = flavour.familyOf(model.name);
    let way: Way | undefined = firstWay(request, family, flavour.relay);
    for (;;) {
      const { call, draft } = await this.#compose(way, request, { model, family });
      const response = await this.#post(call, signal);
      if (isGood(response)) return this.#open(response, request, { way, draft, model });
      const refusal = await readRefusal(response);
      way = nextWay(way, refusal, flavour.relay);
      if (way === undefined) throw refusalError(this.#server, refusal);
    }
  }

  async complete(_request: CompletionRequest, model: ModelInfo): Promise<Attempt> {
    throw new UserError("capability_missing", `${model.ref} continues no plain text: its server has chats only`);
  }

  async embed(texts: readonly string[], model: ModelInfo, signal: AbortSignal): Promise<Embeddings> {
    const body = Buffer.from(JSON.stringify({ model: model.name, input: texts, encoding_format: "float" }));
    const parsed = embeddingList.safeParse(parseJson(await this.relayEmbeddings(body, signal)));
    if (!parsed.success)
      throw new OperationalError("upstream_failed", `${this.id} sent something that is not a list of embeddings`);
    return {
      model: model.ref,
      vectors: parsed.data.data.map(({ embedding }) => embedding),
      promptTokens: parsed.data.usage?.prompt_tokens ?? undefined,
    };
  }

  async relayEmbeddings(body: Buffer, signal: AbortSignal): Promise<Buffer> {
    const response = await this.#post({ path: "embeddings", body, accept: "application/json" }, signal);
    if (!isGood(response)) throw refusalError(this.#server, await readRefusal(response));
    return readBody(response, MAX_ANSWER_BYTES);
  }

  async countTokens(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<number | undefined> {
    const { flavour } = this.#options;
    if (!flavour.countsTokens) return undefined;
    const body = await inputTokensBody(request, this.#target(model, flavour.familyOf(model.name)));
    const response = await this.#post({ path: "responses/input_tokens", body, accept: "application/json" }, signal);
    if (!isGood(response)) {
      const refusal = await readRefusal(response);
      if (NOT_THERE.includes(refusal.status) && wordsOf(refusal).code !== "model_not_found") return undefined;
      throw refusalError(this.#server, refusal);
    }
    const parsed = inputTokens.safeParse(parseJson(await readBody(response, MAX_ANSWER_BYTES)));
    return parsed.success ? parsed.data.input_tokens : undefined;
  }

  async testKey(signal: AbortSignal): Promise<KeyVerdict> {
    const { list } = this.#options.flavour;
    const models = await this.#listed({ signal, timeoutMs: KEY_TEST_TIMEOUT_MS });
    if ("read" in list) return { ok: true, detail: describeModels(this.id, models.length) };
    const { length } = list.known;
    return {
      ok: true,
      detail: `${this.id} takes the key; ${length} deployment${length === 1 ? " is" : "s are"} set up`,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #target(model: ModelInfo, family: ResponsesFamily): ResponsesTarget {
    const { extras, isPadding } = this.#options.flavour;
    return { name: model.name, ref: model.ref, family, maker: this.id, extras, isPadding };
  }

  async #compose(
    way: Way,
    request: ChatRequest,
    { model, family }: { readonly model: ModelInfo; readonly family: ResponsesFamily },
  ): Promise<{ readonly call: Call; readonly draft: ResponsesDraft | undefined }> {
    const accept = request.stream ? "text/event-stream" : "application/json";
    const { origin } = request;
    if (way.kind === "own" || origin === undefined) {
      const omit = way.kind === "own" ? way.omit : NOTHING;
      const draft = await responsesBody(request, this.#target(model, family), omit);
      return { call: { path: "responses", body: draft.body, accept }, draft };
    }
    const path = way.dialect === "openai-chat" ? "chat/completions" : "responses";
    return { call: { path, body: origin.bodyFor(model.name), accept, headers: origin.headers }, draft: undefined };
  }

  async #open(
    response: HttpResponse,
    request: ChatRequest,
    { way, draft, model }: { readonly way: Way; readonly draft: ResponsesDraft | undefined; readonly model: ModelInfo },
  ): Promise<Attempt> {
    const isStream = header(response, "content-type")?.startsWith("text/event-stream") ?? false;
    const format =
      way.kind === "relay" && way.dialect === "openai-chat" ? chatFormat(request) : this.#formats[way.kind];
    const frames = await (isStream ? openStream : openWhole)(this.#server, format, response);
    if (draft === undefined) return { model: model.ref, frames, trimmedCharacters: 0 };
    const restored = translated(this.#server, frames, (frame) => draft.tools.restore(frame));
    const { stop } = request.output;
    return {
      model: model.ref,
      frames: stop.length === 0 ? restored : stopAt(restored, stop),
      trimmedCharacters: 0,
      dropped: draft.dropped,
    };
  }

  async #offered(look: Look): Promise<readonly ModelInfo[]> {
    const { list } = this.#options.flavour;
    const listed = "known" in list ? list.known : await this.#listed(look);
    return pick(listed, this.#options.config.models).map((model) => this.#describe(model));
  }

  /** Asks for the list; whoever has its models in the settings is only asked whether it takes the key. */
  async #listed({ signal, timeoutMs }: Look): Promise<readonly ListedModel[]> {
    const { flavour } = this.#options;
    const { list } = flavour;
    const waiting = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    const response = await this.#send("GET", { path: list.path, timeoutMs, idleMs: timeoutMs, headers: {} }, waiting);
    if (!isGood(response)) throw refusalError(this.#server, await readRefusal(response));
    const json = parseJson(await readBody(response, MAX_MODEL_LIST_BYTES));
    const listed = "read" in list ? list.read(json) : list.known;
    if (listed === undefined)
      throw new OperationalError("upstream_failed", `${this.#base.href}${list.path} is not a model list`);
    return listed;
  }

  #describe({ name, vision, prices }: ListedModel): ModelInfo {
    const { flavour, locality } = this.#options;
    const family = flavour.familyOf(name);
    const isChat = family.kind === "chat";
    return {
      ref: modelRefSchema.parse(`${this.id}/${name}`),
      provider: this.id,
      name,
      locality,
      capabilities: {
        chat: isChat,
        complete: false,
        fim: false,
        embeddings: !isChat,
        tools: isChat,
        vision: isChat && (vision ?? family.vision),
        jsonSchema: isChat,
        ...(isChat ? { reasoning: family.isReasoning } : {}),
      },
      ...present("contextWindow", family.contextWindow),
      ...present("maxOutputTokens", family.maxOutputTokens),
      ...(isChat ? present("continuation", flavour.continuation) : {}),
      ...present("prices", prices),
    };
  }

  async #post({ path, body, accept, headers }: Call, signal: AbortSignal): Promise<HttpResponse> {
    const { headers_timeout_s: headersS, idle_timeout_s: idleS } = this.#options.config;
    const own = { "content-type": "application/json", accept };
    const sent = { path, body, timeoutMs: headersS * 1000, idleMs: idleS * 1000, headers: { ...headers, ...own } };
    return this.#send("POST", sent, signal);
  }

  async #send(
    method: "GET" | "POST",
    sent: {
      readonly path: string;
      readonly body?: Buffer;
      readonly headers: Readonly<Record<string, string>>;
      readonly timeoutMs: number;
      readonly idleMs: number;
    },
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const { http, permit, keys, flavour } = this.#options;
    const key = await keys.find(this.id, signal);
    if (key === undefined) throw new UserError("key_missing", this.#noKey(), { details: { provider: this.id } });
    return http.send(
      permit,
      {
        method,
        origin: this.#base.origin,
        path: this.#base.pathname + sent.path,
        headers: { accept: "application/json", ...sent.headers, ...flavour.authorization(key.secret.reveal()) },
        ...present("body", sent.body),
        headersTimeoutMs: sent.timeoutMs,
        idleTimeoutMs: sent.idleMs,
      },
      signal,
    );
  }

  #noKey(): string {
    return `${this.id} has no key: store one with \`ghost keys set ${this.id}\``;
  }
}

interface Look {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

const NOTHING: Omissions = { seals: false, summary: false, include: false };
/** A server that has no such route. */
const NOT_THERE: readonly number[] = [404, 405, 501];
const KEY_PROBLEMS: readonly ErrorCode[] = ["upstream_auth", "upstream_quota", "key_unreadable"];

function isGood({ status }: HttpResponse): boolean {
  return status >= 200 && status <= 299;
}

/** The listed models that the patterns name, and names without `*` whether listed or not: servers do not list their aliases. */
function pick(listed: readonly ListedModel[], patterns: readonly string[] | undefined): readonly ListedModel[] {
  const found = listed.filter(({ name }) => isListed(name, patterns));
  const unlisted = literalNames(patterns ?? []).filter((name) => found.every((model) => model.name !== name));
  return [...found, ...unlisted.map((name) => ({ name }))];
}

/** Frames of Responses: whole at a terminal event (3), which names itself. */
function responsesFormat(server: Server, strip: (bytes: Buffer) => Buffer): FrameFormat {
  return {
    frame: responsesFrame,
    isEnd: hasTerminal,
    // Every response object has the field, mostly null; a broken frame has neither.
    mayFail: (bytes) => namesError(bytes) || bytes.includes('"response.incomplete"'),
    strip,
    failure: (frame) => failureOf(server, frame),
  };
}

const TERMINAL = ["response.completed", "response.incomplete"] as const;

/** A delta may be these very words: then they are looked at more closely. */
function hasTerminal(bytes: Buffer): boolean {
  if (!TERMINAL.some((type) => bytes.includes(`"${type}"`))) return false;
  return sseData(bytes).some((text) => {
    const event = TERMINAL.some((type) => text.includes(type)) ? parseRecord(text) : undefined;
    return TERMINAL.some((type) => event?.["type"] === type);
  });
}

const ERROR_FIELD = Buffer.from('"error"');

/** Anything but `"error": null`. */
function namesError(bytes: Buffer): boolean {
  for (let at = bytes.indexOf(ERROR_FIELD); at !== -1; at = bytes.indexOf(ERROR_FIELD, at)) {
    at += ERROR_FIELD.length;
    if (!/^\s*:\s*null/.test(bytes.toString("latin1", at, at + 16))) return true;
  }
  return false;
}

function withoutDone(bytes: Buffer): Buffer {
  return bytes.includes("[DONE]")
    ? Buffer.concat(sseFrames(bytes).filter((frame) => sseData(frame)[0] !== "[DONE]"))
    : bytes;
}

/**
 * The first two events repeat the instructions and tools of the request, tens of kilobytes with an agent's, and say nothing of the answer: where they are not
 * for the client, neither the transcript nor anybody who reads frames needs them.
 */
const ECHOES = ["event: response.created\n", "event: response.in_progress\n"].map((line) => Buffer.from(line));
const FRAME_END = Buffer.from("\n\n");

function withoutEcho(bytes: Buffer): Buffer {
  let rest = withoutDone(bytes);
  while (ECHOES.some((line) => rest.subarray(0, line.length).equals(line))) {
    const end = rest.indexOf(FRAME_END);
    if (end === -1) break;
    rest = rest.subarray(end + FRAME_END.length);
  }
  return rest;
}

function failureOf({ clean }: Server, frame: Frame): GhostError | undefined {
  const event = frame.events().find(({ kind }) => kind === "error");
  return event?.kind === "error"
    ? new ReportedError({ ...event.error, message: clean(event.error.message) })
    : undefined;
}

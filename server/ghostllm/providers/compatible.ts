/**
 * Any server that speaks OpenAI's chat completions: vLLM, llama-server, LM Studio, OpenRouter, …
 * 1. A client's own bytes are relayed with another model name and nothing else changed; the answer's frames are relayed as they came.
 * 2. An answer counts as whole only when `[DONE]` or a finish reason was seen; every other end throws, so that it cannot pass for one.
 * 3. A server's own words leave in our errors, but never its key, whatever it echoes (I5).
 * 4. `[DONE]` itself is not passed on: whoever writes to the client says it when the whole answer is stored.
 */
import { z } from "zod";
import { modelRefSchema } from "../../../protocol/ids.ts";
import type { Locality, ModelInfo, ProviderStatus } from "../../../protocol/model.ts";
import type { Environment } from "../../base/clock.ts";
import { type GhostError, OperationalError, toGhostError, UserError } from "../../base/errors.ts";
import type { Secret } from "../../base/secret.ts";
import { header, type HttpClient, type HttpResponse, readBody } from "../../platform/http-client.ts";
import type { StandingPermit } from "../../platform/permit.ts";
import { environmentSecret } from "../../platform/secrets.ts";
import { openAiFrame } from "../frames/openai.ts";
import { SseSplitter, sseData, sseFrames } from "../frames/sse.ts";
import type { Attempt, ChatRequest, CompletionRequest, Dialect, Embeddings, Frame } from "../stream.ts";
import { chatBody, completionBody } from "./openai-body.ts";
import type { Provider } from "./provider.ts";

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
  readonly environment: Environment;
  /** Keeps a key out of the log. */
  readonly redact: (text: string) => void;
}

/** Whose words an error quotes. */
interface Server {
  readonly id: string;
  /** Blanks the server's key (3). */
  readonly clean: (text: string) => string;
}

const MODEL_LIST_TIMEOUT_MS = 3_000;
const MAX_MODEL_LIST_BYTES = 4 * 1024 * 1024;
const MAX_ERROR_BODY_BYTES = 64 * 1024;
/** A plain (not streamed) answer is held whole; 64 MiB is far beyond any context window. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
/** Frames before the first content: a role chunk and some pings. A server that sends more without content is broken. */
const MAX_EMPTY_FRAMES = 1_000;

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

class CompatibleProvider implements RelayingProvider {
  readonly id: string;
  readonly #options: CompatibleOptions;
  readonly #base: URL;
  readonly #server: Server;
  readonly #authorization: Readonly<Record<string, string>>;
  #status: ProviderStatus;

  constructor(options: CompatibleOptions) {
    const { id, config, environment } = options;
    this.id = id;
    this.#options = options;
    this.#base = new URL(config.base_url.endsWith("/") ? config.base_url : `${config.base_url}/`);
    const key: Secret | undefined =
      config.key_env === undefined ? undefined : environmentSecret(environment, config.key_env);
    if (key !== undefined) options.redact(key.reveal());
    this.#server = { id, clean: (text) => (key === undefined ? text : text.replaceAll(key.reveal(), "[secret]")) };
    this.#authorization = key === undefined ? {} : { authorization: `Bearer ${key.reveal()}` };
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
      const state = error.code === "upstream_auth" ? "refused" : "unreachable";
      this.#status = { ...status, state, models: 0, problem };
      return [];
    }
  }

  async chat(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    const body =
      request.origin?.dialect === "openai-chat"
        ? request.origin.bodyFor(model.name)
        : await chatBody(request, model.name);
    return this.#open(
      { dialect: "openai-chat", path: "chat/completions", body, stream: request.stream },
      model,
      signal,
    );
  }

  async complete(request: CompletionRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    if (request.suffix !== "" && !model.capabilities.fim) {
      throw new UserError(
        "capability_missing",
        `${model.ref} is not known to fill in before a suffix; set \`fim = true\` for ${this.id} if it can`,
      );
    }
    const body =
      request.origin?.dialect === "openai-completion"
        ? request.origin.bodyFor(model.name)
        : completionBody(request, model.name);
    return this.#open(
      { dialect: "openai-completion", path: "completions", body, stream: request.stream },
      model,
      signal,
    );
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

  async [Symbol.asyncDispose](): Promise<void> {}

  async #listModels(signal: AbortSignal): Promise<readonly ModelInfo[]> {
    const { config } = this.#options;
    if (config.models !== undefined) return config.models.map((name) => describe(this.#options, name, undefined));
    const response = await this.#get("models", signal);
    if (response.status !== 200) throw await rejection(this.#server, response);
    const parsed = modelList.safeParse(parseJson(await readBody(response, MAX_MODEL_LIST_BYTES)));
    if (!parsed.success) {
      throw new OperationalError("upstream_failed", `${this.id}: ${config.base_url}models is not a model list`);
    }
    return parsed.data.data.map((model) =>
      describe(this.#options, model.id, model.context_length ?? model.max_model_len ?? undefined),
    );
  }

  async #open(
    call: { readonly dialect: Dialect; readonly path: string; readonly body: Buffer; readonly stream: boolean },
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
    if (!isStream) {
      const frame = openAiFrame(call.dialect, await readBody(response, MAX_ANSWER_BYTES));
      checkWhole(this.#server, frame);
      return { model, frames: once(frame), trimmedCharacters: 0 };
    }
    const frames = await gate(this.#server, readFrames(this.#server, call.dialect, response));
    return { model, frames, trimmedCharacters: 0 };
  }

  #get(path: string, signal: AbortSignal): Promise<HttpResponse> {
    const { http, permit } = this.#options;
    return http.send(
      permit,
      {
        method: "GET",
        origin: this.#base.origin,
        path: this.#base.pathname + path,
        headers: { ...this.#authorization, accept: "application/json" },
        headersTimeoutMs: MODEL_LIST_TIMEOUT_MS,
        idleTimeoutMs: MODEL_LIST_TIMEOUT_MS,
      },
      AbortSignal.any([signal, AbortSignal.timeout(MODEL_LIST_TIMEOUT_MS)]),
    );
  }

  async #post(path: string, body: Buffer, accept: string, signal: AbortSignal): Promise<HttpResponse> {
    const { http, permit, config } = this.#options;
    const response = await http.send(
      permit,
      {
        method: "POST",
        origin: this.#base.origin,
        path: this.#base.pathname + path,
        headers: { ...this.#authorization, "content-type": "application/json", accept },
        body,
        headersTimeoutMs: config.headers_timeout_s * 1000,
        idleTimeoutMs: config.idle_timeout_s * 1000,
      },
      signal,
    );
    if (response.status < 200 || response.status > 299) throw await rejection(this.#server, response);
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
    ...(contextWindow === undefined ? {} : { contextWindow }),
  };
}

/** Whole frames of an SSE answer without `[DONE]`. Throws when the answer is not whole (2), after all that came before. */
async function* readFrames(server: Server, dialect: Dialect, response: HttpResponse): AsyncGenerator<Frame> {
  const splitter = new SseSplitter();
  let whole = false;
  const accept = function* (bytes: Buffer): Generator<Frame> {
    const isLast = bytes.includes("[DONE]");
    if (isLast || bytes.includes('"finish_reason":"') || bytes.includes('"finish_reason": "')) whole = true;
    const kept = isLast ? Buffer.concat(sseFrames(bytes).filter((frame) => sseData(frame)[0] !== "[DONE]")) : bytes;
    if (kept.includes('"error"')) yield* untilError(server, dialect, kept);
    else if (kept.length > 0) yield openAiFrame(dialect, kept);
  };
  for await (const chunk of response.body) {
    const bytes = splitter.push(chunk);
    // Not `yield*`: delegating to a plain generator costs three promises a frame.
    if (bytes !== undefined) for (const frame of accept(bytes)) yield frame;
  }
  // Some servers forget the blank line behind their last frame; a frame that was cut does not parse.
  const rest = splitter.rest();
  if (rest.toString("utf8").trim() !== "")
    yield* untilError(
      server,
      dialect,
      Buffer.concat([...accept(Buffer.concat([rest, BLANK_LINE]))].map(({ bytes }) => bytes)),
    );
  if (!whole) throw new OperationalError("upstream_failed", `${server.id} ended its answer in the middle`);
}

const BLANK_LINE = Buffer.from("\n\n");

/** The frames before the first that is an error, or is no chunk at all; then throws. Passes on everything when none is. */
function* untilError(server: Server, dialect: Dialect, bytes: Buffer): Generator<Frame> {
  const good: Buffer[] = [];
  for (const single of sseFrames(bytes)) {
    const broken = openAiFrame(dialect, single)
      .events()
      .find((event) => event.kind === "error");
    if (broken === undefined) {
      good.push(single);
      continue;
    }
    if (good.length > 0) yield openAiFrame(dialect, Buffer.concat(good));
    throw new OperationalError("upstream_failed", server.clean(broken.error.message));
  }
  if (good.length > 0) yield openAiFrame(dialect, Buffer.concat(good));
}

/** Waits for the first frame with content, so that nothing is promised to the client before it; then everything in order. */
async function gate(server: Server, frames: AsyncGenerator<Frame>): Promise<AsyncIterable<Frame>> {
  const held: Frame[] = [];
  for (let empty = 0; ; empty += 1) {
    const next = await frames.next();
    if (next.done === true) break;
    held.push(next.value);
    throwErrorEvent(server, next.value);
    if (next.value.events().some((event) => event.kind !== "usage")) break;
    if (empty > MAX_EMPTY_FRAMES) {
      await frames.return(undefined);
      throw new OperationalError("upstream_failed", `the server sent ${MAX_EMPTY_FRAMES} frames without content`);
    }
  }
  return heldThen(held, frames);
}

/** What was held, then the rest, without another generator's promises for each frame. */
function heldThen(held: Frame[], rest: AsyncGenerator<Frame>): AsyncIterable<Frame> {
  return {
    [Symbol.asyncIterator]: () => ({
      next() {
        const value = held.shift();
        return value === undefined ? rest.next() : Promise.resolve({ value, done: false });
      },
      return() {
        held.length = 0;
        return rest.return(undefined);
      },
    }),
  };
}

function throwErrorEvent(server: Server, frame: Frame): void {
  const broken = frame.events().find((event) => event.kind === "error");
  if (broken !== undefined) throw new OperationalError("upstream_failed", server.clean(broken.error.message));
}

function checkWhole(server: Server, frame: Frame): void {
  throwErrorEvent(server, frame);
  if (frame.events().length === 0)
    throw new OperationalError("upstream_failed", `${server.id} sent an answer without content`);
}

async function* once(frame: Frame): AsyncGenerator<Frame> {
  yield frame;
}

const errorBody = z.looseObject({
  error: z.union([
    z.string(),
    z.looseObject({
      message: z.string().nullish(),
      code: z.union([z.string(), z.number()]).nullish().catch(undefined),
      type: z.string().nullish().catch(undefined),
    }),
  ]),
});

/** An answer with an error status as one of our errors. The upstream's own words are kept, shortened. */
async function rejection(server: Server, response: HttpResponse): Promise<GhostError> {
  const body = await readBody(response, MAX_ERROR_BODY_BYTES).catch(() => Buffer.alloc(0)); // The status says enough without a body.
  const parsed = errorBody.safeParse(parseJson(body));
  const error = parsed.success ? parsed.data.error : undefined;
  const { id, clean } = server;
  // Before it is shortened: half a key is no key to look for.
  const text = clean(typeof error === "string" ? error : (error?.message ?? firstWords(body, clean))).slice(0, 500);
  const code = typeof error === "object" ? String(error.code ?? error.type ?? "") : "";
  const message = `${id} answered ${response.status}${text === "" ? "" : `: ${text}`}`;
  const retryAfter = Number(header(response, "retry-after"));
  const retry = Number.isFinite(retryAfter) && retryAfter > 0 ? { retryAfterMs: retryAfter * 1000 } : {};
  const details = { provider: id, status: response.status };
  if (code === "context_length_exceeded") return new UserError("context_too_long", message, { details });
  switch (response.status) {
    case 401:
    case 403:
      return new UserError("upstream_auth", message, { details });
    case 404:
      return new UserError("model_not_found", message, { details });
    case 400:
    case 413:
    case 422:
      return new UserError("upstream_rejected", message, { details });
    case 429:
      return new OperationalError("upstream_rate_limited", message, { details, ...retry });
    default:
      return new OperationalError("upstream_failed", message, { details, ...retry });
  }
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return undefined; // HTML or cut JSON; the schema that is tried next refuses it.
  }
}

/** The readable beginning of an HTML or text body. */
function firstWords(body: Buffer, clean: Server["clean"]): string {
  return clean(body.toString("utf8"))
    .slice(0, 2000)
    .replace(/<(style|script)[^>]*>[\s\S]*?<\/\1>/gi, " ")
    .replace(/<[^>]*>/g, " ")
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, 200);
}

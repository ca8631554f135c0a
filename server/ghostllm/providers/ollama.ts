/**
 * Ollama hosts as one provider: `ollama/<model>@<host>`.
 * 1. At most `parallel` of our requests a model and host are in flight: beyond that Ollama queues without bound and without a sign.
 * 2. Every request for a model carries the same `num_ctx` (ollama-host.ts).
 * 3. Aborting frees our slot and Ollama's in every state: queued here, pending there, loading, generating.
 * 4. The time to the first token is bounded as a whole, not to the head: a load takes minutes and must not be cut by a short limit.
 */
import { carryCompletion } from "../carriage.ts";
import type { ModelInfo, ProviderStatus } from "../../../protocol/model.ts";
import { z } from "zod";
import type { Clock, Ids } from "../../base/clock.ts";
import { OperationalError, toGhostError, UserError } from "../../base/errors.ts";
import { type HttpClient, readBody } from "../../platform/http-client.ts";
import type { Log } from "../../platform/log.ts";
import type { StandingPermit } from "../../platform/permit.ts";
import type { Lane } from "../gpu/queue.ts";
import type { Attempt, ChatRequest, CompletionRequest, Embeddings } from "../stream.ts";
import { OllamaAnswer } from "./ollama-answer.ts";
import { IDLE_TIMEOUT_MS, OllamaHostClient, type OllamaHostConfig } from "./ollama-host.ts";
import { forcedCall } from "./forced-call.ts";
import { mapFrames } from "./upstream.ts";
import { type Body, chatBody, completionBody, embedBody, preloadBody, type RequestSettings } from "./ollama-request.ts";
import type { Provider } from "./provider.ts";

/** `[providers.ollama]` */
export interface OllamaConfig {
  /** Look for a host on this machine. */
  readonly discover: boolean;
  readonly keep_alive: string;
  readonly hosts: Readonly<Record<string, OllamaHostConfig>>;
}

export interface OllamaProvider extends Provider {
  /**
   * Loads a model before it is needed, on a connection of its own: a load dies with the request that asked for it.
   * @throws UserError | OperationalError
   */
  preload(model: ModelInfo, signal: AbortSignal): Promise<void>;
}

const DISCOVERY_URL = "http://127.0.0.1:11434";
/**
 * From our queue to the first token: waiting for a slot, other loads, the load itself (Ollama gives up after 5 minutes without progress),
 * reading the prompt. Whoever waited this long is better served by another model.
 */
const FIRST_TOKEN_LIMIT_MS = 10 * 60_000;
/** Texts in one request: their vectors (up to 50 KiB of JSON each) stay small enough to be parsed between two frames of a stream. */
const EMBED_BATCH = 4;
const MAX_EMBED_BYTES = 16 * 1024 * 1024;

const embeddingAnswer = z.looseObject({
  embeddings: z.array(z.array(z.number())),
  prompt_eval_count: z.number().int().nonnegative().nullish(),
});

export function createOllamaProvider(options: {
  readonly config: OllamaConfig;
  readonly http: HttpClient;
  readonly permitFor: (origin: string) => StandingPermit;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: Log;
  /** Where a host is looked for by itself. */
  readonly discoveryUrl?: string;
}): OllamaProvider {
  const { config, http, permitFor, clock, ids, log } = options;
  const closing = new AbortController();
  const hosts = new Map<string, OllamaHostClient>();
  const addHost = (name: string, host: OllamaHostConfig, discovered: boolean) => {
    const permit = permitFor(new URL(host.url).origin);
    hosts.set(name, new OllamaHostClient({ name, config: host, discovered, http, permit, clock, log }));
  };
  for (const [name, host] of Object.entries(config.hosts)) addHost(name, host, false);
  const discoveryUrl = options.discoveryUrl ?? DISCOVERY_URL;
  if (config.discover && !Object.values(config.hosts).some((host) => isSameAddress(host.url, discoveryUrl))) {
    addHost(hosts.has("local") ? "discovered" : "local", { url: discoveryUrl, parallel: 1, num_ctx: {} }, true);
  }
  const calls = new Calls({
    hosts,
    keepAlive: config.keep_alive,
    clock,
    closing: closing.signal,
    newCallId: () => ids.next("call"),
  });

  return {
    id: "ollama",
    status: (): readonly ProviderStatus[] => [...hosts.values()].map((host) => host.status),
    async models(signal) {
      const lists = await Promise.all([...hosts.values()].map((host) => host.look(signal)));
      return lists.flat();
    },
    chat: (request, model, signal) => calls.chat(request, model, signal),
    complete: (request, model, signal) => calls.complete(request, model, signal),
    embed: (texts, model, signal) => calls.embed(texts, model, signal),
    preload: (model, signal) => calls.preload(model, signal),
    async [Symbol.asyncDispose]() {
      closing.abort(new OperationalError("cancelled", "the daemon is shutting down"));
    },
  };
}

interface CallsOptions {
  readonly hosts: ReadonlyMap<string, OllamaHostClient>;
  readonly keepAlive: string;
  readonly clock: Clock;
  readonly closing: AbortSignal;
  readonly newCallId: () => string;
}

/** A request on its way: whose signal ends it, and whose slot it holds. */
interface Journey {
  readonly host: OllamaHostClient;
  readonly signal: AbortSignal;
  readonly numCtx: number;
  /** The first token is there: the limit on the wait for it is lifted. */
  arrived(): void;
}

/** The requests to models, each from our queue to its answer. */
class Calls {
  readonly #options: CallsOptions;

  constructor(options: CallsOptions) {
    this.#options = options;
  }

  chat(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    if (!model.capabilities.chat) return Promise.reject(missing(model, "chat"));
    return this.#travel(model, signal, async (journey) => {
      const forced = forcedCall(request, this.#options.newCallId());
      const { body, tools, dropped } = await chatBody(forced?.request ?? request, model, this.#settings(journey));
      const call = { path: "/api/chat", body, lane: request.lane, trimmedCharacters: 0 } as const;
      const attempt = await this.#open(journey, model, call);
      return { ...attempt, dropped, frames: mapFrames(attempt.frames, forced?.change ?? tools.restore) };
    });
  }

  complete(request: CompletionRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
    if (!model.capabilities.complete) return Promise.reject(missing(model, "continue text"));
    return this.#travel(model, signal, async (journey) => {
      const settings = { ...this.#settings(journey), infill: journey.host.infillFor(model) };
      const dropped = carryCompletion(request, model.ref);
      const { body, trimmedCharacters } = completionBody(request, model, settings);
      const call = { path: "/api/generate", body, lane: request.lane, trimmedCharacters } as const;
      return { ...(await this.#open(journey, model, call)), dropped };
    });
  }

  embed(texts: readonly string[], model: ModelInfo, signal: AbortSignal): Promise<Embeddings> {
    if (!model.capabilities.embeddings) return Promise.reject(missing(model, "embed"));
    return this.#travel(model, signal, async (journey) => {
      const vectors: (readonly number[])[] = [];
      let promptTokens: number | undefined = 0;
      for (let at = 0; at < texts.length; at += EMBED_BATCH) {
        // A slot for each part, so that a long list lets others pass.
        using _slot = await journey.host.queueFor(model).acquire("background", journey.signal);
        // The first part may load the model; the others find it loaded.
        const part = await this.#embedPart(
          journey,
          model,
          texts.slice(at, at + EMBED_BATCH),
          at === 0 ? 0 : IDLE_TIMEOUT_MS,
        );
        journey.arrived();
        vectors.push(...part.embeddings);
        const counted: number | null | undefined = part.prompt_eval_count;
        promptTokens = promptTokens === undefined || typeof counted !== "number" ? undefined : promptTokens + counted;
      }
      return { model: model.ref, vectors, promptTokens };
    });
  }

  preload(model: ModelInfo, signal: AbortSignal): Promise<void> {
    return this.#travel(model, signal, async (journey) => {
      const path = model.capabilities.complete ? "/api/generate" : "/api/embed";
      const body = preloadBody(model, this.#settings(journey));
      const response = await journey.host.post(path, body, {
        model: model.name,
        headersTimeoutMs: 0,
        signal: journey.signal,
      });
      await readBody(response, MAX_EMBED_BYTES);
    });
  }

  #settings(journey: Journey): RequestSettings {
    return { numCtx: journey.numCtx, keepAlive: this.#options.keepAlive };
  }

  /** Everything that a request of any kind has in common: its host, its window, the limit on its first token, our kind of errors. */
  async #travel<Result>(
    model: ModelInfo,
    outer: AbortSignal,
    go: (journey: Journey) => Promise<Result>,
  ): Promise<Result> {
    const { hosts, clock, closing } = this.#options;
    const host = hosts.get(model.host ?? "");
    if (host === undefined) throw new UserError("model_not_found", `no Ollama host is named ${model.host ?? "(none)"}`);
    const limit = new AbortController();
    const signal = AbortSignal.any([outer, closing, limit.signal]);
    const timer = clock.after(FIRST_TOKEN_LIMIT_MS, () =>
      limit.abort(
        new OperationalError(
          "upstream_timeout",
          `${model.ref} said nothing within ${FIRST_TOKEN_LIMIT_MS / 60_000} minutes`,
        ),
      ),
    );
    const arrived = () => timer[Symbol.dispose]();
    try {
      signal.throwIfAborted();
      const numCtx = await host.numCtxFor(model.name, signal);
      return await go({ host, signal, numCtx, arrived });
    } catch (error) {
      throw signal.aborted ? toGhostError(signal.reason) : toGhostError(error);
    } finally {
      arrived();
    }
  }

  /** Waits for a slot, sends, and resolves at the first content. The slot is held until the answer is over or the request is aborted (3). */
  async #open(
    journey: Journey,
    model: ModelInfo,
    call: { readonly path: string; readonly body: Body; readonly lane: Lane; readonly trimmedCharacters: number },
  ): Promise<Attempt> {
    const { host, signal } = journey;
    const { clock, newCallId } = this.#options;
    const slot = await host.queueFor(model).acquire(call.lane, signal);
    const release = () => {
      signal.removeEventListener("abort", release);
      slot[Symbol.dispose]();
    };
    signal.addEventListener("abort", release, { once: true });
    try {
      const response = await host.post(call.path, call.body, { model: model.name, headersTimeoutMs: 0, signal });
      const answer = new OllamaAnswer({ response, clock, newCallId, onOver: release });
      await answer.untilContent();
      journey.arrived();
      return { model: model.ref, frames: answer, trimmedCharacters: call.trimmedCharacters };
    } catch (error) {
      release();
      throw error;
    }
  }

  async #embedPart(
    journey: Journey,
    model: ModelInfo,
    texts: readonly string[],
    headersTimeoutMs: number,
  ): Promise<z.infer<typeof embeddingAnswer>> {
    const body = embedBody(texts, model, this.#settings(journey));
    const response = await journey.host.post("/api/embed", body, {
      model: model.name,
      headersTimeoutMs,
      signal: journey.signal,
    });
    const bytes = await readBody(response, MAX_EMBED_BYTES);
    let value: unknown;
    try {
      value = JSON.parse(bytes.toString("utf8"));
    } catch {
      value = undefined;
    }
    const parsed = embeddingAnswer.safeParse(value);
    if (!parsed.success || parsed.data.embeddings.length !== texts.length) {
      throw new OperationalError(
        "upstream_failed",
        `the Ollama host ${journey.host.name} did not answer with one vector for each text`,
      );
    }
    return parsed.data;
  }
}

function missing(model: ModelInfo, what: string): UserError {
  return new UserError("capability_missing", `${model.ref} cannot ${what}`);
}

/** Equal ports on addresses that all mean this machine. */
function isSameAddress(url: string, other: string): boolean {
  const plain = (text: string) => {
    const { hostname, port, protocol } = new URL(text);
    const host = /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\]|0\.0\.0\.0)$/.test(hostname) ? "127.0.0.1" : hostname;
    return `${protocol}//${host}:${port}`;
  };
  return plain(url) === plain(other);
}

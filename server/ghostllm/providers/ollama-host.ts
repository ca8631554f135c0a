/**
 * One Ollama host: what it has, what we keep in flight there, and the `num_ctx` that goes with each of its models.
 * 1. A model's `num_ctx` is decided once and then never changes while the daemon runs: another value makes Ollama load the model anew.
 * 2. At most `parallel` requests a model are in flight; the others wait in our queue, where waiting is bounded and visible.
 * 3. Looking at a host is bounded in time; a host that hangs has no models.
 */
import { z } from "zod";
import type { Locality, ModelInfo, ProviderStatus } from "../../../protocol/model.ts";
import { modelRefSchema } from "../../../protocol/ids.ts";
import type { Clock } from "../../base/clock.ts";
import { type GhostError, OperationalError, toGhostError } from "../../base/errors.ts";
import { header, type HttpClient, type HttpResponse, readBody } from "../../platform/http-client.ts";
import type { Log } from "../../platform/log.ts";
import type { StandingPermit } from "../../platform/permit.ts";
import { SlotQueue } from "../gpu/queue.ts";
import { localityOf } from "./locality.ts";
import { type Infill, infillOf } from "./ollama-infill.ts";
import { refusalError } from "./ollama-refusal.ts";
import type { Body } from "./ollama-request.ts";

/** `[providers.ollama.hosts.<name>]` */
export interface OllamaHostConfig {
  readonly url: string;
  readonly vram_gib?: number | undefined;
  /** The server's OLLAMA_NUM_PARALLEL; no interface of Ollama tells it. */
  readonly parallel: number;
  readonly num_ctx: Readonly<Record<string, number>>;
  readonly default_num_ctx?: number | undefined;
  readonly locality?: Locality | undefined;
}

/**
 * Where nobody says how long a model's window shall be. Ollama's own default goes by the host's memory, 4096 to 262144: the one cuts off any
 * file of some length, the other fills an 8 GB card with KV cache (56 to 128 KiB a token). 8192 holds a file and its neighbours and costs 0.4 to 1 GiB.
 */
const FALLBACK_NUM_CTX = 8192;
/** A list that takes longer comes from a host in trouble; nobody shall wait for it. */
const LOOK_TIMEOUT_MS = 3_000;
/** Ollama sends nothing while it parses a long tool call or starts over for a format; a healthy model is not silent for longer. */
export const IDLE_TIMEOUT_MS = 5 * 60_000;
/** Of /api/show, which is asked once for each model: more at once gain nothing on one disk. */
const SHOWS_AT_ONCE = 4;
/** Descriptions are some KiB each (templates, licences are dropped); more models than this are on no host. */
const MAX_DESCRIPTIONS = 1024;
/** A host with hundreds of models lists them in 300 KiB; tokenizer data in /api/show may be some MiB in old versions. */
const MAX_LIST_BYTES = 16 * 1024 * 1024;
/** Of a refusal only the first sentence is used. */
const MAX_REFUSAL_BYTES = 64 * 1024;

const positive = z.number().int().positive();
const tagList = z.looseObject({
  models: z
    .array(
      z.looseObject({
        name: z.string().min(1).max(200),
        digest: z.string().nullish(),
        size: z.number().nonnegative().nullish(),
        capabilities: z.array(z.string()).nullish(),
        remote_model: z.string().nullish(),
        remote_host: z.string().nullish(),
      }),
    )
    .nullish(),
});
const processList = z.looseObject({
  models: z.array(z.looseObject({ name: z.string(), context_length: positive.nullish().catch(undefined) })).nullish(),
});
const description = z.looseObject({
  capabilities: z.array(z.string()).nullish(),
  model_info: z.record(z.string(), z.unknown()).nullish(),
});

type Tag = NonNullable<z.infer<typeof tagList>["models"]>[number];
interface Description {
  readonly capabilities: readonly string[];
  readonly contextLength: number | undefined;
}

export interface OllamaHostOptions {
  readonly name: string;
  readonly config: OllamaHostConfig;
  /** Found by itself: then it may be absent without being missed. */
  readonly discovered: boolean;
  readonly http: HttpClient;
  readonly permit: StandingPermit;
  readonly clock: Clock;
  readonly log: Log;
}

export class OllamaHostClient {
  readonly name: string;
  readonly #options: OllamaHostOptions;
  readonly #base: URL;
  readonly #locality: Locality;
  readonly #descriptions = new Map<string, Description>();
  readonly #numCtx = new Map<string, number>();
  /** Of models that fill in by the words of their family; others do it by their template, or not at all. */
  readonly #infills = new Map<string, Infill>();
  readonly #queues = new Map<string, SlotQueue>();
  #models: ReadonlyMap<string, { readonly contextLength: number | undefined; readonly isRemote: boolean }> = new Map();
  #status: ProviderStatus;

  constructor(options: OllamaHostOptions) {
    this.name = options.name;
    this.#options = options;
    this.#base = new URL(options.config.url);
    this.#locality = options.config.locality ?? localityOf(options.config.url);
    const address = options.config.url;
    this.#status = {
      id: `ollama@${options.name}`,
      kind: "ollama",
      address,
      locality: this.#locality,
      state: "idle",
      models: 0,
    };
  }

  get status(): ProviderStatus {
    return this.#status;
  }

  /** The models it has now; none when it cannot be asked, and `status` says why. */
  async look(signal: AbortSignal): Promise<readonly ModelInfo[]> {
    try {
      const models = await this.#within(signal, (limited) => this.#list(limited));
      this.#report("ok", models.length, undefined);
      return models;
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const error = toGhostError(thrown);
      this.#models = new Map();
      this.#report(error.code === "upstream_auth" ? "refused" : "unreachable", 0, error);
      return [];
    }
  }

  /** The window that goes with every request for this model (1). */
  async numCtxFor(model: string, signal: AbortSignal): Promise<number> {
    const key = shortName(model);
    const known = this.#numCtx.get(key) ?? this.#configuredNumCtx(model);
    if (known !== undefined) return known;
    const loaded = await this.#within(signal, (limited) => this.#loadedContexts(limited)).catch((error: unknown) => {
      if (signal.aborted) throw error;
      // The request itself will tell what is wrong with the host.
      return new Map<string, number>();
    });
    // Two first requests at once must not decide differently.
    const decided = this.#numCtx.get(key) ?? this.#chooseNumCtx(model, loaded);
    this.#numCtx.set(key, decided);
    return decided;
  }

  /** How a suffix is sent to a model whose template has no place for one. */
  infillFor(model: ModelInfo): Infill | undefined {
    return this.#infills.get(shortName(model.name));
  }

  queueFor(model: ModelInfo): SlotQueue {
    const key = shortName(model.name);
    const known = this.#queues.get(key);
    if (known !== undefined) return known;
    // Ollama runs embedding models one request at a time, whatever OLLAMA_NUM_PARALLEL says.
    const slots = model.capabilities.complete ? this.#options.config.parallel : 1;
    const queue = new SlotQueue({ name: model.ref, slots, clock: this.#options.clock });
    this.#queues.set(key, queue);
    return queue;
  }

  /** Sends a request to a model. The head may wait for a load: then `headersTimeoutMs` is 0, and `signal` bounds it. @throws as `refusalError` */
  async post(
    path: string,
    body: Body,
    options: { readonly model: string; readonly headersTimeoutMs: number; readonly signal: AbortSignal },
  ): Promise<HttpResponse> {
    const { model, headersTimeoutMs, signal } = options;
    const response = await this.#send("POST", path, { body, headersTimeoutMs, idleTimeoutMs: IDLE_TIMEOUT_MS, signal });
    if (response.status !== 200) throw await this.#refusal(response, model);
    return response;
  }

  async #list(signal: AbortSignal): Promise<readonly ModelInfo[]> {
    const [tags, loaded] = await Promise.all([
      this.#get("/api/tags", tagList, signal),
      // Only a hint for the window; a host without it is still a host.
      this.#loadedContexts(signal).catch(() => new Map<string, number>()),
    ]);
    const listed = tags.models ?? [];
    const descriptions = await this.#describeAll(listed, signal);
    this.#models = new Map(
      listed.map((tag, index) => [
        shortName(tag.name),
        { contextLength: descriptions[index]?.contextLength, isRemote: isRemote(tag) },
      ]),
    );
    return listed.map((tag, index) => this.#describe(tag, descriptions[index], loaded));
  }

  #describe(tag: Tag, description: Description | undefined, loaded: ReadonlyMap<string, number>): ModelInfo {
    const capabilities = description?.capabilities ?? tag.capabilities ?? ["completion"];
    const can = (capability: string) => capabilities.includes(capability);
    const remote = isRemote(tag);
    const key = shortName(tag.name);
    const infill = can("insert") || !can("completion") || remote ? undefined : infillOf(tag.name);
    if (infill === undefined) this.#infills.delete(key);
    else this.#infills.set(key, infill);
    return {
      ref: modelRefSchema.parse(`ollama/${key}@${this.name}`),
      provider: "ollama",
      name: tag.name,
      host: this.name,
      locality: remote ? "cloud" : this.#locality,
      capabilities: {
        chat: can("completion"),
        complete: can("completion"),
        fim: can("insert") || infill !== undefined,
        embeddings: can("embedding"),
        tools: can("tools"),
        reasoning: can("thinking"),
        vision: can("vision"),
        jsonSchema: can("completion"),
      },
      // Which models continue their own words is found out by asking them.
      continuation: can("completion") ? "anchored" : "none",
      contextWindow: this.#numCtx.get(key) ?? this.#chooseNumCtx(tag.name, loaded),
      ...(tag.size === undefined || tag.size === null ? {} : { sizeBytes: tag.size }),
      ...(remote ? { note: `runs at ${tag.remote_host ?? "Ollama's cloud"}, not on this host` } : {}),
    };
  }

  async #describeAll(tags: readonly Tag[], signal: AbortSignal): Promise<readonly (Description | undefined)[]> {
    const described: (Description | undefined)[] = [];
    let next = 0;
    const work = async () => {
      for (let index = next++; index < tags.length; index = next++) {
        const tag = tags[index];
        if (tag !== undefined) described[index] = await this.#describeOne(tag, signal);
      }
    };
    await Promise.all(Array.from({ length: SHOWS_AT_ONCE }, work));
    return described;
  }

  async #describeOne(tag: Tag, signal: AbortSignal): Promise<Description | undefined> {
    const key = tag.digest ?? undefined;
    const known = key === undefined ? undefined : this.#descriptions.get(key);
    if (known !== undefined) return known;
    try {
      const shown = await this.#read(
        await this.#send("POST", "/api/show", { body: { model: tag.name }, ...LOOK_LIMITS, signal }),
        description,
      );
      const fresh: Description = {
        capabilities: shown.capabilities ?? tag.capabilities ?? ["completion"],
        contextLength: contextLengthOf(shown.model_info ?? {}),
      };
      if (this.#descriptions.size >= MAX_DESCRIPTIONS) this.#descriptions.clear();
      if (key !== undefined) this.#descriptions.set(key, fresh);
      return fresh;
    } catch (error) {
      if (signal.aborted) throw error;
      // Deleted in between, or a proxy that lets only some routes through: the list alone must do.
      return undefined;
    }
  }

  #configuredNumCtx(model: string): number | undefined {
    const { config } = this.#options;
    return (
      config.num_ctx[model] ??
      config.num_ctx[shortName(model)] ??
      config.num_ctx[`${shortName(model)}:latest`] ??
      config.default_num_ctx
    );
  }

  /** Config; else what is loaded, so that other users of the host keep their runner; else the model's own window up to the fallback. */
  #chooseNumCtx(model: string, loaded: ReadonlyMap<string, number>): number {
    const known = this.#models.get(shortName(model));
    const limit = known?.contextLength ?? Number.POSITIVE_INFINITY;
    // The window of a model in the cloud costs no memory here.
    const fallback =
      known?.isRemote === true && known.contextLength !== undefined ? known.contextLength : FALLBACK_NUM_CTX;
    return Math.min(this.#configuredNumCtx(model) ?? loaded.get(shortName(model)) ?? fallback, limit);
  }

  async #loadedContexts(signal: AbortSignal): Promise<ReadonlyMap<string, number>> {
    const { models } = await this.#get("/api/ps", processList, signal);
    const contexts = new Map<string, number>();
    for (const entry of models ?? []) {
      if (typeof entry.context_length === "number") contexts.set(shortName(entry.name), entry.context_length);
    }
    return contexts;
  }

  async #get<Shape extends z.ZodType>(path: string, shape: Shape, signal: AbortSignal): Promise<z.infer<Shape>> {
    return this.#read(await this.#send("GET", path, { ...LOOK_LIMITS, signal }), shape);
  }

  async #read<Shape extends z.ZodType>(response: HttpResponse, shape: Shape): Promise<z.infer<Shape>> {
    if (response.status !== 200) throw await this.#refusal(response, "");
    const bytes = await readBody(response, MAX_LIST_BYTES);
    try {
      return shape.parse(JSON.parse(bytes.toString("utf8")));
    } catch (cause) {
      throw new OperationalError(
        "upstream_failed",
        `what answers at ${this.#options.config.url} is not an Ollama host`,
        { cause },
      );
    }
  }

  #send(
    method: "GET" | "POST",
    path: string,
    options: {
      readonly body?: Body;
      readonly headersTimeoutMs: number;
      readonly idleTimeoutMs: number;
      readonly signal: AbortSignal;
    },
  ): Promise<HttpResponse> {
    const { body, headersTimeoutMs, idleTimeoutMs, signal } = options;
    return this.#options.http.send(
      this.#options.permit,
      {
        method,
        origin: this.#base.origin,
        path: this.#base.pathname.replace(/\/+$/, "") + path,
        headers: {
          accept: "application/json, application/x-ndjson",
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        headersTimeoutMs,
        idleTimeoutMs,
      },
      signal,
    );
  }

  async #refusal(response: HttpResponse, model: string): Promise<GhostError> {
    const body = await readBody(response, MAX_REFUSAL_BYTES).catch(() => Buffer.alloc(0));
    return refusalError(
      { status: response.status, body: body.toString("utf8"), retryAfter: header(response, "retry-after") },
      this.name,
      model,
    );
  }

  /** Runs one look at the host, ended after `LOOK_TIMEOUT_MS` (3). */
  async #within<Result>(signal: AbortSignal, look: (limited: AbortSignal) => Promise<Result>): Promise<Result> {
    const limit = new AbortController();
    using _timer = this.#options.clock.after(LOOK_TIMEOUT_MS, () =>
      limit.abort(
        new OperationalError(
          "upstream_timeout",
          `${this.#options.config.url} did not answer within ${LOOK_TIMEOUT_MS} ms`,
        ),
      ),
    );
    return await look(AbortSignal.any([signal, limit.signal]));
  }

  #report(state: ProviderStatus["state"], models: number, error: GhostError | undefined): void {
    const before = this.#status.state;
    const { problem: _before, ...rest } = this.#status;
    const isMissed = error !== undefined && !(this.#options.discovered && error.code === "upstream_unreachable");
    const shown = error !== undefined && !isMissed ? "absent" : state;
    this.#status = { ...rest, state: shown, models, ...(isMissed ? { problem: error.message } : {}) };
    if (before === shown) return;
    const fields = { event: "ollama.host", host: this.name, address: this.#status.address, state: shown, models };
    if (isMissed) this.#options.log.warn({ ...fields, problem: error.message });
    else this.#options.log.info(fields);
  }
}

const LOOK_LIMITS = { headersTimeoutMs: LOOK_TIMEOUT_MS, idleTimeoutMs: LOOK_TIMEOUT_MS } as const;

/** `:latest` is what Ollama adds where no tag is given; without it names are as people write them. */
function shortName(model: string): string {
  return model.endsWith(":latest") ? model.slice(0, -":latest".length) : model;
}

function isRemote(tag: Tag): boolean {
  return (tag.remote_host ?? "") !== "" || (tag.remote_model ?? "") !== "";
}

/** `{"general.architecture": "qwen2", "qwen2.context_length": 32768}` → 32768 */
function contextLengthOf(info: Readonly<Record<string, unknown>>): number | undefined {
  const value = info[`${String(info["general.architecture"])}.context_length`];
  return typeof value === "number" && Number.isInteger(value) && value > 0 ? value : undefined;
}

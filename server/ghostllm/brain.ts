/**
 * GhostLLM's face: one entry point to every model.
 *
 * A request is routed (`routing/route.ts`), opened at the first provider of the plan that sends content, recorded (`session/transcript.ts`) and handed out
 * as one stream of frames.
 * 1. Every frame is in the spool before the caller sees it, and the end of an answer is recorded before its iteration ends (I7, I8).
 * 2. Before the first frame a failing provider costs only time: the next of the plan is tried. After it, a failure is an error, never a clean end.
 * 3. Leaving the loop, or aborting, stops the upstream in every state (I11).
 */

import type { AnswerId, ModelRef, SessionId, ThreadId } from "../../protocol/ids.ts";
import type { ModelInfo, ProviderStatus } from "../../protocol/model.ts";
import type { RouteDecision, RouteTask } from "../../protocol/route.ts";
import { answerIdSchema } from "../../protocol/ids.ts";
import type { Clock, Ids } from "../base/clock.ts";
import { type GhostError, OperationalError, ReportedError, toGhostError, UserError } from "../base/errors.ts";
import type { Log } from "../platform/log.ts";
import type { Actor } from "../platform/permit.ts";
import { AnswerLine } from "./answer-line.ts";
import type { Provider } from "./providers/provider.ts";
import { decide, NO_NEEDS, type RouteNeeds } from "./routing/route.ts";
import type { KeptTurn, ReasoningKeeper } from "./session/reasoning-keeper.ts";
import type { Recording, Transcript } from "./session/transcript.ts";
import {
  type Attempt,
  type ChatRequest,
  type EmbeddingRequest,
  type Embeddings,
  eventsFrame,
  type Frame,
  type ModelRequest,
  type StreamEvent,
} from "./stream.ts";

/** GhostLLM asks before text leaves for a cloud model; `compose.ts` wires GhostWarden to it. */
export interface Authorizer {
  /** Why the text must not go there, or undefined: from rules alone, at once. */
  cloudDenied(model: ModelInfo, actor: Actor): string | undefined;
  /** The whole question, which may ask a person. @throws UserError `denied` | `consent_expired` */
  authorizeCloud(model: ModelInfo, actor: Actor, signal: AbortSignal): Promise<void>;
}

/** Who is asking, and where the exchange is stored. */
export interface AnswerContext {
  /** Continue this session; its history is in the request already. */
  readonly session?: { readonly sessionId: SessionId; readonly threadId?: ThreadId };
}

/** Disposing it ends an answer that nobody read to its end, also one that nobody began to read. */
export interface Answer extends AsyncDisposable {
  readonly id: AnswerId;
  /** Known at once for requests of `ghost/chat`; a stateless request finds its session when it is stored. */
  readonly sessionId: SessionId | undefined;
  readonly model: ModelInfo;
  readonly decision: RouteDecision;
  readonly trimmedCharacters: number;
  /** Fields of the request that its model could not be told. */
  readonly dropped: readonly string[];
  /** To be read once, to its end; leaving early cancels the answer. */
  readonly frames: AsyncIterable<Frame>;
}

export interface ModelCatalogue {
  readonly models: readonly ModelInfo[];
  readonly providers: readonly ProviderStatus[];
}

export interface Brain extends AsyncDisposable {
  /** All models of all providers, at most `CATALOGUE_FRESH_MS` old; with `refresh` asked anew. */
  catalogue(options: { readonly refresh: boolean }, signal: AbortSignal): Promise<ModelCatalogue>;
  /** Something changed that the lists of models depend on: the next look asks for them anew. */
  forgetCatalogue(): void;
  explain(target: string, task: RouteTask, actor: Actor, signal: AbortSignal): Promise<RouteDecision>;
  /** @throws what `decide` throws, and the last provider's error when all of the plan failed before their first frame. */
  answer(request: ModelRequest, context: AnswerContext, signal: AbortSignal): Promise<Answer>;
  /** The model that would answer, and the prompt's tokens where it can count them. @throws what `decide` and the model's provider throw */
  countTokens(
    request: ChatRequest,
    signal: AbortSignal,
  ): Promise<{ readonly model: ModelRef; readonly tokens: number | undefined }>;
  embed(request: EmbeddingRequest, signal: AbortSignal): Promise<Embeddings>;
  /** Embeddings in the client's own bytes where the model's server speaks OpenAI's dialect; undefined elsewhere. */
  relayEmbeddings(
    target: string,
    bodyFor: (modelName: string) => Buffer,
    actor: Actor,
    signal: AbortSignal,
  ): Promise<Buffer | undefined>;
  readonly openAnswers: number;
  /** Since the start. */
  readonly answersTotal: { readonly begun: number; readonly failed: number };
}

interface BrainOptions {
  readonly providers: readonly (Provider & { relayEmbeddings?(body: Buffer, signal: AbortSignal): Promise<Buffer> })[];
  readonly transcript: Transcript;
  readonly keeper: ReasoningKeeper;
  readonly authorizer: Authorizer;
  readonly aliases: Readonly<Record<string, readonly string[]>>;
  readonly intents: Readonly<Record<string, readonly string[]>>;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: Log;
}

/** Model lists change when somebody pulls a model or starts a server: half a minute is soon enough, and keeps servers from being asked all day. */
const CATALOGUE_FRESH_MS = 30_000;
/** Beyond this many open answers a new one is refused: each holds sockets and buffers, and the machine has an end. */
const MAX_OPEN_ANSWERS = 4_096;

export function createBrain(options: BrainOptions): Brain {
  return new GhostBrain(options);
}

class GhostBrain implements Brain {
  readonly #options: BrainOptions;
  readonly #lifetime = new AbortController();
  #catalogue: { readonly value: ModelCatalogue; readonly atMs: number } | undefined;
  #loading: Promise<ModelCatalogue> | undefined;
  #openAnswers = 0;
  #begun = 0;
  #failed = 0;

  constructor(options: BrainOptions) {
    this.#options = options;
  }

  get openAnswers(): number {
    return this.#openAnswers;
  }

  get answersTotal(): { readonly begun: number; readonly failed: number } {
    return { begun: this.#begun, failed: this.#failed };
  }

  async catalogue({ refresh }: { readonly refresh: boolean }, _signal: AbortSignal): Promise<ModelCatalogue> {
    const known = this.#catalogue;
    if (refresh || known === undefined) return this.#load();
    const isStale = this.#options.clock.monotonic() - known.atMs > CATALOGUE_FRESH_MS;
    // A stale list still answers at once; the next request sees the new one. A failing load is logged and tried again by then.
    if (isStale) this.#load().catch((error: unknown) => this.#options.log.warn({ event: "catalogue.failed", error }));
    return known.value;
  }

  forgetCatalogue(): void {
    this.#catalogue = undefined;
    this.#loading = undefined;
  }

  async explain(target: string, task: RouteTask, actor: Actor, signal: AbortSignal): Promise<RouteDecision> {
    const { models } = await this.catalogue({ refresh: false }, signal);
    return this.#decide({ target, task, needs: NO_NEEDS, models, actor });
  }

  async answer(request: ModelRequest, context: AnswerContext, signal: AbortSignal): Promise<Answer> {
    const { clock, ids, log, transcript } = this.#options;
    if (this.#openAnswers >= MAX_OPEN_ANSWERS) {
      throw new OperationalError("overloaded", `${MAX_OPEN_ANSWERS} answers are already open`, { retryAfterMs: 1_000 });
    }
    const known = this.#catalogue ?? { value: await this.#load(), atMs: 0 };
    if (clock.monotonic() - known.atMs > CATALOGUE_FRESH_MS) void this.catalogue({ refresh: false }, signal);
    const decision = this.#decide({
      target: request.target,
      task: request.task,
      needs: needsOf(request),
      models: known.value.models,
      actor: request.actor,
    });
    const id = answerIdSchema.parse(ids.next("ans"));
    const line = new AnswerLine(this.#options, { answer: id, actor: request.actor, target: request.target });
    const recording = await transcript.begin({
      answerId: id,
      actor: request.actor,
      task: request.task,
      target: request.target,
      request: recorded(request, context, await messagesToRecord(request)),
      // Fronts say nothing of an answer that is not streamed before they have all of it.
      isShownWhole: !request.stream,
    });
    this.#openAnswers += 1;
    this.#begun += 1;
    try {
      const asked = this.#withThinking(request);
      const { attempt, model } = await this.#openFirst(asked, decision, known.value.models, signal);
      recording.opened(model.ref, decision);
      line.opened(model.ref);
      log.debug({ event: "answer.opened", answer: id, model: model.ref, reason: decision.reason });
      return {
        id,
        sessionId: recording.sessionId,
        model,
        decision,
        trimmedCharacters: attempt.trimmedCharacters,
        dropped: attempt.dropped ?? [],
        ...this.#record(attempt, recording, { signal, line, turn: this.#keptTurn(request, model) }),
      };
    } catch (thrown) {
      this.#openAnswers -= 1;
      const error = toGhostError(thrown);
      const outcome = endOf(error, signal);
      if (outcome.state === "failed") this.#failed += 1;
      recording.end(outcome);
      line.ended(outcome);
      throw error;
    }
  }

  async countTokens(request: ChatRequest, signal: AbortSignal) {
    const { models } = await this.catalogue({ refresh: false }, signal);
    const { target, actor } = request;
    const decision = this.#decide({ target, task: "chat", needs: needsOf(request), models, actor });
    const model = models.find(({ ref }) => ref === decision.plan[0]);
    if (model === undefined) throw new OperationalError("no_model_available", `"${target}" finds no model`);
    const provider = this.#provider(model);
    if (provider.countTokens === undefined) return { model: model.ref, tokens: undefined };
    if (model.locality === "cloud") await this.#options.authorizer.authorizeCloud(model, actor, signal);
    return { model: model.ref, tokens: await provider.countTokens(request, model, signal) };
  }

  async embed(request: EmbeddingRequest, signal: AbortSignal): Promise<Embeddings> {
    const { models } = await this.catalogue({ refresh: false }, signal);
    const decision = this.#decide({
      target: request.target,
      task: "embedding",
      needs: { ...NO_NEEDS, local: request.localOnly === true },
      models,
      actor: request.actor,
    });
    return this.#tryPlan(decision, models, request.actor, signal, (provider, model) =>
      provider.embed(request.texts, model, signal),
    );
  }

  async relayEmbeddings(
    target: string,
    bodyFor: (modelName: string) => Buffer,
    actor: Actor,
    signal: AbortSignal,
  ): Promise<Buffer | undefined> {
    const { models } = await this.catalogue({ refresh: false }, signal);
    const decision = this.#decide({ target, task: "embedding", needs: NO_NEEDS, models, actor });
    const model = models.find(({ ref }) => ref === decision.plan[0]);
    const provider = model === undefined ? undefined : this.#provider(model);
    if (model === undefined || provider?.relayEmbeddings === undefined) return undefined;
    if (model.locality === "cloud") await this.#options.authorizer.authorizeCloud(model, actor, signal);
    return provider.relayEmbeddings(bodyFor(model.name), signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lifetime.abort(new OperationalError("daemon_stopping", "the daemon is shutting down"));
    for (const provider of this.#options.providers) await provider[Symbol.asyncDispose]();
  }

  #decide(facts: {
    readonly target: string;
    readonly task: RouteTask;
    readonly needs: RouteNeeds;
    readonly models: readonly ModelInfo[];
    readonly actor: Actor;
  }): RouteDecision {
    const { aliases, intents, authorizer } = this.#options;
    return decide({ ...facts, aliases, intents, cloudDenied: (model) => authorizer.cloudDenied(model, facts.actor) });
  }

  #openFirst(
    request: ModelRequest,
    decision: RouteDecision,
    models: readonly ModelInfo[],
    signal: AbortSignal,
  ): Promise<{ attempt: Attempt; model: ModelInfo }> {
    return this.#tryPlan(decision, models, request.actor, signal, async (provider, model) => ({
      attempt: await openAt(provider, request, model, signal),
      model,
    }));
  }

  /** The request with the thinking that its client could not carry back in its places. */
  #withThinking(request: ModelRequest): ModelRequest {
    if (request.task !== "chat" || request.tools.length === 0) return request;
    const { keeper } = this.#options;
    const messages = async () => keeper.restore(request.actor.userId, await request.messages());
    return { ...request, messages };
  }

  /** What watches for thinking that the client may not carry. A relay is not looked into: there the client has all that it could carry. */
  #keptTurn(request: ModelRequest, model: ModelInfo): KeptTurn | undefined {
    if (request.task !== "chat" || request.tools.length === 0) return undefined;
    const own = request.recordedBody?.dialect ?? request.origin?.dialect;
    const turn = this.#options.keeper.watch(request.actor.userId, model.provider);
    return {
      add(frame) {
        if (frame.dialect !== own) turn.add(frame);
      },
      end: () => turn.end(),
    };
  }

  /** Tries the plan in order. The error of the last try is what the caller learns; the others are in the log. */
  async #tryPlan<Result>(
    decision: RouteDecision,
    models: readonly ModelInfo[],
    actor: Actor,
    signal: AbortSignal,
    attempt: (provider: Provider, model: ModelInfo) => Promise<Result>,
  ): Promise<Result> {
    let last: GhostError | undefined;
    for (const ref of decision.plan) {
      const model = models.find((candidate) => candidate.ref === ref);
      if (model === undefined) continue;
      try {
        if (model.locality === "cloud") await this.#options.authorizer.authorizeCloud(model, actor, signal);
        return await attempt(this.#provider(model), model);
      } catch (thrown) {
        last = toGhostError(thrown);
        if (signal.aborted || !mayTryNext(last)) throw last;
        this.#options.log.warn({ event: "attempt.failed", model: ref, code: last.code, message: last.message });
      }
    }
    throw last ?? new OperationalError("no_model_available", `"${decision.target}" finds no model`);
  }

  /** Written out, since a generator would add its promises to each frame of each open answer. */
  #record(
    attempt: Attempt,
    recording: Recording,
    {
      signal,
      line,
      turn,
    }: { readonly signal: AbortSignal; readonly line: AnswerLine; readonly turn: KeptTurn | undefined },
  ): Pick<Answer, "frames" | typeof Symbol.asyncDispose> {
    const source = attempt.frames[Symbol.asyncIterator]();
    let isEnded = false;
    const end = (outcome: Parameters<Recording["end"]>[0]) => {
      if (isEnded) return;
      isEnded = true;
      this.#openAnswers -= 1;
      let told = outcome;
      try {
        recording.end(outcome);
      } catch (thrown) {
        // The end of an answer that is shown whole is written with all of it: where that fails, nothing of it may be shown.
        told = endOf(toGhostError(thrown), signal);
        throw thrown;
      } finally {
        if (told.state === "failed") this.#failed += 1;
        line.ended(told);
      }
    };
    const fail = (thrown: unknown): never => {
      const error = toGhostError(thrown);
      end(endOf(error, signal));
      throw error;
    };
    const leave = async (): Promise<IteratorReturnResult<undefined>> => {
      try {
        await source.return?.();
      } finally {
        if (!isEnded) end(endOf(new OperationalError("cancelled", "the reader left"), signal));
      }
      return { value: undefined, done: true };
    };
    /** Nothing more is read: what cannot be recorded is not sent either. */
    const refuse = async (thrown: unknown): Promise<never> => {
      await source.return?.().catch(() => {}); // How its clean-up ends changes nothing.
      return fail(thrown);
    };
    let failing: GhostError | undefined;
    const take = (result: IteratorResult<Frame>): IteratorResult<Frame> | Promise<never> => {
      if (result.done === true) {
        turn?.end();
        end({ state: "complete" });
        return result;
      }
      try {
        const broken = breakIn(result.value);
        const value = broken === undefined ? result.value : eventsFrame(broken.before);
        recording.record(value);
        line.passed(value);
        turn?.add(value);
        failing = broken?.error;
        return { value, done: false };
      } catch (thrown) {
        return refuse(thrown);
      }
    };
    const next = () => (failing === undefined ? source.next().then(take, fail) : refuse(failing));
    return {
      frames: { [Symbol.asyncIterator]: () => ({ next, return: leave }) },
      async [Symbol.asyncDispose]() {
        if (!isEnded) await leave();
      },
    };
  }

  #provider(model: ModelInfo): BrainOptions["providers"][number] {
    const provider = this.#options.providers.find(({ id }) => id === model.provider);
    if (provider === undefined) throw new UserError("model_not_found", `${model.ref}: its provider is gone`);
    return provider;
  }

  #load(): Promise<ModelCatalogue> {
    if (this.#loading !== undefined) return this.#loading;
    const loading: Promise<ModelCatalogue> = this.#askAll().then((value) => {
      // A list that was asked for before something changed answers its askers only.
      if (this.#loading === loading) this.#catalogue = { value, atMs: this.#options.clock.monotonic() };
      return value;
    });
    this.#loading = loading;
    return loading.finally(() => {
      if (this.#loading === loading) this.#loading = undefined;
    });
  }

  async #askAll(): Promise<ModelCatalogue> {
    const { providers, log } = this.#options;
    const lists = await Promise.all(
      providers.map((provider) =>
        provider.models(this.#lifetime.signal).catch((error: unknown) => {
          log.error({ event: "models.failed", provider: provider.id, error });
          return [];
        }),
      ),
    );
    return { models: lists.flat(), providers: providers.flatMap((provider) => provider.status()) };
  }
}

/**
 * Where a frame says that the answer is broken, and what came before that. Relayed dialects are not looked into: their providers throw.
 * An error that passed here as an event would leave the fronts to end the answer cleanly (2).
 */
function breakIn(frame: Frame): { readonly before: readonly StreamEvent[]; readonly error: GhostError } | undefined {
  if (frame.dialect !== "events" && frame.dialect !== "ollama") return undefined;
  const events = frame.events();
  for (const [index, event] of events.entries()) {
    if (event.kind === "error") return { before: events.slice(0, index), error: new ReportedError(event.error) };
  }
  return undefined;
}

function openAt(provider: Provider, request: ModelRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt> {
  return request.task === "chat" ? provider.chat(request, model, signal) : provider.complete(request, model, signal);
}

function needsOf(request: ModelRequest): RouteNeeds {
  const format = request.output.format.kind;
  const local = request.localOnly === true;
  if (request.task === "completion") return { ...NO_NEEDS, local, fim: request.suffix !== "" };
  return {
    fim: false,
    tools: request.tools.length > 0 && request.toolChoice !== "none",
    jsonSchema: format === "schema",
    vision: request.hasImages ?? false,
    local,
  };
}

/** A client's own body is stored as it came; other requests store their messages. */
async function messagesToRecord(request: ModelRequest) {
  return request.task === "chat" && request.recordedBody === undefined ? request.messages() : [];
}

function recorded(
  request: ModelRequest,
  context: AnswerContext,
  messages: Awaited<ReturnType<ChatRequest["messages"]>>,
): Parameters<Transcript["begin"]>[0]["request"] {
  if (request.task === "completion") return { kind: "completion", prefix: request.prefix, suffix: request.suffix };
  if (request.recordedBody !== undefined)
    return { kind: "body", dialect: request.recordedBody.dialect, body: request.recordedBody.body };
  return { kind: "messages", messages, ...context.session };
}

function endOf(error: GhostError, signal: AbortSignal): Parameters<Recording["end"]>[0] {
  // Whatever fails in an answer that is being ended fails because of that.
  const cause = signal.aborted && error.code !== "storage_full" ? toGhostError(signal.reason) : error;
  if (cause.code === "cancelled") return { state: "cancelled" };
  return { state: "failed", error: { code: cause.code, message: cause.message, details: cause.details } };
}

/** What another model may do better. A request that is wrong in itself fails everywhere alike. */
function mayTryNext(error: GhostError): boolean {
  const elsewhere = [
    "upstream_auth",
    "key_missing",
    "upstream_rejected",
    "upstream_quota",
    "upstream_filtered",
    "model_not_found",
    "capability_missing",
    "context_too_long",
    "denied",
    "weights_missing",
    "weights_corrupt",
  ];
  return error.family === "operational"
    ? error.code !== "cancelled" && error.code !== "storage_full"
    : elsewhere.includes(error.code);
}

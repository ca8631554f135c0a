/**
 * What the daemon does for each method of GhostApi. Parameters were checked before they get here; errors leave as they are thrown and are translated
 * by the fronts. Every handler acts for its caller's user and no other (I15).
 */
import type { z } from "zod";
import type { ChatUpdate } from "../../protocol/chat.ts";
import type { CompletionUpdate } from "../../protocol/completion.ts";
import type { DaemonStatus, DoctorFinding } from "../../protocol/daemon.ts";
import type { ModelPullUpdate } from "../../protocol/model.ts";
import type { GhostHandlers } from "../../protocol/ghost-api.ts";
import type { FinishReason } from "../../protocol/chat.ts";
import { clientIdSchema } from "../../protocol/ids.ts";
import type { settingsGetResult } from "../../protocol/settings.ts";
import type { Usage } from "../../protocol/usage.ts";
import type { Clock } from "../base/clock.ts";
import { onDispose } from "../base/disposable.ts";
import { BugError, type GhostError, toGhostError } from "../base/errors.ts";
import { Secret } from "../base/secret.ts";
import { BoundedQueue } from "../base/bounded-queue.ts";
import type { Answer, Brain } from "../ghostllm/brain.ts";
import type { KeyDesk, Transcript, Weights } from "../ghostllm/open-brain.ts";
import type { ChatRequest, CompletionRequest, Message, StreamEvent } from "../ghostllm/stream.ts";
import { toError, type Warden } from "../ghostwarden/warden.ts";
import type { FileLog } from "../platform/log.ts";
import { type Actor, type EffectRequest, effectKey, type Permit, type PermitSet } from "../platform/permit.ts";
import type { Caller } from "./bind-api.ts";
import { sessionBusy, SessionTurns } from "./session-turns.ts";

export interface GhostServerOptions {
  readonly brain: Brain;
  readonly transcript: Transcript;
  readonly warden: Warden;
  readonly weights: Weights;
  readonly keys: KeyDesk;
  readonly log: FileLog;
  readonly clock: Clock;
  readonly status: () => DaemonStatus;
  readonly doctor: (signal: AbortSignal) => Promise<readonly DoctorFinding[]>;
  /** Begins to drain; returns how many answers are still open. */
  readonly stop: () => number;
  readonly settings: () => z.input<typeof settingsGetResult>["settings"];
  readonly configFile: string;
  readonly modelKey: string;
  readonly httpUrl: () => string;
}

/** Log lines that a slow reader may fall behind before the oldest are left out. */
const MAX_UNREAD_LOG_LINES = 10_000;

export function createGhostServer(options: GhostServerOptions): GhostHandlers<Caller> {
  const { brain, transcript, warden } = options;
  const turns = new SessionTurns(options.clock);
  return {
    daemon: {
      status: async () => options.status(),
      doctor: async (_params, signal) => ({ findings: [...(await options.doctor(signal))] }),
      logs: (params, signal) => readLog(options.log, params, signal),
      stop: async () => ({ draining: options.stop() }),
    },
    model: {
      list: async ({ refresh }, signal) => {
        const { models, providers } = await brain.catalogue({ refresh }, signal);
        return { models: [...models], providers: [...providers] };
      },
      pull: (params, signal, caller) => pullModel(options, params, signal, actorOf(caller)),
    },
    chat: { send: (params, signal, caller) => sendChat({ ...options, turns }, params, signal, actorOf(caller)) },
    completion: { create: (params, signal, caller) => createCompletion(options, params, signal, actorOf(caller)) },
    session: {
      list: (params, _signal, caller) => transcript.list(caller.userId, params),
      get: (params, _signal, caller) => transcript.get(caller.userId, params),
      watch: (params, signal, caller) => transcript.watch(caller.userId, params, signal),
      delete: (params, _signal, caller) => transcript.delete(caller.userId, params),
    },
    route: { explain: ({ model, task }, signal, caller) => brain.explain(model, task, actorOf(caller), signal) },
    usage: { summary: (params, _signal, caller) => transcript.usage(caller.userId, params) },
    approval: {
      watch: (_params, signal, caller) => warden.approvals.watch(caller.userId, signal),
      respond: async (params, _signal, caller) =>
        warden.approvals.respond(params, { userId: caller.userId, client: caller.clientId }),
    },
    policy: { get: async () => warden.policy() },
    ledger: {
      list: async (params, _signal, caller) => ({ rows: [...(await warden.ledger.list(caller.userId, params))] }),
    },
    key: keyHandlers(options),
    settings: { get: async () => ({ file: options.configFile, settings: options.settings() }) },
  };
}

/** Keys go in and are used; none of these says one. A change that has begun is finished, whether or not its caller waits. */
function keyHandlers({ keys, log, clock, ...options }: GhostServerOptions): GhostHandlers<Caller>["key"] {
  return {
    model: async () => ({ key: options.modelKey, openaiBaseUrl: `${options.httpUrl()}/v1` }),
    set: async ({ provider, value }, _signal, { clientName }) => {
      const stored = await keys.set(provider, new Secret(value));
      log.info({ event: "key.stored", provider, in: stored.row.source, client: clientName });
      return stored;
    },
    list: async (_params, signal) => {
      const { keys: rows, problem } = await keys.list(signal);
      return { rows: [...rows], ...(problem === undefined ? {} : { problem }) };
    },
    remove: async ({ provider }, _signal, { clientName }) => {
      const removed = await keys.remove(provider);
      log.info({ event: "key.removed", provider, client: clientName });
      return removed;
    },
    test: async ({ provider }, signal) => {
      const startedAt = clock.monotonic();
      const verdict = await keys.test(provider, signal);
      return { ...verdict, latencyMs: Math.round(clock.monotonic() - startedAt) };
    },
  };
}

type ChatParams = Parameters<GhostHandlers<Caller>["chat"]["send"]>[0];
type CompletionParams = Parameters<GhostHandlers<Caller>["completion"]["create"]>[0];

async function* sendChat(
  options: GhostServerOptions & { readonly turns: SessionTurns },
  params: ChatParams,
  signal: AbortSignal,
  actor: Actor,
): AsyncGenerator<ChatUpdate> {
  const { brain, transcript, clock, turns } = options;
  const startedAt = clock.monotonic();
  using turn = await turns.begin(actor.userId, params.sessionId, signal);
  const thread = params.sessionId === undefined ? undefined : await transcript.history(actor.userId, params.sessionId);
  // An answer that another door is giving in this session: its end cannot be waited for here.
  if (params.sessionId !== undefined && thread?.isStreaming === true) throw sessionBusy(params.sessionId);
  const system: readonly Message[] =
    params.system === undefined || thread !== undefined
      ? []
      : [{ role: "system", parts: [{ kind: "text", text: params.system }] }];
  const messages: readonly Message[] = [
    ...system,
    ...(thread?.messages ?? []),
    { role: "user", parts: [{ kind: "text", text: params.text }] },
  ];
  const request: ChatRequest = {
    task: "chat",
    target: params.model,
    messages: async () => messages,
    tools: [],
    toolChoice: "auto",
    output: {
      ...(params.maxTokens === undefined ? {} : { maxTokens: params.maxTokens }),
      stop: [],
      format: { kind: "text" },
    },
    sampling: params.temperature === undefined ? {} : { temperature: params.temperature },
    lane: "chat",
    actor,
    stream: true,
  };
  const session =
    thread === undefined || params.sessionId === undefined
      ? {}
      : { session: { sessionId: params.sessionId, threadId: thread.threadId } };
  await using answer = await brain.answer(request, session, signal);
  const { sessionId } = answer;
  if (sessionId === undefined) throw new BugError("internal", "a chat was recorded without a session");
  turn.enter(sessionId);
  const firstTokenMs = clock.monotonic() - startedAt;
  const note = answer.model.note === undefined ? {} : { note: answer.model.note };
  yield {
    kind: "started",
    sessionId,
    answerId: answer.id,
    model: answer.model.ref,
    decision: answer.decision,
    ...note,
  };
  yield* chatUpdates(answer, { startedAt, firstTokenMs, clock, signal });
}

interface Timing {
  readonly startedAt: number;
  readonly firstTokenMs: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

async function* chatUpdates(answer: Answer, timing: Timing): AsyncGenerator<ChatUpdate> {
  const end = new AnswerEnd();
  const calls = new Map<number, { callId: string; name: string; arguments: string }>();
  try {
    for await (const frame of answer.frames) {
      for (const event of frame.events()) {
        if (event.kind === "text" || event.kind === "reasoning") yield { kind: event.kind, text: event.text };
        else if (event.kind === "toolCall") collectCall(calls, event);
        else end.add(event);
      }
    }
  } catch (thrown) {
    yield failed(thrown, timing.signal);
    return;
  }
  for (const call of calls.values()) yield { kind: "toolCall", ...call };
  yield end.finished(timing);
}

async function* createCompletion(
  options: GhostServerOptions,
  params: CompletionParams,
  signal: AbortSignal,
  actor: Actor,
): AsyncGenerator<CompletionUpdate> {
  const { brain, clock } = options;
  const startedAt = clock.monotonic();
  const request: CompletionRequest = {
    task: "completion",
    target: params.model,
    prefix: params.prefix,
    suffix: params.suffix,
    overflow: params.overflow,
    output: { maxTokens: params.maxTokens, stop: params.stop, format: { kind: "text" } },
    sampling: { temperature: params.temperature },
    lane: "completion",
    actor,
    stream: true,
  };
  await using answer = await brain.answer(request, {}, signal);
  const firstTokenMs = clock.monotonic() - startedAt;
  const note = answer.model.note === undefined ? {} : { note: answer.model.note };
  yield {
    kind: "started",
    answerId: answer.id,
    model: answer.model.ref,
    decision: answer.decision,
    trimmedCharacters: answer.trimmedCharacters,
    ...note,
  };
  const end = new AnswerEnd();
  try {
    for await (const frame of answer.frames) {
      for (const event of frame.events()) {
        if (event.kind === "text") yield { kind: "text", text: event.text };
        else end.add(event);
      }
    }
  } catch (thrown) {
    yield failed(thrown, signal);
    return;
  }
  yield end.finished({ startedAt, firstTokenMs, clock, signal });
}

/** What an answer says about itself at its end. */
class AnswerEnd {
  #reason: FinishReason = "unknown";
  #usage: Usage = {};

  add(event: StreamEvent): void {
    if (event.kind === "finish") this.#reason = event.reason;
    if (event.kind === "usage") this.#usage = { ...this.#usage, ...event.usage };
  }

  finished({ startedAt, firstTokenMs, clock }: Timing) {
    return {
      kind: "finished",
      reason: this.#reason,
      usage: this.#usage,
      elapsedMs: clock.monotonic() - startedAt,
      firstTokenMs,
    } as const;
  }
}

function collectCall(
  calls: Map<number, { callId: string; name: string; arguments: string }>,
  event: Extract<StreamEvent, { kind: "toolCall" }>,
): void {
  const call = calls.get(event.index) ?? { callId: "", name: "", arguments: "" };
  calls.set(event.index, {
    callId: event.callId ?? call.callId,
    name: call.name + (event.name ?? ""),
    arguments: call.arguments + event.arguments,
  });
}

/** An answer that broke off is an outcome, with what arrived before it kept; a cancelled one ends the stream as cancelled. */
function failed(
  thrown: unknown,
  signal: AbortSignal,
): {
  kind: "failed";
  error: { code: GhostError["code"]; message: string; details: Record<string, never> | GhostError["details"] };
} {
  const error = toGhostError(thrown);
  if (signal.aborted) throw error;
  return { kind: "failed", error: { code: error.code, message: error.message, details: error.details } };
}

async function* pullModel(
  options: GhostServerOptions,
  params: Parameters<Weights["pull"]>[0],
  signal: AbortSignal,
  actor: Actor,
): AsyncGenerator<ModelPullUpdate> {
  const why = `download weights from ${params.source}`;
  const permits = new DownloadPermits(options.warden, actor, why, signal);
  try {
    for await (const update of options.weights.pull(params, (effect) => permits.take(effect), signal)) {
      // The next question for the list of models sees the new one.
      if (update.kind === "done") await options.brain.catalogue({ refresh: true }, signal);
      yield update;
    }
  } finally {
    permits[Symbol.dispose]();
  }
}

/** A download that breaks off is resumed with the same request: one answer covers that many tries of one address. Beyond them it is asked about anew. */
const DOWNLOAD_TRIES = 16;

/** The permits of one download: each address is asked about once, and again only when its tries are used up. */
class DownloadPermits implements Disposable {
  readonly #ask: (effect: EffectRequest) => ReturnType<Warden["authorizePlan"]>;
  readonly #granted = new Map<string, { readonly permits: PermitSet; left: number }>();

  constructor(warden: Warden, actor: Actor, why: string, signal: AbortSignal) {
    this.#ask = (effect) => warden.authorizePlan({ effects: [effect], tries: DOWNLOAD_TRIES }, actor, why, signal);
  }

  async take(effect: EffectRequest): Promise<Permit> {
    const key = effectKey(effect);
    let known = this.#granted.get(key);
    if (known === undefined || known.left === 0) {
      const result = await this.#ask(effect);
      if (result.kind !== "granted") throw toError(result);
      known = { permits: result.permits, left: DOWNLOAD_TRIES };
      this.#granted.set(key, known);
    }
    known.left -= 1;
    return known.permits.take(effect);
  }

  /** What was not used is recorded as such. */
  [Symbol.dispose](): void {
    for (const { permits } of this.#granted.values()) permits[Symbol.dispose]();
  }
}

async function* readLog(
  log: FileLog,
  { lines, follow }: { readonly lines: number; readonly follow: boolean },
  signal: AbortSignal,
): AsyncGenerator<{ line: string }> {
  const queue = new BoundedQueue<string>({ limit: MAX_UNREAD_LOG_LINES });
  using _following = follow
    ? log.follow((line) => {
        if (queue.size < MAX_UNREAD_LOG_LINES) queue.push(line);
      })
    : onDispose(() => {});
  for (const line of await log.tail(lines)) yield { line };
  if (!follow) return;
  signal.addEventListener("abort", () => queue.close(), { once: true });
  if (signal.aborted) return;
  for await (const line of queue) yield { line };
}

/** Sessions and the ledger name a face as people know it; the connection's own id is for consent alone. */
function actorOf(caller: Caller): Actor {
  return {
    userId: caller.userId,
    client: clientIdSchema.parse(caller.clientName),
    via: { kind: "face", id: caller.clientId },
  };
}

/**
 * The daemon's side of the embedded engine: a child process that is started on first use and may crash without harm.
 * 1. At most `maxQueue` requests wait in each lane; `lanes.ts` says who is next.
 * 2. An aborted request is answered at once; its place is free again when the child confirms, and a child that does not confirm is ended.
 * 3. When the child dies, what ran on it fails with `engine_crashed`; what waited is served by the next child, which is started after a growing delay.
 * 4. The child inherits nothing of our environment (I5) and ends with us.
 */
import { fileURLToPath } from "node:url";
import { dirname } from "node:path";
import type { DaemonStatus } from "../../../protocol/daemon.ts";
import type { Clock } from "../../base/clock.ts";
import { BugError, GhostError, OperationalError, UserError } from "../../base/errors.ts";
import type { Log } from "../../platform/log.ts";
import type { AnyPermit } from "../../platform/permit.ts";
import { type Child, type ChildExit, startChild } from "../../platform/process.ts";
import {
  type EngineModel,
  type EngineReply,
  type EngineRequest,
  engineReplySchema,
  type EngineSettings,
  type GenerateJob,
} from "./engine-protocol.ts";
import { type GenerationEvent, GenerationStream } from "./generation.ts";
import { type Lane, nextWork, type Work } from "./lanes.ts";

export interface EngineOptions {
  /** Covers `cmd.exec` of `nodeExecutable`. */
  readonly permit: AnyPermit;
  readonly nodeExecutable: string;
  readonly threads: number;
  readonly maxQueue: number;
  /** The child ends after so long without a request; 0 keeps it. */
  readonly idleUnloadMs: number;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Generation {
  readonly trimmedCharacters: number;
  /** Ends after `finished`. Throws one of our errors when the answer broke off. Leaving early stops it. */
  readonly events: AsyncIterable<GenerationEvent>;
}

export interface Engine extends AsyncDisposable {
  /**
   * Resolves with the first text (or the end, of an empty answer).
   * @throws UserError `context_too_long`, `weights_corrupt`, `capability_missing`; OperationalError `engine_busy`, `engine_crashed`, `cancelled`.
   */
  generate(job: GenerateJob, signal: AbortSignal): Promise<Generation>;
  embed(
    model: EngineModel,
    texts: readonly string[],
    signal: AbortSignal,
  ): Promise<{ vectors: number[][]; promptTokens: number }>;
  /** Starts the child and loads a model ahead of the first request. */
  load(model: EngineModel, signal: AbortSignal): Promise<void>;
  state(): DaemonStatus["engine"];
}

/** Weights in memory at once: one that completes and one that chats. */
const MAX_LOADED_MODELS = 2;
/** The library tests its binary in another process first; longer than this on any machine means that it hangs. */
const START_TIMEOUT_MS = 60_000;
/** The longest that one evaluation can take (a large model on one thread) with room to spare; a child that is silent longer hangs. */
const CANCEL_TIMEOUT_MS = 30_000;
const FIRST_BACKOFF_MS = 250;
/** A broken installation must not be tried in a busy loop, and a mended one must be noticed soon. */
const MAX_BACKOFF_MS = 30_000;
/** After so many crashes without an answer between them, waiting requests are told instead of being tried on. */
const CRASHES_BEFORE_GIVING_UP = 3;
/** A child in trouble may write without end; the log keeps the beginning, an error message the last lines. */
const MAX_LOGGED_LINES = 200;
const LAST_LINES = 5;
const BUSY_RETRY_MS = 1_000;

const ENTRY = fileURLToPath(new URL("engine-child.ts", import.meta.url));

const ARGUMENTS: readonly string[] = ["--no-warnings", ENTRY];

type Reply<Kind extends EngineReply["kind"]> = Extract<EngineReply, { kind: Kind }>;

interface Call extends Work {
  readonly id: number;
  readonly request: EngineRequest;
  /** False once it was answered: aborted or failed. */
  open: boolean;
  onReply(reply: EngineReply): void;
  /** `abort`: nobody reads on; `failure`: what arrived is still worth reading. */
  onFailure(error: GhostError, after: "abort" | "failure"): void;
  /** No more answers: stops listening to its signal. */
  close(): void;
}

interface RunningChild {
  readonly child: Child;
  ready: boolean;
  /** We end it because it is not needed: no crash. */
  stopping: boolean;
  /** We end it because something is wrong with it: it gets nothing more. */
  doomed: boolean;
  readonly lastLines: string[];
  lines: number;
}

export function createEngine(options: EngineOptions): Engine {
  return new ChildEngine(options);
}

class ChildEngine implements Engine {
  readonly #options: EngineOptions;
  #current: RunningChild | undefined;
  #waiting: Call[] = [];
  readonly #running = new Map<number, Call>();
  readonly #cancelTimers = new Map<number, Disposable>();
  #lastId = 0;
  /** Since the last request that was served. */
  #crashes = 0;
  #retry: { readonly timer: Disposable; readonly atMs: number } | undefined;
  #startTimer: Disposable | undefined;
  #idleTimer: Disposable | undefined;
  #disposed = false;

  constructor(options: EngineOptions) {
    this.#options = options;
  }

  state(): DaemonStatus["engine"] {
    const pid = this.#current?.child.pid;
    if (this.#current !== undefined && !this.#current.stopping) {
      return { state: this.#current.ready ? "ready" : "starting", ...(pid === undefined ? {} : { pid }) };
    }
    return { state: this.#crashes > 0 ? "crashed" : "idle" };
  }

  generate(job: GenerateJob, signal: AbortSignal): Promise<Generation> {
    return new Promise((resolve, reject) => {
      const abandon = new AbortController();
      const events = new GenerationStream(() => abandon.abort());
      const work = {
        kind: "generate",
        lane: job.lane,
        modelKey: modelKey(job.model),
        sequences: job.model.sequences,
      } as const;
      this.#submit(work, (id) => ({ kind: "generate", id, job }), AbortSignal.any([signal, abandon.signal]), {
        onReply: (reply) => {
          if (reply.kind === "text") {
            events.pushText(reply.text);
            resolve({ events, trimmedCharacters: reply.trimmedCharacters });
          } else if (reply.kind === "finished") {
            events.finish({ kind: "finished", reason: reply.reason, usage: reply.usage });
            resolve({ events, trimmedCharacters: reply.trimmedCharacters });
          }
        },
        onFailure: (error, after) => {
          reject(error);
          events.fail(error, after === "abort" ? "drop" : "keep");
        },
      });
    });
  }

  async embed(model: EngineModel, texts: readonly string[], signal: AbortSignal) {
    const request = (id: number): EngineRequest => ({ kind: "embed", id, model, texts: [...texts] });
    const reply = await this.#ask({ kind: "embed", lane: "chat", model, request, answer: "embedded" }, signal);
    return { vectors: reply.vectors, promptTokens: reply.promptTokens };
  }

  async load(model: EngineModel, signal: AbortSignal): Promise<void> {
    const request = (id: number): EngineRequest => ({ kind: "load", id, model });
    await this.#ask({ kind: "load", lane: "background", model, request, answer: "loaded" }, signal);
  }

  #ask<Kind extends "embedded" | "loaded">(
    call: {
      readonly kind: Work["kind"];
      readonly lane: Lane;
      readonly model: EngineModel;
      readonly request: (id: number) => EngineRequest;
      readonly answer: Kind;
    },
    signal: AbortSignal,
  ): Promise<Reply<Kind>> {
    const { kind, lane, model } = call;
    const isAnswer = (reply: EngineReply): reply is Reply<Kind> => reply.kind === call.answer;
    return new Promise((resolve, reject) => {
      this.#submit({ kind, lane, modelKey: modelKey(model), sequences: model.sequences }, call.request, signal, {
        onReply: (reply) => {
          if (isAnswer(reply)) resolve(reply);
        },
        onFailure: reject,
      });
    });
  }

  /** Queues a call, or fails it at once. */
  #submit(
    work: Work,
    request: (id: number) => EngineRequest,
    signal: AbortSignal,
    handlers: Pick<Call, "onReply" | "onFailure">,
  ): void {
    const refusal = this.#refusal(work, signal);
    if (refusal !== undefined) {
      handlers.onFailure(refusal, "failure");
      return;
    }
    this.#lastId += 1;
    const id = this.#lastId;
    const onAbort = () => this.#abort(call, signal);
    const call: Call = {
      ...work,
      id,
      request: request(id),
      open: true,
      onReply: handlers.onReply,
      onFailure: (error, after) => {
        call.close();
        handlers.onFailure(error, after);
      },
      close: () => {
        call.open = false;
        signal.removeEventListener("abort", onAbort);
      },
    };
    signal.addEventListener("abort", onAbort, { once: true });
    this.#waiting.push(call);
    this.#pump();
  }

  #refusal(work: Work, signal: AbortSignal): GhostError | undefined {
    if (signal.aborted) return cancelled(signal);
    if (this.#disposed) return new OperationalError("daemon_stopping", "the embedded engine is being stopped");
    const ahead = this.#waiting.filter((other) => other.lane === work.lane).length;
    if (ahead >= this.#options.maxQueue) {
      return new OperationalError(
        "engine_busy",
        `${ahead} requests of this kind wait for the embedded engine already`,
        {
          retryAfterMs: BUSY_RETRY_MS,
        },
      );
    }
    if (this.#retry !== undefined && this.#crashes >= CRASHES_BEFORE_GIVING_UP) {
      const waitMs = Math.max(0, this.#retry.atMs - this.#options.clock.monotonic());
      return new OperationalError(
        "engine_crashed",
        `the embedded engine crashed ${this.#crashes} times in a row; it is tried again soon`,
        {
          retryAfterMs: Math.ceil(waitMs),
        },
      );
    }
    return undefined;
  }

  /** Starts what may start; starts the child when something waits and none is there. */
  #pump(): void {
    this.#idleTimer?.[Symbol.dispose]();
    this.#idleTimer = undefined;
    if (this.#disposed) return;
    const current = this.#current;
    if (current === undefined) {
      if (this.#waiting.length > 0 && this.#retry === undefined) this.#start();
      return;
    }
    if (!current.ready || current.stopping || current.doomed) return;
    for (;;) {
      const call = nextWork(this.#waiting, [...this.#running.values()], MAX_LOADED_MODELS);
      if (call === undefined) break;
      this.#waiting = this.#waiting.filter((other) => other !== call);
      this.#running.set(call.id, call);
      current.child.send(call.request);
    }
    const { clock, idleUnloadMs } = this.#options;
    if (this.#running.size === 0 && this.#waiting.length === 0 && idleUnloadMs > 0) {
      this.#idleTimer = clock.after(idleUnloadMs, () => this.#unload(current));
    }
  }

  #abort(call: Call, signal: AbortSignal): void {
    if (!call.open) return;
    call.onFailure(cancelled(signal), "abort");
    if (!this.#running.has(call.id)) {
      this.#waiting = this.#waiting.filter((other) => other !== call);
      this.#pump();
      return;
    }
    const current = this.#current;
    current?.child.send({ kind: "cancel", id: call.id } satisfies EngineRequest);
    const timer = this.#options.clock.after(CANCEL_TIMEOUT_MS, () => {
      this.#options.log.error({ event: "engine.hung", pid: current?.child.pid });
      if (current !== undefined) doom(current);
    });
    this.#cancelTimers.set(call.id, timer);
  }

  #start(): void {
    const { permit, nodeExecutable, clock, log, threads } = this.#options;
    const running: RunningChild = {
      ready: false,
      stopping: false,
      doomed: false,
      lastLines: [],
      lines: 0,
      child: startChild(permit, {
        executable: nodeExecutable,
        args: ARGUMENTS,
        cwd: dirname(ENTRY),
        environment: {},
        clock,
        onMessage: (message) => this.#onMessage(running, message),
        onLine: (line) => this.#onLine(running, line),
        onExit: (exit) => this.#onExit(running, exit),
      }),
    };
    this.#current = running;
    log.info({ event: "engine.started", pid: running.child.pid });
    running.child.send({ kind: "settings", threads, maxLoadedModels: MAX_LOADED_MODELS } satisfies EngineSettings);
    this.#startTimer = clock.after(START_TIMEOUT_MS, () => {
      log.error({ event: "engine.start.timeout", pid: running.child.pid });
      doom(running);
    });
  }

  #onMessage(running: RunningChild, message: unknown): void {
    if (running !== this.#current) return;
    const parsed = engineReplySchema.safeParse(message);
    if (!parsed.success) {
      this.#options.log.error({ event: "engine.message.invalid", problem: parsed.error.message });
      doom(running);
      return;
    }
    const reply = parsed.data;
    if (reply.kind === "ready") {
      running.ready = true;
      this.#startTimer?.[Symbol.dispose]();
      this.#pump();
    } else if (reply.kind === "unusable") {
      running.lastLines.push(reply.message);
      doom(running);
    } else this.#onReply(reply);
  }

  #onReply(reply: Exclude<EngineReply, { kind: "ready" | "unusable" }>): void {
    const call = this.#running.get(reply.id);
    if (call === undefined) return;
    if (reply.kind === "text") {
      if (call.open) call.onReply(reply);
      return;
    }
    this.#running.delete(call.id);
    this.#cancelTimers.get(call.id)?.[Symbol.dispose]();
    this.#cancelTimers.delete(call.id);
    this.#crashes = 0;
    if (call.open) {
      if (reply.kind === "failed") call.onFailure(rebuild(reply), "failure");
      else call.onReply(reply);
      call.close();
    }
    this.#pump();
  }

  #onLine(running: RunningChild, line: string): void {
    running.lines += 1;
    running.lastLines.push(line);
    if (running.lastLines.length > LAST_LINES) running.lastLines.shift();
    if (running.lines <= MAX_LOGGED_LINES)
      this.#options.log.warn({ event: "engine.output", pid: running.child.pid, line });
  }

  #onExit(running: RunningChild, exit: ChildExit): void {
    if (running !== this.#current) return;
    this.#current = undefined;
    this.#startTimer?.[Symbol.dispose]();
    for (const timer of this.#cancelTimers.values()) timer[Symbol.dispose]();
    this.#cancelTimers.clear();
    const lost = [...this.#running.values()];
    this.#running.clear();
    if (!running.stopping) {
      this.#crashes += 1;
      const how =
        exit.startError?.message ?? (exit.signal === null ? `exit code ${exit.code}` : `signal ${exit.signal}`);
      const words = running.lastLines.length === 0 ? "" : `; its last words: ${running.lastLines.join(" / ")}`;
      this.#options.log.error({
        event: "engine.crashed",
        pid: running.child.pid,
        how,
        crashes: this.#crashes,
        words: running.lastLines,
      });
      const error = new OperationalError("engine_crashed", `the embedded engine's process ended (${how})${words}`);
      const backoffMs = this.#crashes === 1 ? 0 : Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** (this.#crashes - 2));
      this.#scheduleRetry(backoffMs);
      if (this.#crashes >= CRASHES_BEFORE_GIVING_UP) lost.push(...this.#waiting.splice(0));
      for (const call of lost) if (call.open) call.onFailure(error, "failure");
    }
    this.#pump();
  }

  #scheduleRetry(delayMs: number): void {
    if (delayMs === 0 || this.#disposed) return;
    const { clock } = this.#options;
    const timer = clock.after(delayMs, () => {
      this.#retry = undefined;
      this.#pump();
    });
    this.#retry = { timer, atMs: clock.monotonic() + delayMs };
  }

  #unload(running: RunningChild): void {
    if (this.#running.size > 0 || running !== this.#current) return;
    this.#options.log.info({ event: "engine.unloaded", pid: running.child.pid });
    running.stopping = true;
    // A request that comes meanwhile waits for its end and starts the next one.
    void running.child[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    this.#retry?.timer[Symbol.dispose]();
    this.#idleTimer?.[Symbol.dispose]();
    const current = this.#current;
    if (current !== undefined) current.stopping = true;
    const error = new OperationalError("daemon_stopping", "the embedded engine was stopped");
    for (const call of [...this.#waiting.splice(0), ...this.#running.values()])
      if (call.open) call.onFailure(error, "failure");
    await current?.child[Symbol.asyncDispose]();
  }
}

function doom(running: RunningChild): void {
  running.doomed = true;
  running.child.kill();
}

function modelKey(model: EngineModel): string {
  return JSON.stringify(model);
}

function cancelled(signal: AbortSignal): GhostError {
  if (signal.reason instanceof GhostError) return signal.reason;
  return new OperationalError("cancelled", "the request was cancelled", { cause: signal.reason });
}

function rebuild(reply: Reply<"failed">): GhostError {
  const { code, message, details } = reply;
  if (code === "internal") return new BugError(code, message, { details });
  if (code === "no_model_available") return new OperationalError(code, message, { details });
  return new UserError(code, message, { details });
}

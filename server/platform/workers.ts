/**
 * Threads for work that would hold up the main loop. Workers get bytes and hand back bytes; they have no permits and no environment.
 * 1. Jobs wait in a bounded queue; beyond it they are refused with `overloaded` (I9).
 * 2. A worker that crashes fails the job it had and no other; the next job gets a new worker (I10).
 * 3. Aborting rejects at once; a job that goes on all the same takes its worker with it (I11).
 * 4. Workers start with the first job and stop when there was none for a while; an idle one does not keep the process alive.
 *
 * A pool takes no permit: a thread without permits touches nothing outside the process.
 */
import { parentPort, Worker } from "node:worker_threads";
import type { CodeOf, ErrorDetails } from "../../protocol/errors.ts";
import type { Clock } from "../base/clock.ts";
import { BugError, GhostError, OperationalError, UserError } from "../base/errors.ts";

export interface WorkerPool extends AsyncDisposable {
  /** Threads that exist now. */
  readonly size: number;
  /** Jobs that wait for a thread. */
  readonly queued: number;
  /**
   * Has a worker do a job. The job's buffer is moved there where it can be: do not use `job` afterwards.
   * @throws what the worker's handler threw, `overloaded` when the queue is full or the job ran out of time or memory, `cancelled`.
   */
  run(job: Uint8Array, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer>>;
}

interface WorkerPoolOptions {
  /** The `*.worker.ts` file; it calls {@link serveWorker}. */
  readonly entry: URL;
  readonly size: number;
  readonly clock: Clock;
  readonly limits?: Partial<WorkerLimits>;
}

export interface WorkerLimits {
  readonly maxQueuedJobs: number;
  readonly maxQueuedBytes: number;
  readonly maxJobMs: number;
  readonly abortGraceMs: number;
  readonly idleMs: number;
  readonly maxHeapMib: number;
}

const WORKER_LIMITS: WorkerLimits = {
  /** More waiting jobs than this take longer than anybody waits. */
  maxQueuedJobs: 256,
  /** Jobs wait with their bytes; four of the largest messages. */
  maxQueuedBytes: 64 * 1024 * 1024,
  /** Honest jobs take well under a second; a job that never ends would block its thread for good. */
  maxJobMs: 10_000,
  /** Most jobs end by themselves within this, and a new thread costs about 50 ms. */
  abortGraceMs: 200,
  /** A thread holds about 10 MB; keeping it for a minute spares the start in a busy hour. */
  idleMs: 60_000,
  /** A hostile document must exhaust its thread, not the machine. */
  maxHeapMib: 256,
};

/** What crosses from a worker. It runs this very code, so its codes are of the families that it names. */
type Reply =
  | { readonly kind: "done"; readonly bytes: Uint8Array<ArrayBuffer> }
  | ({ readonly kind: "failed"; readonly message: string; readonly details: ErrorDetails } & (
      | { readonly family: "user"; readonly code: CodeOf<"user"> }
      | { readonly family: "operational"; readonly code: CodeOf<"operational"> }
      | { readonly family: "bug"; readonly code: CodeOf<"bug"> }
    ));

interface Job {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly resolve: (bytes: Uint8Array<ArrayBuffer>) => void;
  readonly reject: (error: unknown) => void;
  isSettled: boolean;
}

interface Thread {
  readonly worker: Worker;
  job: Job | undefined;
  timer: Disposable | undefined;
}

export function createWorkerPool(options: WorkerPoolOptions): WorkerPool {
  return new ThreadPool(options);
}

class ThreadPool implements WorkerPool {
  readonly #options: WorkerPoolOptions;
  readonly #limits: WorkerLimits;
  readonly #threads = new Set<Thread>();
  readonly #queue: Job[] = [];
  #queuedBytes = 0;
  #isClosed = false;

  constructor(options: WorkerPoolOptions) {
    this.#options = options;
    this.#limits = { ...WORKER_LIMITS, ...options.limits };
  }

  get size(): number {
    return this.#threads.size;
  }

  get queued(): number {
    return this.#queue.length;
  }

  async run(input: Uint8Array, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    if (signal.aborted) throw cancelled();
    if (this.#isClosed) throw stopping();
    const bytes = ownBytes(input);
    const { maxQueuedJobs, maxQueuedBytes } = this.#limits;
    const isFull = this.#queue.length >= maxQueuedJobs || this.#queuedBytes + bytes.length > maxQueuedBytes;
    if (isFull && !this.#hasFreeThread()) {
      throw new OperationalError("overloaded", "too many large documents are waiting to be read");
    }
    const settled = Promise.withResolvers<Uint8Array<ArrayBuffer>>();
    const job: Job = { bytes, resolve: settled.resolve, reject: settled.reject, isSettled: false };
    const abort = () => this.#abort(job);
    signal.addEventListener("abort", abort, { once: true });
    this.#queue.push(job);
    this.#queuedBytes += bytes.length;
    this.#dispatch();
    try {
      return await settled.promise;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const job of this.#queue.splice(0)) settle(job, () => job.reject(stopping()));
    this.#queuedBytes = 0;
    await Promise.all(Array.from(this.#threads, (thread) => this.#drop(thread, stopping())));
  }

  #hasFreeThread(): boolean {
    if (this.#threads.size < this.#options.size) return true;
    return this.#threads.values().some((thread) => thread.job === undefined);
  }

  #dispatch(): void {
    while (this.#queue.length > 0 && this.#hasFreeThread()) {
      const job = this.#queue.shift();
      if (job === undefined) return;
      this.#queuedBytes -= job.bytes.length;
      const thread = this.#threads.values().find(({ job: current }) => current === undefined) ?? this.#start();
      this.#give(thread, job);
    }
  }

  #give(thread: Thread, job: Job): void {
    thread.job = job;
    this.#setTimer(thread, this.#limits.maxJobMs, () => {
      const error = new OperationalError(
        "overloaded",
        `reading a large document took over ${this.#limits.maxJobMs} ms`,
      );
      void this.#drop(thread, error);
    });
    thread.worker.ref();
    thread.worker.postMessage(job.bytes, [job.bytes.buffer]);
  }

  #start(): Thread {
    const { maxHeapMib } = this.#limits;
    const worker = new Worker(this.#options.entry, {
      argv: [],
      execArgv: [],
      env: {},
      resourceLimits: { maxOldGenerationSizeMb: maxHeapMib },
    });
    const thread: Thread = { worker, job: undefined, timer: undefined };
    this.#threads.add(thread);
    worker.on("message", (reply: Reply) => this.#receive(thread, reply));
    worker.on("error", (error) => void this.#drop(thread, crash(error)));
    worker.on("exit", (exitCode) => void this.#drop(thread, crash(new Error(`a worker ended with code ${exitCode}`))));
    return thread;
  }

  #receive(thread: Thread, reply: Reply): void {
    const { job } = thread;
    thread.job = undefined;
    thread.worker.unref();
    this.#setTimer(thread, this.#limits.idleMs, () => void this.#drop(thread, stopping()));
    if (job !== undefined) {
      settle(job, () => (reply.kind === "done" ? job.resolve(reply.bytes) : job.reject(revive(reply))));
    }
    this.#dispatch();
  }

  #abort(job: Job): void {
    settle(job, () => job.reject(cancelled()));
    const place = this.#queue.indexOf(job);
    if (place !== -1) {
      this.#queue.splice(place, 1);
      this.#queuedBytes -= job.bytes.length;
      return;
    }
    const thread = this.#threads.values().find((candidate) => candidate.job === job);
    if (thread !== undefined) {
      this.#setTimer(thread, this.#limits.abortGraceMs, () => void this.#drop(thread, cancelled()));
    }
  }

  /** Ends a thread, fails the job it had, and lets the waiting ones go on. */
  async #drop(thread: Thread, error: GhostError): Promise<void> {
    if (!this.#threads.delete(thread)) return;
    thread.timer?.[Symbol.dispose]();
    const { job } = thread;
    thread.job = undefined;
    if (job !== undefined) settle(job, () => job.reject(error));
    if (!this.#isClosed) this.#dispatch();
    await thread.worker.terminate();
  }

  #setTimer(thread: Thread, delayMs: number, callback: () => void): void {
    thread.timer?.[Symbol.dispose]();
    thread.timer = this.#options.clock.after(delayMs, callback);
  }
}

/**
 * The other side: answers every job of the pool that started this worker. Call it once, at the top level of a `*.worker.ts` file.
 * What the handler returns is moved, not copied; do not use it afterwards. What it throws fails the job alone.
 */
export function serveWorker(handler: (job: Uint8Array<ArrayBuffer>) => Uint8Array | Promise<Uint8Array>): void {
  const port = parentPort;
  if (port === null) throw new BugError("internal", "a worker's entry was run as a program of its own");
  const answer = async (job: Uint8Array<ArrayBuffer>) => {
    try {
      const bytes = ownBytes(await handler(job));
      port.postMessage({ kind: "done", bytes } satisfies Reply, [bytes.buffer]);
    } catch (thrown) {
      port.postMessage(toReply(thrown));
    }
  };
  port.on("message", (job: Uint8Array<ArrayBuffer>) => void answer(job));
}

function toReply(thrown: unknown): object {
  if (thrown instanceof GhostError) {
    const { family, code, message, details } = thrown;
    return { kind: "failed", family, code, message, details };
  }
  const message = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
  return { kind: "failed", family: "bug", code: "internal", message, details: {} };
}

function revive(reply: Extract<Reply, { readonly kind: "failed" }>): GhostError {
  const { message, details } = reply;
  switch (reply.family) {
    case "user":
      return new UserError(reply.code, message, { details });
    case "operational":
      return new OperationalError(reply.code, message, { details });
    case "bug":
      return new BugError("internal", message, { details });
  }
}

/** The bytes in a buffer of their own, which can be transferred; copied only where they are a part of a larger one. */
function ownBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer } = bytes;
  const isOwn = buffer instanceof ArrayBuffer && bytes.byteLength === buffer.byteLength;
  return isOwn ? new Uint8Array(buffer) : new Uint8Array(bytes);
}

function settle(job: Job, act: () => void): void {
  if (job.isSettled) return;
  job.isSettled = true;
  act();
}

function crash(error: Error): GhostError {
  const isMemory = "code" in error && error.code === "ERR_WORKER_OUT_OF_MEMORY";
  if (isMemory)
    return new OperationalError("overloaded", "a document needs more memory than is allowed", { cause: error });
  return new BugError("internal", "a worker crashed", { cause: error });
}

function cancelled(): OperationalError {
  return new OperationalError("cancelled", "the request was cancelled");
}

function stopping(): OperationalError {
  return new OperationalError("daemon_stopping", "the daemon is shutting down");
}

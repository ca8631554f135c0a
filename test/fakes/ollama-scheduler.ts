/**
 * The scheduler of the fake Ollama host, with the queues of the real one:
 * 1. A request for a model that is loaded with equal settings skips the pending channel and waits for one of the runner's slots, without bound.
 * 2. Everything else goes through the pending channel: one loop, one load at a time, head of line; full = 503.
 * 3. Nothing that runs is interrupted. A victim that is busy is waited for; meanwhile it takes new requests, and an explicit keep_alive in one
 *    of them cancels its early end.
 * 4. Cancelling works in every state; the request that triggers a load takes the load down with it.
 * Not modelled: several GPUs, running out of memory, automatic contexts that shrink.
 */
import { isDeepStrictEqual } from "node:util";
import { Refusal } from "./ollama-wire.ts";

export interface FakeModel {
  /** As `/api/tags` shows it; `:latest` is added where it is missing. */
  readonly name: string;
  readonly sizeBytes: number;
  readonly kvBytesPerToken: number;
  readonly family: string;
  readonly capabilities: readonly string[];
  readonly contextLength: number;
  readonly loadMs: number;
  /** `PARAMETER num_ctx` of its Modelfile. */
  readonly modelfileNumCtx: number | undefined;
}

interface SchedulerOptions {
  readonly vramBytes: number;
  /** OLLAMA_NUM_PARALLEL */
  readonly parallel: number;
  /** OLLAMA_MAX_QUEUE */
  readonly maxQueue: number;
  /** OLLAMA_MAX_LOADED_MODELS */
  readonly maxLoaded: number;
  /** OLLAMA_CONTEXT_LENGTH; absent: by total VRAM. */
  readonly defaultContext: number | undefined;
  /** OLLAMA_KEEP_ALIVE */
  readonly keepAliveMs: number;
  /** How long VRAM takes to return after an unload. */
  readonly unloadMs: number;
  readonly time: FakeTime;
  /** True once: the next load of this model dies. */
  readonly loadDies: (model: string) => boolean;
}

/** Time inside the fake: `speed` times faster than outside. All durations it reports are inside ones. */
export interface FakeTime {
  now(): number;
  sleep(delayMs: number, signal: AbortSignal): Promise<void>;
  after(delayMs: number, callback: () => void): Disposable;
}

export interface FakeEvent {
  readonly atMs: number;
  readonly kind:
    | (
        | "pending"
        | "refused"
        | "skipped"
        | "loading"
        | "loaded"
        | "loadAborted"
        | "loadFailed"
        | "evicting"
        | "waitingForVictim"
      )
    | (
        | "unloading"
        | "unloaded"
        | "slotWait"
        | "running"
        | "finished"
        | "cancelled"
        | "truncated"
        | "unknownOption"
        | "fault"
      );
  readonly model: string;
  /** For `cancelled`: the state it was in. */
  readonly detail?: string;
  readonly numCtx?: number;
}

interface RunnerSettings {
  readonly numCtx: number;
  readonly shift: boolean;
  readonly reloading: Readonly<Record<string, unknown>>;
}

export class Runner {
  readonly model: FakeModel;
  readonly settings: RunnerSettings;
  readonly parallel: number;
  /** What weights and KV cache need together. */
  readonly totalBytes: number;
  readonly vramBytes: number;
  keepAliveMs: number;
  expiresAtMs = 0;
  requests = 0;
  running = 0;
  readonly slotWaiters: (() => void)[] = [];
  timer: Disposable | undefined;
  unloaded: Promise<void> | undefined;
  /** What the KV cache still holds: equal beginnings are not evaluated again. */
  cachedPrompt = "";

  constructor(model: FakeModel, settings: RunnerSettings, parallel: number, keepAliveMs: number, freeBytes: number) {
    this.model = model;
    this.settings = settings;
    this.parallel = parallel;
    this.keepAliveMs = keepAliveMs;
    this.totalBytes = predictBytes(model, settings.numCtx, parallel);
    this.vramBytes = Math.min(this.totalBytes, Math.max(0, freeBytes));
  }
}

/** What a request holds once a runner is there: one place among its requests, then one of its slots. */
export interface Lease {
  readonly runner: Runner;
  /** Inside time spent until the runner was obtained: pending queue included. */
  readonly loadDurationMs: number;
  acquireSlot(signal: AbortSignal): Promise<void>;
  release(): void;
}

interface Pending {
  readonly model: FakeModel;
  readonly settings: RunnerSettings;
  readonly keepAliveMs: number | undefined;
  readonly signal: AbortSignal;
  readonly sinceMs: number;
  resolve(lease: Lease): void;
  reject(error: Error): void;
}

/** Families whose runner takes one request at a time, whatever OLLAMA_NUM_PARALLEL says. */
const SINGLE_SLOT = /^(?:mllama|qwen3vl(?:moe)?|qwen35(?:moe)?|qwen3next|lfm2(?:moe)?|nemotron_h.*)$/;
/** Beside another model, a new one must fit into this part of the free VRAM. */
const FIT_SHARE = 0.8;
const GIB = 1024 ** 3;

function predictBytes(model: FakeModel, numCtx: number, parallel: number): number {
  return model.sizeBytes + model.kvBytesPerToken * numCtx * parallel;
}

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #record: (event: Omit<FakeEvent, "atMs">) => void;
  readonly #loaded = new Map<string, Runner>();
  readonly #unloading = new Set<Runner>();
  readonly #pending: Pending[] = [];
  readonly #closing = new AbortController();
  #looping = false;

  constructor(options: SchedulerOptions, record: (event: Omit<FakeEvent, "atMs">) => void) {
    this.#options = options;
    this.#record = record;
  }

  /** What `/api/ps` shows: healthy runners, the longest-lived first. */
  runners(): readonly Runner[] {
    return [...this.#loaded.values()].sort((a, b) => b.expiresAtMs - a.expiresAtMs);
  }

  get pendingCount(): number {
    return this.#pending.length;
  }

  close(): void {
    this.#closing.abort(new Refusal(500, "the host was stopped"));
    for (const runner of this.#loaded.values()) runner.timer?.[Symbol.dispose]();
    this.#loaded.clear();
  }

  settingsFor(
    model: FakeModel,
    asked: {
      readonly numCtx: number | undefined;
      readonly shift: boolean | undefined;
      readonly reloading: Readonly<Record<string, unknown>>;
    },
  ): RunnerSettings {
    const minimum = model.capabilities.includes("vision") ? 2048 : 4;
    const wanted =
      asked.numCtx ?? model.modelfileNumCtx ?? this.#options.defaultContext ?? contextByVram(this.#options.vramBytes);
    return {
      numCtx: Math.min(Math.max(wanted, minimum), model.contextLength),
      shift: asked.shift ?? model.family !== "deepseek2",
      reloading: asked.reloading,
    };
  }

  /** Rejects with a Refusal, or with the signal's reason. */
  obtain(
    model: FakeModel,
    settings: RunnerSettings,
    keepAliveMs: number | undefined,
    signal: AbortSignal,
  ): Promise<Lease> {
    const sinceMs = this.#options.time.now();
    const runner = this.#loaded.get(model.name);
    if (runner !== undefined && isDeepStrictEqual(runner.settings, settings)) {
      return Promise.resolve(this.#lease(runner, keepAliveMs, sinceMs));
    }
    if (this.#pending.length >= this.#options.maxQueue) {
      this.#record({ kind: "refused", model: model.name });
      return Promise.reject(new Refusal(503, "server busy, please try again.  maximum pending requests exceeded"));
    }
    return new Promise((resolve, reject) => {
      this.#pending.push({ model, settings, keepAliveMs, signal, sinceMs, resolve, reject });
      this.#record({ kind: "pending", model: model.name, numCtx: settings.numCtx });
      void this.#loop();
    });
  }

  /** `keep_alive: 0` on an empty request: the model goes after its last request. */
  expireSoon(model: FakeModel): void {
    const runner = this.#loaded.get(model.name);
    if (runner === undefined) return;
    runner.keepAliveMs = 0;
    if (runner.requests === 0) this.#unload(runner);
  }

  async #loop(): Promise<void> {
    if (this.#looping) return;
    this.#looping = true;
    for (let pending = this.#pending.shift(); pending !== undefined; pending = this.#pending.shift()) {
      try {
        const lease = await this.#serve(pending);
        if (lease === undefined) this.#record({ kind: "skipped", model: pending.model.name });
        else pending.resolve(lease);
      } catch (error) {
        pending.reject(error instanceof Error ? error : new Error(String(error)));
      }
    }
    this.#looping = false;
  }

  /** The turn of one pending request; undefined when it was cancelled before its load began. */
  async #serve(pending: Pending): Promise<Lease | undefined> {
    const { model, settings } = pending;
    while (!this.#closing.signal.aborted && !pending.signal.aborted) {
      const runner = this.#loaded.get(model.name);
      if (runner !== undefined && isDeepStrictEqual(runner.settings, settings)) {
        return this.#lease(runner, pending.keepAliveMs, pending.sinceMs);
      }
      const victim = runner ?? (this.#hasRoomFor(model, settings) ? undefined : this.#chooseVictim());
      if (victim === undefined) return this.#load(pending);
      await this.#evict(victim);
    }
    this.#closing.signal.throwIfAborted();
    return undefined;
  }

  #hasRoomFor(model: FakeModel, settings: RunnerSettings): boolean {
    if (this.#loaded.size >= this.#options.maxLoaded) return false;
    // With nothing loaded there is no refusal: what does not fit is left to the CPU.
    if (this.#loaded.size === 0) return true;
    return predictBytes(model, settings.numCtx, this.#parallelOf(model)) <= this.#freeBytes() * FIT_SHARE;
  }

  #chooseVictim(): Runner | undefined {
    const byKeepAlive = [...this.#loaded.values()].sort((a, b) =>
      a.keepAliveMs < b.keepAliveMs ? -1 : Number(a.keepAliveMs > b.keepAliveMs),
    );
    return byKeepAlive.find((runner) => runner.requests === 0) ?? byKeepAlive[0];
  }

  /** Resolves when the victim is gone and its VRAM is back. Not cancelled with the request that wants it: its place is held until here. */
  async #evict(victim: Runner): Promise<void> {
    victim.keepAliveMs = 0;
    this.#record({ kind: "evicting", model: victim.model.name });
    const gone = new Promise<void>((resolve) => {
      this.#onUnloaded.push({ runner: victim, resolve });
    });
    if (victim.requests === 0) this.#unload(victim);
    else this.#record({ kind: "waitingForVictim", model: victim.model.name });
    await Promise.race([gone, aborted(this.#closing.signal)]);
  }
  readonly #onUnloaded: { readonly runner: Runner; readonly resolve: () => void }[] = [];

  async #load(pending: Pending): Promise<Lease> {
    const { model, settings } = pending;
    const { time } = this.#options;
    this.#record({ kind: "loading", model: model.name, numCtx: settings.numCtx });
    const freeBytes = this.#freeBytes();
    try {
      await time.sleep(model.loadMs, AbortSignal.any([pending.signal, this.#closing.signal]));
    } catch (error) {
      // The weights read so far are thrown away.
      this.#record({ kind: "loadAborted", model: model.name });
      throw error;
    }
    if (this.#options.loadDies(model.name)) {
      this.#record({ kind: "loadFailed", model: model.name });
      throw new Refusal(500, "llama runner process has terminated: exit status 2");
    }
    const runner = new Runner(model, settings, this.#parallelOf(model), this.#options.keepAliveMs, freeBytes);
    this.#loaded.set(model.name, runner);
    this.#record({ kind: "loaded", model: model.name, numCtx: settings.numCtx });
    return this.#lease(runner, pending.keepAliveMs, pending.sinceMs);
  }

  #lease(runner: Runner, keepAliveMs: number | undefined, sinceMs: number): Lease {
    runner.requests += 1;
    runner.timer?.[Symbol.dispose]();
    if (keepAliveMs !== undefined) runner.keepAliveMs = keepAliveMs;
    runner.expiresAtMs = this.#options.time.now() + runner.keepAliveMs;
    let hasSlot = false;
    let released = false;
    return {
      runner,
      loadDurationMs: this.#options.time.now() - sinceMs,
      acquireSlot: async (signal) => {
        if (runner.running >= runner.parallel) await this.#waitForSlot(runner, signal);
        else runner.running += 1;
        hasSlot = true;
        this.#record({ kind: "running", model: runner.model.name });
      },
      release: () => {
        if (released) return;
        released = true;
        if (hasSlot) freeSlot(runner);
        this.#finishRequest(runner);
      },
    };
  }

  #waitForSlot(runner: Runner, signal: AbortSignal): Promise<void> {
    this.#record({ kind: "slotWait", model: runner.model.name });
    return new Promise((resolve, reject) => {
      const leave = () => {
        runner.slotWaiters.splice(runner.slotWaiters.indexOf(enter), 1);
        reject(signal.reason);
      };
      const enter = () => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      runner.slotWaiters.push(enter);
      signal.addEventListener("abort", leave, { once: true });
    });
  }

  #finishRequest(runner: Runner): void {
    runner.requests -= 1;
    if (runner.requests > 0) return;
    if (runner.keepAliveMs <= 0) {
      this.#unload(runner);
      return;
    }
    runner.expiresAtMs = this.#options.time.now() + runner.keepAliveMs;
    if (Number.isFinite(runner.keepAliveMs)) {
      runner.timer = this.#options.time.after(runner.keepAliveMs, () => this.#unload(runner));
    }
  }

  #unload(runner: Runner): void {
    if (this.#loaded.get(runner.model.name) !== runner) return;
    runner.timer?.[Symbol.dispose]();
    this.#loaded.delete(runner.model.name);
    this.#unloading.add(runner);
    this.#record({ kind: "unloading", model: runner.model.name });
    this.#options.time.after(this.#options.unloadMs, () => {
      this.#unloading.delete(runner);
      this.#record({ kind: "unloaded", model: runner.model.name });
      for (const waiter of this.#onUnloaded.filter((entry) => entry.runner === runner)) {
        this.#onUnloaded.splice(this.#onUnloaded.indexOf(waiter), 1);
        waiter.resolve();
      }
    });
  }

  #freeBytes(): number {
    const used = [...this.#loaded.values(), ...this.#unloading].reduce((sum, runner) => sum + runner.vramBytes, 0);
    return this.#options.vramBytes - used;
  }

  #parallelOf(model: FakeModel): number {
    return !model.capabilities.includes("completion") || SINGLE_SLOT.test(model.family) ? 1 : this.#options.parallel;
  }
}

function freeSlot(runner: Runner): void {
  const next = runner.slotWaiters.shift();
  // The slot goes over to the next in line without being free in between.
  if (next === undefined) runner.running -= 1;
  else next();
}

function contextByVram(vramBytes: number): number {
  if (vramBytes >= 47 * GIB) return 262_144;
  return vramBytes >= 23 * GIB ? 32_768 : 4096;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

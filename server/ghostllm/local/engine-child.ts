/**
 * The embedded engine: the entry of the child process in which llama.cpp runs. It may crash without harm to the daemon.
 * Here and in `child/` alone is node-llama-cpp imported; the only I/O besides the weights is the IPC channel.
 * It ends when the channel closes, however its parent went.
 */
import { getLlama, type Llama, LlamaLogLevel } from "node-llama-cpp";
import { GhostError } from "../../base/errors.ts";
import { generate } from "./child/generate.ts";
import { Weights } from "./child/weights.ts";
import {
  type EngineModel,
  type EngineReply,
  type EngineRequest,
  engineReplySchema,
  engineRequestSchema,
  type EngineSettings,
  engineSettingsSchema,
} from "./engine-protocol.ts";

function send(reply: EngineReply): void {
  // The callback swallows a channel that closed meanwhile: "disconnect" ends us.
  process.send?.(reply, undefined, undefined, () => {});
}

/** Ctrl-C in a terminal reaches the whole foreground group; the daemon decides when we end. */
for (const signal of ["SIGINT", "SIGHUP"] as const) process.on(signal, () => {});
process.on("disconnect", () => process.exit(0));

interface Loaded {
  readonly weights: Promise<Weights>;
  /** Requests that use them now. */
  users: number;
  /** When they were used last, by the count of uses. */
  lastUse: number;
}

class EngineServer {
  readonly #llama: Llama;
  readonly #settings: EngineSettings;
  readonly #jobs = new Map<number, AbortController>();
  readonly #loaded = new Map<string, Loaded>();
  #uses = 0;

  constructor(llama: Llama, settings: EngineSettings) {
    this.#llama = llama;
    this.#settings = settings;
  }

  async handle(request: EngineRequest): Promise<void> {
    if (request.kind === "cancel") {
      this.#jobs.get(request.id)?.abort();
      return;
    }
    const { id } = request;
    const controller = new AbortController();
    this.#jobs.set(id, controller);
    try {
      await this.#run(request, controller.signal);
    } catch (error) {
      send(controller.signal.aborted ? { kind: "cancelled", id } : failure(id, error));
    } finally {
      this.#jobs.delete(id);
    }
  }

  async #run(request: Exclude<EngineRequest, { kind: "cancel" }>, signal: AbortSignal): Promise<void> {
    const { id } = request;
    const spec = request.kind === "generate" ? request.job.model : request.model;
    const loaded = this.#use(spec);
    loaded.users += 1;
    try {
      const weights = await abortable(loaded.weights, signal);
      if (request.kind === "embed") {
        send({ kind: "embedded", id, ...(await weights.embed(request.texts, signal)) });
        return;
      }
      await abortable(weights.prepare(), signal);
      if (request.kind === "load") {
        send({ kind: "loaded", id });
        return;
      }
      const generated = await generate(weights, request.job, signal, (text, trimmedCharacters) => {
        send({ kind: "text", id, text, trimmedCharacters });
      });
      send({ kind: "finished", id, ...generated });
    } finally {
      loaded.users -= 1;
    }
  }

  /** The weights, loading them when they are not there; a load that failed is tried again by the next request. */
  #use(spec: EngineModel): Loaded {
    const key = JSON.stringify(spec);
    this.#uses += 1;
    let loaded = this.#loaded.get(key);
    if (loaded === undefined) {
      const weights = this.#makeRoom().then(() => Weights.load(this.#llama, spec, this.#settings.threads));
      loaded = { weights, users: 0, lastUse: this.#uses };
      this.#loaded.set(key, loaded);
      weights.catch(() => this.#loaded.delete(key));
    }
    loaded.lastUse = this.#uses;
    return loaded;
  }

  /** Gives up the weights that nobody uses and that were used least lately. The parent never runs more models at once than fit. */
  async #makeRoom(): Promise<void> {
    const idle = [...this.#loaded]
      .filter(([, { users }]) => users === 0)
      .toSorted(([, a], [, b]) => a.lastUse - b.lastUse);
    const excess = this.#loaded.size + 1 - this.#settings.maxLoadedModels;
    const given = idle.slice(0, Math.max(0, excess));
    // All at once, so that nobody picks up weights that are about to go.
    for (const [key] of given) this.#loaded.delete(key);
    for (const [, { weights }] of given) await (await weights).dispose();
  }
}

/** Stops waiting on abort; what is under way goes on, for others may wait for it too. */
function abortable<Result>(work: Promise<Result>, signal: AbortSignal): Promise<Result> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

function failure(id: number, error: unknown): EngineReply {
  if (error instanceof GhostError) {
    const reply = engineReplySchema.safeParse({
      kind: "failed",
      id,
      code: error.code,
      message: error.message,
      details: error.details,
    });
    if (reply.success) return reply.data;
  }
  const message = error instanceof Error ? error.message : String(error);
  return { kind: "failed", id, code: "internal", message: `the engine failed: ${message}`, details: {} };
}

async function start(settings: EngineSettings): Promise<EngineServer | undefined> {
  try {
    // Never "auto": it would compile llama.cpp, which needs the network.
    const llama = await getLlama({
      gpu: false,
      build: "never",
      logLevel: LlamaLogLevel.error,
      maxThreads: settings.threads,
      logger: (_level, message) => void process.stderr.write(`${message.trim()}\n`),
    });
    send({ kind: "ready" });
    return new EngineServer(llama, settings);
  } catch (error) {
    send({ kind: "unusable", message: error instanceof Error ? error.message : String(error) });
    return undefined;
  }
}

let server: Promise<EngineServer | undefined> | undefined;
process.on("message", (message) => {
  if (server === undefined) {
    server = start(engineSettingsSchema.parse(message));
    return;
  }
  const request = engineRequestSchema.parse(message);
  void server.then((engine) => engine?.handle(request));
});

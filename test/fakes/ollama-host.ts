/**
 * A fake Ollama host: a real HTTP server on a real socket that queues, loads, evicts, streams and fails as Ollama does.
 * Scheduling is in ollama-scheduler.ts, what it says in ollama-answers.ts, what it accepts in ollama-wire.ts, how it streams in ollama-stream.ts.
 * What it does not model it refuses with 501 and writes into `violations`; every test asserts that list to be empty.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { countPromptTokens, embed } from "./ollama-answers.ts";
import { Faults, type Fault, type FaultRoute } from "./ollama-faults.ts";
import {
  describeTag,
  details,
  fullName,
  nanoseconds,
  type OllamaModelOptions,
  type ServedModel,
  serve,
} from "./ollama-models.ts";
import { type FakeEvent, type FakeTime, type Lease, type Runner, Scheduler } from "./ollama-scheduler.ts";
import { LineWriter, streamAnswer } from "./ollama-stream.ts";
import { type Json, parseObject, parseRequest, Refusal, text, type WireRequest } from "./ollama-wire.ts";

export type { OllamaModelOptions } from "./ollama-models.ts";

export interface OllamaHostOptions {
  readonly models: readonly OllamaModelOptions[];
  readonly vramBytes?: number;
  readonly parallel?: number;
  readonly maxQueue?: number;
  readonly maxLoaded?: number;
  readonly defaultContext?: number;
  readonly keepAliveMs?: number;
  readonly unloadMs?: number;
  /** How many times faster time passes inside. */
  readonly speed?: number;
  readonly port?: number;
}

export interface OllamaHost extends AsyncDisposable {
  readonly url: string;
  /** What happened, in order. */
  readonly events: readonly FakeEvent[];
  /** What a test asked for that the fake does not model. Must stay empty. */
  readonly violations: readonly string[];
  /** Every decoded request to a model, in order. */
  readonly requests: readonly WireRequest[];
  /** Every request line, in order: `GET /api/tags`. */
  readonly calls: readonly string[];
  /** How many connections were made to it. */
  readonly connections: number;
  inject(fault: Fault): void;
  /** Lets everything go on that a `hang` fault holds. */
  resume(): void;
  /** Resolves as soon as `holds` is true of the host, which is asked after every event. Rejects after 10 real seconds. */
  until(what: string, holds: () => boolean): Promise<void>;
  count(kind: FakeEvent["kind"], model?: string): number;
  snapshot(): {
    readonly pending: number;
    readonly runners: readonly {
      readonly model: string;
      readonly numCtx: number;
      readonly running: number;
      readonly waiting: number;
    }[];
  };
  stop(): Promise<void>;
}

const GIB = 1024 ** 3;
const WAIT_LIMIT_MS = 10_000;

export async function startOllamaHost(options: OllamaHostOptions): Promise<OllamaHost> {
  const host = new Host(options);
  await host.listen(options.port ?? 0);
  return host;
}

class Host implements OllamaHost {
  url = "";
  readonly events: FakeEvent[] = [];
  readonly violations: string[] = [];
  readonly requests: WireRequest[] = [];
  readonly calls: string[] = [];
  connections = 0;
  readonly #faults = new Faults();
  readonly #models: readonly ServedModel[];
  readonly #time: FakeTime;
  readonly #scheduler: Scheduler;
  readonly #server = createServer((request, response) => void this.#handle(request, response));
  readonly #watchers = new Set<() => void>();
  #resumed = Promise.withResolvers<void>();

  constructor(options: OllamaHostOptions) {
    this.#models = options.models.map(serve);
    this.#time = fakeTime(options.speed ?? 1);
    this.#scheduler = new Scheduler(
      {
        vramBytes: options.vramBytes ?? 24 * GIB,
        parallel: options.parallel ?? 1,
        maxQueue: options.maxQueue ?? 512,
        maxLoaded: options.maxLoaded ?? 3,
        defaultContext: options.defaultContext,
        keepAliveMs: options.keepAliveMs ?? 300_000,
        unloadMs: options.unloadMs ?? 500,
        time: this.#time,
        loadDies: (model) => this.#faults.take(["dieWhileLoading"], { model }) !== undefined,
      },
      (event) => this.#record(event),
    );
  }

  async listen(port: number): Promise<void> {
    this.#server.on("connection", () => {
      this.connections += 1;
    });
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(port, "127.0.0.1", resolve);
    });
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the fake Ollama host has no port");
    this.url = `http://127.0.0.1:${address.port}`;
  }

  inject(fault: Fault): void {
    this.#faults.inject(fault);
  }

  resume(): void {
    this.#resumed.resolve();
    this.#resumed = Promise.withResolvers<void>();
  }

  async until(what: string, holds: () => boolean): Promise<void> {
    if (holds()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => {
      if (holds()) resolve();
    };
    this.#watchers.add(look);
    const giveUp = new AbortController();
    try {
      await Promise.race([
        promise,
        sleep(WAIT_LIMIT_MS, undefined, { signal: giveUp.signal }).then(() => this.#complain(what)),
      ]);
    } finally {
      giveUp.abort();
      this.#watchers.delete(look);
    }
  }

  count(kind: FakeEvent["kind"], model?: string): number {
    const name = model === undefined ? undefined : fullName(model);
    return this.events.filter((event) => event.kind === kind && (name === undefined || event.model === name)).length;
  }

  snapshot(): ReturnType<OllamaHost["snapshot"]> {
    const runners = this.#scheduler.runners().map((runner) => ({
      model: runner.model.name,
      numCtx: runner.settings.numCtx,
      running: runner.running,
      waiting: runner.slotWaiters.length,
    }));
    return { pending: this.#scheduler.pendingCount, runners };
  }

  async stop(): Promise<void> {
    this.#scheduler.close();
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #complain(what: string): never {
    const log = this.events.map((event) => `${event.kind} ${event.model} ${event.detail ?? ""}`).join("\n");
    throw new Error(`waited in vain for: ${what}\nevents:\n${log}\nstate: ${JSON.stringify(this.snapshot())}`);
  }

  #record(event: Omit<FakeEvent, "atMs">): void {
    this.events.push({ atMs: this.#time.now(), ...event });
    // After the current turn: the host's state is then what the event says.
    setImmediate(() => {
      for (const look of this.#watchers) look();
    });
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = new URL(request.url ?? "/", this.url).pathname;
    this.calls.push(`${request.method ?? ""} ${path}`);
    const gone = new AbortController();
    response.on("close", () => {
      if (!response.writableFinished) gone.abort(new Error("the client went away"));
    });
    try {
      if (!isAllowedHost(request.headers.host ?? "")) {
        response.writeHead(403).end();
        return;
      }
      await this.#route(`${request.method ?? ""} ${path}`, await readAll(request), response, gone.signal);
    } catch (error) {
      if (gone.signal.aborted) return;
      const refusal = error instanceof Refusal ? error : new Refusal(500, String(error), true);
      if (refusal.unmodelled) this.violations.push(refusal.message);
      if (response.headersSent) response.destroy();
      else reply(response, refusal.status, { error: refusal.message });
    }
  }

  async #route(call: string, body: Buffer, response: ServerResponse, gone: AbortSignal): Promise<void> {
    const route = MODEL_ROUTES[call];
    if (route !== undefined) return this.#answer(route, body, response, gone);
    if (await this.#misbehaves(call.slice(call.lastIndexOf("/") + 1), undefined, response, gone)) return;
    switch (call) {
      case "GET /":
      case "HEAD /":
        response
          .writeHead(200, { "content-type": "text/plain; charset=utf-8" })
          .end(call === "GET /" ? "Ollama is running" : undefined);
        return;
      case "GET /api/version":
        return reply(response, 200, { version: "0.34.0" });
      case "GET /api/tags":
        return reply(response, 200, { models: this.#models.map(describeTag) });
      case "GET /api/ps":
        return reply(response, 200, {
          models: this.#scheduler.runners().map((runner) => this.#describeRunner(runner)),
        });
      case "POST /api/show":
        return reply(response, 200, this.#show(parseObject(body)));
      default:
        throw new Refusal(501, `the fake Ollama host does not model "${call}"`, true);
    }
  }

  async #misbehaves(
    route: string,
    model: string | undefined,
    response: ServerResponse,
    gone: AbortSignal,
  ): Promise<boolean> {
    if (!isFaultRoute(route)) return false;
    const fault = this.#faults.take(["html", "status", "silent"], { route, ...(model === undefined ? {} : { model }) });
    if (fault === undefined) return false;
    this.#record({ kind: "fault", model: model ?? "", detail: fault.kind });
    if (fault.kind === "silent") await abortOf(gone);
    else if (fault.kind === "status")
      response.writeHead(fault.status, { "content-type": "application/json", ...fault.headers }).end(fault.body);
    else response.writeHead(fault.status, { "content-type": "text/html" }).end(BAD_GATEWAY);
    return true;
  }

  async #answer(route: WireRequest["route"], body: Buffer, response: ServerResponse, gone: AbortSignal): Promise<void> {
    const request = parseRequest(route, body);
    this.requests.push(request);
    for (const name of request.options.unknown) {
      this.#record({ kind: "unknownOption", model: request.model, detail: name });
      this.violations.push(`the option "${name}" is unknown to Ollama`);
    }
    const model = this.#find(request.model);
    if (await this.#misbehaves(route, model?.name, response, gone)) return;
    if (model === undefined) {
      const missing =
        route === "embed"
          ? `model "${request.model}" not found, try pulling it first`
          : `model '${request.model}' not found`;
      throw new Refusal(404, missing);
    }
    checkCapabilities(request, model);
    if (isEmpty(request) && request.keepAliveMs === 0 && route !== "embed") {
      this.#scheduler.expireSoon(model);
      return reply(response, 200, this.#emptyAnswer(request, "unload"));
    }
    const startedMs = this.#time.now();
    let state = "pending";
    gone.addEventListener("abort", () => this.#record({ kind: "cancelled", model: model.name, detail: state }), {
      once: true,
    });
    const settings = this.#scheduler.settingsFor(model, {
      numCtx: request.options.numCtx,
      shift: request.shift,
      reloading: request.options.reloading,
    });
    const lease = await this.#scheduler.obtain(model, settings, request.keepAliveMs, gone);
    try {
      gone.throwIfAborted();
      if (isEmpty(request)) {
        return reply(
          response,
          200,
          route === "embed" ? { model: request.model, embeddings: [] } : this.#emptyAnswer(request, "load"),
        );
      }
      state = "slot";
      await lease.acquireSlot(gone);
      state = "running";
      await this.#run(request, model, lease, startedMs, response, gone);
    } finally {
      lease.release();
      this.#record({ kind: "finished", model: model.name });
    }
  }

  async #run(
    request: WireRequest,
    model: ServedModel,
    lease: Lease,
    startedMs: number,
    response: ServerResponse,
    gone: AbortSignal,
  ): Promise<void> {
    if (request.route === "embed") return this.#embed(request, model, lease, startedMs, response, gone);
    const where = { route: request.route, model: model.name };
    const chop = this.#faults.take(["chop"], where);
    const fault = this.#faults.take(["errorLine", "end", "halfLine", "reset", "hang", "invalidUtf8", "garbage"], where);
    await streamAnswer({
      request,
      model,
      lease,
      startedMs,
      time: this.#time,
      writer: new LineWriter(response, request.stream, chop?.pieceBytes, gone),
      fault,
      resumed: this.#resumed.promise,
      record: (event) => this.#record(event),
      signal: gone,
    });
  }

  async #embed(
    request: WireRequest,
    model: ServedModel,
    lease: Lease,
    startedMs: number,
    response: ServerResponse,
    gone: AbortSignal,
  ): Promise<void> {
    const { numCtx } = lease.runner.settings;
    const tokens = request.input.map(countPromptTokens);
    if (!request.truncate && tokens.some((count) => count > numCtx)) {
      throw new Refusal(400, "the input length exceeds the context length");
    }
    const promptTokens = tokens.reduce((sum, count) => sum + Math.min(count, numCtx), 0);
    await this.#time.sleep((promptTokens / model.promptTokensPerSecond) * 1000, gone);
    reply(response, 200, {
      model: request.model,
      embeddings: request.input.map((entry) => embed(entry, request.dimensions ?? model.embeddingLength)),
      total_duration: nanoseconds(this.#time.now() - startedMs),
      load_duration: nanoseconds(lease.loadDurationMs),
      prompt_eval_count: promptTokens,
    });
  }

  #emptyAnswer(request: WireRequest, reason: "load" | "unload"): Json {
    const answer = request.route === "chat" ? { message: { role: "assistant", content: "" } } : { response: "" };
    return { model: request.model, created_at: new Date().toISOString(), ...answer, done: true, done_reason: reason };
  }

  #show(body: Json): Json {
    const name = text(body, "model") || text(body, "name");
    const model = this.#find(name);
    if (model === undefined) throw new Refusal(404, `model '${name}' not found`);
    return {
      details: details(model),
      capabilities: model.capabilities,
      template: "{{ .Prompt }}",
      parameters: model.modelfileNumCtx === undefined ? "" : `num_ctx ${model.modelfileNumCtx}`,
      modified_at: "2026-01-01T00:00:00Z",
      model_info: {
        "general.architecture": model.family,
        [`${model.family}.context_length`]: model.contextLength,
        [`${model.family}.block_count`]: 16,
        [`${model.family}.embedding_length`]: model.embeddingLength,
      },
    };
  }

  #describeRunner(runner: Runner): Json {
    const model = this.#find(runner.model.name);
    const expiresInMs = Math.min(runner.expiresAtMs - this.#time.now(), FOREVER_MS);
    return {
      name: runner.model.name,
      model: runner.model.name,
      size: runner.totalBytes,
      digest: model?.digest,
      details: model === undefined ? {} : details(model),
      expires_at: new Date(Date.now() + expiresInMs).toISOString(),
      size_vram: runner.vramBytes,
      context_length: runner.settings.numCtx,
    };
  }

  #find(name: string): ServedModel | undefined {
    return this.#models.find((model) => model.name === fullName(name));
  }
}

const MODEL_ROUTES: Readonly<Record<string, WireRequest["route"]>> = {
  "POST /api/chat": "chat",
  "POST /api/generate": "generate",
  "POST /api/embed": "embed",
};
const BAD_GATEWAY =
  "<html>\n<head><title>502 Bad Gateway</title></head>\n<body>\n<center><h1>502 Bad Gateway</h1></center>\n</body></html>\n";
/** Go's longest duration: what `keep_alive: -1` becomes. */
const FOREVER_MS = (2 ** 63 - 1) / 1e6;

function fakeTime(speed: number): FakeTime {
  return {
    now: () => performance.now() * speed,
    sleep: async (delayMs, signal) => {
      signal.throwIfAborted();
      if (delayMs > 0) await sleep(delayMs / speed, undefined, { signal });
    },
    after: (delayMs, callback) => {
      const timer = setTimeout(callback, Math.min(delayMs / speed, 2 ** 31 - 1));
      timer.unref();
      return { [Symbol.dispose]: () => clearTimeout(timer) };
    },
  };
}

function checkCapabilities(request: WireRequest, model: ServedModel): void {
  const can = (capability: string) => model.capabilities.includes(capability);
  const { route } = request;
  if (route === "embed") {
    if (!can("embedding")) throw new Refusal(500, "this model does not support embeddings");
    return;
  }
  if (!can("completion")) throw new Refusal(400, `"${request.model}" does not support ${route}`);
  if (request.raw && request.system !== "")
    throw new Refusal(400, "raw mode does not support template, system, or context");
  if (request.suffix !== "" && !can("insert"))
    throw new Refusal(400, `registry.ollama.ai/library/${model.name} does not support insert`);
  if (request.raw && request.suffix !== "")
    throw new Refusal(501, "the fake Ollama host does not model a suffix with raw", true);
  if (request.tools.length > 0 && !can("tools"))
    throw new Refusal(400, `registry.ollama.ai/library/${model.name} does not support tools`);
  if (request.think === true && !can("thinking"))
    throw new Refusal(400, `"${request.model}" does not support thinking`);
  const images = request.images + request.messages.reduce((sum, message) => sum + message.images, 0);
  if (images > 0 && !can("vision"))
    throw new Refusal(501, "the fake Ollama host does not model images for a model without vision", true);
}

function isEmpty(request: WireRequest): boolean {
  if (request.route === "chat") return request.messages.length === 0;
  return request.route === "generate" ? request.prompt === "" && request.images === 0 : request.input.length === 0;
}

/** The check of a host that is bound to loopback only. */
function isAllowedHost(header: string): boolean {
  const name = new URL(`http://${header || "localhost"}`).hostname.replace(/^\[|\]$/g, "");
  if (name === "localhost" || name === "::1" || name === hostname().toLowerCase()) return true;
  if (/\.(?:localhost|local|internal)$/.test(name)) return true;
  return /^(?:127|10)\.|^192\.168\.|^172\.(?:1[6-9]|2\d|3[01])\./.test(name);
}

function isFaultRoute(route: string): route is FaultRoute {
  return ["chat", "generate", "embed", "tags", "ps", "show", "version"].includes(route);
}

function reply(response: ServerResponse, status: number, body: Json): void {
  response.writeHead(status, { "content-type": "application/json; charset=utf-8" }).end(JSON.stringify(body));
}

async function readAll(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) if (Buffer.isBuffer(chunk)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function abortOf(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

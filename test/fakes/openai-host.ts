/**
 * A fake OpenAI-compatible host on a real socket: chat completions and completions (JSON and SSE), embeddings, models.
 * 1. What it does not model it answers with 501 and keeps in `violations`; a test asserts that list to be empty.
 * 2. It records what came in, and for each request how much had been sent when the peer left.
 * In tests: `startOpenAiHost(options)`. As a process of its own, for benchmarks: `node test/fakes/openai-host.ts --port 0 --models t16,wait`
 * runs the pre-rendered host of `openai-host-fast.ts` and prints `{"ready":true,"baseUrl":"…"}`.
 */
import { EventEmitter, once } from "node:events";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { parseArgs } from "node:util";
import type { ZodType } from "zod";
import { portOf, startFastHost } from "./openai-host-fast.ts";
import { composeAnswer, embeddingsAnswer, errorBody } from "./openai-host-frames.ts";
import { playStream, playWhole, sendStatus } from "./openai-host-player.ts";
import {
  type ChatBody,
  chatBody,
  type CompletionBody,
  completionBody,
  embeddingsBody,
  type Script,
} from "./openai-host-script.ts";

export interface ReceivedRequest {
  readonly number: number;
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly bodyText: string;
  /** The parsed body; undefined where it is absent or not JSON. */
  readonly body: unknown;
  readonly state: "open" | "finished" | "closed-by-peer" | "faulted";
  /** Content deltas (or pieces of tool arguments) that were written. */
  readonly tokensSent: number;
  /** Bytes that the kernel took for this request's connection; shows whether backpressure reached the host. */
  readonly connectionBytesWritten: number;
  /** `performance.now()` when the answer or the connection ended. */
  readonly closedAtMs: number | undefined;
}

export interface OpenAiHostOptions {
  readonly port?: number;
  /** What `/v1/models` lists; other names are answered with 404 as OpenAI does. */
  readonly models?: readonly string[];
  /** When given, requests without it get 401. */
  readonly apiKey?: string;
  /** How to answer; see {@link OpenAiHost.play}. */
  readonly script?: ScriptSource;
  /** Body fields that are accepted beside OpenAI's own, for tests of what is passed through. */
  readonly extraFields?: readonly string[];
}

/** One script for all requests, or a choice by request. */
export type ScriptSource = Script | ((request: ReceivedRequest) => Script);

export interface OpenAiHost extends AsyncDisposable {
  /** `http://127.0.0.1:PORT/v1` */
  readonly baseUrl: string;
  readonly port: number;
  readonly models: readonly string[];
  readonly requests: readonly ReceivedRequest[];
  /** What it was asked and does not model. */
  readonly violations: readonly string[];
  readonly openRequests: number;
  /** From now on every request is answered by `source`. */
  play(source: ScriptSource): void;
  /** The next POST alone is answered by `script`; several calls queue up. */
  playOnce(script: Script): void;
  /** Stops listening: new connections are refused until `accept`. Open ones are reset. */
  refuse(): Promise<void>;
  accept(): Promise<void>;
  /** Resolves as soon as `condition` holds; it is looked at on each change. Rejects, naming `what`, after `timeoutMs` (10 s). */
  until(condition: () => boolean, what: string, timeoutMs?: number): Promise<void>;
}

interface MutableRequest extends ReceivedRequest {
  state: ReceivedRequest["state"];
  tokensSent: number;
  connectionBytesWritten: number;
  closedAtMs: number | undefined;
}

/** Longer than any client's keep-alive, so that a pooled connection is never closed under a request. */
const KEEP_ALIVE_TIMEOUT_MS = 120_000;
const DEFAULT_WAIT_MS = 10_000;

export async function startOpenAiHost(options: OpenAiHostOptions = {}): Promise<OpenAiHost> {
  const host = new ScriptedHost(options);
  await host.listen(options.port ?? 0);
  return host;
}

class ScriptedHost implements OpenAiHost {
  readonly models: readonly string[];
  readonly requests: MutableRequest[] = [];
  readonly violations: string[] = [];
  readonly #options: OpenAiHostOptions;
  readonly #queue: Script[] = [];
  readonly #changes = new EventEmitter().setMaxListeners(0);
  #source: ScriptSource;
  #server: Server | undefined;
  #port = 0;

  constructor(options: OpenAiHostOptions) {
    this.#options = options;
    this.#source = options.script ?? {};
    this.models = options.models ?? ["test-model"];
  }

  get port(): number {
    return this.#port;
  }

  get baseUrl(): string {
    return `http://127.0.0.1:${this.#port}/v1`;
  }

  get openRequests(): number {
    return this.requests.filter((request) => request.state === "open").length;
  }

  play(source: ScriptSource): void {
    this.#source = source;
  }

  playOnce(script: Script): void {
    this.#queue.push(script);
  }

  async listen(port: number): Promise<void> {
    const server = createServer({ keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS }, (request, response) => {
      this.#serve(request, response).catch((error: unknown) => {
        if (response.destroyed) return; // The peer left in the middle of it: already in the record.
        this.#refuseUnmodelled(response, `the script failed: ${String(error)}`);
      });
    });
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    this.#server = server;
    this.#port = portOf(server);
  }

  async refuse(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const closed = once(server, "close");
    server.close();
    server.closeAllConnections();
    await closed;
  }

  async accept(): Promise<void> {
    if (this.#server === undefined) await this.listen(this.#port);
  }

  async until(condition: () => boolean, what: string, timeoutMs = DEFAULT_WAIT_MS): Promise<void> {
    const deadline = AbortSignal.timeout(timeoutMs);
    while (!condition()) {
      await once(this.#changes, "change", { signal: deadline }).catch((cause: unknown) => {
        const seen = this.requests
          .map((request) => `${request.path} ${request.state} ${request.tokensSent}`)
          .join("; ");
        throw new Error(`waited ${timeoutMs} ms for: ${what}. Requests: ${seen || "none"}`, { cause });
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.refuse();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    const record = await this.#record(request, response, gone);
    if (record === undefined) return;
    const { apiKey } = this.#options;
    if (apiKey !== undefined && request.headers.authorization !== `Bearer ${apiKey}`) {
      const message = "Incorrect API key provided.";
      sendStatus(response, {
        code: 401,
        body: "json",
        message,
        type: "invalid_request_error",
        errorCode: "invalid_api_key",
      });
      return;
    }
    const script = this.#scriptFor(record);
    const route = `${record.method} ${record.path}`;
    if (route === "GET /v1/models") this.#listModels(response, script);
    else if (route === "POST /v1/embeddings") this.#embed(response, record, script);
    else if (route === "POST /v1/chat/completions")
      await this.#answer(response, record, { script, schema: chatBody, gone });
    else if (route === "POST /v1/completions")
      await this.#answer(response, record, { script, schema: completionBody, gone });
    else this.#refuseUnmodelled(response, `no route ${route}`);
  }

  /** Reads the body and starts the request's record; undefined where the peer left before its body was complete. */
  async #record(
    request: IncomingMessage,
    response: ServerResponse,
    gone: AbortController,
  ): Promise<MutableRequest | undefined> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) if (Buffer.isBuffer(chunk)) chunks.push(chunk);
    } catch {
      return undefined; // The peer left in its own request: there is nothing to answer.
    }
    const bodyText = Buffer.concat(chunks).toString();
    const record: MutableRequest = {
      number: this.requests.length + 1,
      method: request.method ?? "",
      path: request.url ?? "",
      headers: request.headers,
      bodyText,
      body: parseJson(bodyText),
      state: "open",
      tokensSent: 0,
      connectionBytesWritten: 0,
      closedAtMs: undefined,
    };
    this.requests.push(record);
    const { socket } = request;
    response.once("close", () => {
      record.closedAtMs = performance.now();
      record.connectionBytesWritten = socket.bytesWritten - socket.writableLength;
      if (record.state === "open") record.state = response.writableFinished ? "finished" : "closed-by-peer";
      gone.abort();
      this.#changes.emit("change");
    });
    this.#changes.emit("change");
    return record;
  }

  #scriptFor(record: MutableRequest): Script {
    const queued = record.method === "POST" ? this.#queue.shift() : undefined;
    return queued ?? (typeof this.#source === "function" ? this.#source(record) : this.#source);
  }

  #listModels(response: ServerResponse, script: Script): void {
    if (script.status !== undefined && typeof this.#source === "function") {
      sendStatus(response, script.status);
      return;
    }
    const data = this.models.map((id) => ({ id, object: "model", created: 1_700_000_000, owned_by: "fake" }));
    sendJson(response, JSON.stringify({ object: "list", data }));
  }

  #embed(response: ServerResponse, record: MutableRequest, script: Script): void {
    const body = this.#parse(response, record, embeddingsBody);
    if (body === undefined) return;
    if (script.status !== undefined) sendStatus(response, script.status);
    else sendJson(response, embeddingsAnswer(body));
  }

  async #answer(
    response: ServerResponse,
    record: MutableRequest,
    how: {
      readonly script: Script;
      readonly schema: ZodType<ChatBody | CompletionBody>;
      readonly gone: AbortController;
    },
  ): Promise<void> {
    const body = this.#parse(response, record, how.schema);
    if (body === undefined) return;
    if (body.stream_options !== undefined && body.stream_options !== null && body.stream !== true) {
      const message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
      sendStatus(response, { code: 400, body: "json", message, type: "invalid_request_error" });
      return;
    }
    const progress = {
      sentToken: () => {
        record.tokensSent += 1;
        record.connectionBytesWritten = bytesTaken(response);
        this.#changes.emit("change");
      },
      faulted: () => {
        record.state = "faulted";
      },
    };
    const answer = composeAnswer(how.script, body, record.number);
    const play = { response, script: how.script, answer, progress, signal: how.gone.signal };
    await (body.stream === true ? playStream(play) : playWhole(play)).catch((error: unknown) => {
      // Waits end with the peer's leaving: the record says so already.
      if (!how.gone.signal.aborted) throw error;
    });
  }

  #parse<Body extends { readonly model: string }>(
    response: ServerResponse,
    record: MutableRequest,
    schema: ZodType<Body>,
  ): Body | undefined {
    const parsed = schema.safeParse(withoutFields(record.body, this.#options.extraFields ?? []));
    if (!parsed.success) {
      this.#refuseUnmodelled(response, `${record.path}: ${parsed.error.message} in ${record.bodyText.slice(0, 500)}`);
      return undefined;
    }
    if (!this.models.includes(parsed.data.model)) {
      const message = `The model \`${parsed.data.model}\` does not exist or you do not have access to it.`;
      sendStatus(response, {
        code: 404,
        body: "json",
        message,
        type: "invalid_request_error",
        errorCode: "model_not_found",
      });
      return undefined;
    }
    return parsed.data;
  }

  #refuseUnmodelled(response: ServerResponse, what: string): void {
    this.violations.push(what);
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const body = errorBody({ message: `the fake host does not model this: ${what}`, type: "not_modelled", code: null });
    sendJson(response, body, 501);
  }
}

function bytesTaken(response: ServerResponse): number {
  return response.socket === null ? 0 : response.socket.bytesWritten - response.socket.writableLength;
}

function sendJson(response: ServerResponse, body: string, status = 200): void {
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
  response.end(body);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // Not JSON: the route's schema says so.
  }
}

function withoutFields(body: unknown, names: readonly string[]): unknown {
  if (typeof body !== "object" || body === null) return body;
  return Object.fromEntries(Object.entries(body).filter(([name]) => !names.includes(name)));
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { port: { type: "string", default: "0" }, models: { type: "string" } } });
  const host = await startFastHost({ port: Number(values.port), models: (values.models ?? "t16").split(",") });
  process.stdout.write(`${JSON.stringify({ ready: true, baseUrl: host.baseUrl })}\n`);
}

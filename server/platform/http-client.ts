/**
 * HTTP towards model servers and download hosts, on undici's `dispatch`.
 * 1. The body is pulled: when the reader is slow, the upstream socket is paused (`MAX_UNREAD_BYTES`).
 * 2. Aborting or leaving the body's loop early destroys the upstream request at once, in every state.
 * 3. Every failure comes out as one of ours: `upstream_unreachable`, `upstream_timeout`, `upstream_failed`, `cancelled`.
 */
import type { Agent as UndiciAgent, Dispatcher } from "undici";
import Agent from "undici/lib/dispatcher/agent.js";
import { GhostError, OperationalError, systemCode } from "../base/errors.ts";
import { type AnyPermit, THIS_MACHINE } from "./permit.ts";

export interface HttpRequest {
  readonly method: "GET" | "POST" | "HEAD" | "DELETE";
  /** Scheme, host and port: `http://127.0.0.1:11434`. */
  readonly origin: string;
  /** Path with query, beginning with a slash. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string;
  /** The longest wait for the response's headers, in ms; 0 waits for ever. */
  readonly headersTimeoutMs: number;
  /** The longest silence inside the body, in ms (granularity 1 s); 0 waits for ever. */
  readonly idleTimeoutMs: number;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  /** To be read once. A broken connection rejects; it never looks like an end. */
  readonly body: AsyncIterable<Buffer>;
}

export interface HttpClient extends AsyncDisposable {
  /**
   * Sends one request and resolves with the response's head.
   * @throws OperationalError as listed above; the permit's effect is `net.http METHOD origin+path` unless the permit covers a model's provider.
   */
  send(permit: AnyPermit, request: HttpRequest, signal: AbortSignal): Promise<HttpResponse>;
}

/** How much of a body waits in memory for its reader before the socket is paused: two socket buffers' worth. */
const MAX_UNREAD_BYTES = 128 * 1024;
/** Idle connections are kept for warm requests, and given up before most servers close them (nginx 75 s, Node 5 s by hint). */
const KEEP_ALIVE_MS = 30_000;
const CONNECT_TIMEOUT_MS = 10_000;

export function createHttpClient(): HttpClient {
  const agent = new Agent({ pipelining: 1, keepAliveTimeout: KEEP_ALIVE_MS, connect: { timeout: CONNECT_TIMEOUT_MS } });
  const close = async () => agent.destroy();
  return {
    send: (permit, request, signal) => send(agent, permit, request, signal),

    [Symbol.asyncDispose]: close,
  };
}

async function send(
  agent: UndiciAgent,
  permit: AnyPermit,
  request: HttpRequest,
  signal: AbortSignal,
): Promise<HttpResponse> {
  if (signal.aborted) throw cancelled(signal);
  const spent = permit.spend({
    capability: "net.http",
    resource: { kind: "url", method: request.method, origin: request.origin, path: request.path },
    host: THIS_MACHINE,
  });
  try {
    const response = await exchange(agent, request, signal).catch((error: unknown) => {
      if (!mayRepeat(request, error)) throw error;
      return exchange(agent, request, signal);
    });
    spent.settle({ kind: "done" });
    return response;
  } catch (error) {
    spent.settle({ kind: "failed", detail: error instanceof Error ? error.message : String(error) });
    throw error;
  }
}

/**
 * A kept connection may turn out to be closed by its server at the very moment it is used again. What changes nothing is then sent once more,
 * on another one; a POST never, since nobody knows whether it was received.
 */
function mayRepeat(request: HttpRequest, error: unknown): boolean {
  return request.method !== "POST" && request.method !== "DELETE" && BROKEN.has(systemCode(error) ?? "");
}

function exchange(agent: UndiciAgent, request: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
  if (signal.aborted) return Promise.reject(cancelled(signal));
  return new Promise((resolve, reject) => {
    agent.dispatch(
      {
        origin: request.origin,
        path: request.path,
        method: request.method,
        headers: { ...request.headers },
        body: request.body ?? null,
        headersTimeout: request.headersTimeoutMs,
        bodyTimeout: request.idleTimeoutMs,
      },
      new Exchange(request, signal, { started: resolve, failed: reject }),
    );
  });
}

/** One request and its response, between undici's callbacks and the reader's pulls. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #request: HttpRequest;
  readonly #signal: AbortSignal;
  readonly #report: { started(response: HttpResponse): void; failed(error: Error): void };
  readonly #onAbort = () => this.#fail(cancelled(this.#signal));
  #controller: Dispatcher.DispatchController | undefined;
  #head = false;
  #end: { readonly error?: Error } | undefined;
  #chunks: Buffer[] = [];
  #unreadBytes = 0;
  #wake: (() => void) | undefined;

  constructor(
    request: HttpRequest,
    signal: AbortSignal,
    report: { started(response: HttpResponse): void; failed(error: Error): void },
  ) {
    this.#request = request;
    this.#signal = signal;
    this.#report = report;
    signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    // Aborted while the connection was being made: the request must not go out.
    if (this.#end !== undefined) controller.abort(this.#end.error ?? new Error("no longer wanted"));
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: HttpResponse["headers"]): void {
    if (status < 200) return;
    this.#head = true;
    this.#report.started({ status, headers, body: { [Symbol.asyncIterator]: () => this.#read() } });
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#unreadBytes += chunk.length;
    if (this.#unreadBytes > MAX_UNREAD_BYTES) controller.pause();
    this.#wake?.();
  }

  onResponseEnd(): void {
    this.#finish({});
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#fail(translate(error, this.#request));
  }

  #fail(error: Error): void {
    if (this.#end !== undefined) return;
    const beforeHead = !this.#head;
    // A cut still delivers what came before it; whoever cancels wants nothing more.
    if (error instanceof GhostError && error.code === "cancelled") this.#chunks = [];
    this.#finish({ error });
    this.#controller?.abort(error);
    if (beforeHead) this.#report.failed(error);
  }

  #finish(end: { readonly error?: Error }): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#wake?.();
  }

  #read(): AsyncIterator<Buffer> {
    return {
      next: async () => {
        while (this.#chunks.length === 0) {
          if (this.#end?.error !== undefined) throw this.#end.error;
          if (this.#end !== undefined) return { value: undefined, done: true };
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
          this.#wake = undefined;
        }
        const chunk = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
        this.#chunks = [];
        this.#unreadBytes = 0;
        if (this.#controller?.paused === true) this.#controller.resume();
        return { value: chunk ?? Buffer.alloc(0), done: false };
      },
      return: async () => {
        this.#fail(new OperationalError("cancelled", "the reader left"));
        this.#chunks = [];
        return { value: undefined, done: true };
      },
    };
  }
}

/** Reads a whole body of at most `maxBytes`. @throws OperationalError `upstream_failed` when it is longer. */
export async function readBody(response: HttpResponse, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of response.body) {
    chunks.push(chunk);
    sizeBytes += chunk.length;
    if (sizeBytes > maxBytes) {
      throw new OperationalError("upstream_failed", `the server's answer is longer than ${maxBytes} bytes`);
    }
  }
  return chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks);
}

/** The first value of a header, or undefined. */
export function header(response: HttpResponse, name: string): string | undefined {
  const value = response.headers[name];
  return typeof value === "string" ? value : value?.[0];
}

function cancelled(signal: AbortSignal): GhostError {
  if (signal.reason instanceof GhostError) return signal.reason;
  return new OperationalError("cancelled", "the request was cancelled", { cause: signal.reason });
}

/** The connection could not be made at all. */
const UNREACHABLE: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "EHOSTDOWN",
  "ENETUNREACH",
  "ENETDOWN",
  "ETIMEDOUT",
  "UND_ERR_CONNECT_TIMEOUT",
]);
/** A connection that was there and ended before the answer. */
const BROKEN: ReadonlySet<string> = new Set(["UND_ERR_SOCKET", "ECONNRESET", "EPIPE"]);
const CLOSED: ReadonlySet<string> = new Set(["UND_ERR_DESTROYED", "UND_ERR_CLOSED"]);

function translate(error: Error, request: HttpRequest): GhostError {
  if (error instanceof GhostError) return error;
  const code = systemCode(error) ?? "";
  const where = request.origin;
  if (UNREACHABLE.has(code)) {
    return new OperationalError("upstream_unreachable", `cannot reach ${where} (${code})`, { cause: error });
  }
  if (CLOSED.has(code)) {
    return new OperationalError("cancelled", `the request to ${where} ended with the HTTP client`, { cause: error });
  }
  if (code === "UND_ERR_HEADERS_TIMEOUT") {
    const message = `${where} did not answer within ${request.headersTimeoutMs} ms`;
    return new OperationalError("upstream_timeout", message, { cause: error });
  }
  if (code === "UND_ERR_BODY_TIMEOUT") {
    const message = `${where} was silent for ${request.idleTimeoutMs} ms`;
    return new OperationalError("upstream_timeout", message, { cause: error });
  }
  const message = `${where} broke the connection (${code || error.message})`;
  return new OperationalError("upstream_failed", message, { cause: error });
}

/**
 * What every fake host of a model provider is made of: a server on a real socket that records requests and answers them by script. A host adds its
 * routes, its rules and its bytes.
 * 1. What it does not model it answers with 501 and keeps in `violations`; a test asserts that list to be empty.
 * 2. It records what came in, and for each request how much had been sent when the peer left.
 */
import { EventEmitter, once } from "node:events";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { portOf } from "./openai-host-fast.ts";

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

/** One script for all requests, or a choice by request. */
export type SourceOf<Script extends object, Request> = Script | ((request: Request) => Script);

export interface FakeHost<Script extends object, Request extends ReceivedRequest = ReceivedRequest>
  extends AsyncDisposable {
  /** What a client is given: `http://127.0.0.1:PORT` and the path that this provider's clients have in theirs. */
  readonly baseUrl: string;
  readonly port: number;
  readonly models: readonly string[];
  readonly requests: readonly ReceivedRequest[];
  /** What it was asked and does not model. */
  readonly violations: readonly string[];
  /** What it refused by a rule of the provider, in the words that it answered with: wrong keys, unknown models, broken rules. Scripted errors are not here. */
  readonly refusals: readonly string[];
  readonly openRequests: number;
  /** From now on every request is answered by `source`. */
  play(source: SourceOf<Script, Request>): void;
  /** The next POST alone is answered by `source`; several calls queue up. */
  playOnce(source: SourceOf<Script, Request>): void;
  /** Stops listening: new connections are refused until `accept`. Open ones are reset. */
  refuse(): Promise<void>;
  accept(): Promise<void>;
  /** Resolves as soon as `condition` holds; it is looked at on each change. Rejects, naming `what`, after `timeoutMs` (10 s). */
  until(condition: () => boolean, what: string, timeoutMs?: number): Promise<void>;
}

/** What the player reports while it plays. */
export interface Progress {
  sentToken(): void;
  /** The script itself ends the answer badly: what follows is not the peer's doing. */
  faulted(): void;
}

/** A request and where its answer goes. */
export interface Asked {
  readonly request: ReceivedRequest;
  readonly response: ServerResponse;
}

/** One request that waits for its answer. */
export interface Exchange<Script extends object> extends Asked {
  readonly script: Script;
  /** Whether a function chose the script by this very request: then it holds for routes other than the answering ones, too. */
  readonly isChosen: boolean;
  readonly progress: Progress;
  /** Aborted when the peer has gone. */
  readonly signal: AbortSignal;
}

export interface HostPlan<Script extends object, Request extends ReceivedRequest> {
  readonly basePath: string;
  readonly models: readonly string[];
  readonly script: SourceOf<Script, Request>;
  /** What a script's function is shown of a request. */
  readonly describe: (request: ReceivedRequest) => Request;
  /** Whether the request has the right key; where not, it is answered here, and no script is used up. */
  readonly admit: (asked: Asked, host: ScriptedHost<Script, Request>) => boolean;
  /** Answers one request; what it throws is a violation. */
  readonly serve: (exchange: Exchange<Script>, host: ScriptedHost<Script, Request>) => Promise<void>;
  /** The body of a 501, in the provider's error shape. */
  readonly unmodelledBody: (what: string) => string;
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

export class ScriptedHost<Script extends object, Request extends ReceivedRequest = ReceivedRequest>
  implements FakeHost<Script, Request>
{
  readonly models: readonly string[];
  readonly requests: MutableRequest[] = [];
  readonly violations: string[] = [];
  readonly refusals: string[] = [];
  readonly #plan: HostPlan<Script, Request>;
  readonly #queue: SourceOf<Script, Request>[] = [];
  readonly #changes = new EventEmitter().setMaxListeners(0);
  #source: SourceOf<Script, Request>;
  #server: Server | undefined;
  #port = 0;

  constructor(plan: HostPlan<Script, Request>) {
    this.#plan = plan;
    this.#source = plan.script;
    this.models = plan.models;
  }

  get port(): number {
    return this.#port;
  }

  get baseUrl(): string {
    return `http://127.0.0.1:${this.#port}${this.#plan.basePath}`;
  }

  get openRequests(): number {
    return this.requests.filter((request) => request.state === "open").length;
  }

  play(source: SourceOf<Script, Request>): void {
    this.#source = source;
  }

  playOnce(source: SourceOf<Script, Request>): void {
    this.#queue.push(source);
  }

  async listen(port: number): Promise<this> {
    const server = createServer({ keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS }, (request, response) => {
      this.#serve(request, response).catch((error: unknown) => {
        if (response.destroyed) return; // The peer left in the middle of it: already in the record.
        this.refuseUnmodelled(response, `the script failed: ${String(error)}`);
      });
    });
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    this.#server = server;
    this.#port = portOf(server);
    return this;
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

  /** See (1). */
  refuseUnmodelled(response: ServerResponse, what: string): void {
    this.violations.push(what);
    if (response.headersSent) {
      response.destroy();
      return;
    }
    sendJson(response, this.#plan.unmodelledBody(`the fake host does not model this: ${what}`), 501);
  }

  async #serve(message: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    const record = await this.#record(message, response, gone);
    if (record === undefined || !this.#plan.admit({ request: record, response }, this)) return;
    const { signal } = gone;
    const progress = this.#progressOf(record, response);
    await this.#plan
      .serve({ request: record, response, ...this.#chooseScript(record), progress, signal }, this)
      .catch((error: unknown) => {
        // Waits end with the peer's leaving: the record says so already.
        if (!signal.aborted) throw error;
      });
  }

  #chooseScript(record: MutableRequest): { readonly script: Script; readonly isChosen: boolean } {
    const queued = record.method === "POST" ? this.#queue.shift() : undefined;
    const source = queued ?? this.#source;
    if (typeof source !== "function") return { script: source, isChosen: false };
    return { script: source(this.#plan.describe(record)), isChosen: true };
  }

  #progressOf(record: MutableRequest, response: ServerResponse): Progress {
    return {
      sentToken: () => {
        record.tokensSent += 1;
        record.connectionBytesWritten = bytesTaken(response);
        this.#changes.emit("change");
      },
      faulted: () => {
        record.state = "faulted";
      },
    };
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
}

export function sendJson(
  response: ServerResponse,
  body: string,
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    ...headers,
  });
  response.end(body);
}

function bytesTaken(response: ServerResponse): number {
  return response.socket === null ? 0 : response.socket.bytesWritten - response.socket.writableLength;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // Not JSON: the route's schema says so.
  }
}

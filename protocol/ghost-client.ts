/**
 * GhostApi over JSON-RPC 2.0.
 *
 * Works on any `MessageConnection` of vscode-jsonrpc: `node/socket-transport.ts` makes one over the daemon's Unix socket.
 * 1. Whatever the peer sends is checked against the method's schema before it is handed out.
 * 2. No call outlives its signal or the connection: both end it at once, also while the peer is silent.
 * 3. A stream holds at most the credit it granted (stream.ts); a peer that sends more breaks the protocol.
 */
import {
  CancellationTokenSource,
  type Disposable as RpcDisposable,
  type MessageConnection,
  ProgressType,
} from "vscode-jsonrpc";
import type { z } from "zod";
import { type ErrorCode, GhostApiError } from "./errors.ts";
import { type GhostApi, mapMethods, PROTOCOL_VERSION } from "./ghost-api.ts";
import { INITIALIZE, type InitializeParams, type InitializeResult, initializeResult } from "./initialize.ts";
import { fromRpcError } from "./rpc-error.ts";
import { INITIAL_STREAM_CREDIT, STREAM_CREDIT, type StreamProgressValue, streamProgressValue } from "./stream.ts";

export interface GhostClient extends Disposable {
  readonly api: GhostApi;
  readonly server: InitializeResult;
  /** Resolves when the connection is gone, whoever ended it. */
  readonly closed: Promise<void>;
}

export interface ConnectOptions {
  /** The face credential. */
  readonly key: string;
  readonly clientName: string;
  readonly clientVersion?: string;
  /** The protocol versions to offer; for tests and for old clients. */
  readonly protocol?: { readonly min: number; readonly max: number };
  /** How long the daemon has to answer `initialize`; 10 s. A socket may be held by something that never answers. */
  readonly initializeTimeoutMs?: number;
}

const INITIALIZE_TIMEOUT_MS = 10_000;

/**
 * Initializes a connection that listens already and returns the API on it.
 * @throws GhostApiError `unauthenticated` for a wrong key, `protocol_unsupported` where no version is shared, `daemon_unreachable` when the
 * peer closes or stays silent, `protocol_violation` when it speaks something else.
 */
export async function connectGhost(connection: MessageConnection, options: ConnectOptions): Promise<GhostClient> {
  const channel = new Channel(connection);
  try {
    const timeoutMs = options.initializeTimeoutMs ?? INITIALIZE_TIMEOUT_MS;
    const silent = AbortSignal.timeout(timeoutMs);
    const server = checked(
      initializeResult,
      await channel.send(INITIALIZE, initializeRequest(options), silent).catch((error: unknown) => {
        throw silent.aborted
          ? apiError("daemon_unreachable", `the daemon did not answer within ${timeoutMs} ms`)
          : error;
      }),
    );
    channel.notify("initialized", {});
    return {
      api: mapMethods((name, definition) =>
        definition.kind === "request"
          ? async (input: object, signal: AbortSignal) =>
              checked(definition.result, await channel.send(name, input, signal))
          : (input: object, signal: AbortSignal) => openStream(channel, { name, input, signal, item: definition.item }),
      ),
      server,
      closed: channel.closed,
      [Symbol.dispose]: () => channel.close(apiError("daemon_unreachable", "the connection to the daemon was closed")),
    };
  } catch (error) {
    channel.close(fromRpcError(error));
    throw error;
  }
}

function initializeRequest(options: ConnectOptions): InitializeParams {
  const { clientName, clientVersion, key } = options;
  return {
    processId: null,
    clientInfo: { name: clientName },
    capabilities: {},
    initializationOptions: {
      ghost: {
        protocol: options.protocol ?? { min: PROTOCOL_VERSION, max: PROTOCOL_VERSION },
        key,
        client: { name: clientName, ...(clientVersion === undefined ? {} : { version: clientVersion }) },
      },
    },
  };
}

/** A connection whose end and whose errors reach every call that is open on it (2). */
class Channel {
  readonly closed: Promise<void>;
  readonly #connection: MessageConnection;
  readonly #ended = Promise.withResolvers<void>();
  readonly #open = new Set<(error: GhostApiError) => void>();
  #closedBy: GhostApiError | undefined;
  #lastToken = 0;

  constructor(connection: MessageConnection) {
    this.#connection = connection;
    this.closed = this.#ended.promise;
    connection.onClose(() => this.close(apiError("daemon_unreachable", "the connection to the daemon was closed")));
    connection.onError(([error]) => this.close(fromTransportError(error)));
  }

  nextToken(): string {
    this.#lastToken += 1;
    return `s${this.#lastToken}`;
  }

  async send(method: string, params: object, signal: AbortSignal): Promise<unknown> {
    if (signal.aborted) throw cancelled();
    if (this.#closedBy !== undefined) throw this.#closedBy;
    const cancellation = new CancellationTokenSource();
    const ended = Promise.withResolvers<never>();
    const abort = () => {
      ended.reject(cancelled());
      if (this.#closedBy === undefined) cancellation.cancel();
    };
    signal.addEventListener("abort", abort, { once: true });
    this.#open.add(ended.reject);
    try {
      const reply = this.#connection.sendRequest(method, params, cancellation.token);
      reply.catch(() => {}); // The race below may be over when the reply comes; then it is of no interest.
      return await Promise.race([reply, ended.promise]);
    } catch (error) {
      throw this.#closedBy ?? fromRpcError(error);
    } finally {
      this.#open.delete(ended.reject);
      signal.removeEventListener("abort", abort);
    }
  }

  /** Sends and forgets: a connection that is gone tells those who wait for something. */
  notify(method: string, params: object): void {
    if (this.#closedBy !== undefined) return;
    this.#connection.sendNotification(method, params).catch(() => {});
  }

  onProgress(token: string, handler: (value: unknown) => void): RpcDisposable {
    return this.#connection.onProgress(new ProgressType<StreamProgressValue>(), token, handler);
  }

  close(error: GhostApiError): void {
    if (this.#closedBy !== undefined) return;
    this.#closedBy = error;
    for (const fail of this.#open) fail(error);
    this.#open.clear();
    this.#connection.end();
    this.#connection.dispose();
    this.#ended.resolve();
  }
}

interface StreamCall {
  readonly name: string;
  readonly input: object;
  readonly signal: AbortSignal;
  readonly item: z.ZodType;
}

/** Lazy and for one reader: nothing is sent before the first item is asked for. */
function openStream(channel: Channel, call: StreamCall): AsyncIterableIterator<unknown> {
  const stream = new ClientStream(channel, call);
  const iterator: AsyncIterableIterator<unknown> = {
    next: () => stream.next(),
    async return() {
      stream.leave();
      return { value: undefined, done: true };
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}

class ClientStream {
  readonly #channel: Channel;
  readonly #call: StreamCall;
  readonly #token: string;
  readonly #stop = new AbortController();
  #state: "new" | "open" | "ended" = "new";
  #error: GhostApiError | undefined;
  #received: unknown[] = [];
  #consumed = 0;
  /** Items that the peer may still send. */
  #credit = INITIAL_STREAM_CREDIT;
  #wake = () => {};

  constructor(channel: Channel, call: StreamCall) {
    this.#channel = channel;
    this.#call = call;
    this.#token = channel.nextToken();
  }

  async next(): Promise<IteratorResult<unknown>> {
    if (this.#state === "new") this.#open();
    for (;;) {
      if (this.#received.length > 0) return { value: this.#take(), done: false };
      if (this.#state === "ended") break;
      await new Promise<void>((resolve) => {
        const wakeOthers = this.#wake;
        this.#wake = () => {
          wakeOthers();
          resolve();
        };
      });
    }
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) throw error;
    return { value: undefined, done: true };
  }

  /** The reader is not interested any more: what is on its way is dropped, and the peer is told to stop. */
  leave(): void {
    this.#received = [];
    this.#end(undefined);
    this.#stop.abort();
  }

  #open(): void {
    this.#state = "open";
    const { name, input, signal } = this.#call;
    const progress = this.#channel.onProgress(this.#token, (value) => this.#receive(value));
    const params = { ...input, partialResultToken: this.#token, credit: INITIAL_STREAM_CREDIT };
    this.#channel
      .send(name, params, AbortSignal.any([signal, this.#stop.signal]))
      .then(
        () => this.#end(undefined),
        (error: unknown) => this.#fail(fromRpcError(error)),
      )
      .finally(() => progress.dispose());
  }

  #take(): unknown {
    const item = this.#received.shift();
    this.#consumed += 1;
    if (this.#consumed >= INITIAL_STREAM_CREDIT / 2) {
      this.#channel.notify(STREAM_CREDIT, { token: this.#token, credit: this.#consumed });
      this.#credit += this.#consumed;
      this.#consumed = 0;
    }
    return item;
  }

  #receive(value: unknown): void {
    if (this.#state !== "open") return;
    try {
      for (const item of checked(streamProgressValue, value).items) {
        this.#received.push(checked(this.#call.item, item));
        this.#credit -= 1;
      }
      if (this.#credit < 0) throw apiError("protocol_violation", "the daemon sent more items than it was granted");
      this.#notifyReader();
    } catch (error) {
      this.#fail(fromRpcError(error));
      this.#stop.abort();
    }
  }

  /** An abort shows at once; any other error comes after the items that arrived before it. */
  #fail(error: GhostApiError): void {
    if (this.#state === "ended") return;
    if (this.#call.signal.aborted) this.#received = [];
    this.#end(error);
  }

  #end(error: GhostApiError | undefined): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#error = error;
    this.#notifyReader();
  }

  #notifyReader(): void {
    const wake = this.#wake;
    this.#wake = () => {};
    wake();
  }
}

/** (1) */
function checked<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue === undefined || issue.path.length === 0 ? "its value" : issue.path.map(String).join(".");
  throw apiError(
    "protocol_violation",
    `the daemon sent something unexpected: ${where}: ${issue?.message ?? "invalid"}`,
  );
}

/** A transport may say what was wrong with the peer's bytes; otherwise it is just broken. */
function fromTransportError(error: unknown): GhostApiError {
  if (error instanceof GhostApiError) return error;
  return new GhostApiError(
    { code: "daemon_unreachable", message: "the connection to the daemon broke", details: {} },
    { cause: error },
  );
}

function cancelled(): GhostApiError {
  return apiError("cancelled", "the request was cancelled");
}

function apiError(code: ErrorCode, message: string): GhostApiError {
  return new GhostApiError({ code, message, details: {} });
}

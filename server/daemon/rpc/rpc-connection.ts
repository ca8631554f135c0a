/**
 * One client of the socket, from its first byte to its last.
 * 1. Before `initialize` has succeeded nothing else is answered, and little memory is given (limits.ts).
 * 2. A request is counted from its arrival to its reply; over the bound it is refused at once, and it never waits in a queue of ours.
 * 3. Every reply comes from the method's own outcome: a failing one fails its request only (I10).
 * 4. When the client is gone, everything that it started is aborted in the same turn (I11).
 * 5. A violation is answered where that is possible, then the connection is closed: after it nothing that follows can be trusted.
 */
import type { Socket } from "node:net";
import {
  type CancellationToken,
  createMessageConnection,
  type Message,
  type MessageConnection,
  ResponseError,
} from "vscode-jsonrpc/node";
import type { WireError } from "../../../protocol/errors.ts";
import { methodsByName } from "../../../protocol/ghost-api.ts";
import { INITIALIZE } from "../../../protocol/initialize.ts";
import type { FrameError } from "../../../protocol/node/frame-decoder.ts";
import { SocketReader, SocketWriter } from "../../../protocol/node/message-stream.ts";
import type { RpcId, RpcMessage } from "../../../protocol/node/rpc-message.ts";
import { toRpcError } from "../../../protocol/rpc-error.ts";
import { STREAM_CREDIT, streamCreditParams, streamRequestExtras, type StreamToken } from "../../../protocol/stream.ts";
import type { Clock, Ids } from "../../base/clock.ts";
import { OperationalError, UserError } from "../../base/errors.ts";
import { nearest } from "../../base/text.ts";
import type { Log } from "../../platform/log.ts";
import type { WorkerPool } from "../../platform/workers.ts";
import { type BoundMethod, type Caller, parseParams } from "../bind-api.ts";
import { toWireError } from "../wire-error.ts";
import { type Authenticate, type Handshake, shakeHands } from "./handshake.ts";
import { type JsonSlicer, SlicedJson, tooLarge } from "./json-slices.ts";
import { parseLargeJson } from "./large-json.ts";
import type { RpcLimits } from "./limits.ts";
import { StreamPump } from "./stream-pump.ts";

export interface RpcConnectionOptions {
  readonly authenticate: Authenticate;
  readonly bind: (caller: Caller) => ReadonlyMap<string, BoundMethod>;
  readonly version: string;
  readonly limits: RpcLimits;
  readonly log: Log;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly jsonPool: WorkerPool;
  /** Makes the texts of large results and items; all connections share it. */
  readonly slicer: JsonSlicer;
  /** Asked before a client is let in; false: `overloaded`. */
  readonly admit: () => boolean;
  readonly onClosed: () => void;
}

/** What stands around the items of a `$/progress`: fixed text and a token of at most 128 characters. */
const MAX_PROGRESS_OVERHEAD_BYTES = 1024;
const CANCEL = "$/cancelRequest";

interface Work {
  readonly abort: AbortController;
  readonly name: string;
}

export class RpcConnection {
  readonly #socket: Socket;
  readonly #options: RpcConnectionOptions;
  readonly #reader: SocketReader;
  readonly #writer: SocketWriter;
  readonly #rpc: MessageConnection;
  readonly #gone = new AbortController();
  /** Requests from arrival to reply; true once a cancellation for one has passed. */
  readonly #openIds = new Map<RpcId, boolean>();
  readonly #work = new Set<Work>();
  readonly #streams = new Map<StreamToken, StreamPump>();
  readonly #initializeTimer: Disposable;
  #state: "new" | "ready" | "shutdown" | "closed" = "new";
  #methods: ReadonlyMap<string, BoundMethod> = new Map();
  #undispatched = 0;
  #isStopping = false;
  #isEnding = false;
  #flushTimer: Disposable | undefined;
  #onIdle = () => {};

  constructor(socket: Socket, options: RpcConnectionOptions) {
    const { limits, clock, jsonPool } = options;
    this.#socket = socket;
    this.#options = options;
    socket.on("error", () => {}); // The "close" that follows says all that matters.
    socket.on("drain", () => this.#wakeStreams());
    this.#initializeTimer = clock.after(limits.initializeMs, () => {
      this.#violate("protocol_violation", `no \`initialize\` came within ${limits.initializeMs} ms`);
    });
    this.#reader = new SocketReader(socket, {
      limits: { maxHeaderBytes: limits.maxHeaderBytes, maxFrameBytes: limits.maxHandshakeBytes },
      onViolation: (error: FrameError) => this.#violate(error.code, error.message, error.id),
      accept: (message) => this.#accept(message),
      large: {
        overBytes: limits.inlineJsonBytes,
        parse: (body) =>
          parseLargeJson(jsonPool, body, { maxValues: limits.maxLargeJsonValues, signal: this.#gone.signal }),
      },
      startFrameTimer: () =>
        clock.after(limits.frameMs, () => {
          this.#violate("protocol_violation", `a message was not complete after ${limits.frameMs} ms`);
        }),
    });
    this.#writer = new SocketWriter(socket, (message) => this.#encode(message));
    this.#rpc = createMessageConnection(this.#reader, this.#writer, undefined, {
      messageStrategy: {
        handleMessage: (message, next) => {
          if ("method" in message && message.method === CANCEL) return next(message);
          this.#undispatched -= 1;
          if (this.#undispatched < limits.maxUndispatched) this.#reader.release();
          return next(message);
        },
      },
    });
    this.#rpc.onRequest((method, params, token) => this.#answer(method, params, token));
    this.#rpc.onNotification((method, params) => this.#notice(method, params));
    this.#rpc.onClose(() => this.destroy());
    this.#rpc.listen();
  }

  get isInitialized(): boolean {
    return this.#state === "ready" || this.#state === "shutdown";
  }

  /** Refuses new requests, ends streams that have no end of their own, and resolves when nothing is open any more. */
  stop(): Promise<void> {
    this.#isStopping = true;
    for (const work of this.#work) if (isEndless(work.name)) work.abort.abort(stopping());
    return new Promise((resolve) => {
      this.#onIdle = () => {
        if (this.#openIds.size === 0) resolve();
      };
      this.#onIdle();
    });
  }

  /** Fails what is still open with `daemon_stopping`. */
  abortAll(): void {
    this.#abortWork(stopping());
  }

  /**
   * Lets the last bytes leave and the peer close. Closing at once would take from it what it has not read yet, since what it is
   * still sending would be answered with a reset.
   */
  end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#initializeTimer[Symbol.dispose]();
    this.#abortWork(new OperationalError("cancelled", "the connection is being closed"));
    this.#writer.end();
    this.#flushTimer = this.#options.clock.after(this.#options.limits.flushMs, () => this.destroy());
  }

  destroy(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#initializeTimer[Symbol.dispose]();
    this.#flushTimer?.[Symbol.dispose]();
    const reason = new OperationalError("cancelled", "the client is gone");
    this.#gone.abort(reason);
    this.#abortWork(reason);
    this.#openIds.clear();
    this.#onIdle();
    this.#rpc.dispose();
    this.#socket.destroy();
    this.#options.onClosed();
  }

  #abortWork(reason: OperationalError): void {
    for (const work of this.#work) work.abort.abort(reason);
  }

  /** Looks at every message before it is queued: what is over a bound is answered here (2). */
  #accept(message: RpcMessage): boolean {
    if (message.kind === "notification" && message.method === CANCEL) return this.#acceptCancel(message.params);
    if (message.kind === "request") {
      if (this.#openIds.has(message.id)) {
        this.#violate("protocol_violation", "two open requests have the same id", message.id);
        return false;
      }
      if (this.#openIds.size >= this.#options.limits.maxOpenRequests) {
        const text = `this client already has ${this.#options.limits.maxOpenRequests} open requests`;
        this.#refuse(message.id, { code: "overloaded", message: text, details: {} });
        return false;
      }
      this.#openIds.set(message.id, false);
    }
    this.#undispatched += 1;
    if (this.#undispatched >= this.#options.limits.maxUndispatched) this.#reader.hold();
    return true;
  }

  /** Lets one cancellation of an open request through: others have no meaning, and would be kept in a table. */
  #acceptCancel(params: unknown): boolean {
    const id = typeof params === "object" && params !== null && "id" in params ? params.id : undefined;
    if (typeof id !== "number" && typeof id !== "string") return false;
    if (this.#openIds.get(id) !== false) return false;
    this.#openIds.set(id, true);
    return true;
  }

  #notice(method: string, params: unknown): void {
    if (method === "exit") this.end();
    if (method !== STREAM_CREDIT) return; // `initialized`, `$/…` and unknown notifications need no answer.
    const parsed = streamCreditParams.safeParse(params);
    if (!parsed.success) {
      this.#violate("protocol_violation", `${STREAM_CREDIT} has no valid token and credit`);
      return;
    }
    this.#streams.get(parsed.data.token)?.grant(parsed.data.credit);
  }

  async #answer(method: string, params: unknown, token: CancellationToken): Promise<unknown> {
    const work: Work = { abort: new AbortController(), name: method };
    const cancel = () => work.abort.abort(new OperationalError("cancelled", "the request was cancelled"));
    const cancellation = token.onCancellationRequested(cancel);
    if (token.isCancellationRequested) cancel();
    this.#work.add(work);
    try {
      const { signal } = work.abort;
      const result: unknown = await this.#dispatch(method, params, signal);
      const { slicer } = this.#options;
      return slicer.isLarge(result) ? await slicer.slice(result, signal) : result;
    } catch (thrown) {
      const { log, ids } = this.#options;
      throw responseError(toWireError(thrown, { log, ids, subject: method }));
    } finally {
      this.#work.delete(work);
      cancellation.dispose();
    }
  }

  #dispatch(method: string, params: unknown, signal: AbortSignal): unknown {
    if (method === INITIALIZE) return this.#initialize(params);
    if (this.#state === "new") throw new UserError("not_initialized", `\`${method}\` came before \`initialize\``);
    if (this.#state === "shutdown") throw new UserError("protocol_violation", `\`${method}\` came after \`shutdown\``);
    if (method === "shutdown") {
      this.#state = "shutdown";
      return null;
    }
    const bound = this.#methods.get(method);
    if (bound === undefined) {
      const near = nearest(method, methodsByName.keys());
      const hint = near.length === 0 ? "" : ` Did you mean ${near.map((name) => `\`${name}\``).join(" or ")}?`;
      throw new UserError("method_unknown", `there is no method \`${method}\`.${hint}`, {
        details: { nearest: [...near] },
      });
    }
    if (this.#isStopping) throw stopping();
    return bound.kind === "request" ? bound.call(params, signal) : this.#stream(bound, params, signal);
  }

  #initialize(params: unknown): unknown {
    if (this.#state !== "new") throw new UserError("protocol_violation", "`initialize` was sent twice");
    let handshake: Handshake;
    try {
      if (this.#isStopping) throw stopping();
      handshake = shakeHands(params, this.#options);
      if (!this.#options.admit()) throw new OperationalError("overloaded", "too many clients are connected");
    } catch (thrown) {
      // The reply leaves first: it is written in the microtasks that follow, and what is written before `end` is sent.
      setImmediate(() => this.end());
      throw thrown;
    }
    const { limits, log } = this.#options;
    this.#initializeTimer[Symbol.dispose]();
    this.#state = "ready";
    this.#methods = this.#options.bind(handshake.caller);
    this.#reader.setLimits({ maxHeaderBytes: limits.maxHeaderBytes, maxFrameBytes: limits.maxFrameBytes });
    log.debug({ event: "rpc.client", clientId: handshake.caller.clientId, client: handshake.caller.clientName });
    return handshake.result;
  }

  async #stream(
    bound: Extract<BoundMethod, { readonly kind: "stream" }>,
    params: unknown,
    signal: AbortSignal,
  ): Promise<null> {
    const { partialResultToken: token, credit } = parseParams(streamRequestExtras, params);
    if (this.#streams.has(token)) {
      throw new UserError("protocol_violation", "two open streams have the same partialResultToken");
    }
    const { maxOpenStreams, maxBatchItems, maxBatchBytes, pauseStreamsBytes } = this.#options.limits;
    if (this.#streams.size >= maxOpenStreams) {
      throw new OperationalError("overloaded", `this client already has ${maxOpenStreams} open streams`);
    }
    const prefix = `{"jsonrpc":"2.0","method":"$/progress","params":{"token":${JSON.stringify(token)},"value":{"items":[`;
    const pump = new StreamPump({
      credit,
      maxBatchItems,
      maxBatchBytes,
      encode: (item) => {
        const json = JSON.stringify(item ?? null);
        this.#checkSize(json, MAX_PROGRESS_OVERHEAD_BYTES);
        return json;
      },
      encodeLarge: (item) => {
        const { slicer } = this.#options;
        if (!slicer.isLarge(item)) return undefined;
        return slicer.slice(item, signal).then(({ slices, sizeBytes }) => {
          this.#checkSizeBytes(sizeBytes + MAX_PROGRESS_OVERHEAD_BYTES);
          return () => {
            this.#writer.writeParts([Buffer.from(prefix), ...slices, Buffer.from("]}}}")]);
            this.#checkUnsent();
          };
        });
      },
      send: (items) => {
        this.#writer.writeJson(`${prefix}${items.join(",")}]}}}`);
        this.#checkUnsent();
      },
      hasRoom: () => this.#socket.writableLength < pauseStreamsBytes,
    });
    this.#streams.set(token, pump);
    try {
      await pump.run(bound.open(params, signal), signal);
      return null;
    } finally {
      this.#streams.delete(token);
    }
  }

  #wakeStreams(): void {
    for (const pump of this.#streams.values()) pump.wake();
  }

  /** Texts of replies; a result that cannot be sent becomes an error reply to the same request (3). */
  #encode(message: Message): string | undefined {
    const id = "id" in message ? replyId(message.id) : undefined;
    let json: string | undefined;
    try {
      const result = "result" in message ? message.result : undefined;
      if (result instanceof SlicedJson) this.#writeSliced(id, result);
      else {
        json = JSON.stringify(message);
        this.#checkSize(json);
      }
    } catch (thrown) {
      const { log, ids } = this.#options;
      const error = toWireError(thrown, { log, ids, subject: "a reply" });
      json = JSON.stringify({ jsonrpc: "2.0", id, error: toRpcError(error) });
    }
    if (id !== undefined) {
      this.#openIds.delete(id);
      setImmediate(() => this.#onIdle());
    }
    this.#checkUnsent();
    return json;
  }

  #writeSliced(id: RpcId | undefined, { slices, sizeBytes }: SlicedJson): void {
    const opening = Buffer.from(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":`);
    this.#checkSizeBytes(opening.length + sizeBytes + 1);
    this.#writer.writeParts([opening, ...slices, Buffer.from("}")]);
  }

  #checkSize(json: string, reservedBytes = 0): void {
    // A text has at most three bytes a UTF-16 unit; most are far from the bound and need not be counted.
    if (json.length * 3 + reservedBytes <= this.#options.limits.maxFrameBytes) return;
    this.#checkSizeBytes(Buffer.byteLength(json) + reservedBytes);
  }

  #checkSizeBytes(sizeBytes: number): void {
    const { maxFrameBytes } = this.#options.limits;
    if (sizeBytes > maxFrameBytes) throw tooLarge(maxFrameBytes);
  }

  #checkUnsent(): void {
    if (this.#socket.writableLength <= this.#options.limits.maxUnsentBytes) return;
    this.#options.log.warn({ event: "rpc.unread", unsentBytes: this.#socket.writableLength });
    this.destroy();
  }

  #refuse(id: RpcId | null, error: WireError): void {
    this.#writer.writeJson(JSON.stringify({ jsonrpc: "2.0", id, error: toRpcError(error) }));
    this.#checkUnsent();
  }

  /** (5) */
  #violate(code: WireError["code"], message: string, id: RpcId | null = null): void {
    if (this.#state === "closed" || this.#isEnding) return;
    this.#options.log.warn({ event: "rpc.violation", code, message });
    this.#refuse(id, { code, message, details: {} });
    this.end();
  }
}

function replyId(id: unknown): RpcId | undefined {
  return typeof id === "string" || typeof id === "number" ? id : undefined;
}

/** Streams that go on until somebody ends them: a drain need not wait for these. */
function isEndless(method: string): boolean {
  return method.endsWith("/watch") || method.endsWith("/logs");
}

function responseError(error: WireError): ResponseError<WireError> {
  const { code, message, data } = toRpcError(error);
  return new ResponseError(code, message, data);
}

function stopping(): OperationalError {
  return new OperationalError("daemon_stopping", "the daemon is shutting down");
}

/**
 * JSON-RPC messages on a socket, for both ends: reader and writer for vscode-jsonrpc in place of its own, which buffer without bound,
 * trust every length and take two turns and two writes for each message.
 * 1. What is read is bounded (frame-decoder.ts) and well-formed (rpc-message.ts) before anybody sees it; the first violation ends the reading.
 * 2. Messages arrive in the order they were sent, also when a large one is parsed elsewhere.
 * 3. A message is queued on the socket in the turn in which it is written, so that the order of writes is the order of calls.
 */
import type { Socket } from "node:net";
import {
  AbstractMessageReader,
  AbstractMessageWriter,
  type DataCallback,
  type Disposable as RpcDisposable,
  type Message,
  type MessageReader,
  type MessageWriter,
} from "vscode-jsonrpc/node";
import { FrameDecoder, FrameError, type FrameLimits } from "./frame-decoder.ts";
import { parseJson, parseMessage, type RpcMessage } from "./rpc-message.ts";

export interface MessageStreamOptions {
  readonly limits: FrameLimits;
  /** Called once, with what was wrong; nothing is read after it. */
  onViolation(error: FrameError): void;
  /** Sees each message first. False: it was dealt with and goes no further. */
  accept?(message: RpcMessage): boolean;
  /** Parses bodies of more than `overBytes` away from this thread. */
  readonly large?: { readonly overBytes: number; parse(body: Buffer): Promise<unknown> };
  /** Starts the time that a frame has to become complete. */
  startFrameTimer?(): Disposable;
}

export class SocketReader extends AbstractMessageReader implements MessageReader {
  readonly #socket: Socket;
  readonly #options: MessageStreamOptions;
  readonly #decoder: FrameDecoder;
  #callback: DataCallback = () => {};
  #frameTimer: Disposable | undefined;
  #isHeld = false;
  #isParsing = false;
  #isOver = false;

  constructor(socket: Socket, options: MessageStreamOptions) {
    super();
    this.#socket = socket;
    this.#options = options;
    this.#decoder = new FrameDecoder(options.limits);
  }

  listen(callback: DataCallback): RpcDisposable {
    this.#callback = callback;
    const onData = (chunk: Buffer) => {
      if (this.#isOver) return;
      this.#decoder.push(chunk);
      this.#read();
    };
    this.#socket.on("data", onData);
    this.#socket.on("error", (error) => this.fireError(error));
    // A peer that ended its half is gone for us: waiting for "close" would wait for it to read what it never will.
    this.#socket.once("end", () => this.#finish());
    this.#socket.once("close", () => this.#finish());
    return { dispose: () => this.#socket.off("data", onData) };
  }

  /** Hands over a message as if it had arrived. */
  inject(message: Message): void {
    this.#callback(message);
  }

  /** From now on, larger messages are allowed. */
  setLimits(limits: FrameLimits): void {
    this.#decoder.limits = limits;
  }

  /** Stops delivering, and reading from the socket, until `release`. */
  hold(): void {
    this.#isHeld = true;
    this.#socket.pause();
  }

  release(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#read();
  }

  override dispose(): void {
    this.#stop();
    super.dispose();
  }

  #read(): void {
    if (this.#isParsing) return;
    try {
      while (!this.#isHeld && !this.#isOver) {
        const body = this.#decoder.next();
        if (body === undefined) break;
        this.#setFrameTimer(false);
        const { large } = this.#options;
        if (large !== undefined && body.length > large.overBytes) {
          this.#parseElsewhere(large.parse(body));
          return;
        }
        this.#deliver(parseJson(body));
      }
    } catch (thrown) {
      this.#violate(thrown);
    }
    if (this.#isOver) return;
    if (!this.#isHeld) {
      this.#setFrameTimer(this.#decoder.isMidFrame);
      this.#socket.resume();
    }
  }

  #parseElsewhere(parsing: Promise<unknown>): void {
    this.#isParsing = true;
    this.#socket.pause();
    parsing
      .then((value) => {
        if (!this.#isOver) this.#deliver(value);
      })
      .catch((thrown: unknown) => this.#violate(thrown))
      .finally(() => {
        this.#isParsing = false;
        this.#read();
      });
  }

  #deliver(value: unknown): void {
    const message = parseMessage(value);
    if (this.#options.accept?.(message) ?? true) this.#callback(message);
  }

  #violate(thrown: unknown): void {
    if (this.#isOver) return;
    this.#stop();
    const error =
      thrown instanceof FrameError ? thrown : new FrameError("protocol_violation", "a message could not be read");
    this.#options.onViolation(error);
  }

  #finish(): void {
    this.#stop();
    this.fireClose();
  }

  #stop(): void {
    this.#isOver = true;
    this.#setFrameTimer(false);
    // What still comes is read and dropped, so that the end of the connection is noticed.
    this.#socket.resume();
  }

  #setFrameTimer(isRunning: boolean): void {
    if (!isRunning) {
      this.#frameTimer?.[Symbol.dispose]();
      this.#frameTimer = undefined;
    } else {
      this.#frameTimer ??= this.#options.startFrameTimer?.();
    }
  }
}

export class SocketWriter extends AbstractMessageWriter implements MessageWriter {
  readonly #socket: Socket;
  readonly #encode: (message: Message) => string | undefined;

  /** `encode` gives a message's text, or undefined where there is nothing to send. */
  constructor(socket: Socket, encode: (message: Message) => string | undefined) {
    super();
    this.#socket = socket;
    this.#encode = encode;
    socket.once("close", () => this.fireClose());
  }

  /** Resolves when the message is queued, not when the peer has read it. */
  write(message: Message): Promise<void> {
    try {
      const json = this.#encode(message);
      if (json !== undefined) this.writeJson(json);
      return Promise.resolve();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  writeJson(json: string): void {
    if (!this.#socket.writable) return;
    this.#socket.write(`Content-Length: ${Buffer.byteLength(json)}\r\n\r\n${json}`);
  }

  /** One message whose text was made in parts; they are queued in this turn, so that no other message comes between them (3). */
  writeParts(parts: readonly Buffer[]): void {
    if (!this.#socket.writable) return;
    const sizeBytes = parts.reduce((sum, part) => sum + part.length, 0);
    this.#socket.cork();
    this.#socket.write(`Content-Length: ${sizeBytes}\r\n\r\n`);
    for (const part of parts) this.#socket.write(part);
    this.#socket.uncork();
  }

  end(): void {
    this.#socket.end();
  }
}

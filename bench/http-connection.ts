/**
 * One keep-alive HTTP/1.1 connection on a bare socket: the cheapest client there is, so that the client's own work does not blur a figure.
 * It reads what servers send to a POST or GET: a head, then a body by length, in chunks, or until the end.
 */
import { connect, type Socket } from "node:net";

export interface ResponseHandler {
  onHead?(status: number): void;
  onBody(chunk: Buffer): void;
  onEnd(): void;
  onError(error: Error): void;
}

type State = "idle" | "head" | "length" | "until-close" | "chunk-size" | "chunk-data" | "chunk-end" | "trailer";

const HEAD_END = Buffer.from("\r\n\r\n");
const NOTHING = Buffer.alloc(0);

export class HttpConnection {
  readonly socket: Socket;
  #state: State = "idle";
  #handler: ResponseHandler | undefined;
  #rest: Buffer = NOTHING;
  #left = 0;

  constructor(port: number) {
    this.socket = connect({ port, host: "127.0.0.1", noDelay: true });
    this.socket.on("data", (chunk) => this.#read(chunk));
    this.socket.on("error", (error) => this.#fail(error));
    this.socket.on("close", () => {
      if (this.#state === "until-close") this.#end();
      else this.#fail(new Error("the connection was closed in mid-answer"));
    });
  }

  /** Sends a whole request; the previous answer must be over. */
  send(request: Buffer, handler: ResponseHandler): void {
    if (this.#handler !== undefined) throw new Error("the previous answer is still open");
    if (this.socket.destroyed) {
      handler.onError(new Error("the connection was closed between two requests"));
      return;
    }
    this.#handler = handler;
    this.#state = "head";
    this.socket.write(request);
  }

  /** Leaves at once; the open answer's handler hears nothing more. */
  destroy(): void {
    this.#handler = undefined;
    this.socket.destroy();
  }

  #read(chunk: Buffer): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#rest = NOTHING;
    while (bytes.length > 0 && this.#handler !== undefined) {
      const taken = this.#step(bytes);
      if (taken === 0) {
        this.#rest = bytes;
        return;
      }
      bytes = bytes.subarray(taken);
    }
  }

  /** Reads one part from the front of `bytes`: how many of them it took; 0 when it needs more. */
  #step(bytes: Buffer): number {
    switch (this.#state) {
      case "head": {
        const end = bytes.indexOf(HEAD_END);
        if (end < 0) return 0;
        this.#readHead(bytes.toString("latin1", 0, end));
        return end + HEAD_END.length;
      }
      case "chunk-size": {
        const end = bytes.indexOf("\r\n");
        if (end < 0) return 0;
        this.#left = Number.parseInt(bytes.toString("latin1", 0, end), 16);
        this.#state = this.#left === 0 ? "trailer" : "chunk-data";
        return end + 2;
      }
      case "chunk-end":
      case "trailer": {
        if (bytes.length < 2) return 0;
        if (this.#state === "trailer") this.#end();
        else this.#state = "chunk-size";
        return 2;
      }
      case "length":
      case "chunk-data": {
        const part = bytes.length <= this.#left ? bytes : bytes.subarray(0, this.#left);
        this.#left -= part.length;
        this.#handler?.onBody(part);
        if (this.#left === 0 && this.#state === "length") this.#end();
        else if (this.#left === 0) this.#state = "chunk-end";
        return part.length;
      }
      case "until-close": {
        this.#handler?.onBody(bytes);
        return bytes.length;
      }
      case "idle":
        throw new Error("the server sent something that was not asked for");
    }
  }

  #readHead(head: string): void {
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    this.#left = Number(length ?? 0);
    if (length !== undefined) this.#state = "length";
    else if (/\r\ntransfer-encoding: *chunked/i.test(head)) this.#state = "chunk-size";
    else this.#state = "until-close";
    this.#handler?.onHead?.(Number(head.slice(9, 12)));
    if (length === "0") this.#end();
  }

  #end(): void {
    const handler = this.#handler;
    this.#handler = undefined;
    this.#state = "idle";
    handler?.onEnd();
  }

  #fail(error: Error): void {
    const handler = this.#handler;
    this.#handler = undefined;
    handler?.onError(error);
  }
}

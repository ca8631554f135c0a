/** The daemon's socket without a client library: sends any bytes, well-formed or not, and reads what comes back. */
import { connect, type Socket } from "node:net";
import { once } from "node:events";
import { FrameDecoder } from "../../protocol/node/frame-decoder.ts";

export interface RawReply {
  readonly id?: unknown;
  readonly method?: string;
  readonly params?: unknown;
  readonly result?: unknown;
  readonly error?: {
    readonly code: number;
    readonly message: string;
    readonly data?: { readonly code: string; readonly details: Record<string, unknown> };
  };
}

export interface RawClient extends Disposable {
  readonly socket: Socket;
  send(message: unknown): void;
  sendText(text: string | Buffer): void;
  /** The next message of the server, or undefined once it has closed the connection. */
  next(): Promise<RawReply | undefined>;
  /** Resolves when the connection is gone. */
  readonly closed: Promise<unknown>;
}

export function frame(body: string | Buffer): Buffer {
  const bytes = Buffer.from(body);
  return Buffer.concat([Buffer.from(`Content-Length: ${bytes.length}\r\n\r\n`), bytes]);
}

export async function connectRaw(socketPath: string): Promise<RawClient> {
  const socket = connect(socketPath);
  await once(socket, "connect");
  const decoder = new FrameDecoder({ maxHeaderBytes: 1024, maxFrameBytes: 64 * 1024 * 1024 });
  const replies: RawReply[] = [];
  const waiting: ((reply: RawReply | undefined) => void)[] = [];
  let isClosed = false;
  socket.on("error", () => {});
  const closed = new Promise<void>((resolve) => {
    socket.once("close", () => {
      isClosed = true;
      for (const wake of waiting.splice(0)) wake(undefined);
      resolve();
    });
  });
  socket.on("data", (chunk) => {
    decoder.push(Buffer.from(chunk));
    for (let body = decoder.next(); body !== undefined; body = decoder.next()) {
      const reply: RawReply = JSON.parse(body.toString("utf8"));
      const wake = waiting.shift();
      if (wake === undefined) replies.push(reply);
      else wake(reply);
    }
  });
  const sendText = (text: string | Buffer) => void socket.write(text);
  return {
    socket,
    closed,
    sendText,
    send: (message) => sendText(frame(JSON.stringify(message))),
    next: () => {
      const reply = replies.shift();
      if (reply !== undefined || isClosed) return Promise.resolve(reply);
      return new Promise((resolve) => {
        waiting.push(resolve);
      });
    },
    [Symbol.dispose]: () => void socket.destroy(),
  };
}

export function initializeMessage(
  key: string,
  options: { readonly id?: number | string; readonly min?: number; readonly max?: number } = {},
): object {
  const { id = 0, min = 1, max = 1 } = options;
  const ghost = { protocol: { min, max }, key, client: { name: "raw" } };
  return {
    jsonrpc: "2.0",
    id,
    method: "initialize",
    params: { processId: null, capabilities: {}, initializationOptions: { ghost } },
  };
}

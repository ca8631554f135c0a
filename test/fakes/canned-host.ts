/**
 * A model server on a real socket that says byte for byte what a test wrote down, piece by piece: for what no well-behaved fake would say.
 * Each piece is a read of its own for whoever asked, so that what a server says in two breaths is not seen in one.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

export interface CannedAnswer {
  readonly contentType: string;
  readonly pieces: readonly (string | Buffer)[];
  /** No pause between two pieces: for so many that pauses would take long. */
  readonly isBreathless?: boolean;
  /** `close` ends the body as HTTP has it, `reset` cuts the connection, `hang` says nothing more. By default it is closed. */
  readonly end?: "close" | "reset" | "hang";
}

export interface CannedHost extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` */
  readonly origin: string;
  /** The answer to every POST from now on. */
  play(answer: CannedAnswer): void;
  /** The bodies of all POSTs so far. */
  readonly bodies: readonly string[];
  /** Resolves when whoever asked last has left before the end. */
  untilLeft(): Promise<void>;
}

/** Long enough for two writes to be two reads on one machine. */
const BREATH_MS = 2;

/** @param list answers every GET, as a server lists its models */
export async function startCannedHost(list: unknown): Promise<CannedHost> {
  const bodies: string[] = [];
  let answer: CannedAnswer = { contentType: "application/json", pieces: ["{}"] };
  let left = Promise.withResolvers<void>();
  const server = createServer((request, response) => void serve(request, response));
  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== "POST") {
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(list));
      return;
    }
    const { contentType, pieces, end = "close", isBreathless = false } = answer;
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(Buffer.from(chunk));
    bodies.push(Buffer.concat(chunks).toString("utf8"));
    left = Promise.withResolvers();
    const { resolve } = left;
    response.once("close", () => {
      if (!response.writableFinished) resolve();
    });
    response.writeHead(200, { "content-type": contentType });
    response.flushHeaders();
    for (const piece of pieces) {
      if (response.destroyed) return;
      response.write(piece);
      if (!isBreathless) await sleep(BREATH_MS);
      else if (response.writableNeedDrain) await once(response, "drain");
    }
    if (end === "close") response.end();
    else if (end === "reset") response.socket?.resetAndDestroy();
  }
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    origin: `http://127.0.0.1:${port}`,
    bodies,
    play(next) {
      answer = next;
    },
    untilLeft: () => left.promise,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/**
 * A file server with a bad day: a real HTTP server that serves one file with ranges and validators (RFC 9110 §13, §14) and does to each request
 * what its script says. It answers 500 to what it does not model, and keeps a list of such requests for the test to look at.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

/** What happens to one request; the next request gets the next step, and none left means: served well. */
export type DownloadStep =
  | { readonly kind: "serve" }
  /** The connection is cut after so many bytes of the body. */
  | { readonly kind: "drop"; readonly afterBytes: number }
  /** The body stops after so many bytes, and the connection stays open. */
  | { readonly kind: "stall"; readonly afterBytes: number }
  /** Announces another length than it sends. */
  | { readonly kind: "lie"; readonly contentLength: number }
  /** Answers with the whole file, whatever range was asked for; `cutAfter` also cuts it. */
  | { readonly kind: "ignoreRange"; readonly cutAfter?: number }
  /** Does not say how long the body is. */
  | { readonly kind: "unknownLength" }
  | {
      readonly kind: "status";
      readonly status: number;
      readonly body?: string;
      readonly headers?: Readonly<Record<string, string>>;
    }
  | { readonly kind: "redirect"; readonly location: string; readonly headers?: Readonly<Record<string, string>> };

export interface DownloadRequest {
  readonly path: string;
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
}

export interface DownloadHost extends AsyncDisposable {
  readonly origin: string;
  /** All requests so far. */
  readonly requests: readonly DownloadRequest[];
  /** What a client asked for that is not modelled here; a test expects it to be empty. */
  readonly notModelled: readonly string[];
  /** Answers that are being sent or hang. */
  readonly open: number;
  script(steps: readonly DownloadStep[]): void;
  /** Another file takes the place of the one before. `etag: undefined` serves without a validator. */
  serve(content: Buffer, etag: string | undefined): void;
}

const PIECE_BYTES = 64 * 1024;

export async function startDownloadHost(content: Buffer, etag: string | undefined): Promise<DownloadHost> {
  const state = { content, etag, steps: new Array<DownloadStep>() };
  const requests: DownloadRequest[] = [];
  const notModelled: string[] = [];
  let open = 0;
  const server = createServer((request, response) => {
    open += 1;
    response.on("close", () => {
      open -= 1;
    });
    const { range } = request.headers;
    const ifRange = typeof request.headers["if-range"] === "string" ? request.headers["if-range"] : undefined;
    requests.push({ path: request.url ?? "", range, ifRange });
    const problem = outOfModel(request);
    if (problem !== undefined) {
      notModelled.push(problem);
      response.writeHead(500).end(problem);
      return;
    }
    const step = state.steps.shift() ?? { kind: "serve" };
    void answer({ step, response, range, ifRange, content: state.content, etag: state.etag });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  return {
    origin: `http://127.0.0.1:${address.port}`,
    requests,
    notModelled,
    get open() {
      return open;
    },
    script: (steps) => void state.steps.push(...steps),
    serve: (next, nextEtag) => void Object.assign(state, { content: next, etag: nextEtag }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    },
  };
}

function outOfModel(request: IncomingMessage): string | undefined {
  if (request.method !== "GET") return `method ${request.method}`;
  const { range } = request.headers;
  if (range !== undefined && !/^bytes=\d+-$/.test(range)) return `range ${range}`;
  const encoding = request.headers["accept-encoding"];
  return encoding === undefined || encoding === "identity" ? undefined : `accept-encoding ${encoding}`;
}

interface Exchange {
  readonly step: DownloadStep;
  readonly response: ServerResponse;
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
  readonly content: Buffer;
  readonly etag: string | undefined;
}

async function answer(exchange: Exchange): Promise<void> {
  const { step, response, content, etag } = exchange;
  if (step.kind === "status") {
    response
      .writeHead(step.status, { "content-type": "text/html", ...step.headers })
      .end(step.body ?? "<html>no</html>");
    return;
  }
  if (step.kind === "redirect") {
    response.writeHead(302, { location: step.location, ...step.headers }).end("moved");
    return;
  }
  const start = step.kind === "ignoreRange" ? 0 : rangeStart(exchange);
  if (start > 0 && start >= content.length) {
    response.writeHead(416, { "content-range": `bytes */${content.length}` }).end();
    return;
  }
  const body = content.subarray(start);
  response.writeHead(start > 0 ? 206 : 200, {
    "content-type": "application/octet-stream",
    "accept-ranges": "bytes",
    ...(etag === undefined ? {} : { etag }),
    ...(start > 0 ? { "content-range": `bytes ${start}-${content.length - 1}/${content.length}` } : {}),
    ...(step.kind === "unknownLength"
      ? {}
      : { "content-length": step.kind === "lie" ? step.contentLength : body.length }),
  });
  const cut =
    step.kind === "drop" || step.kind === "stall"
      ? step.afterBytes
      : step.kind === "ignoreRange"
        ? step.cutAfter
        : undefined;
  await sendBody(response, cut === undefined ? body : body.subarray(0, cut));
  if (step.kind === "stall") return;
  // A lie also ends with a cut: the connection cannot be used for another answer.
  if (cut !== undefined || step.kind === "lie") {
    response.flushHeaders();
    // Not destroy(): what was written goes out first, so that the cut is where the step says.
    response.socket?.destroySoon();
  } else response.end();
}

/** Where to begin: at the range, if the condition (when there is one) still holds. */
function rangeStart({ range, ifRange, etag }: Exchange): number {
  if (range === undefined || (ifRange !== undefined && ifRange !== etag)) return 0;
  return Number(range.slice("bytes=".length, -1));
}

async function sendBody(response: ServerResponse, body: Buffer): Promise<void> {
  for (let position = 0; position < body.length; position += PIECE_BYTES) {
    if (response.destroyed) return;
    await new Promise((resolve) => {
      // Called once the bytes are with the system, so that a cut comes after them.
      response.write(body.subarray(position, position + PIECE_BYTES), resolve);
    });
  }
}

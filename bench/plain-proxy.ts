/**
 * The floor that the gateway is measured against: the plainest reverse proxy on Node's http and undici. It collects the request, sends it
 * on, and pipes the answer back; with `--parse` it also runs JSON.parse over the request, as anything that looks into it must.
 * Run as `node bench/plain-proxy.ts --upstream http://127.0.0.1:PORT [--parse]`; prints `{"ready":true,"port":N}`.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { parseArgs } from "node:util";
import { Agent, type Dispatcher } from "undici";
import { portOf } from "../test/fakes/openai-host-fast.ts";

const KEEP_ALIVE_TIMEOUT_MS = 120_000;

const { values } = parseArgs({ options: { upstream: { type: "string" }, parse: { type: "boolean", default: false } } });
const upstream = values.upstream;
if (upstream === undefined) throw new Error("--upstream URL is missing");
const agent = new Agent({ pipelining: 1, headersTimeout: 0, bodyTimeout: 0 });

const server = createServer({ keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS }, (request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () =>
    forward(request, response, chunks.length === 1 ? (chunks[0] ?? Buffer.alloc(0)) : Buffer.concat(chunks)),
  );
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`${JSON.stringify({ ready: true, port: portOf(server) })}\n`));

function forward(request: IncomingMessage, response: ServerResponse, body: Buffer): void {
  if (values.parse) JSON.parse(body.toString());
  let upstreamRequest: Dispatcher.DispatchController | undefined;
  let isOver = false;
  response.on("close", () => {
    isOver = true;
    if (!response.writableFinished) upstreamRequest?.abort(new Error("the client left"));
  });
  response.on("drain", () => upstreamRequest?.resume());
  const contentType = request.headers["content-type"] ?? "application/json";
  agent.dispatch(
    {
      origin: upstream ?? "",
      path: request.url ?? "/",
      method: request.method === "GET" ? "GET" : "POST",
      headers: { "content-type": contentType },
      body,
    },
    {
      onRequestStart(controller) {
        upstreamRequest = controller;
        if (isOver) controller.abort(new Error("the client left"));
      },
      onResponseStart(_controller, status, headers) {
        const { "content-type": type, "content-length": length } = headers;
        response.writeHead(status, {
          ...(type === undefined ? {} : { "content-type": String(type) }),
          ...(length === undefined ? {} : { "content-length": String(length) }),
        });
      },
      onResponseData(controller, chunk) {
        if (!response.write(chunk)) controller.pause();
      },
      onResponseEnd() {
        response.end();
      },
      onResponseError(_controller, error) {
        if (response.headersSent) response.destroy(error);
        else response.writeHead(502).end();
      },
    },
  );
}

/**
 * Every kind of upstream in one process, for `bench/dialects.ts`: answers are rendered when they are first asked for (`dialect-upstream.ts`), so that next to
 * nothing of what is measured is their own work. Streams only; what it does not model is answered with 501.
 * `node bench/dialect-host.ts --plans t1,t40e5` prints `{"ready":true,"origin":"…"}`.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { parseArgs } from "node:util";
import { monotonicUs, portOf } from "../test/fakes/openai-host-fast.ts";
import {
  MODEL_NAMES,
  type RenderedAnswer,
  renderAnswer,
  STAMP_LENGTH,
  UPSTREAM_KINDS,
  type UpstreamKind,
} from "./dialect-upstream.ts";

const KEEP_ALIVE_TIMEOUT_MS = 120_000;
/** A request that is longer has tools and instructions which Responses repeats. */
const SMALL_BODY_BYTES = 8 * 1024;
const ECHO = "Read a file before you change it. ".repeat(700);

const { values } = parseArgs({ options: { plans: { type: "string", default: "t16" } } });
const plans = values.plans.split(",");
const namesOf = (kind: UpstreamKind) => plans.map((plan) => `${MODEL_NAMES[kind]}-${plan}`);

/** The answer for each kind, name and size. */
const answers = new Map<string, RenderedAnswer>();
for (const kind of UPSTREAM_KINDS) {
  for (const name of namesOf(kind)) {
    answers.set(`${kind} ${name} small`, renderAnswer(kind, name, ""));
    answers.set(`${kind} ${name} agent`, renderAnswer(kind, name, ECHO));
  }
}

const LISTS: Readonly<Record<string, object>> = {
  "/compatible/v1/models": { object: "list", data: namesOf("compatible").map((id) => ({ id, object: "model" })) },
  "/openai/v1/models": { object: "list", data: namesOf("openai").map((id) => ({ id, object: "model" })) },
  "/anthropic/v1/models": { data: namesOf("anthropic").map((id) => ({ id, type: "model" })), has_more: false },
  "/gemini/v1beta/models": {
    models: namesOf("gemini").map((id) => ({
      name: `models/${id}`,
      inputTokenLimit: 1_048_576,
      outputTokenLimit: 65_536,
      supportedGenerationMethods: ["generateContent"],
    })),
  },
  "/ollama/api/tags": {
    models: namesOf("ollama").map((name) => ({ name, capabilities: ["completion", "tools"] })),
  },
  "/ollama/api/ps": { models: [] },
};
const DESCRIPTION = { capabilities: ["completion", "tools"], model_info: {} };

const ROUTES: Readonly<Record<string, UpstreamKind>> = {
  "/v1/chat/completions": "compatible", // For a client without a daemon between.
  "/compatible/v1/chat/completions": "compatible",
  "/openai/v1/responses": "openai",
  "/anthropic/v1/messages": "anthropic",
  "/ollama/api/chat": "ollama",
};

const server = createServer({ keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS }, (request, response) => {
  const path = (request.url ?? "").replace(/\?.*$/, "");
  const list = request.method === "GET" ? LISTS[path] : undefined;
  if (list !== undefined) sendJson(response, list);
  else if (path === "/ollama/api/show") readBody(request, () => sendJson(response, DESCRIPTION));
  else readBody(request, (body) => answer(path, body, response));
});

function answer(path: string, body: Buffer, response: ServerResponse): void {
  const [, geminiName] = /^\/gemini\/v1beta\/models\/([^:]+):streamGenerateContent$/.exec(path) ?? [];
  const kind = geminiName === undefined ? ROUTES[path] : "gemini";
  const name = geminiName ?? modelOf(body);
  const found = answers.get(`${kind} ${name} ${body.length > SMALL_BODY_BYTES ? "agent" : "small"}`);
  if (found === undefined || (geminiName === undefined && !body.includes('"stream":true')))
    return sendJson(response, { error: { message: `not modelled: ${path} of ${name}` } }, 501);
  response.writeHead(200, { "content-type": found.contentType });
  stream(response, found);
}

function stream(response: ServerResponse, answered: RenderedAnswer): void {
  const { tokens, everyMs, head, end } = answered;
  let sent = 0;
  const send = () => {
    response.write(stamped(answered, sent));
    sent += 1;
    if (sent < tokens) return;
    clearInterval(timer);
    response.end(end);
  };
  const timer = everyMs === 0 ? undefined : setInterval(send, everyMs);
  response.once("close", () => clearInterval(timer));
  if (head.length > 0) response.write(head);
  send();
  while (timer === undefined && sent < tokens) send();
}

function stamped({ delta, stampAt }: RenderedAnswer, number: number): Buffer {
  const frame = Buffer.from(delta);
  const stamp = `${String(number).padStart(6, "0")} ${String(monotonicUs()).padStart(16, "0")}`;
  frame.write(stamp, stampAt, STAMP_LENGTH, "latin1");
  return frame;
}

function modelOf(body: Buffer): string {
  const at = body.indexOf('"model":"');
  const from = at + '"model":"'.length;
  return at < 0 ? "" : body.toString("latin1", from, body.indexOf('"', from));
}

function readBody(request: IncomingMessage, done: (body: Buffer) => void): void {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => done(Buffer.concat(chunks)));
}

function sendJson(response: ServerResponse, body: object, status = 200): void {
  const text = JSON.stringify(body);
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
  response.end(text);
}

server.listen(0, "127.0.0.1");
await once(server, "listening");
const port = portOf(server);
process.stdout.write(`${JSON.stringify({ ready: true, origin: `http://127.0.0.1:${port}`, directPort: port })}\n`);

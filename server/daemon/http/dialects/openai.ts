/**
 * OpenAI's API: `/v1/models`, `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`.
 * 1. No status is sent before the first content (`brain.answer` resolves then); after it, a failure is an in-band error and a cut connection, never `[DONE]`.
 * 2. A client that goes away aborts everything behind its request at once.
 * 3. Frames are written one by one and wait for the client's socket; what waits is bounded by that socket's buffer.
 */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { UserId } from "../../../../protocol/ids.ts";
import type { Clock } from "../../../base/clock.ts";
import { type GhostError, OperationalError, toGhostError, UserError } from "../../../base/errors.ts";
import type { Answer, Brain } from "../../../ghostllm/brain.ts";
import { VIRTUAL_MODELS } from "../../../ghostllm/open-brain.ts";
import type { CompletionRequest, ModelRequest, StreamEvent } from "../../../ghostllm/stream.ts";
import type { Log } from "../../../platform/log.ts";
import type { Actor } from "../../../platform/permit.ts";
import { errorBody, httpError } from "../errors.ts";
import { actorOf } from "../http-server.ts";
import type { OpenRequests } from "../open-requests.ts";
import type { BodyReader, ReadBody } from "../body-reader.ts";
import { createStreamWriter, type OpenAiFormat, renderWhole, toOpenAiUsage } from "./openai-writer.ts";
import type { RequestFacts } from "./openai-request.ts";

interface OpenAiOptions {
  readonly open: OpenRequests;
  readonly brain: Brain;
  readonly bodies: BodyReader;
  readonly userId: UserId;
  readonly aliases: readonly string[];
  readonly clock: Clock;
  readonly log: Log;
}

/** `max_tokens` is 16 where a text completion does not say, as in OpenAI's reference. */
const DEFAULT_COMPLETION_TOKENS = 16;

export function registerOpenAi(app: FastifyInstance, options: OpenAiOptions): void {
  const config = { audience: "model" } as const;
  app.get("/v1/models", { config }, (request) => listModels(options, request));
  app.post("/v1/chat/completions", { config }, (request, reply) => chat(options, request, reply));
  app.post("/v1/completions", { config }, (request, reply) => complete(options, request, reply));
  app.post("/v1/embeddings", { config }, (request, reply) => embed(options, request, reply));
}

async function listModels(options: OpenAiOptions, request: FastifyRequest): Promise<object> {
  const { models } = await options.brain.catalogue({ refresh: false }, gone(request.raw.socket));
  const row = (id: string, owner: string) => ({ id, object: "model", created: 0, owned_by: owner });
  return {
    object: "list",
    data: [
      ...VIRTUAL_MODELS.map((id) => row(id, "ghoststack")),
      ...options.aliases.map((id) => row(id, "you")),
      ...models.map((model) => row(model.ref, model.provider)),
    ],
  };
}

async function chat(options: OpenAiOptions, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const body = bodyOf(request);
  const signal = options.open.track(reply.raw);
  const read = await options.bodies.readChat(body, signal);
  const { facts } = read;
  const modelRequest: ModelRequest = {
    task: "chat",
    target: facts.model,
    messages: () => read.messages(),
    tools: facts.tools,
    toolChoice: facts.toolChoice,
    recordedBody: { dialect: "openai-chat", body },
    ...common("openai-chat", read, actorOf(request, options.userId)),
    lane: "chat",
  };
  return answer(options, "openai-chat", modelRequest, facts, reply, signal);
}

async function complete(options: OpenAiOptions, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const body = bodyOf(request);
  const signal = options.open.track(reply.raw);
  const read = await options.bodies.readCompletion(body, signal);
  const { facts } = read;
  const base = common("openai-completion", read, actorOf(request, options.userId));
  const modelRequest: CompletionRequest = {
    task: "completion",
    target: facts.model,
    prefix: facts.prefix,
    suffix: facts.suffix,
    overflow: "error",
    ...base,
    output: { ...base.output, maxTokens: facts.output.maxTokens ?? DEFAULT_COMPLETION_TOKENS },
    lane: "completion",
  };
  return answer(options, "openai-completion", modelRequest, facts, reply, signal);
}

function common(dialect: OpenAiFormat, read: ReadBody<RequestFacts>, actor: Actor) {
  const { facts } = read;
  const streamOptions = facts.stream ? { stream_options: JSON.stringify(facts.streamOptions) } : {};
  return {
    output: facts.output,
    sampling: facts.sampling,
    actor,
    stream: facts.stream,
    origin: {
      dialect,
      bodyFor: (modelName: string) => read.with({ model: JSON.stringify(modelName), ...streamOptions }),
    },
  };
}

async function answer(
  options: OpenAiOptions,
  format: OpenAiFormat,
  request: ModelRequest,
  facts: RequestFacts,
  reply: FastifyReply,
  signal: AbortSignal,
): Promise<FastifyReply> {
  const opened = await options.brain.answer(request, {}, signal);
  reply.hijack();
  const raw = reply.raw;
  try {
    if (facts.stream) await writeStream(options, format, opened, facts, raw, signal);
    else await writeWhole(options, format, opened, facts, raw);
  } catch (thrown) {
    const error = toGhostError(signal.aborted ? signal.reason : thrown);
    if (error.family === "bug") options.log.error({ event: "answer.failed", answer: opened.id, error });
    breakOff(raw, error);
  }
  return reply;
}

function answerHeaders(opened: Answer): Record<string, string> {
  return {
    "x-request-id": opened.id,
    "x-ghost-model": headerText(opened.model.ref),
    "x-ghost-route": headerText(opened.decision.reason),
    ...(opened.model.note === undefined ? {} : { "x-ghost-note": headerText(opened.model.note) }),
  };
}

async function writeStream(
  options: OpenAiOptions,
  format: OpenAiFormat,
  opened: Answer,
  facts: RequestFacts,
  raw: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const writer = createStreamWriter({
    format,
    id: opened.id,
    model: opened.model.ref,
    createdAtMs: options.clock.now(),
    includeUsage: facts.includeUsage,
  });
  raw.writeHead(200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    ...answerHeaders(opened),
  });
  for await (const frame of opened.frames) {
    const bytes = writer.write(frame);
    if (bytes.length > 0 && !raw.write(bytes)) await once(raw, "drain", { signal });
  }
  raw.end(writer.end());
}

async function writeWhole(
  options: OpenAiOptions,
  format: OpenAiFormat,
  opened: Answer,
  facts: RequestFacts,
  raw: ServerResponse,
): Promise<void> {
  const events: StreamEvent[] = [];
  let relayed: Buffer | undefined;
  for await (const frame of opened.frames) {
    if (frame.dialect === format) relayed = relayed === undefined ? frame.bytes : Buffer.concat([relayed, frame.bytes]);
    else events.push(...frame.events());
  }
  const body =
    relayed ??
    Buffer.from(
      renderWhole(
        {
          format,
          id: opened.id,
          model: opened.model.ref,
          createdAtMs: options.clock.now(),
          includeUsage: facts.includeUsage,
        },
        events,
      ),
    );
  raw.writeHead(200, { "content-type": "application/json", "content-length": body.length, ...answerHeaders(opened) });
  raw.end(body);
}

/** Before the head, an error is an answer. After it, the stream says what happened and the connection is cut (invariant 1). */
function breakOff(raw: ServerResponse, error: GhostError): void {
  if (raw.destroyed) return;
  if (!raw.headersSent) {
    const { status, headers, body } = httpError(error);
    raw.writeHead(status, headers);
    raw.end(body);
    return;
  }
  raw.write(`data: ${errorBody(error)}\n\n`, () => raw.destroy());
}

async function embed(options: OpenAiOptions, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const body = bodyOf(request);
  const signal = options.open.track(reply.raw);
  const read = await options.bodies.readEmbedding(body, signal);
  const { model, isBase64 } = read.facts;
  const actor = actorOf(request, options.userId);
  const relayed = await options.brain.relayEmbeddings(
    model,
    (name) => read.with({ model: JSON.stringify(name) }),
    actor,
    signal,
  );
  if (relayed !== undefined) return reply.type("application/json").send(relayed);
  const {
    vectors,
    promptTokens,
    model: ref,
  } = await options.brain.embed({ task: "embedding", target: model, texts: await read.texts(), actor }, signal);
  return {
    object: "list",
    model: ref,
    data: vectors.map((vector, index) => ({
      object: "embedding",
      index,
      embedding: isBase64 ? base64(vector) : vector,
    })),
    usage: toOpenAiUsage(promptTokens === undefined ? {} : { promptTokens, completionTokens: 0 }),
  };
}

/** Little-endian 32-bit floats, as OpenAI's clients decode them. */
function base64(vector: readonly number[]): string {
  const floats = Float32Array.from(vector);
  return Buffer.from(floats.buffer, floats.byteOffset, floats.byteLength).toString("base64");
}

function bodyOf(request: FastifyRequest): Buffer {
  if (Buffer.isBuffer(request.body) && request.body.length > 0) return request.body;
  throw new UserError("invalid_json", "the body is empty");
}

function gone(socket: NodeJS.EventEmitter): AbortSignal {
  const controller = new AbortController();
  socket.once("close", () => controller.abort(new OperationalError("cancelled", "the client went away")));
  return controller.signal;
}

/** Header values are Latin-1 without controls. */
function headerText(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "?").slice(0, 500);
}

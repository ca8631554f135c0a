/**
 * OpenAI's API: `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { UserError } from "../../../base/errors.ts";
import type { Answer } from "../../../ghostllm/brain.ts";
import type { CompletionRequest } from "../../../ghostllm/stream.ts";
import { actorOf } from "../http-server.ts";
import type { OpenAiOwn } from "./openai-request.ts";
import { createStreamWriter, type OpenAiFormat, renderWhole, toOpenAiUsage } from "./openai-writer.ts";
import { type AnswerWriter, bodyOf, chatRequest, type DialectOptions, serveAnswer } from "./serve.ts";

/** `max_tokens` is 16 where a text completion does not say, as in OpenAI's reference. */
const DEFAULT_COMPLETION_TOKENS = 16;

export function registerOpenAi(app: FastifyInstance, options: DialectOptions): void {
  const config = { audience: "model" } as const;
  app.post("/v1/chat/completions", { config }, (request, reply) => chat(options, request, reply));
  app.post("/v1/completions", { config }, (request, reply) => complete(options, request, reply));
  app.post("/v1/embeddings", { config }, (request, reply) => embed(options, request, reply));
}

async function chat(options: DialectOptions, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const body = bodyOf(request);
  const signal = options.open.track(reply.raw);
  const read = await options.bodies.readChat("openai-chat", body, signal);
  const { facts } = read;
  const modelRequest = chatRequest("openai-chat", body, read, {
    actor: actorOf(request, options.userId),
    values: streamOptions(facts),
  });
  return serveAnswer(options, modelRequest, answerWriter(options, "openai-chat", facts), reply, signal);
}

async function complete(options: DialectOptions, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const body = bodyOf(request);
  const signal = options.open.track(reply.raw);
  const read = await options.bodies.readCompletion(body, signal);
  const { facts } = read;
  const modelRequest: CompletionRequest = {
    task: "completion",
    target: facts.model,
    prefix: facts.prefix,
    suffix: facts.suffix,
    overflow: "error",
    output: { ...facts.output, maxTokens: facts.output.maxTokens ?? DEFAULT_COMPLETION_TOKENS },
    sampling: facts.sampling,
    actor: actorOf(request, options.userId),
    stream: facts.stream,
    lane: "completion",
    extras: facts.extras,
    origin: {
      dialect: "openai-completion",
      bodyFor: (modelName) => read.with({ model: JSON.stringify(modelName), ...streamOptions(facts) }),
    },
  };
  return serveAnswer(options, modelRequest, answerWriter(options, "openai-completion", facts), reply, signal);
}

interface Streaming {
  readonly stream: boolean;
  readonly own: OpenAiOwn;
}

function streamOptions({ stream, own }: Streaming): Readonly<Record<string, string>> {
  return stream ? { stream_options: JSON.stringify(own.streamOptions) } : {};
}

function answerWriter(options: DialectOptions, format: OpenAiFormat, { stream, own }: Streaming): AnswerWriter {
  const writing = (answer: Answer) => ({
    format,
    id: answer.id,
    model: answer.model.ref,
    createdAtMs: options.clock.now(),
    includeUsage: own.includeUsage,
  });
  return {
    isStream: stream,
    contentType: "text/event-stream; charset=utf-8",
    errors: "openai",
    relays: format,
    stream: (answer) => createStreamWriter(writing(answer)),
    whole: (answer, fold) => renderWhole(writing(answer), fold),
  };
}

async function embed(options: DialectOptions, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const body = bodyOf(request);
  const signal = options.open.track(reply.raw);
  const read = await options.bodies.readEmbedding(body, signal);
  const { model, isBase64, relayOnly } = read.facts;
  const actor = actorOf(request, options.userId);
  const relayed = await options.brain.relayEmbeddings(
    model,
    (name) => read.with({ model: JSON.stringify(name) }),
    actor,
    signal,
  );
  if (relayed !== undefined) return reply.type("application/json").send(relayed);
  if (relayOnly !== undefined) {
    const { field, why } = relayOnly;
    throw new UserError("capability_missing", `${model} cannot be asked with \`${field}\`: ${why}`, {
      details: { field },
    });
  }
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

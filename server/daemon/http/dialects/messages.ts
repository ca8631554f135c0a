/**
 * Anthropic's API: `/v1/messages`, `/v1/messages/count_tokens`.
 * What clients send beside the body counts only where Anthropic answers: `anthropic-version` and `anthropic-beta` are relayed with it.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { UserError } from "../../../base/errors.ts";
import type { Answer } from "../../../ghostllm/brain.ts";
import { actorOf } from "../http-server.ts";
import type { ChatFacts } from "./chat-facts.ts";
import type { MessagesOwn } from "./messages-request.ts";
import { createMessagesWriter, renderMessage } from "./messages-writer.ts";
import { type AnswerWriter, bodyOf, chatRequest, type DialectOptions, headerText, serveAnswer } from "./serve.ts";
import { estimateTokens } from "./token-estimate.ts";

const DIALECT = "anthropic-messages";
const RELAYED_HEADERS = ["anthropic-version", "anthropic-beta"] as const;

export function registerMessages(app: FastifyInstance, options: DialectOptions): void {
  const config = { audience: "model", errors: "anthropic" } as const;
  app.post("/v1/messages", { config }, (request, reply) => answer(options, request, reply));
  app.post("/v1/messages/count_tokens", { config }, (request, reply) => countTokens(options, request, reply));
}

async function answer(options: DialectOptions, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const signal = options.open.track(reply.raw);
  const { facts, modelRequest } = await read(options, request, signal);
  if (facts.output.maxTokens === undefined) {
    throw new UserError("invalid_params", "`max_tokens`: the field is required", { details: { field: "max_tokens" } });
  }
  return serveAnswer(options, modelRequest, answerWriter(facts, modelRequest.origin !== undefined), reply, signal);
}

async function read(options: DialectOptions, request: FastifyRequest, signal: AbortSignal) {
  const body = bodyOf(request);
  const chat = await options.bodies.readChat(DIALECT, body, signal);
  const modelRequest = chatRequest(DIALECT, body, chat, {
    actor: actorOf(request, options.userId),
    headers: relayedHeaders(request),
  });
  return { facts: chat.facts, modelRequest };
}

function relayedHeaders({ headers }: FastifyRequest): Readonly<Record<string, string>> {
  return Object.fromEntries(
    RELAYED_HEADERS.flatMap((name) => {
      const value = headers[name];
      return typeof value === "string" ? [[name, value]] : [];
    }),
  );
}

/** @param isRelayed Anthropic would get the body as it came: then its frames are the client's, too. Else they are rendered like everybody's. */
function answerWriter({ stream, own }: ChatFacts<MessagesOwn>, isRelayed: boolean): AnswerWriter {
  const writing = ({ id, model }: Answer) => ({ ...own, id, model: model.ref, maker: model.provider, isRelayed });
  return {
    isStream: stream,
    contentType: "text/event-stream; charset=utf-8",
    errors: "anthropic",
    relays: isRelayed ? DIALECT : undefined,
    stream: (answered) => createMessagesWriter(writing(answered)),
    whole: (answered, fold) => renderMessage(writing(answered), fold),
    headers: ({ id }) => ({ "request-id": id }),
  };
}

async function countTokens(options: DialectOptions, request: FastifyRequest, reply: FastifyReply): Promise<object> {
  const signal = options.open.track(reply.raw);
  const { modelRequest } = await read(options, request, signal);
  const { model, tokens } = await options.brain.countTokens(modelRequest, signal);
  void reply.headers({ "request-id": request.id, "x-request-id": request.id, "x-ghost-model": headerText(model) });
  if (tokens === undefined) void reply.header("x-ghost-estimated", "true");
  return { input_tokens: tokens ?? (await estimateTokens(modelRequest)) };
}

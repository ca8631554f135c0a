/**
 * Google's Gemini API: `models/{model}:generateContent`, `:streamGenerateContent`, `:countTokens`, `:embedContent`, `:batchEmbedContents`, and the list of
 * models, under `/v1beta` and `/v1`, since its clients ask for either.
 * A model's id may hold slashes and colons, raw or percent-encoded: what stands behind the last colon is the method.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { UserError } from "../../../base/errors.ts";
import type { Answer } from "../../../ghostllm/brain.ts";
import { refuseExcess } from "../../json-limits.ts";
import type { ReadChat } from "../body-reader.ts";
import { actorOf } from "../http-server.ts";
import { parseEmbed, renderEmbeddings } from "./gemini-embed.ts";
import { geminiModel, geminiPage } from "./gemini-models.ts";
import { createGeminiWriter, type GeminiWriting, renderGemini } from "./gemini-writer.ts";
import { findRow, listRows } from "./model-rows.ts";
import { type AnswerWriter, bodyOf, chatRequest, type DialectOptions, headerText, serveAnswer } from "./serve.ts";
import { estimateTokens } from "./token-estimate.ts";

const DIALECT = "gemini";

interface Params {
  readonly Params: { readonly "*": string };
}

export function registerGemini(app: FastifyInstance, options: DialectOptions): void {
  const config = { audience: "model", errors: "gemini" } as const;
  for (const version of ["/v1beta", "/v1"]) {
    app.post<Params>(`${version}/models/*`, { config }, (request, reply) =>
      perform(options, request, reply, request.params["*"]),
    );
  }
  app.get("/v1beta/models", { config }, async (request) => geminiPage(await listRows(options, request), request.query));
  app.get<Params>("/v1beta/models/*", { config }, async (request) =>
    geminiModel(await findRow(options, request, request.params["*"])),
  );
}

/** @param path `up/m:generateContent` */
async function perform(
  options: DialectOptions,
  request: FastifyRequest,
  reply: FastifyReply,
  path: string,
): Promise<unknown> {
  const colon = path.lastIndexOf(":");
  const model = path.slice(0, colon === -1 ? path.length : colon);
  const method = colon === -1 ? "" : path.slice(colon + 1);
  switch (method) {
    case "generateContent":
      return answer(options, { request, reply, model, form: "whole" });
    case "streamGenerateContent":
      return answer(options, { request, reply, model, form: isSse(request) ? "sse" : "list" });
    case "countTokens":
      return countTokens(options, { request, reply, model });
    case "embedContent":
      return embed(options, { request, reply, model }, "one");
    case "batchEmbedContents":
      return embed(options, { request, reply, model }, "batch");
    default:
      throw new UserError(
        "method_unknown",
        `there is no method ${JSON.stringify(method.slice(0, 100))} of models here`,
      );
  }
}

function isSse({ query }: FastifyRequest): boolean {
  return typeof query === "object" && query !== null && Reflect.get(query, "alt") === "sse";
}

interface Call {
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
  readonly model: string;
}
type Form = "whole" | GeminiWriting["form"];

/** The longest id of a model, as in every dialect. */
const MAX_MODEL_CHARACTERS = 256;

async function read(options: DialectOptions, { request, model }: Call, signal: AbortSignal, stream: boolean) {
  if (model === "" || model.length > MAX_MODEL_CHARACTERS)
    throw new UserError("model_not_found", `there is no model ${JSON.stringify(model.slice(0, MAX_MODEL_CHARACTERS))}`);
  const body = bodyOf(request);
  const chat = await options.bodies.readChat(DIALECT, body, signal);
  const facts = { ...chat.facts, model, stream };
  const addressed: ReadChat<typeof DIALECT> = {
    ...chat,
    facts,
    // The address names the model; a body that does, too, names the same.
    with: ({ model: name = "" }) =>
      facts.own.namesModel ? chat.with({ model: `"models/${name.slice(1, -1)}"` }) : body,
  };
  return { facts, modelRequest: chatRequest(DIALECT, body, addressed, { actor: actorOf(request, options.userId) }) };
}

async function answer(options: DialectOptions, call: Call & { readonly form: Form }): Promise<FastifyReply> {
  const { reply, form } = call;
  const signal = options.open.track(reply.raw);
  const { facts, modelRequest } = await read(options, call, signal, form !== "whole");
  const isRelayed = modelRequest.origin !== undefined;
  const { showsThoughts } = facts.own;
  const writing = ({ id, model }: Answer): GeminiWriting => ({
    showsThoughts,
    id,
    model: model.ref,
    maker: model.provider,
    isRelayed,
    form: form === "list" ? "list" : "sse",
  });
  const writer: AnswerWriter = {
    isStream: facts.stream,
    contentType: form === "list" ? "application/json; charset=utf-8" : "text/event-stream; charset=utf-8",
    errors: DIALECT,
    relays: isRelayed ? DIALECT : undefined,
    stream: (answered) => createGeminiWriter(writing(answered)),
    whole: (answered, fold) => renderGemini(writing(answered), fold),
  };
  return serveAnswer(options, modelRequest, writer, reply, signal);
}

async function countTokens(options: DialectOptions, call: Call): Promise<object> {
  const { reply, request } = call;
  const signal = options.open.track(reply.raw);
  const { modelRequest } = await read(options, call, signal, false);
  const { model, tokens } = await options.brain.countTokens(modelRequest, signal);
  void reply.headers({ "x-request-id": request.id, "x-ghost-model": headerText(model) });
  if (tokens === undefined) void reply.header("x-ghost-estimated", "true");
  return { totalTokens: tokens ?? (await estimateTokens(modelRequest)) };
}

async function embed(options: DialectOptions, call: Call, how: "one" | "batch"): Promise<object> {
  const { request, reply, model } = call;
  const signal = options.open.track(reply.raw);
  const body = bodyOf(request);
  refuseExcess(body);
  const facts = parseEmbed(body, how);
  const actor = actorOf(request, options.userId);
  const made = await options.brain.embed({ task: "embedding", target: model, texts: facts.texts, actor }, signal);
  void reply.header("x-ghost-model", headerText(made.model));
  if (facts.dropped.length > 0) void reply.header("x-ghost-dropped", headerText(facts.dropped.join(", ")));
  return renderEmbeddings(made, facts, how);
}

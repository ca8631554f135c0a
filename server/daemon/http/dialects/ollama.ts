/**
 * Ollama's own API for tools that know nothing else: `/api/{chat,generate,tags,show,ps,embed,embeddings,version}`, keyless, on a listener of its own.
 * 1. Without a key nobody can tell who asks: unless the user allowed it, text goes to local models only.
 * 2. What would change models (`pull`, `create`, `delete`, …) is refused: this door asks models, and nothing else.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { modelRefSchema } from "../../../../protocol/ids.ts";
import type { ModelInfo } from "../../../../protocol/model.ts";
import { UserError } from "../../../base/errors.ts";
import type { Answer } from "../../../ghostllm/brain.ts";
import { VIRTUAL_MODELS } from "../../../ghostllm/open-brain.ts";
import type { ModelRequest } from "../../../ghostllm/stream.ts";
import { boundBodies } from "../body-budget.ts";
import { actorOf } from "../http-server.ts";
import { checkBody } from "./chat-facts.ts";
import type { OllamaCompletion, OllamaOwn } from "./ollama-request.ts";
import { createOllamaWriter, type OllamaWriting, renderLoad, renderOllama } from "./ollama-writer.ts";
import { type AnswerWriter, bodyOf, chatRequest, type DialectOptions, gone, serveAnswer } from "./serve.ts";

/** Tools look at it to see what they may ask for; what is spoken here is the API of this release. */
const API_VERSION = "0.13.0";
/** A continuation without `num_predict` goes on until the model ends it, which small ones never do. */
const DEFAULT_COMPLETION_TOKENS = 256;
const REFUSED = ["pull", "push", "create", "copy", "delete", "blobs/:digest"] as const;

export interface OllamaOptions extends DialectOptions {
  /** Cloud models may be asked through this door, too. */
  readonly allowsCloud: boolean;
}

export function registerOllama(app: FastifyInstance, options: OllamaOptions): void {
  const config = { audience: "none", errors: "ollama" } as const;
  boundBodies(app);
  app.get("/", { config }, (_request, reply) => reply.type("text/plain").send("Ollama is running"));
  app.route({ method: "HEAD", url: "/", config, handler: (_request, reply) => reply.code(200).send() });
  app.get("/api/version", { config }, () => ({ version: API_VERSION }));
  app.get("/api/tags", { config }, async (request) => ({ models: (await listed(options, request)).map(describeTag) }));
  // Which weights are in memory is known to each host alone.
  app.get("/api/ps", { config }, () => ({ models: [] }));
  app.post("/api/show", { config }, (request) => show(options, request));
  app.post("/api/chat", { config }, (request, reply) =>
    answer(options, request, reply, { route: "chat", ...receive(options, reply) }),
  );
  app.post("/api/generate", { config }, (request, reply) => generate(options, request, reply));
  app.post("/api/embed", { config }, (request, reply) => embed(options, request, reply));
  app.post("/api/embeddings", { config }, (request, reply) => embedOne(options, request, reply));
  for (const path of REFUSED) {
    app.route({ method: ["POST", "DELETE", "HEAD"], url: `/api/${path}`, config, handler: refuseChange });
  }
}

function refuseChange(): never {
  throw new UserError(
    "method_unknown",
    "models are not changed through this door; use `ghost models pull`, or Ollama itself",
  );
}

/** Names as tools write them: `coder`, `coder:latest`, or as we list them, `ollama/coder@host`. */
function findModel(models: readonly ModelInfo[], name: string): ModelInfo | undefined {
  const plain = name.replace(/:latest$/, "");
  const wanted = new Set([name, plain, `${plain}:latest`]);
  return (
    models.find(({ ref }) => wanted.has(ref)) ??
    models.find((model) => model.provider === "ollama" && wanted.has(model.name)) ??
    models.find((model) => wanted.has(model.name))
  );
}

async function catalogue(options: OllamaOptions, request: FastifyRequest): Promise<readonly ModelInfo[]> {
  const { models } = await options.brain.catalogue({ refresh: false }, gone(request.raw.socket));
  return options.allowsCloud ? models : models.filter(({ locality }) => locality !== "cloud");
}

/** The name that routing knows: a virtual model or an alias stays what it is. */
async function targetOf(options: OllamaOptions, request: FastifyRequest, name: string): Promise<string> {
  return findModel(await catalogue(options, request), name)?.ref ?? name.replace(/:latest$/, "");
}

/** A request counts, and its time runs, from here on. */
interface Received {
  readonly signal: AbortSignal;
  readonly startedAtMs: number;
}

function receive({ open, clock }: OllamaOptions, reply: FastifyReply): Received {
  return { signal: open.track(reply.raw), startedAtMs: clock.monotonic() };
}

async function answer(
  options: OllamaOptions,
  request: FastifyRequest,
  reply: FastifyReply,
  { route, signal, startedAtMs }: Received & { readonly route: OllamaWriting["route"] },
): Promise<FastifyReply> {
  const body = bodyOf(request);
  const read = await options.bodies.readChat("ollama", body, signal);
  const { own, stream, model } = read.facts;
  const target = await targetOf(options, request, model);
  const { origin: _origin, ...asked } = chatRequest("ollama", body, read, { actor: actorOf(request, options.userId) });
  if (own.isLoad !== undefined)
    return load(options, request, reply, { target, reason: own.isLoad, route, startedAtMs });
  const modelRequest: ModelRequest = { ...asked, target, localOnly: !options.allowsCloud };
  return serveAnswer(options, modelRequest, answerWriter(options, { route, own, stream, startedAtMs }), reply, signal);
}

async function generate(options: OllamaOptions, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const received = receive(options, reply);
  const completion = await options.bodies.readOllamaCompletion(bodyOf(request), received.signal);
  if (completion === undefined) return answer(options, request, reply, { route: "generate", ...received });
  return complete(options, request, reply, { completion, ...received });
}

async function complete(
  options: OllamaOptions,
  request: FastifyRequest,
  reply: FastifyReply,
  { completion, signal, startedAtMs }: Received & { readonly completion: OllamaCompletion },
): Promise<FastifyReply> {
  const { model, stream, prefix, suffix, output, sampling } = completion;
  const modelRequest: ModelRequest = {
    task: "completion",
    target: await targetOf(options, request, model),
    prefix,
    suffix,
    overflow: "error",
    output: { ...output, maxTokens: output.maxTokens ?? DEFAULT_COMPLETION_TOKENS },
    sampling,
    actor: actorOf(request, options.userId),
    stream,
    lane: "completion",
    localOnly: !options.allowsCloud,
  };
  const own = { isLoad: undefined, showsThinking: false };
  const writer = answerWriter(options, { route: "generate", own, stream, startedAtMs });
  return serveAnswer(options, modelRequest, writer, reply, signal);
}

interface Asked {
  readonly route: OllamaWriting["route"];
  readonly own: OllamaOwn;
  readonly stream: boolean;
  readonly startedAtMs: number;
}

function answerWriter(
  { clock }: OllamaOptions,
  { route, own: { showsThinking }, stream, startedAtMs }: Asked,
): AnswerWriter {
  const writing = ({ model }: Answer) => ({ route, model: model.ref, showsThinking, clock, startedAtMs });
  return {
    isStream: stream,
    contentType: "application/x-ndjson",
    errors: "ollama",
    relays: undefined,
    stream: (answered) => createOllamaWriter(writing(answered)),
    whole: (answered, fold) => renderOllama(writing(answered), fold),
  };
}

/** Whoever only wants a model loaded is told that it is: it loads with the first words. */
async function load(
  options: OllamaOptions,
  request: FastifyRequest,
  reply: FastifyReply,
  asked: {
    readonly target: string;
    readonly reason: "load" | "unload";
    readonly route: OllamaWriting["route"];
    readonly startedAtMs: number;
  },
): Promise<FastifyReply> {
  const model = (await listed(options, request)).find(({ ref }) => ref === asked.target);
  if (model === undefined) throw unknownModel(asked.target);
  const { route, startedAtMs, reason } = asked;
  const writing = { route, model: model.ref, showsThinking: false, clock: options.clock, startedAtMs };
  return reply.type("application/json").send(renderLoad(writing, reason));
}

/** It holds a name; more is no question about a model, and would be parsed here. */
const MAX_SHOW_BYTES = 16 * 1024;
const showBody = z.looseObject({ model: z.string().min(1).optional(), name: z.string().min(1).optional() });

async function show(options: OllamaOptions, request: FastifyRequest): Promise<object> {
  const body = bodyOf(request);
  if (body.length > MAX_SHOW_BYTES) {
    throw new UserError("body_too_large", `a question about a model is larger than ${MAX_SHOW_BYTES} bytes`, {
      details: { limitBytes: MAX_SHOW_BYTES },
    });
  }
  const { model: named, name } = checkBody(showBody, body);
  const wanted = named ?? name;
  if (wanted === undefined)
    throw new UserError("invalid_params", "`model`: the field is required", { details: { field: "model" } });
  const models = await listed(options, request);
  const model = models.find(({ ref }) => ref === wanted) ?? findModel(models, wanted);
  if (model === undefined) throw unknownModel(wanted);
  const context = model.contextWindow === undefined ? {} : { "ghost.context_length": model.contextWindow };
  return {
    details: detailsOf(model),
    capabilities: capabilitiesOf(model),
    model_info: { "general.architecture": "ghost", ...context },
    template: "",
    parameters: "",
    modified_at: MODIFIED_AT,
  };
}

function unknownModel(name: string): UserError {
  return new UserError("model_not_found", `model ${JSON.stringify(name.slice(0, 256))} not found`);
}

/** All that can be named here. */
async function listed(options: OllamaOptions, request: FastifyRequest): Promise<readonly ModelInfo[]> {
  const models = await catalogue(options, request);
  const names = [...VIRTUAL_MODELS, ...options.aliases];
  const [like] = models;
  // A virtual model has no weights: it is listed as what it may become.
  const virtual = like === undefined ? [] : names.map((name) => virtualModel(name, like));
  return [...models, ...virtual];
}

function virtualModel(
  name: string,
  { ref: _ref, sizeBytes: _size, contextWindow: _window, ...like }: ModelInfo,
): ModelInfo {
  const capabilities = { ...like.capabilities, chat: true, tools: true, complete: true };
  return { ...like, ref: modelRefSchema.parse(name), provider: "ghost", name, capabilities };
}

/** Nobody knows when a model of another host changed; tools only sort by it. */
const MODIFIED_AT = "2026-01-01T00:00:00Z";

function describeTag(model: ModelInfo): object {
  return {
    name: model.ref,
    model: model.ref,
    modified_at: MODIFIED_AT,
    size: model.sizeBytes ?? 0,
    digest: "",
    details: detailsOf(model),
    capabilities: capabilitiesOf(model),
  };
}

function detailsOf({ provider }: ModelInfo): object {
  return {
    parent_model: "",
    format: "",
    family: provider,
    families: [provider],
    parameter_size: "",
    quantization_level: "",
  };
}

function capabilitiesOf({ capabilities }: ModelInfo): readonly string[] {
  const { chat, complete, tools, fim, vision, embeddings, reasoning } = capabilities;
  const named: readonly (readonly [name: string, has: boolean])[] = [
    ["completion", chat || complete],
    ["tools", tools],
    ["insert", fim],
    ["vision", vision],
    ["embedding", embeddings && !chat],
    ["thinking", reasoning === true],
  ];
  return named.flatMap(([name, has]) => (has ? [name] : []));
}

async function embed(options: OllamaOptions, request: FastifyRequest, reply: FastifyReply): Promise<object> {
  const startedAtMs = options.clock.monotonic();
  const { ref, vectors, promptTokens } = await vectorsOf(options, request, reply, "ollama-embed");
  return {
    model: ref,
    embeddings: vectors,
    total_duration: Math.round((options.clock.monotonic() - startedAtMs) * 1_000_000),
    ...(promptTokens === undefined ? {} : { prompt_eval_count: promptTokens }),
  };
}

/** The older form, of one text. */
async function embedOne(options: OllamaOptions, request: FastifyRequest, reply: FastifyReply): Promise<object> {
  const { vectors } = await vectorsOf(options, request, reply, "ollama-embed-one");
  return { embedding: vectors[0] ?? [] };
}

async function vectorsOf(
  options: OllamaOptions,
  request: FastifyRequest,
  reply: FastifyReply,
  route: "ollama-embed" | "ollama-embed-one",
) {
  const signal = options.open.track(reply.raw);
  const { model, texts } = await options.bodies.readOllamaEmbedding(route, bodyOf(request), signal);
  const target = await targetOf(options, request, model);
  if (texts.length === 0) return { ref: target, vectors: [], promptTokens: undefined };
  const actor = actorOf(request, options.userId);
  const localOnly = !options.allowsCloud;
  const found = await options.brain.embed({ task: "embedding", target, texts, actor, localOnly }, signal);
  return { ref: found.model, vectors: found.vectors, promptTokens: found.promptTokens };
}

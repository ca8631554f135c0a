/**
 * OpenAI's Responses API: `/v1/responses` by HTTP and WebSocket, kept responses, `/input_tokens`, `/compact`.
 */
import websocket from "@fastify/websocket";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { OperationalError, UserError } from "../../../base/errors.ts";
import { topLevelMembers } from "../../../base/json-scan.ts";
import type { Answer } from "../../../ghostllm/brain.ts";
import type { AnswerFold } from "../../../ghostllm/frames/answer-fold.ts";
import type { Frame } from "../../../ghostllm/stream.ts";
import { actorOf } from "../http-server.ts";
import { checkValue } from "./chat-facts.ts";
import { estimateTokens } from "./token-estimate.ts";
import { compact, compactionItem } from "./responses-compact.ts";
import {
  headOf,
  keepResponse,
  type PreparedResponse,
  prepareResponse,
  type ResponsesOptions,
} from "./responses-desk.ts";
import { listItems, replayEvents } from "./responses-replay.ts";
import { serveSocket, socketOptions } from "./responses-socket.ts";
import type { StoredResponse } from "./responses-store.ts";
import { ResponseStream, wholeOf } from "./responses-stream.ts";
import { endingOf, type EventSink, ResponseEvents, responseUsage, stepsOf } from "./responses-writer.ts";
import { type AnswerWriter, answerHeaders, bodyOf, headerText, serveAnswer, type StreamWriter } from "./serve.ts";

const EVENT_STREAM = "text/event-stream; charset=utf-8";

/** A response that is being written. */
interface Running {
  readonly snapshot: () => string;
  readonly ended: Promise<void>;
  cancel(): void;
}

interface Desk {
  readonly options: ResponsesOptions;
  readonly running: Map<string, Running>;
}

export function registerResponses(app: FastifyInstance, options: ResponsesOptions): void {
  const desk: Desk = { options, running: new Map() };
  const config = { audience: "model" } as const;
  // A scope of its own: the plugin looks at every route that is made after it.
  void app.register(async (scope) => {
    await scope.register(websocket, socketOptions(options));
    scope.route({
      method: "GET",
      url: "/v1/responses",
      config,
      handler: () => {
        throw new UserError("method_unknown", "GET /v1/responses is for WebSockets; POST /v1/responses asks by HTTP");
      },
      wsHandler: (socket, request) => serveSocket(options, socket, actorOf(request, options.userId)),
    });
  });
  app.post("/v1/responses", { config }, (request, reply) => create(desk, request, reply));
  app.post("/v1/responses/input_tokens", { config }, (request, reply) => countTokens(options, request, reply));
  app.post("/v1/responses/compact", { config }, (request, reply) => compactOnly(options, request, reply));
  app.get("/v1/responses/:id", { config }, (request, reply) => retrieve(desk, request, reply));
  app.delete("/v1/responses/:id", { config }, (request) => remove(options, request));
  app.get("/v1/responses/:id/input_items", { config }, (request) => inputItems(options, request));
  app.post("/v1/responses/:id/cancel", { config }, (request, reply) => cancel(desk, request, reply));
}

async function create(desk: Desk, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { options } = desk;
  const body = bodyOf(request);
  const stop = new AbortController();
  const signal = AbortSignal.any([options.open.track(reply.raw), stop.signal]);
  const prepared = await prepareResponse(options, body, { actor: actorOf(request, options.userId), signal });
  if (prepared.own.isCompaction) return createCompaction(options, prepared, reply, signal);
  const cancelRunning = () => stop.abort(new OperationalError("cancelled", "the response was cancelled"));
  const writer = answerWriter(desk, prepared, { reply, cancel: cancelRunning });
  return serveAnswer(options, prepared.request, writer, reply, signal);
}

function answerWriter(
  { options, running }: Desk,
  prepared: PreparedResponse,
  { reply, cancel: cancelRunning }: { readonly reply: FastifyReply; cancel(): void },
): AnswerWriter {
  const { userId, clock } = options;
  const keep = (whole: Parameters<typeof keepResponse>[3]) => keepResponse(options, userId, prepared, whole);
  const createdAtMs = clock.now();
  const isRelayed = prepared.request.origin !== undefined;
  return {
    isStream: prepared.request.stream,
    contentType: EVENT_STREAM,
    errors: "openai",
    relays: isRelayed ? "openai-responses" : undefined,
    stream(answer) {
      const head = headOf(answer, prepared.own, { createdAtMs });
      const writer = new SseResponse((sink, relay) => {
        return new ResponseStream({ head, isRelayed, now: () => clock.now(), sink, relay, keep });
      });
      const ended = new Promise<void>((resolve) => {
        reply.raw.once("close", () => {
          running.delete(head.id);
          resolve();
        });
      });
      running.set(head.id, { snapshot: () => writer.snapshot, ended, cancel: cancelRunning });
      return writer;
    },
    async whole(answer, fold) {
      const whole = wholeResponse(answer, fold, prepared, { createdAtMs, nowMs: clock.now() });
      await keep(whole);
      return whole.text;
    },
    async settleRelayed(body) {
      const whole = wholeOf(body);
      if (whole !== undefined) await keep(whole);
    },
  };
}

function wholeResponse(
  answer: Answer,
  fold: AnswerFold,
  { own }: PreparedResponse,
  { createdAtMs, nowMs }: { readonly createdAtMs: number; readonly nowMs: number },
) {
  const events = new ResponseEvents(headOf(answer, own, { createdAtMs }), () => {});
  const ending = endingOf(fold.reason);
  const steps = stepsOf(fold.blocks);
  for (const [index, step] of steps.entries())
    events.step(step, { isCutShort: ending.status === "incomplete" && index === steps.length - 1 });
  return events.finish({ ...ending, completedAtMs: nowMs, usage: fold.usage });
}

/** `ResponseStream` as server-sent events; frames of an upstream that speaks them pass as they came. */
class SseResponse implements StreamWriter {
  readonly #stream: ResponseStream;
  #text = "";
  #relayed: Buffer[] = [];

  constructor(open: (sink: EventSink, relay: (frames: Buffer) => void) => ResponseStream) {
    this.#stream = open(
      (type, json) => {
        this.#text += sseEvent(type, json);
      },
      (frames) => this.#relayed.push(frames),
    );
  }

  get snapshot(): string {
    return this.#stream.snapshot;
  }

  write(frame: Frame): Buffer {
    this.#stream.write(frame);
    return this.#take();
  }

  settle(): Promise<void> {
    return this.#stream.settle();
  }

  end(): Buffer {
    this.#stream.end();
    return this.#take();
  }

  fail(error: Parameters<StreamWriter["fail"]>[0]): Buffer {
    this.#stream.fail(error);
    return this.#take();
  }

  /** An answer is either relayed or written; what ends a relay badly comes after its frames. */
  #take(): Buffer {
    const text = Buffer.from(this.#text);
    const relayed = this.#relayed;
    this.#text = "";
    if (relayed.length === 0) return text;
    this.#relayed = [];
    return Buffer.concat([...relayed, text]);
  }
}

function sseEvent(type: string, json: string): string {
  return `event: ${type}\ndata: ${json}\n\n`;
}

/** The last item of the input asked for it: the answer is one compaction item. */
async function createCompaction(
  options: ResponsesOptions,
  prepared: PreparedResponse,
  reply: FastifyReply,
  signal: AbortSignal,
): Promise<FastifyReply> {
  const createdAtMs = options.clock.now();
  const { answer, usage, sealed } = await compact(options, prepared.request, signal);
  let text = "";
  const events = new ResponseEvents(headOf(answer, prepared.own, { createdAtMs }), (type, json) => {
    text += sseEvent(type, json);
  });
  events.wholeItem((id) => compactionItem(id, sealed), "cmp");
  const whole = events.finish({ status: "completed", completedAtMs: options.clock.now(), usage });
  await keepResponse(options, options.userId, prepared, { id: whole.id, text: whole.text });
  const isStream = prepared.request.stream;
  void reply.headers({ ...answerHeaders(answer), "content-type": isStream ? EVENT_STREAM : "application/json" });
  return reply.send(isStream ? text : whole.text);
}

async function compactOnly(options: ResponsesOptions, request: FastifyRequest, reply: FastifyReply) {
  const signal = options.open.track(reply.raw);
  const asker = { actor: actorOf(request, options.userId), signal };
  const prepared = await prepareResponse(options, bodyOf(request), asker);
  const createdAtMs = options.clock.now();
  const { answer, usage, sealed } = await compact(options, prepared.request, signal);
  const id = answer.id.replace(/^ans_/, "");
  const item = compactionItem(`cmp_${id}_0`, sealed);
  const head = `"id":"resp_${id}","object":"response.compaction","created_at":${Math.floor(createdAtMs / 1000)}`;
  void reply.headers({ ...answerHeaders(answer), "content-type": "application/json" });
  return reply.send(`{${head},"output":[${item}],"usage":${responseUsage(usage ?? null)}}`);
}

async function countTokens(options: ResponsesOptions, request: FastifyRequest, reply: FastifyReply): Promise<object> {
  const signal = options.open.track(reply.raw);
  const asker = { actor: actorOf(request, options.userId), signal };
  const prepared = await prepareResponse(options, bodyOf(request), asker);
  const { model, tokens } = await options.brain.countTokens(prepared.request, signal);
  void reply.header("x-ghost-model", headerText(model));
  if (tokens === undefined) void reply.header("x-ghost-estimated", "true");
  return { object: "response.input_tokens", input_tokens: tokens ?? (await estimateTokens(prepared.request)) };
}

const idParams = z.object({ id: z.string() });
const retrieveQuery = z.object({
  stream: z.enum(["true", "false"]).optional(),
  starting_after: z.coerce.number().int().nonnegative().optional(),
});
const itemsQuery = z.object({
  limit: z.coerce.number().int().min(1).max(100).default(20),
  order: z.enum(["asc", "desc"]).default("desc"),
  after: z.string().optional(),
});

async function retrieve({ options, running }: Desk, request: FastifyRequest, reply: FastifyReply) {
  const { id } = checkValue(idParams, request.params);
  const { stream, starting_after: after } = checkValue(retrieveQuery, request.query);
  const live = running.get(id);
  if (live !== undefined && stream !== "true") return reply.type("application/json").send(live.snapshot());
  // Its events are shown when they are all there.
  await live?.ended;
  const stored = await find(options, id);
  if (stream !== "true") return reply.type("application/json").send(stored.response);
  let text = "";
  replayEvents(stored, after ?? -1, (type, json) => {
    text += sseEvent(type, json);
  });
  return reply.type(EVENT_STREAM).send(text);
}

async function cancel({ options, running }: Desk, request: FastifyRequest, reply: FastifyReply) {
  const { id } = checkValue(idParams, request.params);
  const live = running.get(id);
  if (live === undefined) return reply.type("application/json").send((await find(options, id)).response);
  const snapshot = live.snapshot();
  live.cancel();
  await live.ended;
  return reply.type("application/json").send(cancelled(snapshot));
}

function cancelled(snapshot: string): Buffer {
  const bytes = Buffer.from(snapshot);
  const status = topLevelMembers(bytes).find(({ key }) => key === "status");
  if (status === undefined) return bytes;
  return Buffer.concat([bytes.subarray(0, status.valueStart), CANCELLED, bytes.subarray(status.valueEnd)]);
}
const CANCELLED = Buffer.from('"cancelled"');

async function remove(options: ResponsesOptions, request: FastifyRequest): Promise<object> {
  const { id } = checkValue(idParams, request.params);
  if (!(await options.store.delete(options.userId, id))) throw notFound(id);
  return { id, object: "response", deleted: true };
}

async function inputItems(options: ResponsesOptions, request: FastifyRequest): Promise<object> {
  const { id } = checkValue(idParams, request.params);
  const { limit, order, after } = checkValue(itemsQuery, request.query);
  return listItems(await find(options, id), { limit, order, after });
}

async function find(options: ResponsesOptions, id: string): Promise<StoredResponse> {
  const stored = await options.store.get(options.userId, id);
  if (stored === undefined) throw notFound(id);
  return stored;
}

function notFound(id: string): UserError {
  return new UserError("response_not_found", `Response with id '${id.slice(0, 100)}' not found`, {
    details: { field: "id" },
  });
}

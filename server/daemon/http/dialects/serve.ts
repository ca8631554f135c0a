/**
 * An answer on its way to an HTTP client, whatever the dialect.
 * 1. No status is sent before the first content (`brain.answer` resolves then); after it, a failure is an in-band error and a cut connection, never a
 *    clean end.
 * 2. A client that goes away aborts everything behind its request at once.
 * 3. A server that answers a stream by one JSON object, or one question by a stream, is not relayed but put into the form that was asked for.
 * 4. Frames are written one by one and wait for the client's socket; what waits is bounded by that socket's buffer.
 */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { AnswerId, UserId } from "../../../../protocol/ids.ts";
import type { Clock } from "../../../base/clock.ts";
import { type GhostError, OperationalError, toGhostError, UserError } from "../../../base/errors.ts";
import { present } from "../../../base/optional.ts";
import type { Answer, Brain } from "../../../ghostllm/brain.ts";
import { AnswerFold } from "../../../ghostllm/frames/answer-fold.ts";
import { isEventStream } from "../../../ghostllm/frames/sse.ts";
import {
  type ChatRequest,
  type Dialect,
  eventsFrame,
  type Frame,
  type ModelRequest,
  type RequestOrigin,
} from "../../../ghostllm/stream.ts";
import type { Log } from "../../../platform/log.ts";
import type { Actor } from "../../../platform/permit.ts";
import type { BodyReader, ReadChat } from "../body-reader.ts";
import { type ErrorShape, httpError } from "../errors.ts";
import type { OpenRequests } from "../open-requests.ts";
import type { ChatDialect } from "./parsers.ts";

/** What every dialect's routes are given. */
export interface DialectOptions {
  readonly open: OpenRequests;
  readonly brain: Brain;
  readonly bodies: BodyReader;
  readonly userId: UserId;
  readonly aliases: readonly string[];
  readonly clock: Clock;
  readonly log: Log;
}

/** An answer that is not streamed is held whole: far beyond any context window, and far below what would harm the process. */
const MAX_WHOLE_BYTES = 64 * 1024 * 1024;

/** Turns the frames of one streamed answer into a client's bytes. */
export interface StreamWriter {
  /** Empty where a frame holds nothing for the client. */
  write(frame: Frame): Buffer;
  /** After the last frame, before the end: what must be kept before the client may know that the answer is whole. */
  settle?(): Promise<void>;
  /** What must come after the last frame of a whole answer. */
  end(): Buffer;
  /** What tells the client that the answer broke off. */
  fail(error: GhostError): Buffer;
}

/** How one request's answer is written. */
export interface AnswerWriter {
  readonly isStream: boolean;
  readonly contentType: string;
  readonly errors: ErrorShape;
  /** Frames of this dialect are the client's own: a whole answer of them passes as it came. */
  readonly relays: Dialect | undefined;
  stream(answer: Answer): StreamWriter;
  /** The body of an answer that is not streamed. */
  whole(answer: Answer, fold: AnswerFold): string | Promise<string>;
  /** Before a body is sent that passes as it came. */
  settleRelayed?(body: Buffer): Promise<void>;
  /** More headers, or other values. */
  headers?(answer: Answer): Readonly<Record<string, string>>;
}

/** Asks for the answer and writes it. Before its first content, errors are thrown to the front. */
export async function serveAnswer(
  options: DialectOptions,
  request: ModelRequest,
  writer: AnswerWriter,
  reply: FastifyReply,
  signal: AbortSignal,
): Promise<FastifyReply> {
  await using answer = await options.brain.answer(request, {}, signal);
  reply.hijack();
  const { raw } = reply;
  let stream: StreamWriter | undefined;
  try {
    if (writer.isStream) {
      stream = writer.stream(answer);
      await writeStream(answer, stream, writer, raw, signal);
    } else await writeWhole(answer, writer, raw);
  } catch (thrown) {
    const error = toGhostError(signal.aborted ? signal.reason : thrown);
    if (error.family === "bug") options.log.error({ event: "answer.failed", answer: answer.id, error });
    breakOff(raw, error, { writer, stream, id: answer.id });
  }
  return reply;
}

async function writeStream(
  answer: Answer,
  stream: StreamWriter,
  writer: AnswerWriter,
  raw: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  raw.writeHead(200, {
    "content-type": writer.contentType,
    "cache-control": "no-cache",
    ...answerHeaders(answer),
    ...writer.headers?.(answer),
  });
  for await (const frame of answer.frames) {
    const isOtherForm = frame.dialect === writer.relays && !isEventStream(frame.bytes);
    const bytes = stream.write(isOtherForm ? eventsFrame(frame.events()) : frame);
    if (bytes.length > 0 && !raw.write(bytes)) await once(raw, "drain", { signal });
  }
  await stream.settle?.();
  raw.end(stream.end());
}

async function writeWhole(answer: Answer, writer: AnswerWriter, raw: ServerResponse): Promise<void> {
  const frames = await readWhole(answer);
  const [first] = frames;
  const isRelay =
    first !== undefined && frames.every(({ dialect, bytes }) => dialect === writer.relays && !isEventStream(bytes));
  const body = isRelay
    ? frames.length === 1
      ? first.bytes
      : Buffer.concat(frames.map(({ bytes }) => bytes))
    : Buffer.from(await writer.whole(answer, foldOf(frames)));
  if (isRelay) await writer.settleRelayed?.(body);
  raw.writeHead(200, {
    "content-type": "application/json",
    "content-length": body.length,
    ...answerHeaders(answer),
    ...writer.headers?.(answer),
  });
  raw.end(body);
}

/** @throws OperationalError `upstream_failed` for an answer without end: leaving it stops its upstream */
async function readWhole(answer: Answer): Promise<readonly Frame[]> {
  const frames: Frame[] = [];
  let heldBytes = 0;
  for await (const frame of answer.frames) {
    heldBytes += frame.bytes.length + eventsLength(frame);
    if (heldBytes > MAX_WHOLE_BYTES) {
      throw new OperationalError(
        "upstream_failed",
        `${answer.model.ref} answers with more than ${MAX_WHOLE_BYTES} bytes`,
      );
    }
    frames.push(frame);
  }
  return frames;
}

/** Of frames that have no bytes of their own, roughly. */
function eventsLength(frame: Frame): number {
  if (frame.dialect !== "events") return 0;
  let length = 0;
  for (const event of frame.events()) {
    if ("text" in event) length += event.text.length;
    else if (event.kind === "toolCall") length += event.arguments.length;
  }
  return length;
}

function foldOf(frames: readonly Frame[]): AnswerFold {
  const fold = new AnswerFold();
  for (const frame of frames) fold.addAll(frame.events());
  return fold;
}

/** Before the head, an error is an answer. After it, the stream says what happened and the connection is cut (1). */
function breakOff(
  raw: ServerResponse,
  error: GhostError,
  {
    writer,
    stream,
    id,
  }: { readonly writer: AnswerWriter; readonly stream: StreamWriter | undefined; readonly id: AnswerId },
): void {
  if (raw.destroyed) return;
  if (!raw.headersSent) {
    const { status, headers, body } = httpError(error, writer.errors, id);
    raw.writeHead(status, headers);
    raw.end(body);
    return;
  }
  const bytes = stream?.fail(error) ?? Buffer.alloc(0);
  raw.write(bytes, () => raw.destroy());
}

export function answerHeaders(answer: Answer): Record<string, string> {
  const { dropped } = answer;
  return {
    "x-request-id": answer.id,
    "x-ghost-model": headerText(answer.model.ref),
    "x-ghost-route": headerText(answer.decision.reason),
    ...(answer.model.note === undefined ? {} : { "x-ghost-note": headerText(answer.model.note) }),
    ...(dropped.length === 0 ? {} : { "x-ghost-dropped": headerText(dropped.join(", ")) }),
  };
}

/** Header values are Latin-1 without controls. */
export function headerText(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "?").slice(0, 500);
}

/** A client's chat request as the brain wants it. `values` are set in the body before it is relayed. */
export function chatRequest<Name extends ChatDialect>(
  dialect: Name,
  body: Buffer,
  read: ReadChat<Name>,
  more: {
    readonly actor: Actor;
    readonly values?: Readonly<Record<string, string>>;
    readonly headers?: Readonly<Record<string, string>>;
    /** Where the messages are not those of the body alone. */
    readonly messages?: ChatRequest["messages"];
  },
): ChatRequest {
  const { facts } = read;
  const origin: RequestOrigin = {
    dialect,
    ...present("headers", more.headers),
    bodyFor: (modelName) => read.with({ model: JSON.stringify(modelName), ...more.values }),
  };
  return {
    task: "chat",
    target: facts.model,
    messages: more.messages ?? (() => read.messages()),
    ...(more.messages === undefined ? { recordedBody: { dialect, body } } : {}),
    tools: facts.tools,
    toolChoice: facts.toolChoice,
    ...present("parallelToolCalls", facts.parallelToolCalls),
    ...present("reasoning", facts.reasoning),
    hasImages: facts.hasImages,
    hasFiles: facts.hasFiles,
    ...present("cacheKey", facts.cacheKey),
    extras: facts.extras,
    output: facts.output,
    sampling: facts.sampling,
    actor: more.actor,
    stream: facts.stream,
    lane: "chat",
    // What another maker sealed must be taken out, and a body that is only half the conversation says too little.
    ...(facts.isForeign || more.messages !== undefined ? {} : { origin }),
  };
}

/** @throws UserError `invalid_json` */
export function bodyOf(request: FastifyRequest): Buffer {
  if (Buffer.isBuffer(request.body) && request.body.length > 0) return request.body;
  throw new UserError("invalid_json", "the body is empty");
}

/** By connection, which serves many requests: each would else leave a listener on it. */
const goneSignals = new WeakMap<NodeJS.EventEmitter, AbortSignal>();

/** Aborts when the client's connection closes: for requests that are not answers. */
export function gone(socket: NodeJS.EventEmitter): AbortSignal {
  const known = goneSignals.get(socket);
  if (known !== undefined) return known;
  const controller = new AbortController();
  goneSignals.set(socket, controller.signal);
  socket.once("close", () => controller.abort(new OperationalError("cancelled", "the client went away")));
  return controller.signal;
}

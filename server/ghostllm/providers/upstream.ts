/**
 * What all servers that answer in server-sent events have in common: reading whole frames, waiting for the first content, and telling errors.
 * 1. An answer counts as whole only when its dialect's own word for the end was seen; every other end throws, so that it cannot pass for one.
 * 2. A server's own words leave in our errors, but never its key, whatever it echoes (I5).
 */
import { type GhostError, OperationalError, ReportedError } from "../../base/errors.ts";
import { header, type HttpResponse, readBody } from "../../platform/http-client.ts";
import { SseSplitter, sseFrames } from "../frames/sse.ts";
import { eventsFrame, type Frame, type StreamEvent } from "../stream.ts";

/** Whose words an error quotes. */
export interface Server {
  readonly id: string;
  /** Blanks the server's key (2). */
  readonly clean: (text: string) => string;
}

/** A dialect's frames as an upstream sends them. */
export interface FrameFormat {
  /** One or more whole frames; events are parsed when first asked for. */
  frame(bytes: Buffer): Frame;
  /** These frames say that the answer is whole. A cheap search: it sees every frame. */
  isEnd(bytes: Buffer): boolean;
  /** There may be an error among these frames: then they are looked at one by one. A cheap search, too. */
  mayFail(bytes: Buffer): boolean;
  /** What of these frames is for the client; whoever writes to it says the end itself. */
  strip?(bytes: Buffer): Buffer;
  /** The error of one frame that reports one; by default its `error` event. */
  failure?(frame: Frame): GhostError | undefined;
}

export const MAX_MODEL_LIST_BYTES = 4 * 1024 * 1024;
const MAX_ERROR_BODY_BYTES = 64 * 1024;
/** A plain (not streamed) answer is held whole; 64 MiB is far beyond any context window. */
export const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
/** Frames before the first content: a role chunk and some pings. A server that sends more without content is broken. */
const MAX_EMPTY_FRAMES = 1_000;

/** The frames of a streamed answer, from the first content on. @throws what the server reports before it */
export function openStream(server: Server, format: FrameFormat, response: HttpResponse): Promise<AsyncIterable<Frame>> {
  return gate(server, format, readFrames(server, format, response));
}

/** The one frame of an answer that is not streamed. @throws what the server reports in it */
export async function openWhole(
  server: Server,
  format: FrameFormat,
  response: HttpResponse,
): Promise<AsyncIterable<Frame>> {
  const frame = format.frame(fromFirstSign(await readBody(response, MAX_ANSWER_BYTES)));
  throwFailure(server, format, frame);
  if (frame.events().length === 0)
    throw new OperationalError("upstream_failed", `${server.id} sent an answer without content`);
  return once(frame);
}

/** White space, and the mark of a byte order. */
const BLANKS: ReadonlySet<number | undefined> = new Set([0x09, 0x0a, 0x0d, 0x20, 0xef, 0xbb, 0xbf]);

/** Without what stands before the answer: servers keep a connection open by empty lines. */
function fromFirstSign(body: Buffer): Buffer {
  let start = 0;
  while (start < body.length && BLANKS.has(body[start])) start += 1;
  return body.subarray(start);
}

/** Throws when the answer is not whole (1), after all that came before. */
async function* readFrames(server: Server, format: FrameFormat, response: HttpResponse): AsyncGenerator<Frame> {
  const splitter = new SseSplitter();
  let isWhole = false;
  const accept = function* (bytes: Buffer): Generator<Frame> {
    if (format.isEnd(bytes)) isWhole = true;
    const kept = format.strip === undefined ? bytes : format.strip(bytes);
    if (format.mayFail(kept)) yield* untilFailure(server, format, kept);
    else if (kept.length > 0) yield format.frame(kept);
  };
  for await (const chunk of response.body) {
    const bytes = splitter.push(chunk);
    // Not `yield*`: delegating to a plain generator costs three promises a frame.
    if (bytes !== undefined) for (const frame of accept(bytes)) yield frame;
  }
  // Some servers forget the blank line behind their last frame; a frame that was cut does not parse.
  const rest = splitter.rest();
  if (rest.toString("utf8").trim() !== "") {
    const last = [...accept(Buffer.concat([rest, BLANK_LINE]))].map(({ bytes }) => bytes);
    yield* untilFailure(server, format, Buffer.concat(last));
  }
  if (!isWhole) throw new OperationalError("upstream_failed", `${server.id} ended its answer in the middle`);
}

const BLANK_LINE = Buffer.from("\n\n");

/** The frames before the first that is an error, or is nothing of the dialect at all; then throws. Passes on everything when none is. */
function* untilFailure(server: Server, format: FrameFormat, bytes: Buffer): Generator<Frame> {
  const good: Buffer[] = [];
  for (const single of sseFrames(bytes)) {
    const failure = failureIn(server, format, format.frame(single));
    if (failure === undefined) {
      good.push(single);
      continue;
    }
    if (good.length > 0) yield format.frame(Buffer.concat(good));
    throw failure;
  }
  if (good.length > 0) yield format.frame(Buffer.concat(good));
}

/** Waits for the first frame with content, so that nothing is promised to the client before it; then everything in order. */
async function gate(server: Server, format: FrameFormat, frames: AsyncGenerator<Frame>): Promise<AsyncIterable<Frame>> {
  try {
    return heldThen(await untilContent(server, format, frames), frames);
  } catch (error) {
    // Nobody will read on: the upstream is not left to talk to itself.
    await frames.return(undefined);
    throw error;
  }
}

async function untilContent(server: Server, format: FrameFormat, frames: AsyncGenerator<Frame>): Promise<Frame[]> {
  const held: Frame[] = [];
  while (held.length <= MAX_EMPTY_FRAMES) {
    const next = await frames.next();
    if (next.done === true) return held;
    held.push(next.value);
    throwFailure(server, format, next.value);
    if (next.value.events().some((event) => event.kind !== "usage")) return held;
  }
  throw new OperationalError("upstream_failed", `the server sent ${MAX_EMPTY_FRAMES} frames without content`);
}

/** What was held, then the rest, without another generator's promises for each frame. */
function heldThen(held: Frame[], rest: AsyncGenerator<Frame>): AsyncIterable<Frame> {
  return {
    [Symbol.asyncIterator]: () => ({
      next() {
        const value = held.shift();
        return value === undefined ? rest.next() : Promise.resolve({ value, done: false });
      },
      return() {
        held.length = 0;
        return rest.return(undefined);
      },
    }),
  };
}

function throwFailure(server: Server, format: FrameFormat, frame: Frame): void {
  const failure = failureIn(server, format, frame);
  if (failure !== undefined) throw failure;
}

function failureIn(server: Server, format: FrameFormat, frame: Frame): GhostError | undefined {
  const told = format.failure?.(frame);
  if (told !== undefined) return told;
  const broken = frame.events().find((event) => event.kind === "error");
  return broken === undefined
    ? undefined
    : new ReportedError({ ...broken.error, message: server.clean(broken.error.message) });
}

async function* once(frame: Frame): AsyncGenerator<Frame> {
  yield frame;
}

/** The same frames, each changed, without another generator's promises for each. */
export function mapFrames(frames: AsyncIterable<Frame>, change: (frame: Frame) => Frame): AsyncIterable<Frame> {
  return {
    [Symbol.asyncIterator]() {
      const source = frames[Symbol.asyncIterator]();
      const take = (result: IteratorResult<Frame>): IteratorResult<Frame> =>
        result.done === true ? result : { value: change(result.value), done: false };
      return {
        next: () => source.next().then(take),
        return: async () => (await source.return?.()) ?? { value: undefined, done: true },
      };
    },
  };
}

/**
 * The frames of an answer whose request was not relayed, as events: none of them may pass for the client's own dialect, which it would be half of, and
 * what is broken in them is seen by everybody who reads on (`brain.ts` ends the answer there).
 */
export function translated(
  server: Server,
  frames: AsyncIterable<Frame>,
  change: (frame: Frame) => Frame,
): AsyncIterable<Frame> {
  const clean = (event: StreamEvent): StreamEvent =>
    event.kind === "error"
      ? { ...event, error: { ...event.error, message: server.clean(event.error.message) } }
      : event;
  return mapFrames(frames, (frame) => {
    const events = change(frame).events();
    return eventsFrame(events.some(({ kind }) => kind === "error") ? events.map(clean) : events);
  });
}

/** An answer with an error status: its status, its body, and how long it asks to wait. */
export interface Refusal {
  readonly status: number;
  /** At most 64 KiB of it; empty where it could not be read. */
  readonly body: Buffer;
  /** The body as JSON; undefined where it is none. */
  readonly json: unknown;
  /** From `retry-after-ms` or `retry-after`. */
  readonly retryAfterMs: number | undefined;
  header(name: string): string | undefined;
}

export async function readRefusal(response: HttpResponse): Promise<Refusal> {
  const body = await readBody(response, MAX_ERROR_BODY_BYTES).catch(() => Buffer.alloc(0)); // The status says enough without a body.
  return {
    status: response.status,
    body,
    json: parseJson(body),
    retryAfterMs: retryAfterMs(response),
    header: (name) => header(response, name),
  };
}

function retryAfterMs(response: HttpResponse): number | undefined {
  const inMs = Number(header(response, "retry-after-ms"));
  if (Number.isFinite(inMs) && inMs > 0) return inMs;
  const inSeconds = Number(header(response, "retry-after"));
  return Number.isFinite(inSeconds) && inSeconds > 0 ? inSeconds * 1000 : undefined;
}

export function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return undefined; // HTML or cut JSON; the schema that is tried next refuses it.
  }
}

/** The readable beginning of an HTML or text body. */
export function firstWords(body: Buffer, clean: Server["clean"]): string {
  return clean(body.toString("utf8"))
    .slice(0, 2000)
    .replace(/<(style|script)[^>]*>[\s\S]*?<\/\1>/gi, " ")
    .replace(/<[^>]*>/g, " ")
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, 200);
}

/**
 * Gemini's answers on their way in: what its frames and refusals mean, and one answer out of several requests.
 * 1. An answer that is longer than one request may bring goes on in the next one: the same body and a token, never what was said so far. So does one that
 *    was cut exactly behind such a token; what came behind the last token cannot be taken back from a client.
 * 2. Calls are counted over the whole answer, and what each request used is added up; where one does not say, the sum is unknown.
 */
import type { WireError } from "../../../protocol/errors.ts";
import type { Usage } from "../../../protocol/usage.ts";
import { type GhostError, OperationalError, ReportedError, toGhostError, UserError } from "../../base/errors.ts";
import { present } from "../../base/optional.ts";
import type { HttpResponse } from "../../platform/http-client.ts";
import { continuationIn, endsHop, endWords, geminiFrame, isContent } from "../frames/gemini.ts";
import { codeOfGemini, isOperational, readGeminiError } from "../frames/gemini-error.ts";
import { eventsFrame, type Frame, type StreamEvent } from "../stream.ts";
import { firstWords, type FrameFormat, readRefusal, type Server } from "./upstream.ts";

/** @param isFirst nothing of the answer was sent before */
export function geminiFrames(server: Server, { isFirst }: { readonly isFirst: boolean }): FrameFormat {
  let hasContent = !isFirst;
  return {
    frame: geminiFrame,
    isEnd: endsHop,
    // Every frame is read by the `HopReader`, and whoever gets its events ends at an error.
    mayFail: () => false,
    failure(frame) {
      const events = frame.events();
      const error = events.find(({ kind }) => kind === "error");
      if (error?.kind === "error") return reported(server, error.error);
      hasContent ||= events.some(isContent);
      const finish = events.find((event) => event.kind === "finish");
      // Before the first word another model may answer; after it, the client is told how it ended.
      if (hasContent || finish?.kind !== "finish") return undefined;
      const { id } = server;
      if (finish.reason === "unknown") return reported(server, strangeEnd(frame));
      if (finish.reason !== "contentFilter") return undefined;
      return new UserError("upstream_filtered", `${id} refuses to answer this`, { details: { provider: id } });
    },
  };
}

/** (4) of `frames/gemini.ts` */
function strangeEnd({ bytes }: Frame): WireError {
  return { code: "upstream_failed", message: `the model broke off: ${endWords(bytes)}`, details: {} };
}

/** The frames of a relay: every end of an answer is passed on, since its client knows the dialect; it also asks for the next part itself. */
export function relayedFrames(server: Server): FrameFormat {
  return {
    frame: geminiFrame,
    isEnd: (bytes) => endsHop(bytes) || bytes.includes('"blockReason"'),
    mayFail: (bytes) => bytes.includes('"error"'),
    failure(frame) {
      const error = frame.events().find(({ kind }) => kind === "error");
      return error?.kind === "error" ? reported(server, error.error) : undefined;
    },
  };
}

function reported({ id, clean }: Server, error: WireError): GhostError {
  return new ReportedError({ ...error, message: clean(`${id}: ${error.message}`) });
}

/** Longer than the longest answer: 1,048,576 tokens in hops of 32,768. */
const MAX_HOPS = 64;
/** Hops in a row that were cut before they brought anything. */
const MAX_STUCK = 3;

export interface HopOptions {
  readonly server: Server;
  readonly newCallId: () => string;
  readonly signal: AbortSignal;
  /** Sends the same request with the token. */
  readonly open: (token: string) => Promise<AsyncIterable<Frame>>;
}

/** All hops of an answer (1), as frames of events. @throws what a hop throws that cannot be taken up again */
export async function* readHops(first: AsyncIterable<Frame>, options: HopOptions): AsyncGenerator<Frame> {
  const reader = new HopReader(options);
  let open = async () => first;
  let stuck = 0;
  for (let hop = 0; hop < MAX_HOPS; hop += 1) {
    let failure: GhostError | undefined;
    try {
      for await (const frame of await open()) yield reader.read(frame);
    } catch (thrown) {
      failure = toGhostError(thrown);
    }
    if (reader.isFinished) {
      if (failure !== undefined) throw failure;
      return;
    }
    const { token } = reader;
    const isLost = failure !== undefined && (!reader.isAtToken || !mayResume(failure) || options.signal.aborted);
    stuck = failure === undefined || reader.hasProgress ? 0 : stuck + 1;
    if (token === undefined || isLost || stuck >= MAX_STUCK) throw failure ?? noToken(options.server);
    reader.nextHop();
    open = () => options.open(token);
  }
  throw new OperationalError("upstream_failed", `${options.server.id} did not end its answer in ${MAX_HOPS} parts`);
}

const mayResume = ({ code }: GhostError) => code === "upstream_failed" || code === "upstream_unreachable";
const noToken = ({ id }: Server) =>
  new OperationalError("upstream_failed", `${id} ended a part of its answer without saying how it goes on`);

class HopReader {
  readonly #options: HopOptions;
  #calls = 0;
  /** What earlier hops used. */
  #before: Usage | "unknown" | undefined;
  #hop: Usage | undefined;
  /** By which the answer goes on. */
  token: string | undefined;
  /** Nothing came behind the token. */
  isAtToken = false;
  /** This hop brought something. */
  hasProgress = false;
  /** The answer's own end, or an error. */
  isFinished = false;

  constructor(options: HopOptions) {
    this.#options = options;
  }

  read(frame: Frame): Frame {
    const events: StreamEvent[] = [];
    for (const event of frame.events()) {
      const read = this.#readEvent(event, frame);
      if (read !== undefined) events.push(read);
    }
    const next = continuationIn(frame.bytes);
    if (next !== undefined) {
      this.token = next.token;
      this.isAtToken = next.isLast;
      this.hasProgress = true;
    }
    return eventsFrame(events);
  }

  nextHop(): void {
    this.#before = this.#hop === undefined ? "unknown" : this.#total(this.#hop);
    this.#hop = undefined;
    this.hasProgress = false;
  }

  #readEvent(event: StreamEvent, frame: Frame): StreamEvent | undefined {
    switch (event.kind) {
      case "toolCall": {
        this.#isMoved();
        this.#calls += 1;
        return { ...event, index: this.#calls - 1, callId: event.callId ?? this.#options.newCallId() };
      }
      case "usage": {
        this.#hop = { ...this.#hop, ...event.usage };
        const usage = this.#total(this.#hop);
        return usage === "unknown" ? undefined : { kind: "usage", usage };
      }
      case "error":
        return this.#broken(event.error);
      case "finish":
        if (event.reason === "unknown") return this.#broken(strangeEnd(frame));
        this.isFinished = true;
        return event;
      default:
        this.#isMoved();
        return event;
    }
  }

  #broken(error: WireError): StreamEvent {
    this.isFinished = true;
    const { clean, id } = this.#options.server;
    return { kind: "error", error: { ...error, message: clean(`${id}: ${error.message}`) } };
  }

  #isMoved(): void {
    this.isAtToken = false;
    this.hasProgress = true;
  }

  /** (2) */
  #total(hop: Usage): Usage | "unknown" {
    const before = this.#before;
    if (before === undefined || before === "unknown") return before ?? hop;
    const both = (key: "promptTokens" | "completionTokens") => {
      const [one, other] = [before[key], hop[key]];
      return one === undefined || other === undefined ? undefined : one + other;
    };
    // What is 0 is not said there.
    const either = (key: "cachedTokens" | "reasoningTokens") => {
      const isSaid = before[key] !== undefined || hop[key] !== undefined;
      return isSaid ? (before[key] ?? 0) + (hop[key] ?? 0) : undefined;
    };
    return {
      ...present("promptTokens", both("promptTokens")),
      ...present("completionTokens", both("completionTokens")),
      ...present("cachedTokens", either("cachedTokens")),
      ...present("reasoningTokens", either("reasoningTokens")),
    };
  }
}

/** A refused request, and the server's own words for a second try. */
export interface Rejection {
  readonly error: GhostError;
  readonly status: number;
  readonly said: string;
}

export async function readRejection({ id, clean }: Server, response: HttpResponse): Promise<Rejection> {
  const refusal = await readRefusal(response);
  const { status } = refusal;
  const told = readGeminiError(refusal.json);
  // Before it is shortened: half a key is no key to look for.
  const said = told === undefined ? firstWords(refusal.body, clean) : clean(told.message);
  const message = `${id} answered ${status}${said === "" ? "" : `: ${said.slice(0, 500)}`}`;
  const reason = told?.reason ?? told?.word;
  const details = { provider: id, status, ...present("reason", reason === "" ? undefined : reason) };
  const retryAfterMs = told?.retryAfterMs ?? refusal.retryAfterMs;
  const code = codeOfGemini(told, status);
  const error = isOperational(code)
    ? new OperationalError(code, message, { details, ...present("retryAfterMs", retryAfterMs) })
    : new UserError(code, message, { details });
  return { error, status, said };
}

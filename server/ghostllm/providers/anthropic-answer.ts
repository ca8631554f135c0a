/**
 * Answers of Anthropic's Messages on their way in: what an upstream's frames mean, and what its refusals are.
 * 1. A relay passes every end on: its client knows the dialect. Everybody else gets only ends that they know.
 * 2. The event of the end does not leave here: whoever writes to the client says it when the answer is stored.
 */
import { type GhostError, OperationalError, UserError } from "../../base/errors.ts";
import { present } from "../../base/optional.ts";
import type { HttpResponse } from "../../platform/http-client.ts";
import { anthropicFrame, hasMessageStop, isMessageStop } from "../frames/anthropic.ts";
import {
  type AnthropicCode,
  codeOfAnthropic,
  type ErrorContext,
  isOperational,
  readAnthropicError,
} from "../frames/anthropic-error.ts";
import { sseData, sseFrames } from "../frames/sse.ts";
import { eventsFrame, type Frame, type StreamEvent } from "../stream.ts";
import { firstWords, type FrameFormat, readRefusal, type Server } from "./upstream.ts";

/** The frames of one answer. @param isRelay see (1) */
export function messageFrames(server: Server, { isRelay }: { readonly isRelay: boolean }): FrameFormat {
  let hasContent = false;
  return {
    frame: anthropicFrame,
    isEnd: hasMessageStop,
    mayFail: (bytes) => bytes.includes('"error"') || (!isRelay && bytes.includes("message_delta")),
    strip: withoutStop,
    failure(frame) {
      for (const event of frame.events()) {
        if (event.kind === "error") return reported(server, event.error);
        if (event.kind !== "finish") hasContent ||= event.kind !== "usage";
        else if (!isRelay) return strangeEnd(server, event.reason, hasContent);
      }
      return undefined;
    },
  };
}

/** (2) */
function withoutStop(bytes: Buffer): Buffer {
  if (!hasMessageStop(bytes)) return bytes;
  return Buffer.concat(sseFrames(bytes).filter((frame) => !sseData(frame).some(isMessageStop)));
}

function reported(server: Server, error: Extract<StreamEvent, { kind: "error" }>["error"]): GhostError {
  const code = codeOfAnthropic({
    type: String(error.details["type"] ?? ""),
    message: error.message,
    errorCode: String(error.details["reason"] ?? ""),
    requestId: undefined,
  });
  return toError(code, server.clean(`${server.id}: ${error.message}`), { details: error.details });
}

function strangeEnd(
  { id }: Server,
  reason: Extract<StreamEvent, { kind: "finish" }>["reason"],
  hasContent: boolean,
): GhostError | undefined {
  if (reason === "unknown") {
    return new OperationalError("upstream_failed", `${id} ended its answer with a word that is no end here`);
  }
  // Before the first word another model may answer; after it, the client is told how it ended.
  if (reason !== "contentFilter" || hasContent) return undefined;
  return new UserError("upstream_filtered", `${id} refuses to answer this`, { details: { provider: id } });
}

/** A refused request, and what of it may be mended. */
export interface Rejection {
  readonly error: GhostError;
  /** The server's own words, for a second try. */
  readonly status: number;
  readonly said: string;
}

export async function readRejection(server: Server, response: HttpResponse): Promise<Rejection> {
  const refusal = await readRefusal(response);
  const { status, retryAfterMs } = refusal;
  const told = readAnthropicError(refusal.json);
  const context: ErrorContext = { status, shouldRetry: refusal.header("x-should-retry") };
  const { id, clean } = server;
  // Before it is shortened: half a key is no key to look for.
  const said = told === undefined ? firstWords(refusal.body, clean) : clean(told.message);
  const message = `${id} answered ${status}${said === "" ? "" : `: ${said.slice(0, 500)}`}`;
  const details = {
    provider: id,
    status,
    ...present("reason", told?.errorCode ?? told?.type),
    ...present("requestId", told?.requestId ?? refusal.header("request-id")),
  };
  const error = toError(codeOfAnthropic(told, context), message, { details, ...present("retryAfterMs", retryAfterMs) });
  return { error, status, said };
}

function toError(
  code: AnthropicCode,
  message: string,
  { retryAfterMs, ...options }: { readonly details: GhostError["details"]; readonly retryAfterMs?: number },
): GhostError {
  if (!isOperational(code)) return new UserError(code, message, options);
  return new OperationalError(code, message, { ...options, ...present("retryAfterMs", retryAfterMs) });
}

/** Where the answer is the input of the only tool that there is: its calls as text. */
export function answerAsText(frame: Frame): Frame {
  const events = frame.events();
  const isTouched = events.some(({ kind }) => kind === "toolCall" || kind === "finish");
  return isTouched ? eventsFrame(events.map(toText)) : frame;
}

function toText(event: StreamEvent): StreamEvent {
  if (event.kind === "toolCall") return { kind: "text", text: event.arguments };
  return event.kind === "finish" && event.reason === "toolCalls" ? { kind: "finish", reason: "stop" } : event;
}

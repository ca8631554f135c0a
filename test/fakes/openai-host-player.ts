/**
 * Plays one scripted answer onto an HTTP response of the fake OpenAI-compatible host.
 * 1. It stops the moment the peer is gone; what it had sent by then is in the record.
 * 2. It honours backpressure: a peer that does not read stops it.
 */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import {
  type Answer,
  cutInsideCharacter,
  errorBody,
  renderFrame,
  streamSteps,
  wholeBody,
  withInvalidByte,
} from "./openai-host-frames.ts";
import type { Cut, ErrorStatus, Script } from "./openai-host-script.ts";

/** A reset throws away what has not been sent, and overtakes at the receiver what has: what came before it needs this long to arrive. */
const BEFORE_RESET_MS = 20;

/** What the player reports while it plays. */
export interface Progress {
  sentToken(): void;
  /** The script itself ends the answer badly: what follows is not the peer's doing. */
  faulted(): void;
}

export interface Play {
  readonly response: ServerResponse;
  readonly script: Script;
  readonly answer: Answer;
  readonly progress: Progress;
  /** Aborted when the peer has gone. */
  readonly signal: AbortSignal;
}

export async function playStream(play: Play): Promise<void> {
  const { response, script, answer, progress, signal } = play;
  if (!(await begin(play))) return;
  response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache" });
  response.flushHeaders();
  const wire = script.wire ?? {};
  const fault = script.fault;
  let tokensSent = 0;
  let index = 0;
  for (const step of streamSteps(answer)) {
    if (step.payload === "[DONE]" && wire.omitDone === true) break;
    let frame = renderFrame(step.payload, { wire, index });
    index += 1;
    if (fault !== undefined && "afterTokens" in fault && tokensSent >= fault.afterTokens) {
      if (fault.kind === "invalid-utf8") {
        if (step.isToken && tokensSent === fault.afterTokens) frame = withInvalidByte(frame);
      } else if (fault.kind === "error-in-band") {
        const error = errorBody({ message: fault.message, type: "server_error", code: null });
        progress.faulted();
        response.end(renderFrame(error, { wire, index }));
        return;
      } else if (fault.kind === "hang") {
        await once(signal, "abort");
        return;
      } else {
        await breakOff(play, fault, frame);
        return;
      }
    }
    if (step.isToken && tokensSent > 0 && script.msPerToken !== undefined) {
      await sleep(script.msPerToken, undefined, { signal });
    }
    await write(play, frame);
    if (step.isToken) {
      tokensSent += 1;
      progress.sentToken();
    }
  }
  response.end();
}

export async function playWhole(play: Play): Promise<void> {
  const { response, script, answer, progress, signal } = play;
  if (!(await begin(play))) return;
  const { fault } = script;
  if (script.msPerToken !== undefined) {
    await sleep(script.msPerToken * answer.tokens.length, undefined, { signal });
  }
  let body: Buffer = Buffer.from(wholeBody(answer));
  if (fault?.kind === "invalid-utf8") body = withInvalidByte(body);
  if (fault?.kind === "error-in-band") {
    body = Buffer.from(errorBody({ message: fault.message, type: "server_error", code: null }));
    progress.faulted();
  }
  response.writeHead(200, { "content-type": "application/json", "content-length": body.length });
  if (fault?.kind === "hang") {
    response.flushHeaders();
    await once(signal, "abort");
    return;
  }
  if (fault?.kind === "cut") {
    response.flushHeaders();
    await breakOff(play, fault, body);
    return;
  }
  await write(play, body);
  for (let sent = 0; sent < answer.tokens.length; sent += 1) progress.sentToken();
  response.end();
}

export function sendStatus(response: ServerResponse, status: ErrorStatus): void {
  const isHtml = status.body === "html";
  const message = status.message ?? "scripted failure";
  const body = isHtml
    ? `<html>\r\n<head><title>${status.code}</title></head>\r\n<body><center><h1>${status.code} ${message}</h1></center></body>\r\n</html>\r\n`
    : errorBody({ message, type: status.type ?? "server_error", code: status.errorCode ?? null });
  response.writeHead(status.code, {
    "content-type": isHtml ? "text/html" : "application/json",
    "content-length": Buffer.byteLength(body),
    ...(status.retryAfterS === undefined ? {} : { "retry-after": String(status.retryAfterS) }),
  });
  response.end(body);
}

/** Everything that comes before the headers; false where the script ends there. */
async function begin(play: Play): Promise<boolean> {
  const { response, script, progress, signal } = play;
  if (script.firstTokenMs !== undefined) await sleep(script.firstTokenMs, undefined, { signal });
  if (script.fault?.kind === "hang-before-headers") {
    await once(signal, "abort");
    return false;
  }
  if (script.fault?.kind === "reset-before-headers") {
    progress.faulted();
    response.socket?.resetAndDestroy();
    return false;
  }
  if (script.status !== undefined) {
    sendStatus(response, script.status);
    return false;
  }
  return true;
}

async function breakOff(play: Play, cut: Cut, next: Buffer): Promise<void> {
  const { response } = play;
  if (cut.where !== "between-frames") {
    const length = cut.where === "mid-frame" ? Math.floor(next.length / 2) : cutInsideCharacter(next);
    if (length === undefined) throw new Error(`the delta after ${cut.afterTokens} has no multi-byte character to cut`);
    await write(play, next.subarray(0, length));
  }
  play.progress.faulted();
  if (cut.how === "reset") {
    await sleep(BEFORE_RESET_MS);
    response.socket?.resetAndDestroy();
  } else if (cut.how === "close") {
    response.socket?.end();
    response.socket?.destroySoon();
  } else if (response.hasHeader("content-length")) {
    throw new Error("a body with a content-length cannot end early and cleanly");
  } else {
    response.end();
  }
}

async function write(play: Play, bytes: Buffer): Promise<void> {
  const { response, script, signal } = play;
  const size = script.wire?.writeBytes ?? bytes.length;
  for (let at = 0; at < bytes.length; at += size) {
    signal.throwIfAborted();
    if (!response.write(bytes.subarray(at, at + size))) await once(response, "drain", { signal });
    else if (size < bytes.length) await nextTurn(undefined, { signal });
  }
}

/**
 * Plays one scripted answer onto an HTTP response of a fake host, whatever its dialect: it is handed frames that are rendered.
 * 1. It stops the moment the peer is gone; what it had sent by then is in the record.
 * 2. It honours backpressure: a peer that does not read stops it.
 */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import type { Cut } from "./openai-host-script.ts";
import type { Progress } from "./scripted-host.ts";

/** A reset throws away what has not been sent, and overtakes at the receiver what has: what came before it needs this long to arrive. */
const BEFORE_RESET_MS = 20;

/** One frame of a stream, and whether it is a content delta. */
export interface Frame {
  readonly bytes: Buffer;
  readonly isToken: boolean;
}

export type PlayedFault =
  | Cut
  | { readonly kind: "reset-before-headers" }
  | { readonly kind: "hang-before-headers" }
  | { readonly kind: "hang"; readonly afterTokens: number }
  | { readonly kind: "invalid-utf8"; readonly afterTokens: number }
  | { readonly kind: "error-in-band"; readonly afterTokens: number };

export interface Play {
  readonly response: ServerResponse;
  readonly progress: Progress;
  /** Aborted when the peer has gone. */
  readonly signal: AbortSignal;
  readonly fault: PlayedFault | undefined;
  /** The frame (or whole body) of an error under status 200, which comes after so many frames. */
  readonly errorInBand: (framesSent: number) => Buffer;
  readonly msPerToken: number | undefined;
  readonly firstTokenMs: number | undefined;
  readonly afterHeadersMs?: number | undefined;
  /** Writes in pieces of this many bytes, wherever they fall. */
  readonly writeBytes: number | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Answers with an error status in the place of the answer, where the script has one. */
  readonly sendStatus: (() => void) | undefined;
}

const STREAM_HEADERS = { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache" };

export async function playFrames(play: Play, frames: Iterable<Frame>): Promise<void> {
  const { response, fault, progress, signal } = play;
  if (!(await begin(play))) return;
  response.writeHead(200, { ...STREAM_HEADERS, ...play.headers });
  response.flushHeaders();
  if (play.afterHeadersMs !== undefined) await sleep(play.afterHeadersMs, undefined, { signal });
  let tokensSent = 0;
  let framesSent = 0;
  for (const frame of frames) {
    let { bytes } = frame;
    if (fault !== undefined && "afterTokens" in fault && tokensSent >= fault.afterTokens) {
      if (fault.kind === "invalid-utf8") {
        if (frame.isToken && tokensSent === fault.afterTokens) bytes = withInvalidByte(bytes);
      } else if (fault.kind === "error-in-band") {
        progress.faulted();
        response.end(play.errorInBand(framesSent));
        return;
      } else if (fault.kind === "hang") {
        await once(signal, "abort");
        return;
      } else {
        await breakOff(play, fault, bytes);
        return;
      }
    }
    if (frame.isToken && tokensSent > 0 && play.msPerToken !== undefined) {
      await sleep(play.msPerToken, undefined, { signal });
    }
    await write(play, bytes);
    framesSent += 1;
    if (frame.isToken) {
      tokensSent += 1;
      progress.sentToken();
    }
  }
  response.end();
}

/** Plays an answer that is not streamed; `tokens` is how many deltas it would have been. */
export async function playWholeBody(
  play: Play,
  whole: { readonly body: () => string; readonly tokens: number },
): Promise<void> {
  const { response, fault, progress, signal } = play;
  if (!(await begin(play))) return;
  if (play.msPerToken !== undefined) await sleep(play.msPerToken * whole.tokens, undefined, { signal });
  let body: Buffer = Buffer.from(whole.body());
  if (fault?.kind === "invalid-utf8") body = withInvalidByte(body);
  if (fault?.kind === "error-in-band") {
    body = play.errorInBand(0);
    progress.faulted();
  }
  response.writeHead(200, { "content-type": "application/json", "content-length": body.length, ...play.headers });
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
  for (let sent = 0; sent < whole.tokens; sent += 1) progress.sentToken();
  response.end();
}

/** The page that a proxy answers with, in the place of an API's error. */
export function htmlPage(code: number, message: string): string {
  return `<html>\r\n<head><title>${code}</title></head>\r\n<body><center><h1>${code} ${message}</h1></center></body>\r\n</html>\r\n`;
}

/** Everything that comes before the headers; false where the script ends there. */
async function begin(play: Play): Promise<boolean> {
  const { response, fault, progress, signal } = play;
  if (play.firstTokenMs !== undefined) await sleep(play.firstTokenMs, undefined, { signal });
  if (fault?.kind === "hang-before-headers") {
    await once(signal, "abort");
    return false;
  }
  if (fault?.kind === "reset-before-headers") {
    progress.faulted();
    response.socket?.resetAndDestroy();
    return false;
  }
  if (play.sendStatus !== undefined) {
    play.sendStatus();
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
  const { response, signal } = play;
  const size = play.writeBytes ?? bytes.length;
  for (let at = 0; at < bytes.length; at += size) {
    signal.throwIfAborted();
    if (!response.write(bytes.subarray(at, at + size))) await once(response, "drain", { signal });
    else if (size < bytes.length) await nextTurn(undefined, { signal });
  }
}

/** The length of the part of `frame` that ends inside its first multi-byte character; undefined where it has none. */
function cutInsideCharacter(frame: Buffer): number | undefined {
  const lead = frame.findIndex((byte) => byte >= 0xc0);
  return lead < 0 ? undefined : lead + 1;
}

/** Where the dialects keep what a model said. */
const CONTENT_KEYS = ["content", "text", "thinking", "partial_json", "arguments", "delta"];

/** The same frame with the first byte of its content replaced by one that UTF-8 never has. */
function withInvalidByte(frame: Buffer): Buffer {
  const copy = Buffer.from(frame);
  for (const key of CONTENT_KEYS.map((name) => `"${name}":"`)) {
    const at = copy.indexOf(key);
    if (at >= 0) {
      copy[at + key.length] = 0xff;
      return copy;
    }
  }
  return copy;
}

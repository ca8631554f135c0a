/** Plays one scripted answer of the fake OpenAI-compatible host: its frames onto the player of all hosts. */
import type { ServerResponse } from "node:http";
import { type Frame, htmlPage, type Play, playFrames, playWholeBody } from "./host-player.ts";
import { type Answer, composeAnswer, errorBody, streamSteps, wholeBody } from "./openai-host-frames.ts";
import type { ChatBody, CompletionBody, ErrorStatus, Script, WireFormat } from "./openai-host-script.ts";
import { type Exchange, sendJson } from "./scripted-host.ts";
import { renderFrame } from "./sse-frame.ts";

export async function playAnswer(exchange: Exchange<Script>, body: ChatBody | CompletionBody): Promise<void> {
  const { script, response, progress, signal, request } = exchange;
  const answer = composeAnswer(script, body, request.number);
  const { status, fault, wire = {} } = script;
  const message = fault?.kind === "error-in-band" ? fault.message : "";
  const error = errorBody({ message, type: "server_error", code: null });
  const play: Play = {
    response,
    progress,
    signal,
    fault,
    errorInBand: () =>
      body.stream === true ? renderFrame(error, { wire, index: 1, isLast: false }) : Buffer.from(error),
    msPerToken: script.msPerToken,
    firstTokenMs: script.firstTokenMs,
    writeBytes: wire.writeBytes,
    sendStatus: status === undefined ? undefined : () => sendStatus(response, status),
  };
  if (body.stream === true) await playFrames(play, framesOf(answer, wire));
  else await playWholeBody(play, { body: () => wholeBody(answer), tokens: answer.tokens.length });
}

export function sendStatus(response: ServerResponse, status: ErrorStatus): void {
  const message = status.message ?? "scripted failure";
  const headers: Readonly<Record<string, string>> =
    status.retryAfterS === undefined ? {} : { "retry-after": String(status.retryAfterS) };
  const error = { message, type: status.type ?? "server_error", code: status.errorCode ?? null };
  if (status.body === "json") sendJson(response, errorBody(error), status.code, headers);
  else sendJson(response, htmlPage(status.code, message), status.code, { "content-type": "text/html", ...headers });
}

function* framesOf(answer: Answer, wire: WireFormat): Generator<Frame> {
  let index = 0;
  for (const step of streamSteps(answer)) {
    if (step.payload === "[DONE]" && wire.omitDone === true) return;
    yield {
      bytes: renderFrame(step.payload, { wire, index, isLast: step.payload === "[DONE]" }),
      isToken: step.isToken,
    };
    index += 1;
  }
}

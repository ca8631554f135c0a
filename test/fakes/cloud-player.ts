/** Plays one scripted answer of a fake cloud host: its dialect's steps and bodies onto the player of all hosts. */
import type { ServerResponse } from "node:http";
import { framesOf, type Step } from "./cloud-frames.ts";
import type { CloudScript, CloudStatus, CloudWire, ErrorWords } from "./cloud-script.ts";
import { htmlPage, playFrames, playWholeBody } from "./host-player.ts";
import { type Exchange, sendJson } from "./scripted-host.ts";
import { renderFrame } from "./sse-frame.ts";

/** As what an error under status 200 comes, and after how many frames. */
export interface ErrorPlace {
  readonly as: "error" | "failed";
  readonly framesSent: number;
}

/** What a dialect makes of a script. */
export interface CloudAnswer {
  readonly isStream: boolean;
  readonly steps: () => Iterable<Step>;
  readonly body: () => string;
  /** How many deltas a stream of it has. */
  readonly tokens: number;
  /** What the dialect does on the wire by itself; the script's own wish comes before it. */
  readonly wire?: CloudWire;
  readonly ping?: Step;
  readonly unknown: Step;
  readonly headers: Readonly<Record<string, string>>;
  /** The error under status 200 that the script's fault asks for. */
  readonly errorStep: (error: ErrorWords, how: ErrorPlace) => Step;
  readonly sendStatus: (status: CloudStatus) => void;
}

export async function playCloudAnswer(exchange: Exchange<CloudScript>, answer: CloudAnswer): Promise<void> {
  const { script, response, progress, signal } = exchange;
  const { status, fault } = script;
  const wire = { ...answer.wire, ...script.wire };
  const error = (framesSent: number): Step =>
    fault?.kind === "error-in-band"
      ? answer.errorStep(fault.error, { as: fault.as ?? "error", framesSent })
      : answer.unknown;
  const play = {
    response,
    progress,
    signal,
    fault,
    errorInBand: (framesSent: number) => {
      const step = error(framesSent);
      if (!answer.isStream || step.isBare === true) return Buffer.from(step.data);
      return renderFrame(step.data, { wire, index: 1, event: step.event, isLast: false });
    },
    msPerToken: script.msPerToken,
    firstTokenMs: script.firstTokenMs,
    afterHeadersMs: script.afterHeadersMs,
    writeBytes: wire.writeBytes,
    headers: { ...answer.headers, ...script.headers },
    sendStatus: status === undefined ? undefined : () => answer.sendStatus(status),
  };
  if (answer.isStream) {
    await playFrames(play, framesOf(answer.steps(), { wire, ping: answer.ping, unknown: answer.unknown }));
  } else {
    await playWholeBody(play, { body: answer.body, tokens: answer.tokens });
  }
}

/** Sends an error status: `json` is the provider's body for it. */
export function sendCloudStatus(
  response: ServerResponse,
  status: CloudStatus,
  how: { readonly json: string; readonly headers: Readonly<Record<string, string>> },
): void {
  const headers = { ...how.headers, ...status.headers };
  const { code } = status;
  if (status.body === "html") {
    sendJson(response, htmlPage(code, status.message ?? "Bad Gateway"), code, {
      ...headers,
      "content-type": "text/html",
    });
  } else if (status.body === "empty") sendJson(response, "", code, headers);
  else sendJson(response, how.json, code, headers);
}

/**
 * The line of the log that every answer leaves at its end, whatever that is: who asked for what, who answered, how long it took and what it cost.
 * Relayed frames are not parsed for it while they pass: those few that hold usage are kept, and looked into once the answer is over.
 */
import type { AnswerId, ModelRef } from "../../protocol/ids.ts";
import type { Usage } from "../../protocol/usage.ts";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../platform/log.ts";
import type { Actor } from "../platform/permit.ts";
import type { Outcome } from "./session/transcript-record.ts";
import type { Frame } from "./stream.ts";

/** Usage stands in one or two frames; servers that count on with every frame mean the last. */
const KEPT_FRAMES = 2;

export class AnswerLine {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #fields: { readonly answer: AnswerId; readonly client: string; readonly target: string };
  readonly #startedAt: number;
  #opened: { readonly model: ModelRef; readonly firstFrameMs: number } | undefined;
  #first: Frame | undefined;
  readonly #last: Frame[] = [];

  constructor(
    { log, clock }: { readonly log: Log; readonly clock: Clock },
    asked: { readonly answer: AnswerId; readonly actor: Actor; readonly target: string },
  ) {
    this.#log = log;
    this.#clock = clock;
    this.#fields = { answer: asked.answer, client: asked.actor.client, target: asked.target };
    this.#startedAt = clock.monotonic();
  }

  opened(model: ModelRef): void {
    this.#opened = { model, firstFrameMs: this.#elapsedMs() };
  }

  passed(frame: Frame): void {
    if (!mayHoldUsage(frame)) return;
    if (this.#first === undefined) this.#first = frame;
    else if (this.#last.push(frame) > KEPT_FRAMES) this.#last.shift();
  }

  ended(outcome: Outcome): void {
    const frames = this.#first === undefined ? [] : [this.#first, ...this.#last];
    const { promptTokens, completionTokens } = usageIn(frames);
    this.#log.info({
      event: "answer.ended",
      ...this.#fields,
      ...this.#opened,
      state: outcome.state,
      ...(outcome.state === "failed" ? { code: outcome.error.code } : {}),
      durationMs: this.#elapsedMs(),
      ...(promptTokens === undefined ? {} : { promptTokens }),
      ...(completionTokens === undefined ? {} : { completionTokens }),
    });
  }

  /** In tenths: what is below is noise. */
  #elapsedMs(): number {
    return Math.round((this.#clock.monotonic() - this.#startedAt) * 10) / 10;
  }
}

/** A native search or two: it sees every frame. */
function mayHoldUsage(frame: Frame): boolean {
  const { dialect, bytes } = frame;
  if (dialect === "events") return frame.events().some(({ kind }) => kind === "usage");
  if (dialect === "ollama") return bytes.includes("eval_count");
  // Many servers say `"usage":null` with every frame.
  return bytes.includes('"usage":{') || bytes.includes('"usage": {') || bytes.includes('"usageMetadata"');
}

function usageIn(frames: readonly Frame[]): Usage {
  let usage: Usage = {};
  for (const frame of frames) {
    for (const event of frame.events()) if (event.kind === "usage") usage = { ...usage, ...event.usage };
  }
  return usage;
}

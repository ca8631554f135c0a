/**
 * One answer on its way to a client of the Responses API, whatever carries it: events of other engines are written by `ResponseEvents`; frames of the same
 * dialect pass as they came, up to their last event, which waits until the response is kept (1).
 * 1. `settle` comes before the end that the client sees: who is told that a response is complete can go on from it.
 */
import type { GhostError } from "../../../base/errors.ts";
import { topLevelMembers } from "../../../base/json-scan.ts";
import { BlockSequence } from "../../../ghostllm/frames/block-sequence.ts";
import { sseData, sseFrames } from "../../../ghostllm/frames/sse.ts";
import type { Frame } from "../../../ghostllm/stream.ts";
import {
  endingOf,
  type EventSink,
  failureOf,
  type ResponseHead,
  ResponseEvents,
  type WholeResponse,
} from "./responses-writer.ts";

export interface ResponseStreamOptions {
  readonly head: ResponseHead;
  /** An upstream that speaks this dialect gets the body as it came: then its frames are the client's, too. Else they are written like everybody's. */
  readonly isRelayed: boolean;
  readonly now: () => number;
  readonly sink: EventSink;
  /** Takes whole frames of an upstream that speaks this dialect. */
  relay(frames: Buffer): void;
  /** Keeps what is whole. */
  keep(response: WholeResponse): Promise<void>;
}

export class ResponseStream {
  readonly #options: ResponseStreamOptions;
  readonly #events: ResponseEvents;
  /** The last event, until the response is kept. */
  readonly #held: { readonly type: string; readonly json: string }[] = [];
  readonly #sequence = new BlockSequence();
  #relay: RelayTap | undefined;
  #isEnding = false;

  constructor(options: ResponseStreamOptions) {
    this.#options = options;
    this.#events = new ResponseEvents(options.head, (type, json) => {
      if (this.#isEnding) this.#held.push({ type, json });
      else options.sink(type, json);
    });
  }

  /** The response as it stands, as JSON. */
  get snapshot(): string {
    return this.#events.inProgress();
  }

  write(frame: Frame): void {
    if (frame.dialect === "openai-responses" && this.#options.isRelayed) {
      this.#relay ??= new RelayTap();
      const passing = this.#relay.push(frame.bytes);
      if (passing.length > 0) this.#options.relay(passing);
      return;
    }
    this.#events.begin();
    for (const event of frame.events()) {
      for (const step of this.#sequence.add(event)) this.#events.step(step);
    }
  }

  /** Once, after the last frame. */
  async settle(): Promise<void> {
    const whole = this.#relay === undefined ? this.#finish() : this.#relay.whole;
    if (whole !== undefined) await this.#options.keep(whole);
  }

  /** What waited for that. */
  end(): void {
    for (const { type, json } of this.#held) this.#options.sink(type, json);
    const held = this.#relay?.held ?? Buffer.alloc(0);
    if (held.length > 0) this.#options.relay(held);
  }

  fail(error: GhostError): void {
    this.#isEnding = false;
    if (this.#relay === undefined) return this.#events.fail(error);
    const { code, message } = failureOf(error);
    const event = { type: "error", sequence_number: this.#relay.lastNumber + 1, code, message, param: null };
    this.#options.sink("error", JSON.stringify(event));
  }

  #finish(): WholeResponse {
    const { reason } = this.#sequence;
    const steps = this.#sequence.end();
    for (const [index, step] of steps.entries()) {
      this.#events.step(step, { isCutShort: reason === "length" && index === steps.length - 1 });
    }
    this.#isEnding = true;
    const { usage } = this.#sequence;
    return this.#events.finish({ ...endingOf(reason), completedAtMs: this.#options.now(), usage });
  }
}

const TERMINAL = ["response.completed", "response.incomplete", "response.failed"] as const;
const EMPTY = Buffer.alloc(0);

/** Looks for the last event of relayed frames: three native searches for each run of them, and a parse of that one only. */
class RelayTap {
  /** The last event, and what came after it. */
  held: Buffer = EMPTY;
  whole: WholeResponse | undefined;
  #last: Buffer = EMPTY;

  /** What may pass at once. */
  push(bytes: Buffer): Buffer {
    this.#last = bytes;
    if (this.held.length > 0) {
      this.held = Buffer.concat([this.held, bytes]);
      return EMPTY;
    }
    if (!TERMINAL.some((type) => bytes.includes(`"${type}"`))) return bytes;
    let at = 0;
    for (const frame of sseFrames(bytes)) {
      if (this.#ends(frame)) {
        this.held = bytes.subarray(at);
        return bytes.subarray(0, at);
      }
      at += frame.length;
    }
    return bytes;
  }

  get lastNumber(): number {
    const numbers = [...this.#last.toString("latin1").matchAll(/"sequence_number"\s*:\s*(\d+)/g)];
    return Number(numbers.at(-1)?.[1] ?? -1);
  }

  #ends(frame: Buffer): boolean {
    const json = Buffer.from(sseData(frame)[0] ?? "");
    const members = topLevelMembers(json);
    const type = members.find(({ key }) => key === "type");
    const name = type === undefined ? "" : json.toString("utf8", type.valueStart + 1, type.valueEnd - 1);
    if (!TERMINAL.some((terminal) => terminal === name)) return false;
    const response = members.find(({ key }) => key === "response");
    if (response !== undefined && name !== "response.failed")
      this.whole = wholeOf(json.subarray(response.valueStart, response.valueEnd));
    return true;
  }
}

/** A relayed response, with the id by which its client knows it. */
export function wholeOf(response: Buffer): WholeResponse | undefined {
  const id = topLevelMembers(response).find(({ key }) => key === "id");
  if (id === undefined) return undefined;
  const text: unknown = JSON.parse(response.toString("utf8", id.valueStart, id.valueEnd));
  return typeof text === "string" ? { id: text, text: response.toString("utf8") } : undefined;
}

/** What the load client can be told to do, and what it answers: the lines between `load-driver.ts` and `load-client.ts`. */
import type { TargetAddress } from "./chat-request.ts";
import type { ClientDialect, RequestSize } from "./dialect-request.ts";

/** What is sent; chat completions, and nothing around the prompt, where it is not said. */
interface Asking {
  readonly target: TargetAddress;
  readonly model: string;
  readonly dialect?: ClientDialect;
  readonly size?: RequestSize;
}

/** `count` requests one after the other. For streams the time is that of the first content delta. */
export interface SequenceCommand extends Asking {
  readonly kind: "sequence";
  readonly promptBytes: number;
  readonly stream: boolean;
  readonly count: number;
}
export interface SequenceResult {
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Of streams: from the upstream's sending of a delta to its being read. */
  readonly transitP50Ms: number;
  /** Of streams: how many of all deltas came by themselves. */
  readonly aloneShare: number;
}

/** Keeps `connections` requests open for `durationMs`, or until `requests` were sent. */
export interface SaturateCommand extends Asking {
  readonly kind: "saturate";
  readonly promptBytes: number;
  readonly connections: number;
  readonly durationMs: number;
  readonly requests?: number;
  readonly stream?: boolean;
}
export interface SaturateResult {
  readonly requests: number;
  readonly elapsedMs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Opens `streams` streams within `rampMs` and reads them all to their ends. */
export interface StreamsCommand extends Asking {
  readonly kind: "streams";
  readonly streams: number;
  readonly tokens: number;
  readonly rampMs: number;
}
export interface StreamsResult {
  readonly chunks: number;
  /** Deltas that did not come, came twice or in another order. */
  readonly lost: number;
  readonly firstTokenP50Ms: number;
  readonly transitP50Ms: number;
  readonly transitP99Ms: number;
}

export type CancelState = "before-first-byte" | "mid-stream" | "non-stream";
/** Leaves `tries` times in the given state and asks the upstream when it noticed. */
export interface CancelCommand {
  readonly kind: "cancel";
  readonly target: TargetAddress;
  readonly upstreamPort: number;
  readonly state: CancelState;
  readonly tries: number;
}
export interface CancelResult {
  /** From leaving to the upstream's seeing it. */
  readonly ms: readonly number[];
  /** Tries of which the upstream saw nothing within {@link CANCEL_LIMIT_MS}. */
  readonly never: number;
}
export const CANCEL_LIMIT_MS = 1000;

/** Opens a big stream, reads its beginning, and then nothing for `pauseMs`. */
export interface PauseCommand {
  readonly kind: "pause";
  readonly target: TargetAddress;
  readonly upstreamPort: number;
  readonly model: string;
  readonly pauseMs: number;
}
export interface PauseResult {
  /** How much of the answer the target took from the upstream meanwhile. */
  readonly takenBytes: number;
}

export interface CommandResults {
  readonly sequence: SequenceResult;
  readonly saturate: SaturateResult;
  readonly streams: StreamsResult;
  readonly cancel: CancelResult;
  readonly pause: PauseResult;
}
export type LoadCommand = SequenceCommand | SaturateCommand | StreamsCommand | CancelCommand | PauseCommand;

/** One answer of the load client. */
export interface LoadReply<Result> {
  readonly result: Result;
  /** Requests that failed: how many, and how the first did. */
  readonly errors: number;
  readonly firstError?: string;
}

export const WAITING_MODEL = "wait";
export const CANCEL_MODEL = "t1000e20";
/** Deltas that are read before a stream is left. */
export const CANCEL_AFTER_TOKENS = 5;

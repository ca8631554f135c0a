/** An answer that has not ended, or whose end is not stored yet, with what only the absorber needs. */
import type { AnswerId, SessionId, ThreadId } from "../../../protocol/ids.ts";
import type { OperationalError } from "../../base/errors.ts";
import type { Position } from "../../platform/spool.ts";
import type { Message } from "../stream.ts";
import { emptyDelta } from "./answer-delta.ts";
import type { Placement } from "./context-buffer.ts";
import type { LiveAnswer } from "./placement.ts";
import type { Begin } from "./transcript-record.ts";

/** A request that is to be attached. */
export interface Request {
  /** Reads and decodes the messages; called again when a batch is tried again. */
  messages(): Promise<readonly Message[]>;
  readonly sessionId: SessionId | null;
  readonly threadId: ThreadId | null;
  readonly sizeBytes: number;
  /** The body that lies beside the spool's records. */
  readonly large: string | undefined;
}

export interface Tracked extends LiveAnswer {
  /** Undefined once it is attached, and for completions. */
  request: Request | undefined;
  /** Where its first record that is not stored yet stands; undefined when all are. */
  unstoredFrom: Position | undefined;
  attempts: number;
  /** SQLite has something of it. */
  isStored: boolean;
  /** What waits of it is left out (`drop`). */
  isDropped: boolean;
  /** Bytes of its frames that wait in memory to be decoded. */
  waitingBytes: number;
  readonly onSettled: ((result: Placement | OperationalError) => void)[];
}

/** An answer of which nothing is stored yet. */
export function trackedFromBegin(answerId: AnswerId, begin: Begin): Tracked {
  const { userId, client, task, target, atMs: startedAtMs, labels } = begin;
  return tracked({
    answerId,
    userId,
    client,
    task,
    target,
    startedAtMs,
    labels,
    place: task === "completion" ? null : undefined,
  });
}

type Known = Pick<
  LiveAnswer,
  "answerId" | "userId" | "client" | "task" | "target" | "startedAtMs" | "labels" | "place"
>;

export function tracked({ answerId, userId, client, task, target, startedAtMs, labels, place }: Known): Tracked {
  return {
    answerId,
    userId,
    client,
    task,
    target,
    startedAtMs,
    labels,
    place,
    model: null,
    decision: null,
    delta: emptyDelta(),
    findings: {},
    chunks: 0,
    state: "streaming",
    failure: null,
    endedAtMs: null,
    absorbed: -1,
    request: undefined,
    unstoredFrom: undefined,
    attempts: 0,
    isStored: false,
    isDropped: false,
    waitingBytes: 0,
    onSettled: [],
  };
}

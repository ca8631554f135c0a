/**
 * What compatible servers do to streams of chat completions, put right for clients of other dialects; a relay passes it on as it came.
 * 1. Every tool call has an id and a position of its own: some servers forget the one, or say 0 for all of them.
 * 2. A word for the end that nobody knows is a failure, not an end.
 * 3. Frames without any of that pass untouched.
 */
import type { Ids } from "../../base/clock.ts";
import { eventsFrame, type Frame, type StreamEvent } from "../stream.ts";

type CallEvent = Extract<StreamEvent, { kind: "toolCall" }>;

/** To be called with each frame of one answer, in order. */
export function createChatRepair(ids: Ids): (frame: Frame) => Frame {
  const calls = new CallNumbers(ids);
  return (frame) => {
    const events = frame.events();
    const isFine = events.every((event) => event.kind !== "toolCall" && !isUnknownEnd(event));
    if (isFine) return frame;
    return eventsFrame(
      events.map((event): StreamEvent => {
        if (event.kind === "toolCall") return calls.repair(event);
        if (!isUnknownEnd(event)) return event;
        const message = "the server ended its answer with a word that no client knows";
        return { kind: "error", error: { code: "upstream_failed", message, details: {} } };
      }),
    );
  };
}

const isUnknownEnd = (event: StreamEvent) => event.kind === "finish" && event.reason === "unknown";

class CallNumbers {
  readonly #ids: Ids;
  /** By the server's position: the call that its deltas belong to now. */
  readonly #current = new Map<number, { readonly position: number; readonly serverId: string | undefined }>();
  #count = 0;

  constructor(ids: Ids) {
    this.#ids = ids;
  }

  repair(event: CallEvent): CallEvent {
    const current = this.#current.get(event.index);
    const { name } = event;
    // Some servers say "" where they have none.
    const callId = event.callId === "" ? undefined : event.callId;
    // Servers that repeat id and name with each delta mean the same call; another id, or a name without one, begins the next.
    const isNext =
      current === undefined ||
      (callId !== undefined && callId !== current.serverId) ||
      (callId === undefined && name !== undefined && name !== "" && current.serverId === undefined);
    if (!isNext) {
      const { callId: _id, name: _name, ...rest } = event;
      return { ...rest, index: current.position };
    }
    const position = this.#count;
    this.#count += 1;
    this.#current.set(event.index, { position, serverId: callId });
    return { ...event, index: position, callId: callId ?? this.#ids.next("call") };
  }
}

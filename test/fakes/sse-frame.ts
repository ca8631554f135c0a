/** One server-sent event in the wire format that a script asks for. */
import type { WireFormat } from "./openai-host-script.ts";

export interface FramePlace {
  readonly wire: WireFormat;
  /** The frame's number in its stream. */
  readonly index: number;
  readonly event?: string | undefined;
  /** Whether `unterminatedLastFrame` is about this one. */
  readonly isLast: boolean;
}

/** `{"a":1,…}` → `data: {"a":1,…}\n\n`, behind `event: NAME` where it has one. */
export function renderFrame(payload: string, { wire, index, event, isLast }: FramePlace): Buffer {
  const lineEnd = wire.lineEnd ?? "\n";
  const isPinged = wire.commentEvery !== undefined && index % wire.commentEvery === 0;
  const comment = isPinged ? `: ping ${index}${lineEnd}${lineEnd}` : "";
  const name = event === undefined ? "" : `event: ${event}${lineEnd}`;
  // A line break between two members of an object is white space to JSON; between two data lines SSE puts exactly that.
  const comma = wire.multiLineData === true ? payload.indexOf(',"') : -1;
  const lines = comma < 0 ? [payload] : [payload.slice(0, comma + 1), payload.slice(comma + 1)];
  const data = lines.map((line) => `data: ${line}`).join(lineEnd);
  const isBare = isLast && wire.unterminatedLastFrame === true;
  return Buffer.from(`${comment}${name}${data}${isBare ? "" : lineEnd + lineEnd}`);
}

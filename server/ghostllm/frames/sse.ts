/**
 * Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) as bytes.
 * 1. Only whole frames leave the splitter: whatever it returns ends with a blank line, so any point between two results may become a seam.
 * 2. Cuts at any byte, CRLF line ends, and UTF-8 sequences split over reads are fine, since it looks at line ends only.
 */
import { OperationalError } from "../../base/errors.ts";

/** The longest single frame we wait for; a 1 MB delta is normal for some servers, an endless one would fill the memory. */
const MAX_FRAME_BYTES = 16 * 1024 * 1024;

const NEWLINE = 0x0a;
const RETURN = 0x0d;
const OPEN_BRACE = 0x7b;
const OPEN_BRACKET = 0x5b;

export class SseSplitter {
  #held: Buffer[] = [];
  #heldBytes = 0;

  /** Adds what was read; returns all whole frames that are now there, as one buffer, or undefined. @throws OperationalError `upstream_failed` */
  push(chunk: Buffer): Buffer | undefined {
    // Two bytes of what is held decide whether a blank line straddles the border; with CRLF it needs three.
    const tail = this.#tail();
    const end = lastFrameEnd(tail.length === 0 ? chunk : Buffer.concat([tail, chunk])) - tail.length;
    if (end <= 0) {
      this.#hold(chunk);
      return undefined;
    }
    const whole =
      this.#held.length === 0 ? chunk.subarray(0, end) : Buffer.concat([...this.#held, chunk.subarray(0, end)]);
    this.#held = [];
    this.#heldBytes = 0;
    if (end < chunk.length) this.#hold(chunk.subarray(end));
    return whole;
  }

  /** What came after the last blank line: empty when the stream ended where it should. */
  rest(): Buffer {
    return Buffer.concat(this.#held);
  }

  #hold(chunk: Buffer): void {
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    if (this.#heldBytes > MAX_FRAME_BYTES) {
      throw new OperationalError("upstream_failed", `the server sent an event of more than ${MAX_FRAME_BYTES} bytes`);
    }
  }

  #tail(): Buffer {
    let tail = this.#held.at(-1) ?? Buffer.alloc(0);
    for (let index = this.#held.length - 2; index >= 0 && tail.length < 3; index -= 1) {
      tail = Buffer.concat([this.#held[index] ?? Buffer.alloc(0), tail]);
    }
    return tail.subarray(Math.max(0, tail.length - 3));
  }
}

/** The offset just behind the last blank line, or -1. */
function lastFrameEnd(bytes: Buffer): number {
  for (let at = bytes.lastIndexOf(NEWLINE); at > 0; at = bytes.lastIndexOf(NEWLINE, at - 1)) {
    const before = bytes[at - 1] === RETURN ? at - 2 : at - 1;
    if (before >= 0 && bytes[before] === NEWLINE) return at + 1;
  }
  return -1;
}

/**
 * The `data` of each frame in a run of whole frames: `data: {"a":1}\n\n: ping\n\ndata: [DONE]\n\n` → `['{"a":1}', "[DONE]"]`.
 * Comments and other fields are left out; several data lines of one frame are joined with a newline.
 */
export function sseData(bytes: Buffer): readonly string[] {
  const result: string[] = [];
  let data: string | undefined;
  for (const raw of bytes.toString("utf8").split("\n")) {
    const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
    if (line === "") {
      if (data !== undefined) result.push(data);
      data = undefined;
    } else if (line.startsWith("data:")) {
      const value = line.slice(line.startsWith("data: ") ? 6 : 5);
      data = data === undefined ? value : `${data}\n${value}`;
    }
  }
  if (data !== undefined) result.push(data);
  return result;
}

/** A run of frames, and not the JSON of a whole answer. */
export function isEventStream(bytes: Buffer): boolean {
  return bytes[0] !== OPEN_BRACE && bytes[0] !== OPEN_BRACKET;
}

/** The single frames of a run of whole frames, each with its blank line. */
export function sseFrames(bytes: Buffer): readonly Buffer[] {
  const frames: Buffer[] = [];
  let start = 0;
  for (let at = bytes.indexOf(NEWLINE); at !== -1; at = bytes.indexOf(NEWLINE, at + 1)) {
    const before = bytes[at - 1] === RETURN ? at - 2 : at - 1;
    if (before >= start && bytes[before] === NEWLINE) {
      frames.push(bytes.subarray(start, at + 1));
      start = at + 1;
    }
  }
  if (start < bytes.length) frames.push(bytes.subarray(start));
  return frames;
}

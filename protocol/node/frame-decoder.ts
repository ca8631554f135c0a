/**
 * The framing of LSP's base protocol, read defensively: `Content-Length: N`, an empty line, N bytes.
 * https://microsoft.github.io/language-server-protocol/specifications/lsp/3.18/specification/#headerPart
 *
 * Input `Content-Length: 2\r\n\r\n{}` gives one body, `{}`.
 * 1. It never holds more than one header block and one body of the sizes allowed, beside the chunk that is being read.
 * 2. What it cannot read it refuses; it never guesses where the next frame begins.
 */
import type { ErrorCode } from "../errors.ts";

export interface FrameLimits {
  /** A header block without end would otherwise grow for ever. */
  readonly maxHeaderBytes: number;
  /** The largest body; a longer one is refused when it is announced, before any of it is kept. */
  readonly maxFrameBytes: number;
}

/** Why a byte stream cannot be read any further. */
export class FrameError extends Error {
  readonly code: ErrorCode;
  /** The request that was wrong, where its id could be read. */
  readonly id: number | string | null;
  constructor(code: ErrorCode, message: string, id: number | string | null = null) {
    super(message);
    this.name = "FrameError";
    this.code = code;
    this.id = id;
  }
}

const END_OF_HEADERS = Buffer.from("\r\n\r\n");
const NOTHING = Buffer.alloc(0);
/** Room for a body grows with what has arrived: memory is not reserved on the strength of an announcement. */
const FIRST_BODY_BYTES = 64 * 1024;

export class FrameDecoder {
  limits: FrameLimits;
  /** Bytes that no frame has claimed yet. */
  #rest: Buffer = NOTHING;
  /** What has arrived of an incomplete body; its room grows by doubling, so that a body in tiny pieces costs no more than a whole one. */
  #body: Buffer = NOTHING;
  #filledBytes = 0;
  /** The length of the body that is being read. */
  #bodyBytes: number | undefined;

  constructor(limits: FrameLimits) {
    this.limits = limits;
  }

  /** True while a frame has begun and is not complete. */
  get isMidFrame(): boolean {
    return this.#bodyBytes !== undefined || this.#rest.length > 0;
  }

  push(chunk: Buffer): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
  }

  /** The next complete body, or undefined until more is pushed. @throws FrameError; the decoder is then of no further use. */
  next(): Buffer | undefined {
    if (this.#bodyBytes === undefined) {
      const headers = this.#takeHeaders();
      if (headers === undefined) return undefined;
      const announced = contentLength(headers);
      if (announced > this.limits.maxFrameBytes) {
        throw new FrameError(
          "body_too_large",
          `a message of ${announced} bytes was announced; ${this.limits.maxFrameBytes} are allowed`,
        );
      }
      this.#bodyBytes = announced;
    }
    const taken = this.#rest.subarray(0, this.#bodyBytes - this.#filledBytes);
    this.#rest = this.#rest.subarray(taken.length);
    if (taken.length === this.#bodyBytes) {
      this.#bodyBytes = undefined;
      return taken;
    }
    this.#keep(taken, this.#bodyBytes);
    if (this.#filledBytes < this.#bodyBytes) return undefined;
    const body = this.#body.subarray(0, this.#filledBytes);
    this.#body = NOTHING;
    this.#filledBytes = 0;
    this.#bodyBytes = undefined;
    return body;
  }

  #keep(piece: Buffer, bodyBytes: number): void {
    const needed = this.#filledBytes + piece.length;
    if (needed > this.#body.length) {
      const grown = Buffer.allocUnsafe(Math.min(bodyBytes, Math.max(FIRST_BODY_BYTES, needed, this.#body.length * 2)));
      this.#body.copy(grown, 0, 0, this.#filledBytes);
      this.#body = grown;
    }
    piece.copy(this.#body, this.#filledBytes);
    this.#filledBytes = needed;
  }

  #takeHeaders(): string | undefined {
    const { maxHeaderBytes } = this.limits;
    const end = this.#rest.subarray(0, maxHeaderBytes + END_OF_HEADERS.length).indexOf(END_OF_HEADERS);
    if (end === -1) {
      if (this.#rest.length > maxHeaderBytes) {
        throw new FrameError("protocol_violation", `a header block is longer than ${maxHeaderBytes} bytes`);
      }
      return undefined;
    }
    const headers = this.#rest.toString("latin1", 0, end);
    this.#rest = this.#rest.subarray(end + END_OF_HEADERS.length);
    return headers;
  }
}

/** `Content-Length: 12` → 12; other headers are read over, except a charset that is not UTF-8. */
function contentLength(headers: string): number {
  let length: number | undefined;
  for (const line of headers.split("\r\n")) {
    const [, name, value] = /^([!-9;-~]+):[ \t]*([ -~]*?)[ \t]*$/.exec(line) ?? [];
    if (name === undefined || value === undefined) {
      throw new FrameError("protocol_violation", "a header line is not of the form `Name: value`");
    }
    if (name.toLowerCase() === "content-length") {
      if (length !== undefined) throw new FrameError("protocol_violation", "Content-Length is given twice");
      if (!/^\d{1,15}$/.test(value)) {
        throw new FrameError("protocol_violation", "Content-Length is not a count of bytes");
      }
      length = Number(value);
    }
    if (name.toLowerCase() === "content-type" && /charset=(?!"?utf-?8)/i.test(value)) {
      throw new FrameError("protocol_violation", "messages are UTF-8; another charset was announced");
    }
  }
  if (length === undefined) throw new FrameError("protocol_violation", "a header block has no Content-Length");
  return length;
}

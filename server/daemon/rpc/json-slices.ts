/**
 * The JSON text of large values, made a slice at a time, so that the main loop never stands still for one: text of 1 MB takes several
 * milliseconds to make and to turn into bytes.
 * 1. The slices together are exactly what `JSON.stringify` makes of the value.
 * 2. Between two slices the loop turns. One value is being sliced at a time, however many wait, so that a turn holds one slice.
 * 3. A slice comes from at most twice `inlineResultBytes` of the value.
 * Values are plain data, as the schemas of the protocol let them be: nothing in them has a `toJSON`, and nothing is a function.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { UserError } from "../../base/errors.ts";

export interface SliceLimits {
  /** Values above this size are sliced. Text counts by its UTF-16 units, and every value by `VALUE_UNITS` more. */
  readonly inlineResultBytes: number;
  readonly maxFrameBytes: number;
}

/** About what a number, a bracket or a key costs beside its text: small values are slow in number, not in length. */
const VALUE_UNITS = 16;

/** The text of a value as UTF-8, ready to be written in one go. */
export class SlicedJson {
  readonly slices: readonly Buffer[];
  readonly sizeBytes: number;

  constructor(slices: readonly Buffer[]) {
    this.slices = slices;
    this.sizeBytes = slices.reduce((sum, slice) => sum + slice.length, 0);
  }
}

export class JsonSlicer {
  readonly #limits: SliceLimits;
  #last: Promise<unknown> = Promise.resolve();

  constructor(limits: SliceLimits) {
    this.#limits = limits;
  }

  isLarge(value: unknown): boolean {
    return exceeds(value, this.#limits.inlineResultBytes);
  }

  /** @throws UserError `body_too_large` as soon as the text is longer than a message may be, and the signal's reason once it aborts. */
  slice(value: unknown, signal: AbortSignal): Promise<SlicedJson> {
    const turn = this.#last.then(() => this.#sliceNow(value, signal));
    this.#last = turn.catch(() => {}); // Its caller learns of it; those behind only wait.
    return turn;
  }

  async #sliceNow(value: unknown, signal: AbortSignal): Promise<SlicedJson> {
    const { maxFrameBytes, inlineResultBytes: sliceUnits } = this.#limits;
    const slices: Buffer[] = [];
    let sizeBytes = 0;
    const add = (text: string) => {
      const slice = Buffer.from(text);
      sizeBytes += slice.length;
      if (sizeBytes > maxFrameBytes) throw tooLarge(maxFrameBytes);
      slices.push(slice);
    };
    let text = "";
    for (const piece of pieces(value, sliceUnits)) {
      signal.throwIfAborted();
      text += piece;
      if (text.length < sliceUnits) continue;
      add(text);
      text = "";
      await nextTurn();
    }
    add(text);
    return new SlicedJson(slices);
  }
}

export function tooLarge(maxFrameBytes: number): UserError {
  return new UserError(
    "body_too_large",
    `the answer is larger than the ${maxFrameBytes} bytes that one message may hold`,
  );
}

/** The text of `value` in pieces, each from at most `maxUnits` of it. */
function* pieces(value: unknown, maxUnits: number): Generator<string> {
  if (typeof value === "string" && value.length > maxUnits) yield* stringPieces(value, maxUnits);
  else if (typeof value !== "object" || value === null || !exceeds(value, maxUnits)) yield jsonOf(value);
  else if (Array.isArray(value)) {
    let separator = "[";
    for (const item of value) {
      yield separator;
      yield* pieces(item, maxUnits);
      separator = ",";
    }
    yield separator === "[" ? "[]" : "]";
  } else {
    let separator = "{";
    for (const [key, item] of Object.entries(value)) {
      if (item === undefined) continue;
      yield `${separator}${JSON.stringify(key)}:`;
      yield* pieces(item, maxUnits);
      separator = ",";
    }
    yield separator === "{" ? "{}" : "}";
  }
}

function* stringPieces(text: string, maxUnits: number): Generator<string> {
  yield '"';
  for (let from = 0; from < text.length; ) {
    let to = Math.min(from + maxUnits, text.length);
    // Half of a surrogate pair would be written as an escape.
    if (to < text.length && to - from > 1 && isHighSurrogate(text.charCodeAt(to - 1))) to -= 1;
    yield JSON.stringify(text.slice(from, to)).slice(1, -1);
    from = to;
  }
  yield '"';
}

function isHighSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdbff;
}

/** What has no text in JSON is null, as in a list. */
function jsonOf(value: unknown): string {
  const json: string | undefined = JSON.stringify(value);
  return json ?? "null";
}

/** Whether `value` is larger than `limit` units. Looks at no more of it than that takes. */
function exceeds(value: unknown, limit: number): boolean {
  let left = limit;
  const open: unknown[] = [value];
  while (open.length > 0) {
    const next = open.pop();
    left -= VALUE_UNITS + (typeof next === "string" ? next.length : 0);
    if (typeof next === "object" && next !== null) {
      // Lists are long where objects are not: a list that is too long already is not copied.
      if (Array.isArray(next)) {
        if (next.length * VALUE_UNITS > left) return true;
        open.push(...next);
      } else {
        for (const [key, item] of Object.entries(next)) {
          left -= key.length;
          open.push(item);
        }
      }
    }
    if (left < 0) return true;
  }
  return false;
}

/**
 * The part of a GGUF file's header that says what a model can do, read without loading it.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Little endian: "GGUF", u32 version, u64 tensors, u64 pairs; then the pairs
 * (string key, u32 type, value), then the tensors' names, shapes, types and offsets. A string is a u64 length and bytes.
 * 1. What the file says about its own lengths is never trusted: every length is checked against the file's size and a bound.
 * 2. A file that ends before its last tensor begins is cut off: the library would only say so when it loads it.
 * 3. Arrays (vocabularies) are skipped piece by piece; reading the next piece leaves the event loop free.
 */
import { UserError } from "../../base/errors.ts";

export interface GgufFacts {
  readonly architecture: string;
  /** Tokens that the model was trained on; undefined where the file does not say. */
  readonly contextLength: number | undefined;
  readonly hasChatTemplate: boolean;
  readonly hasInfillTokens: boolean;
  readonly name: string | undefined;
  readonly description: string | undefined;
}

export interface ByteSource {
  readonly sizeBytes: number;
  /** At most `length` bytes from `position`; fewer at the end. */
  read(position: number, length: number): Promise<Buffer>;
}

/** One piece of the file: the strings of one piece are skipped in about 1 ms. */
const PIECE_BYTES = 256 * 1024;
/** The largest vocabularies take 20 MB; a lying file must not keep us reading for ever. */
const MAX_HEADER_BYTES = 64 * 1024 * 1024;
/** Template and descriptions; longer texts in a pair that we want are not believable. */
const MAX_TEXT_BYTES = 1024 * 1024;
const MAX_PAIRS = 65_536;
/** The largest models have some thousands. */
const MAX_TENSORS = 65_536;
const MAX_DIMENSIONS = 4;
const DEFAULT_ALIGNMENT = 32;
const OLDEST_VERSION = 2;
const NEWEST_VERSION = 3;

const TYPE = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const;
const SIZES: ReadonlyMap<number, number> = new Map([
  [TYPE.u8, 1],
  [TYPE.i8, 1],
  [TYPE.bool, 1],
  [TYPE.u16, 2],
  [TYPE.i16, 2],
  [TYPE.u32, 4],
  [TYPE.i32, 4],
  [TYPE.f32, 4],
  [TYPE.u64, 8],
  [TYPE.i64, 8],
  [TYPE.f64, 8],
]);

/** True for the four bytes with which every GGUF begins. */
export function hasGgufMagic(start: Buffer): boolean {
  return start.length >= 4 && start.toString("latin1", 0, 4) === "GGUF";
}

/** @throws UserError `weights_corrupt`, naming what is wrong. */
export async function readGgufFacts(source: ByteSource, path: string): Promise<GgufFacts> {
  const reader = new HeaderReader(source, path);
  if (!hasGgufMagic(await reader.bytes(4))) throw reader.corrupt('it does not begin with "GGUF"');
  const version = await reader.u32();
  if (version < OLDEST_VERSION || version > NEWEST_VERSION)
    throw reader.corrupt(`its version is ${version}, not 2 or 3`);
  const tensors = await reader.length();
  const pairs = await reader.length();
  if (tensors === 0) throw reader.corrupt("it holds no tensors");
  if (pairs > MAX_PAIRS) throw reader.corrupt(`it claims ${pairs} settings`);
  if (tensors > MAX_TENSORS) throw reader.corrupt(`it claims ${tensors} tensors`);
  const values = new Map<string, string | number | true>();
  for (let index = 0; index < pairs; index += 1) {
    const key = await reader.string(MAX_TEXT_BYTES);
    const value = await readValue(reader, await reader.u32());
    values.set(key, value);
  }
  const alignment = values.get("general.alignment");
  await checkTensors(reader, tensors, typeof alignment === "number" && alignment > 0 ? alignment : DEFAULT_ALIGNMENT);
  const text = (key: string) => {
    const value = values.get(key);
    return typeof value === "string" ? value : undefined;
  };
  const architecture = text("general.architecture");
  if (architecture === undefined) throw reader.corrupt("it does not name its architecture");
  const contextLength = values.get(`${architecture}.context_length`);
  const infill = (name: string) =>
    values.has(`tokenizer.ggml.fim_${name}_token_id`) || values.has(`tokenizer.ggml.${name}_token_id`);
  return {
    architecture,
    contextLength: typeof contextLength === "number" && contextLength > 0 ? contextLength : undefined,
    hasChatTemplate: (text("tokenizer.chat_template") ?? "").trim() !== "",
    hasInfillTokens: (infill("pre") || infill("prefix")) && (infill("suf") || infill("suffix")),
    name: text("general.name"),
    description: text("general.description"),
  };
}

/** Texts and numbers as they are; anything else is skipped and only known to be there. */
async function readValue(reader: HeaderReader, type: number): Promise<string | number | true> {
  if (type === TYPE.string) return reader.string(MAX_TEXT_BYTES);
  if (type === TYPE.u32) return reader.u32();
  if (type === TYPE.u64) return reader.u64();
  if (type === TYPE.array) {
    const itemType = await reader.u32();
    const count = await reader.length();
    await reader.skipItems(itemType, count);
    return true;
  }
  const size = SIZES.get(type);
  if (size === undefined) throw reader.corrupt(`it has a value of the unknown type ${type}`);
  await reader.skip(size);
  return true;
}

async function checkTensors(reader: HeaderReader, count: number, alignment: number): Promise<void> {
  let lastOffset = 0;
  for (let index = 0; index < count; index += 1) {
    await reader.string(MAX_TEXT_BYTES);
    const dimensions = await reader.u32();
    if (dimensions > MAX_DIMENSIONS) throw reader.corrupt(`it has a tensor of ${dimensions} dimensions`);
    // The shape, and the type of its numbers.
    await reader.skip(dimensions * 8 + 4);
    lastOffset = Math.max(lastOffset, await reader.u64());
  }
  const dataStart = Math.ceil(reader.position / alignment) * alignment;
  if (dataStart + lastOffset >= reader.sizeBytes) throw reader.corrupt("it is cut off: its last tensor is missing");
}

class HeaderReader {
  readonly #source: ByteSource;
  readonly #path: string;
  #piece: Buffer = Buffer.alloc(0);
  /** Where in the file the piece begins, and where in the piece we are. */
  #pieceStart = 0;
  #offset = 0;

  constructor(source: ByteSource, path: string) {
    this.#source = source;
    this.#path = path;
  }

  get position(): number {
    return this.#pieceStart + this.#offset;
  }

  get sizeBytes(): number {
    return this.#source.sizeBytes;
  }

  corrupt(problem: string): UserError {
    return new UserError("weights_corrupt", `${this.#path} is not a usable GGUF: ${problem}`, {
      details: { path: this.#path },
    });
  }

  async bytes(length: number): Promise<Buffer> {
    if (this.#offset + length > this.#piece.length) await this.#refill(length);
    const bytes = this.#piece.subarray(this.#offset, this.#offset + length);
    this.#offset += length;
    return bytes;
  }

  async u32(): Promise<number> {
    return (await this.bytes(4)).readUInt32LE();
  }

  async u64(): Promise<number> {
    return Number((await this.bytes(8)).readBigUInt64LE());
  }

  /** A u64 that counts something in this file, so that it cannot be larger than the file. */
  async length(): Promise<number> {
    const value = await this.u64();
    if (value > this.sizeBytes) throw this.corrupt(`it claims a length of ${value}`);
    return value;
  }

  async string(maxBytes: number): Promise<string> {
    const length = await this.length();
    if (length > maxBytes) throw this.corrupt(`it holds a text of ${length} bytes`);
    return (await this.bytes(length)).toString("utf8");
  }

  async skip(length: number): Promise<void> {
    const position = this.position + length;
    if (position > Math.min(this.sizeBytes, MAX_HEADER_BYTES))
      throw this.corrupt("it ends in the middle of its header");
    if (this.#offset + length <= this.#piece.length) {
      this.#offset += length;
      return;
    }
    this.#piece = Buffer.alloc(0);
    this.#pieceStart = position;
    this.#offset = 0;
  }

  async skipItems(type: number, count: number): Promise<void> {
    const size = SIZES.get(type);
    if (size !== undefined) return this.skip(size * count);
    if (type !== TYPE.string) throw this.corrupt(`it has an array of the unknown type ${type}`);
    let left = count;
    while (left > 0) {
      left -= this.#skipStrings(left);
      if (left === 0) return;
      // The next one is not wholly in this piece.
      const length = await this.length();
      await this.skip(length);
      left -= 1;
    }
  }

  /** Skips strings that lie wholly in the piece, without waiting; answers how many. */
  #skipStrings(atMost: number): number {
    let skipped = 0;
    while (skipped < atMost && this.#offset + 8 <= this.#piece.length) {
      const end = this.#offset + 8 + Number(this.#piece.readBigUInt64LE(this.#offset));
      if (end > this.#piece.length) break;
      this.#offset = end;
      skipped += 1;
    }
    return skipped;
  }

  async #refill(needed: number): Promise<void> {
    const { position } = this;
    if (position + needed > MAX_HEADER_BYTES) throw this.corrupt(`its header is longer than ${MAX_HEADER_BYTES} bytes`);
    this.#piece = await this.#source.read(position, Math.max(PIECE_BYTES, needed));
    this.#pieceStart = position;
    this.#offset = 0;
    if (this.#piece.length < needed) throw this.corrupt("it ends in the middle of its header");
  }
}

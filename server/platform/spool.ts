/**
 * The spool: records that must survive a killed process, appended in the same turn in which they happen. SQLite absorbs them later.
 * 1. A record is its length and CRC-32 (4 bytes each, little endian), then its bytes. What the kernel took survives the process.
 * 2. A position is the record's offset in the whole spool's history. Positions only grow, within a process and from one to the next: a segment
 *    file is named by the position of its first byte, and one file is always kept. None is used twice, also where its record was lost.
 * 3. A write that failed half-way is cut off again, so that what follows stays readable. A torn record at the end of an earlier process's segment
 *    ends that segment only.
 * 4. Nothing is ever deleted that was not released.
 * 5. Records reach the file in the order of their positions. One that may wait (`stage`) goes there in one `write` with the next that may not
 *    (`append`), at the latest when the turn ends; if that write fails, each that waited is told.
 */
import { closeSync, ftruncateSync, openSync, readdirSync, readSync, statSync, writeSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { assert } from "../base/assert.ts";
import { OperationalError } from "../base/errors.ts";
import { fileError, storageError } from "./filesystem.ts";
import { type StandingPermit, THIS_MACHINE } from "./permit.ts";

/** Small enough to be deleted soon after its last record was absorbed, large enough that opening files (0.1 ms) stays rare. */
const SEGMENT_BYTES = 8 * 1024 * 1024;
/** When nothing absorbs the spool any more, it must not eat the disk: some hours of heavy streaming, then appends fail with `storage_full`. */
const MAX_SPOOL_BYTES = 1024 * 1024 * 1024;
/** A length beyond this is no length but damage. It also bounds what one record makes a reader allocate. */
const MAX_RECORD_BYTES = 64 * 1024 * 1024;
/** Records are assembled in one reused buffer of this size; larger ones, which are rare, in a buffer of their own. */
const STAGE_BYTES = 256 * 1024;
const HEADER_BYTES = 8;

/** The offset of a record in the spool's whole history: an integer below 2^53, enough for 9 petabytes. */
export type Position = number;

export interface SpoolRecord {
  readonly position: Position;
  readonly bytes: Buffer;
}

/** A segment that an earlier process left with an unreadable end, as a killed machine or a full disk leaves it. */
export interface TornSegment {
  readonly file: string;
  readonly position: Position;
  readonly lostBytes: number;
}

/** Closing it deletes what was released, so that a clean stop leaves nothing to replay. */
export interface Spool extends AsyncDisposable {
  readonly folder: string;
  /** The position that the next record will get. */
  readonly next: Position;
  /**
   * Writes one record, the parts one after the other, and all that were staged, before it returns.
   * @throws OperationalError `storage_full`; neither is there then, and earlier and later ones are untouched.
   */
  append(parts: readonly Buffer[]): Position;
  /**
   * Takes one record that need not be written at once (5): nobody may be shown or told what depends on it before the next `append` or the next turn.
   * `onLost` hears when it could not be written. @throws OperationalError `storage_full`, as `append`.
   */
  stage(parts: readonly Buffer[], onLost: (error: unknown) => void): Position;
  /** The bytes of a record that was written by this process and not released; from the system's cache, since it is young. @throws when it is gone. */
  read(position: Position): Buffer;
  /** Writes a large body beside the records, off the main thread; the name goes into a record. @throws OperationalError `storage_full` */
  appendLarge(bytes: Buffer): Promise<string>;
  /** A large body by its name; undefined when it is gone. */
  readLarge(name: string): Promise<Buffer | undefined>;
  removeLarge(name: string): Promise<void>;
  /** What earlier processes left, in order; each torn segment is reported and the next one read. */
  replay(onTorn: (torn: TornSegment) => void): AsyncIterable<SpoolRecord>;
  /** Deletes everything that earlier processes left, large bodies included. Call it when `replay` was absorbed. */
  releaseEarlier(): Promise<void>;
  /** Nothing before `position` is needed any more: segments wholly below it are deleted. */
  release(position: Position): void;
}

export interface SpoolOptions {
  readonly folder: string;
  readonly segmentBytes?: number;
  readonly maxBytes?: number;
}

/** Opens the spool in `folder`, which must exist. @throws UserError `folder_unusable`, OperationalError `storage_full`. */
export function openSpool(permit: StandingPermit, options: SpoolOptions): Spool {
  permit.spend({ capability: "fs.write", resource: { kind: "path", path: options.folder }, host: THIS_MACHINE });
  return new SegmentedSpool(options);
}

interface Segment {
  readonly start: Position;
  readonly file: string;
  sizeBytes: number;
}

class SegmentedSpool implements Spool {
  readonly folder: string;
  readonly #segmentBytes: number;
  readonly #maxBytes: number;
  readonly #earlier: readonly Segment[];
  readonly #earlierLarge: readonly string[];
  readonly #stage = Buffer.allocUnsafe(STAGE_BYTES);
  /** What was taken and is not written yet: usually a part of `#stage`. */
  #staged: Buffer = Buffer.alloc(0);
  /** Those whose records wait in it. */
  #waiting: ((error: unknown) => void)[] = [];
  #turnEnd: NodeJS.Immediate | undefined;
  /** Segments of this process that are full or broken, oldest first. */
  #closed: Segment[] = [];
  #active: Segment;
  /** Beyond the end of the active segment by what is staged, and by what was lost (2). */
  #next: Position;
  #descriptor: number;
  #sizeBytes = 0;
  #largeCount = 0;
  #released: Position = 0;
  readonly #removals = new Set<Promise<void>>();
  #broken = false;
  #disposed = false;

  constructor(options: SpoolOptions) {
    this.folder = options.folder;
    this.#segmentBytes = options.segmentBytes ?? SEGMENT_BYTES;
    this.#maxBytes = options.maxBytes ?? MAX_SPOOL_BYTES;
    const names = readdirSync(this.folder).toSorted();
    const segments = names.flatMap((name) => segmentOf(this.folder, name));
    this.#earlierLarge = names.filter((name) => LARGE_NAME.test(name));
    // A name is never used twice: `releaseEarlier` deletes by name.
    for (const name of this.#earlierLarge)
      this.#largeCount = Math.max(this.#largeCount, Number(LARGE_NAME.exec(name)?.[1]));
    const last = segments.at(-1);
    const next = last === undefined ? 0 : last.start + last.sizeBytes;
    this.#next = next;
    // An empty last segment starts where ours would: it is ours from now on.
    this.#earlier = segments.filter((segment) => segment.sizeBytes > 0);
    this.#active = { start: next, file: join(this.folder, segmentName(next)), sizeBytes: 0 };
    try {
      this.#descriptor = openSync(this.#active.file, "a+", 0o600);
    } catch (error) {
      throw fileError(error, this.#active.file, "written");
    }
    for (const segment of this.#earlier) this.#sizeBytes += segment.sizeBytes;
  }

  get next(): Position {
    return this.#next;
  }

  append(parts: readonly Buffer[]): Position {
    const own = this.#take(parts);
    this.#flush(own);
    return own;
  }

  stage(parts: readonly Buffer[], onLost: (error: unknown) => void): Position {
    const position = this.#take(parts);
    this.#waiting.push(onLost);
    this.#turnEnd ??= setImmediate(() => {
      this.#turnEnd = undefined;
      this.#flushQuietly();
    });
    return position;
  }

  read(position: Position): Buffer {
    assert(position < this.#next - this.#staged.length, "the record is not written yet");
    const isActive = position >= this.#active.start;
    const segment = isActive ? this.#active : this.#closed.findLast(({ start }) => start <= position);
    assert(segment !== undefined, "the record was released");
    const descriptor = isActive ? this.#descriptor : openSync(segment.file, "r");
    try {
      const offset = position - segment.start;
      const header = Buffer.alloc(HEADER_BYTES);
      readSync(descriptor, header, 0, HEADER_BYTES, offset);
      const length = header.readUInt32LE(0);
      assert(length <= MAX_RECORD_BYTES, "the record is damaged");
      const content = Buffer.alloc(HEADER_BYTES + length);
      readSync(descriptor, content, 0, content.length, offset);
      const bytes = recordAt(content, 0);
      assert(bytes !== undefined, "the record is damaged");
      return bytes;
    } finally {
      if (!isActive) closeSync(descriptor);
    }
  }

  async appendLarge(bytes: Buffer): Promise<string> {
    assert(!this.#disposed, "the spool was used after it was closed");
    this.#refuseWhenFull(bytes.length);
    this.#largeCount += 1;
    const name = `${digits(this.#active.start)}-${this.#largeCount}.large`;
    try {
      await writeFile(join(this.folder, name), bytes, { mode: 0o600 });
    } catch (error) {
      await rm(join(this.folder, name), { force: true });
      throw storageError(error, join(this.folder, name));
    }
    return name;
  }

  async readLarge(name: string): Promise<Buffer | undefined> {
    assert(LARGE_NAME.test(name), `"${name}" is not the name of a large body`);
    try {
      return await readFile(join(this.folder, name));
    } catch {
      // Released, or never completely written: the caller's record then stands without its body.
      return undefined;
    }
  }

  async removeLarge(name: string): Promise<void> {
    assert(LARGE_NAME.test(name), `"${name}" is not the name of a large body`);
    await rm(join(this.folder, name), { force: true });
  }

  async *replay(onTorn: (torn: TornSegment) => void): AsyncIterable<SpoolRecord> {
    for (const { file, start } of this.#earlier) {
      const content = await readFile(file).catch((error: unknown) => Promise.reject(fileError(error, file, "read")));
      let offset = 0;
      for (;;) {
        const bytes = recordAt(content, offset);
        if (bytes === undefined) break;
        yield { position: start + offset, bytes };
        offset += HEADER_BYTES + bytes.length;
      }
      if (offset < content.length) onTorn({ file, position: start + offset, lostBytes: content.length - offset });
    }
  }

  async releaseEarlier(): Promise<void> {
    for (const segment of this.#earlier) {
      await rm(segment.file, { force: true });
      this.#sizeBytes -= segment.sizeBytes;
      segment.sizeBytes = 0;
    }
    for (const name of this.#earlierLarge) await rm(join(this.folder, name), { force: true });
  }

  release(position: Position): void {
    this.#released = Math.max(this.#released, position);
    for (let oldest = this.#closed[0]; oldest !== undefined; oldest = this.#closed[0]) {
      if (oldest.start + oldest.sizeBytes > this.#released) return;
      this.#closed.shift();
      this.#sizeBytes -= oldest.sizeBytes;
      const removal = rm(oldest.file, { force: true })
        // A file that cannot be deleted now is read again, and deleted, by the next process.
        .catch(() => {})
        .finally(() => this.#removals.delete(removal));
      this.#removals.add(removal);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    clearImmediate(this.#turnEnd);
    this.#flushQuietly();
    if (this.#released >= this.next && this.#active.sizeBytes > 0) {
      this.#roll();
      this.release(this.next);
    }
    closeSync(this.#descriptor);
    await Promise.all(this.#removals);
  }

  /** Puts a record behind those that are staged. */
  #take(parts: readonly Buffer[]): Position {
    assert(!this.#disposed, "the spool was used after it was closed");
    let length = 0;
    for (const part of parts) length += part.length;
    assert(length > 0, "a record must not be empty: a run of zeros would read as one");
    if (length > MAX_RECORD_BYTES) {
      throw new OperationalError(
        "storage_full",
        `a record of ${length} bytes is beyond the spool's ${MAX_RECORD_BYTES}`,
      );
    }
    const total = HEADER_BYTES + length;
    this.#refuseWhenFull(total);
    this.#makeRoom(total);
    const begin = this.#staged.length;
    const target = total <= this.#stage.length ? this.#stage : Buffer.allocUnsafe(total);
    let offset = begin + HEADER_BYTES;
    for (const part of parts) offset += part.copy(target, offset);
    target.writeUInt32LE(length, begin);
    target.writeUInt32LE(crc32(target.subarray(begin + HEADER_BYTES, offset)), begin + 4);
    this.#staged = target.subarray(0, offset);
    this.#sizeBytes += total;
    const position = this.#next;
    this.#next += total;
    return position;
  }

  #refuseWhenFull(sizeBytes: number): void {
    if (this.#sizeBytes + sizeBytes <= this.#maxBytes) return;
    throw new OperationalError(
      "storage_full",
      `${this.folder} holds ${this.#maxBytes} bytes that could not be stored yet`,
    );
  }

  /** So that a record of this size can be staged, and stands in a segment where its position says. */
  #makeRoom(total: number): void {
    if (this.#staged.length > 0 && this.#staged.length + total > this.#stage.length) this.#flush(undefined);
    const end = this.#active.sizeBytes + this.#staged.length;
    if (!this.#broken && end < this.#segmentBytes && this.#active.start + end === this.#next) return;
    this.#flush(undefined);
    this.#roll();
  }

  /** (5) `own` is the last record, which its caller does not know yet: if it cannot be written, another may have its position. */
  #flush(own: Position | undefined): void {
    const bytes = this.#staged;
    if (bytes.length === 0) return;
    const waiting = this.#waiting;
    this.#staged = this.#stage.subarray(0, 0);
    this.#waiting = [];
    try {
      this.#write(bytes);
      this.#active.sizeBytes += bytes.length;
    } catch (thrown) {
      this.#sizeBytes -= bytes.length;
      this.#next = own ?? this.#next;
      const error = storageError(thrown, this.#active.file);
      for (const onLost of waiting) onLost(error);
      throw error;
    }
  }

  #flushQuietly(): void {
    try {
      this.#flush(undefined);
    } catch {
      // Those whose records these were have been told.
    }
  }

  #write(bytes: Buffer): void {
    let written = 0;
    try {
      written = writeSync(this.#descriptor, bytes);
      // A short write means that the disk is nearly full; asking again names the reason.
      if (written < bytes.length) written += writeSync(this.#descriptor, bytes, written);
      if (written < bytes.length) throw shortWrite();
    } catch (error) {
      this.#cutBack();
      throw error;
    }
  }

  /** (3) */
  #cutBack(): void {
    try {
      ftruncateSync(this.#descriptor, this.#active.sizeBytes);
    } catch {
      // The torn record then stays the segment's last one; later records go to a new segment.
      this.#broken = true;
    }
  }

  #roll(): void {
    // A torn tail counts, so that no two positions are ever the same.
    const sizeBytes = this.#broken ? statSync(this.#active.file).size : this.#active.sizeBytes;
    // Positions that were given to what was lost are left out.
    const start = Math.max(this.#next, this.#active.start + sizeBytes);
    const file = join(this.folder, segmentName(start));
    let descriptor: number;
    try {
      descriptor = openSync(file, "a+", 0o600);
    } catch (error) {
      throw storageError(error, file);
    }
    closeSync(this.#descriptor);
    this.#sizeBytes += sizeBytes - this.#active.sizeBytes;
    this.#active.sizeBytes = sizeBytes;
    // Where nothing at all was written the file is the same, and is not to be deleted.
    if (start > this.#active.start) this.#closed.push(this.#active);
    this.#active = { start, file, sizeBytes: 0 };
    this.#next = start;
    this.#descriptor = descriptor;
    this.#broken = false;
  }
}

const LARGE_NAME = /^\d{16}-(\d+)\.large$/;
const SEGMENT_NAME = /^(\d{16})\.spool$/;
const digits = (position: Position) => String(position).padStart(16, "0");
const segmentName = (start: Position) => `${digits(start)}.spool`;

function segmentOf(folder: string, name: string): readonly Segment[] {
  const start = SEGMENT_NAME.exec(name)?.[1];
  if (start === undefined) return [];
  const file = join(folder, name);
  return [{ start: Number(start), file, sizeBytes: statSync(file).size }];
}

/** The record at `offset`, or undefined where the content ends or is damaged. */
function recordAt(content: Buffer, offset: number): Buffer | undefined {
  if (offset + HEADER_BYTES > content.length) return undefined;
  const length = content.readUInt32LE(offset);
  const begin = offset + HEADER_BYTES;
  if (length === 0 || length > MAX_RECORD_BYTES || begin + length > content.length) return undefined;
  const bytes = content.subarray(begin, begin + length);
  return crc32(bytes) === content.readUInt32LE(offset + 4) ? bytes : undefined;
}

function shortWrite(): Error {
  return Object.assign(new Error("the disk took only a part of a record"), { code: "ENOSPC" });
}

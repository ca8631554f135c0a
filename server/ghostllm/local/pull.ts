/**
 * Downloads weights, whatever the network does, and registers them once they are proven.
 * 1. Nothing is registered before size, checksum (where one is known) and GGUF header are right; what is wrong is removed.
 * 2. A broken download stays as `<name>.gguf.part` with what is needed to go on; the next pull resumes it if the server still has the same file.
 * 3. Every request, redirects included, has its own permit, and none goes from https to http.
 * 4. Attempts without progress are bounded; progress starts the count anew.
 */
import { createHash, type Hash } from "node:crypto";
import { join } from "node:path";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import { GhostError, OperationalError, UserError } from "../../base/errors.ts";
import {
  type Appender,
  fileSize,
  moveFile,
  openAppender,
  openReader,
  readFile,
  removeFile,
  writeFile,
} from "../../platform/filesystem.ts";
import { header, type HttpClient, type HttpResponse } from "../../platform/http-client.ts";
import type { Log } from "../../platform/log.ts";
import { type AnyPermit, type EffectRequest, THIS_MACHINE } from "../../platform/permit.ts";
import { hasGgufMagic, readGgufFacts } from "./gguf.ts";
import {
  defaultName,
  parseContentRange,
  type PullUpdate,
  redirectTarget,
  resolveSource,
  sha256Of,
  strongValidator,
} from "./pull-source.ts";
import type { ModelRegistry, RegisteredModel } from "./registry.ts";

export interface PullParams {
  readonly source: string;
  readonly name?: string | undefined;
  readonly sha256?: string | undefined;
}

/** Asks for the permit of one request: `net.http GET url`. @throws UserError `denied`. */
export type PullAuthorizer = (effect: EffectRequest) => Promise<AnyPermit>;

export type PullEvent = PullUpdate | { readonly kind: "done"; readonly entry: RegisteredModel };

export interface PullerOptions {
  readonly folder: string;
  readonly permit: AnyPermit;
  readonly registry: ModelRegistry;
  readonly http: HttpClient;
  readonly clock: Clock;
  readonly log: Log;
  /** Names that weights of the user's cannot have. */
  readonly reservedNames: readonly string[];
  readonly huggingFaceUrl: string;
}

/** More would be a loop; Hugging Face needs two. */
const MAX_REDIRECTS = 5;
/** In a row without a single new byte. With the delays below that is about a minute of a dead network. */
const MAX_ATTEMPTS = 6;
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 30_000;
/** A server may ask for more patience than that; then the user decides. */
const MAX_RETRY_AFTER_MS = 120_000;
const HEADERS_TIMEOUT_MS = 30_000;
/** A download that stands still this long is begun again where it stopped. */
const IDLE_TIMEOUT_MS = 30_000;
/** Progress is told at most once for this much, so that a fast disk does not flood its reader. */
const PROGRESS_BYTES = 1024 * 1024;
/** Hashing this much takes about 0.3 ms. */
const HASH_PIECE_BYTES = 256 * 1024;
const MAX_SIDECAR_BYTES = 16 * 1024;

const sidecarSchema = z.object({ source: z.string(), validator: z.string(), totalBytes: z.number().optional() });

/** What this pull knows about the file it wants. */
interface Target {
  readonly source: string;
  readonly url: URL;
  readonly name: string;
  readonly part: string;
  readonly sidecar: string;
  readonly file: string;
  expectedSha256: string | undefined;
  /** What Hugging Face says about the file itself: it does not change with the attempt. */
  linkedBytes: number | undefined;
  totalBytes: number | undefined;
}

export class ModelPuller implements AsyncDisposable {
  readonly #options: PullerOptions;
  readonly #active = new Set<string>();
  readonly #stop = new AbortController();

  constructor(options: PullerOptions) {
    this.#options = options;
  }

  /**
   * @throws UserError `invalid_params`, `download_mismatch`, `weights_corrupt`; OperationalError `download_failed` (what came is kept),
   * `storage_full` (likewise), `overloaded` while the same name is being pulled, `cancelled`.
   */
  async *pull(params: PullParams, authorize: PullAuthorizer, signal: AbortSignal): AsyncGenerator<PullEvent> {
    const target = this.#target(params);
    if (this.#active.has(target.name)) {
      throw new OperationalError("overloaded", `\`${target.name}\` is being pulled already`, {
        details: { name: target.name },
      });
    }
    this.#active.add(target.name);
    try {
      const both = AbortSignal.any([signal, this.#stop.signal]);
      yield* this.#download(target, authorize, both);
      yield { kind: "checking" };
      const sha256 = await this.#prove(target, both);
      yield { kind: "done", entry: await this.#register(target, sha256) };
    } finally {
      this.#active.delete(target.name);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new OperationalError("daemon_stopping", "the daemon is shutting down; what came is kept"));
  }

  #target(params: PullParams): Target {
    const { folder, reservedNames, huggingFaceUrl } = this.#options;
    const url = resolveSource(params.source, huggingFaceUrl);
    const name = params.name ?? defaultName(url);
    if (reservedNames.includes(name)) {
      throw new UserError("invalid_params", `\`${name}\` is the name of built-in weights; pass another`, {
        details: { field: "name" },
      });
    }
    const file = join(folder, `${name}.gguf`);
    return {
      source: params.source,
      url,
      name,
      file,
      part: `${file}.part`,
      sidecar: `${file}.part.json`,
      expectedSha256: params.sha256?.toLowerCase(),
      linkedBytes: undefined,
      totalBytes: undefined,
    };
  }

  /** Fills the part file, over as many attempts as it takes. */
  async *#download(target: Target, authorize: PullAuthorizer, signal: AbortSignal): AsyncGenerator<PullUpdate> {
    const { clock, log } = this.#options;
    for (let failures = 0; ; ) {
      const before = await this.#partSize(target);
      try {
        yield* this.#attempt(target, authorize, signal);
        return;
      } catch (error) {
        if (signal.aborted) throw signal.reason instanceof GhostError ? signal.reason : cancelled(signal);
        if (!isWorthRetrying(error)) throw error;
        failures = (await this.#partSize(target)) > before ? 1 : failures + 1;
        log.warn({ event: "model.pull.broken", model: target.name, failures, error });
        if (failures >= MAX_ATTEMPTS) {
          throw new OperationalError("download_failed", `${target.url.origin}: ${error.message}`, { cause: error });
        }
        const inMs = error.retryAfterMs ?? Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** (failures - 1));
        yield { kind: "retrying", attempt: failures, inMs, reason: error.message };
        await sleepUnlessAborted(clock, inMs, signal);
      }
    }
  }

  /** One request and its body, appended to the part file. */
  async *#attempt(target: Target, authorize: PullAuthorizer, signal: AbortSignal): AsyncGenerator<PullUpdate> {
    const { permit } = this.#options;
    const resume = await this.#resumePoint(target);
    const { response, url } = await this.#request(target, resume, authorize, signal);
    const start = await usableOrDiscarded(response, () => acceptAnswer(response, resume, target));
    if (start === "complete") return;
    if (start === "restart") {
      await removeFile(permit, target.part);
      throw new OperationalError("download_failed", `${url.origin} has another file now; starting again`, {
        retryAfterMs: 0,
      });
    }
    const validator = strongValidator(header(response, "etag"), header(response, "last-modified"));
    if (validator === undefined) await removeFile(permit, target.sidecar);
    else
      await writeFile(
        permit,
        target.sidecar,
        JSON.stringify({ source: target.source, validator, totalBytes: target.totalBytes }),
      );
    await using appender = await openAppender(permit, target.part, { truncate: start === 0 });
    yield* this.#receive({ target, response, appender, start });
  }

  async *#receive(flow: {
    readonly target: Target;
    readonly response: HttpResponse;
    readonly appender: Appender;
    readonly start: number;
  }): AsyncGenerator<PullUpdate> {
    const { target, response, appender, start } = flow;
    const progress = (): PullUpdate => ({
      kind: "progress",
      receivedBytes: appender.sizeBytes,
      resumedFromBytes: start,
      ...(target.totalBytes === undefined ? {} : { totalBytes: target.totalBytes }),
    });
    yield progress();
    let told = start;
    let magic = start === 0 ? Buffer.alloc(0) : undefined;
    for await (const chunk of response.body) {
      if (magic !== undefined) {
        magic = Buffer.concat([magic, chunk.subarray(0, 4)]);
        if (magic.length >= 4) {
          if (!hasGgufMagic(magic)) throw await this.#reject(target, notGguf(target, response));
          magic = undefined;
        }
      }
      await appender.append(chunk);
      if (target.totalBytes !== undefined && appender.sizeBytes > target.totalBytes) {
        throw await this.#reject(
          target,
          mismatch(target, `sent more than the ${target.totalBytes} bytes it had announced`),
        );
      }
      if (appender.sizeBytes - told >= PROGRESS_BYTES) {
        told = appender.sizeBytes;
        yield progress();
      }
    }
    await appender.flush();
    if (target.totalBytes !== undefined && appender.sizeBytes < target.totalBytes) {
      throw new OperationalError(
        "download_failed",
        `the connection ended after ${appender.sizeBytes} of ${target.totalBytes} bytes`,
      );
    }
    if (magic !== undefined) throw await this.#reject(target, notGguf(target, response));
    yield progress();
  }

  /** Where the part file ends, and what proves that the server still means the same file. */
  async #resumePoint(target: Target): Promise<{ readonly start: number; readonly validator: string } | undefined> {
    const size = await this.#partSize(target);
    if (size === 0) return undefined;
    const content = await readFile(this.#options.permit, target.sidecar, MAX_SIDECAR_BYTES);
    const sidecar = sidecarSchema.safeParse(content === undefined ? undefined : parseJson(content.toString("utf8")));
    if (!sidecar.success || sidecar.data.source !== target.source) return undefined;
    return { start: size, validator: sidecar.data.validator };
  }

  async #request(
    target: Target,
    resume: { readonly start: number; readonly validator: string } | undefined,
    authorize: PullAuthorizer,
    signal: AbortSignal,
  ): Promise<{ readonly response: HttpResponse; readonly url: URL }> {
    let url = target.url;
    const headers = {
      "user-agent": "ghoststack",
      "accept-encoding": "identity",
      ...(resume === undefined ? {} : { range: `bytes=${resume.start}-`, "if-range": resume.validator }),
    };
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects += 1) {
      const path = `${url.pathname}${url.search}`;
      const effect: EffectRequest = {
        capability: "net.http",
        resource: { kind: "url", method: "GET", origin: url.origin, path },
        host: THIS_MACHINE,
      };
      const permit = await authorize(effect);
      signal.throwIfAborted();
      const response = await this.#options.http.send(
        permit,
        {
          method: "GET",
          origin: url.origin,
          path,
          headers,
          headersTimeoutMs: HEADERS_TIMEOUT_MS,
          idleTimeoutMs: IDLE_TIMEOUT_MS,
        },
        signal,
      );
      learn(target, response);
      if (response.status < 300 || response.status > 399 || response.status === 304) return { response, url };
      await discard(response);
      url = redirectTarget(url, header(response, "location"));
    }
    throw new UserError("download_mismatch", `${target.url.origin} redirects more than ${MAX_REDIRECTS} times`);
  }

  /** Reads the whole file once more: its sha256, its header. @throws after removing what is wrong. */
  async #prove(target: Target, signal: AbortSignal): Promise<string> {
    const { permit } = this.#options;
    const hash = createHash("sha256");
    {
      await using reader = await openReader(permit, target.part);
      await hashAll(reader, hash, signal);
      const sha256 = hash.digest("hex");
      if (target.expectedSha256 !== undefined && sha256 !== target.expectedSha256) {
        throw await this.#reject(
          target,
          mismatch(target, `sent a file with the sha256 ${sha256} instead of ${target.expectedSha256}`),
        );
      }
      try {
        await readGgufFacts(reader, target.name);
      } catch (error) {
        throw await this.#reject(target, error);
      }
      return sha256;
    }
  }

  async #register(target: Target, sha256: string): Promise<RegisteredModel> {
    const { permit, registry, folder } = this.#options;
    const sizeBytes = await this.#partSize(target);
    await moveFile(permit, target.part, target.file);
    await removeFile(permit, target.sidecar);
    const entry = {
      name: target.name,
      file: target.file.slice(folder.length + 1),
      sha256,
      source: target.source,
      sizeBytes,
    };
    await registry.add(entry);
    return entry;
  }

  /** Removes what came and hands the error back. */
  async #reject(target: Target, error: unknown): Promise<unknown> {
    await removeFile(this.#options.permit, target.part);
    await removeFile(this.#options.permit, target.sidecar);
    return error;
  }

  async #partSize(target: Target): Promise<number> {
    return (await fileSize(this.#options.permit, target.part)) ?? 0;
  }
}

/** Where the body belongs in the file; `complete`: there is nothing left to fetch; `restart`: what we have is of another file. */
function acceptAnswer(
  response: HttpResponse,
  resume: { readonly start: number } | undefined,
  target: Target,
): number | "complete" | "restart" {
  const { status } = response;
  if (status === 416 && resume !== undefined) {
    const total = /^bytes \*\/(\d+)$/.exec(header(response, "content-range") ?? "")?.[1];
    return Number(total) === resume.start ? "complete" : "restart";
  }
  if (status === 206 && resume !== undefined) {
    const range = parseContentRange(header(response, "content-range"));
    if (range === undefined || range.start !== resume.start) return "restart";
    target.totalBytes = range.total;
    checkTotal(target);
    return resume.start;
  }
  if (status === 200) {
    const length = header(response, "content-length");
    target.totalBytes = length === undefined ? target.linkedBytes : Number(length);
    checkTotal(target);
    return 0;
  }
  throw refusedBy(response, target);
}

function checkTotal({ linkedBytes, totalBytes, source }: Target): void {
  if (linkedBytes === undefined || totalBytes === undefined || linkedBytes === totalBytes) return;
  throw new UserError(
    "download_mismatch",
    `the store offers ${totalBytes} bytes for ${source}, which has ${linkedBytes}`,
  );
}

function refusedBy(response: HttpResponse, target: Target): GhostError {
  const { status } = response;
  const message = `${target.url.origin} answers ${status} for ${target.url.pathname}`;
  if (status === 429 || status >= 500) {
    const seconds = Number(header(response, "retry-after"));
    const patience =
      Number.isFinite(seconds) && seconds >= 0 ? { retryAfterMs: Math.min(MAX_RETRY_AFTER_MS, seconds * 1000) } : {};
    return new OperationalError("upstream_failed", message, patience);
  }
  const hint =
    status === 401 || status === 403 ? ": it wants a login" : status === 404 ? ": there is no such file" : "";
  return new OperationalError("download_failed", `${message}${hint}`, { details: { status } });
}

/** Hugging Face tells size and sha256 of the file in the redirect to its store. */
function learn(target: Target, response: HttpResponse): void {
  const sha256 = sha256Of(header(response, "x-linked-etag"));
  if (sha256 !== undefined) target.expectedSha256 ??= sha256;
  const size = Number(header(response, "x-linked-size"));
  if (Number.isSafeInteger(size) && size > 0) target.linkedBytes = size;
}

function mismatch(target: Target, what: string): UserError {
  return new UserError("download_mismatch", `${target.url.origin} ${what}`, { details: { source: target.source } });
}

function notGguf(target: Target, response: HttpResponse): UserError {
  const kind = header(response, "content-type") ?? "unknown";
  return new UserError(
    "weights_corrupt",
    `${target.source} is not a GGUF file (the server says it is of the type ${kind})`,
    {
      details: { source: target.source },
    },
  );
}

/** What the network does is tried again; what the user must change, a full disk and our own bugs are not. */
function isWorthRetrying(error: unknown): error is OperationalError {
  if (!(error instanceof OperationalError) || error.code === "storage_full" || error.code === "cancelled") return false;
  return error.code !== "download_failed" || error.details["status"] === undefined;
}

async function hashAll(
  reader: { readonly sizeBytes: number; read(position: number, length: number): Promise<Buffer> },
  hash: Hash,
  signal: AbortSignal,
) {
  for (let position = 0; position < reader.sizeBytes; position += HASH_PIECE_BYTES) {
    signal.throwIfAborted();
    hash.update(await reader.read(position, HASH_PIECE_BYTES));
  }
}

/** Judges an answer by its head; one whose body will not be read is given up. */
async function usableOrDiscarded(response: HttpResponse, judge: () => number | "complete" | "restart") {
  try {
    const start = judge();
    if (typeof start !== "number") await discard(response);
    return start;
  } catch (error) {
    await discard(response);
    throw error;
  }
}

/** Leaving the loop gives the connection up; a redirect's body is nobody's business. */
async function discard(response: HttpResponse): Promise<void> {
  await response.body[Symbol.asyncIterator]().return?.();
}

async function sleepUnlessAborted(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  try {
    await clock.sleep(delayMs, signal);
  } catch {
    // Only the abort ends a sleep early.
    throw signal.reason instanceof GhostError ? signal.reason : cancelled(signal);
  }
}

function cancelled(signal: AbortSignal): OperationalError {
  return new OperationalError("cancelled", "the download was cancelled; what came is kept", { cause: signal.reason });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // A damaged sidecar only means starting again.
    return undefined;
  }
}

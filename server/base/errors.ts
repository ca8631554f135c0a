/**
 * The three families of errors (docs/errors.md). Every one carries a code of the catalogue in `protocol/errors.ts`.
 * - `UserError`: the user can change something; the message says what.
 * - `OperationalError`: something outside failed; trying again may help.
 * - `BugError`: we were wrong; logged with its stack.
 */
import type { CodeOf, ErrorCode, ErrorDetails, ErrorFamily, WireError } from "../../protocol/errors.ts";

interface GhostErrorOptions {
  readonly cause?: unknown;
  readonly details?: ErrorDetails;
}

export abstract class GhostError extends Error {
  abstract readonly family: ErrorFamily;
  readonly code: ErrorCode;
  readonly details: ErrorDetails;
  /** When trying again makes sense, in milliseconds from now; absent where nobody knows. */
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, options: GhostErrorOptions & { readonly retryAfterMs?: number } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.details = options.details ?? {};
    this.retryAfterMs = options.retryAfterMs;
  }
}

export class UserError extends GhostError {
  readonly family = "user";
  constructor(code: CodeOf<"user">, message: string, options: GhostErrorOptions = {}) {
    super(code, message, options);
  }
}

export class OperationalError extends GhostError {
  readonly family = "operational";
  constructor(
    code: CodeOf<"operational">,
    message: string,
    options: GhostErrorOptions & { readonly retryAfterMs?: number } = {},
  ) {
    super(code, message, options);
  }
}

export class BugError extends GhostError {
  readonly family = "bug";
  constructor(code: CodeOf<"bug">, message: string, options: GhostErrorOptions = {}) {
    super(code, message, options);
  }
}

/** An error that came as data, in band: somebody else threw it, and its code says why. */
export class ReportedError extends GhostError {
  readonly family = "operational";
  constructor(error: WireError) {
    const retry = error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs };
    super(error.code, error.message, { details: error.details, ...retry });
  }
}

/** Whatever was thrown, as one of ours: an unknown exception is a bug until somebody translates it. */
export function toGhostError(thrown: unknown): GhostError {
  if (thrown instanceof GhostError) return thrown;
  if (isAbortError(thrown)) return new OperationalError("cancelled", "the request was cancelled", { cause: thrown });
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new BugError("internal", `unexpected failure: ${message}`, { cause: thrown });
}

/** True for what `AbortSignal` throws and for our own `cancelled`. */
export function isAbortError(thrown: unknown): boolean {
  if (thrown instanceof GhostError) return thrown.code === "cancelled";
  return thrown instanceof Error && (thrown.name === "AbortError" || thrown.name === "TimeoutError");
}

/** The system error code (`ENOENT`, `ECONNREFUSED`, …) of an exception, wherever in its chain of causes it stands. */
export function systemCode(thrown: unknown): string | undefined {
  for (let error = thrown, depth = 0; error instanceof Error && depth < 8; error = error.cause, depth += 1) {
    if ("code" in error && typeof error.code === "string" && !(error instanceof GhostError)) return error.code;
  }
  return undefined;
}

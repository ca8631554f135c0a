/**
 * Whatever was thrown, as it may leave the daemon.
 * 1. A `BugError`, and everything that is not an error of ours, is logged with its stack and leaves as `internal` with the id of that log line:
 *    its message may hold anything, so none of it crosses.
 * 2. Errors for the user leave as they are: their messages were written for them.
 */
import { GhostApiError, type WireError } from "../../protocol/errors.ts";
import type { Ids } from "../base/clock.ts";
import { type GhostError, toGhostError } from "../base/errors.ts";
import type { Log } from "../platform/log.ts";

export interface ErrorReport {
  readonly log: Log;
  readonly ids: Ids;
  /** What was asked: a method or a route. */
  readonly subject: string;
}

/** A message quotes what it complains about, which may be a whole file; what is longer than this helps nobody. */
const MAX_MESSAGE_CHARACTERS = 4096;
/** 8 characters: short enough to read out, long enough to be the only one in a log. */
const INCIDENT_ID_BYTES = 6;

export function toWireError(thrown: unknown, report: ErrorReport): WireError {
  if (thrown instanceof GhostApiError) return wireErrorOf(thrown);
  const error = toGhostError(thrown);
  if (error.family !== "bug") return wireErrorOf(error);
  const incident = report.ids.secret(INCIDENT_ID_BYTES);
  report.log.error({ event: "request.bug", subject: report.subject, incident, error });
  return {
    code: "internal",
    message: `${report.subject} failed inside the daemon; the log has the reason under ${incident}`,
    details: { incident },
  };
}

/** The plain data of an error that may be shown as it is. */
export function wireErrorOf(error: GhostError | GhostApiError): WireError {
  return {
    code: error.code,
    message:
      error.message.length > MAX_MESSAGE_CHARACTERS
        ? `${error.message.slice(0, MAX_MESSAGE_CHARACTERS)}…`
        : error.message,
    details: error.details,
    ...(error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs }),
  };
}

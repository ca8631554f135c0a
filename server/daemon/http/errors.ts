/** Errors of the catalogue as HTTP answers, in the shape that OpenAI's clients read. */
import { errorCatalogue, type ErrorCode } from "../../../protocol/errors.ts";
import type { GhostError } from "../../base/errors.ts";

/** Codes that OpenAI's SDKs and agents look for by name. */
const OPENAI_CODES: Partial<Record<ErrorCode, string>> = {
  unauthenticated: "invalid_api_key",
  context_too_long: "context_length_exceeded",
  upstream_rate_limited: "rate_limit_exceeded",
};

export interface HttpError {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** `{"error":{"message","type","param","code"}}`, with `retry-after` where somebody knows it. */
export function httpError(error: GhostError): HttpError {
  const { http } = errorCatalogue[error.code];
  const retryAfter =
    error.retryAfterMs === undefined ? {} : { "retry-after": String(Math.ceil(error.retryAfterMs / 1000)) };
  return { status: http, headers: { "content-type": "application/json", ...retryAfter }, body: errorBody(error) };
}

/** The JSON text of an error, for a body or for an in-band SSE frame. A bug's own message stays in the log. */
export function errorBody(error: GhostError): string {
  const { http, meaning, advice } = errorCatalogue[error.code];
  const message = error.family === "bug" ? meaning : error.message;
  const field = error.details["field"];
  return JSON.stringify({
    error: {
      message: `${/[.?!]$/.test(message) ? message : `${message}.`} ${advice}`,
      type: http >= 500 ? "server_error" : http === 429 ? "rate_limit_error" : "invalid_request_error",
      param: typeof field === "string" ? field : null,
      code: OPENAI_CODES[error.code] ?? error.code,
    },
  });
}

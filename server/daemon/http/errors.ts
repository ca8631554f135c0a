/** Errors of the catalogue as HTTP answers, each in the shape that its dialect's clients read. */
import { errorCatalogue, type ErrorCode } from "../../../protocol/errors.ts";
import type { GhostError } from "../../base/errors.ts";

/**
 * `openai`: `{"error":{message,type,param,code}}`; `anthropic`: `{"type":"error","error":{type,message},"request_id"}`; `ollama`: `{"error":TEXT}`;
 * `gemini`: `{"error":{code,message,status,details}}`.
 */
export type ErrorShape = "openai" | "anthropic" | "ollama" | "gemini";

/** Codes that OpenAI's SDKs and agents look for by name. */
const OPENAI_CODES: Partial<Record<ErrorCode, string>> = {
  unauthenticated: "invalid_api_key",
  context_too_long: "context_length_exceeded",
  upstream_rate_limited: "rate_limit_exceeded",
};

/** https://docs.claude.com/en/api/errors: by status, and where a code says more, by that. */
const ANTHROPIC_TYPES: Readonly<Record<number, string>> = {
  401: "authentication_error",
  402: "billing_error",
  403: "permission_error",
  404: "not_found_error",
  413: "request_too_large",
  429: "rate_limit_error",
  504: "timeout_error",
  529: "overloaded_error",
};

/** https://cloud.google.com/apis/design/errors#handling_errors: by status. */
const GEMINI_STATUSES: Readonly<Record<number, string>> = {
  401: "UNAUTHENTICATED",
  402: "RESOURCE_EXHAUSTED",
  403: "PERMISSION_DENIED",
  404: "NOT_FOUND",
  409: "ABORTED",
  429: "RESOURCE_EXHAUSTED",
  499: "CANCELLED",
  500: "INTERNAL",
  504: "DEADLINE_EXCEEDED",
};

export interface HttpError {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** With `retry-after` where somebody knows it. `requestId` goes into the headers that SDKs read, and into Anthropic's body. */
export function httpError(error: GhostError, shape: ErrorShape = "openai", requestId?: string): HttpError {
  const retryAfter =
    error.retryAfterMs === undefined ? {} : { "retry-after": String(Math.ceil(error.retryAfterMs / 1000)) };
  return {
    status: errorCatalogue[error.code].http,
    headers: { "content-type": "application/json", ...retryAfter, ...idHeaders(shape, requestId) },
    body: errorBody(error, shape, requestId),
  };
}

function idHeaders(shape: ErrorShape, requestId: string | undefined): Readonly<Record<string, string>> {
  if (requestId === undefined) return {};
  return { "x-request-id": requestId, ...(shape === "anthropic" ? { "request-id": requestId } : {}) };
}

/** The JSON text of an error, for a body or for an in-band frame. */
export function errorBody(error: GhostError, shape: ErrorShape = "openai", requestId?: string): string {
  switch (shape) {
    case "openai":
      return JSON.stringify({ error: openAiError(error) });
    case "anthropic":
      return JSON.stringify({ type: "error", error: anthropicError(error), request_id: requestId ?? null });
    case "ollama":
      return JSON.stringify({ error: errorText(error) });
    case "gemini":
      return JSON.stringify({ error: geminiError(error) });
  }
}

export interface OpenAiError {
  readonly message: string;
  readonly type: string;
  readonly param: string | null;
  readonly code: string;
}

export function openAiError(error: GhostError): OpenAiError {
  const { http } = errorCatalogue[error.code];
  const field = error.details["field"];
  return {
    message: errorText(error),
    type: http >= 500 ? "server_error" : http === 429 ? "rate_limit_error" : "invalid_request_error",
    param: typeof field === "string" ? field : null,
    code: OPENAI_CODES[error.code] ?? error.code,
  };
}

export function anthropicError(error: GhostError): { readonly type: string; readonly message: string } {
  const { http } = errorCatalogue[error.code];
  const type =
    error.code === "overloaded" || error.code === "upstream_overloaded"
      ? "overloaded_error"
      : (ANTHROPIC_TYPES[http] ?? (http >= 500 ? "api_error" : "invalid_request_error"));
  return { type, message: errorText(error) };
}

/** Its clients read the wait from `details`, not from a header. */
function geminiError(error: GhostError): object {
  const { http } = errorCatalogue[error.code];
  const field = error.details["field"];
  const { retryAfterMs } = error;
  return {
    code: http,
    message: errorText(error),
    status: GEMINI_STATUSES[http] ?? (http >= 500 ? "UNAVAILABLE" : "INVALID_ARGUMENT"),
    details: [
      { "@type": `${GOOGLE_TYPE}ErrorInfo`, reason: error.code, domain: "ghoststack" },
      ...(typeof field === "string"
        ? [{ "@type": `${GOOGLE_TYPE}BadRequest`, fieldViolations: [{ field, description: error.message }] }]
        : []),
      ...(retryAfterMs === undefined
        ? []
        : [{ "@type": `${GOOGLE_TYPE}RetryInfo`, retryDelay: `${Math.ceil(retryAfterMs / 1000)}s` }]),
    ],
  };
}

const GOOGLE_TYPE = "type.googleapis.com/google.rpc.";

/** A bug's own message stays in the log. */
export function errorText(error: GhostError): string {
  const { meaning, advice } = errorCatalogue[error.code];
  const message = error.family === "bug" ? meaning : error.message;
  return `${/[.?!]$/.test(message) ? message : `${message}.`} ${advice}`;
}

/**
 * What Anthropic's errors mean in our catalogue, whether they come as a status or inside a stream. Pure.
 * The type counts, then the status; words are read only where one type has several meanings (https://platform.claude.com/docs/en/api/errors).
 */
import { type CodeOf, errorCatalogue } from "../../../protocol/errors.ts";
import { isRecord, stringAt, textAt } from "./json.ts";

/** `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}` as it is said. */
export interface AnthropicError {
  readonly type: string;
  readonly message: string;
  /** `error.details.error_code`: tells kinds of one type apart. */
  readonly errorCode: string | undefined;
  readonly requestId: string | undefined;
}

export type AnthropicCode = CodeOf<"user"> | CodeOf<"operational">;

/** How an error came, beside its words. */
export interface ErrorContext {
  readonly status?: number;
  /** The header `x-should-retry`. */
  readonly shouldRetry?: string | undefined;
}

/** Undefined for what is no error of Anthropic's, such as a proxy's page. */
export function readAnthropicError(json: unknown): AnthropicError | undefined {
  if (!isRecord(json) || !isRecord(json["error"])) return undefined;
  const { error } = json;
  const details = isRecord(error["details"]) ? error["details"] : {};
  return {
    type: textAt(error, "type"),
    message: textAt(error, "message"),
    errorCode: stringAt(details, "error_code"),
    requestId: stringAt(json, "request_id"),
  };
}

const BY_TYPE: ReadonlyMap<string, AnthropicCode> = new Map([
  ["invalid_request_error", "upstream_rejected"],
  ["authentication_error", "upstream_auth"],
  ["permission_error", "upstream_auth"],
  ["billing_error", "upstream_quota"],
  ["not_found_error", "model_not_found"],
  ["request_too_large", "upstream_rejected"],
  ["rate_limit_error", "upstream_rate_limited"],
  ["api_error", "upstream_failed"],
  ["timeout_error", "upstream_timeout"],
  ["overloaded_error", "upstream_overloaded"],
]);
const BY_STATUS: ReadonlyMap<number, AnthropicCode> = new Map([
  [400, "upstream_rejected"],
  [401, "upstream_auth"],
  [402, "upstream_quota"],
  [403, "upstream_auth"],
  [404, "model_not_found"],
  [413, "upstream_rejected"],
  [422, "upstream_rejected"],
  [429, "upstream_rate_limited"],
  [504, "upstream_timeout"],
]);
/** Too much to do, whatever the type says. */
const OVERLOADED: ReadonlySet<number> = new Set([503, 529]);

/** Spend and contract limits come as rate limits; to wait a little does not lift them. */
const LASTING_LIMIT = /spend_limit|^contract_|billing_unavailable/;
const TOO_LONG =
  /prompt is too long|exceed(?:s|ed)? (?:the )?(?:context|maximum context)|context (?:window|length|limit)/i;
const NO_CREDIT = /credit balance is too low|reached your specified (?:api )?usage limits/i;
const FILTERED = /content filtering policy|blocked by content/i;

export function codeOfAnthropic(error: AnthropicError | undefined, context: ErrorContext = {}): AnthropicCode {
  const { status = 0, shouldRetry } = context;
  if (OVERLOADED.has(status)) return "upstream_overloaded";
  const code = BY_TYPE.get(error?.type ?? "") ?? BY_STATUS.get(status) ?? "upstream_failed";
  const { message = "", errorCode = "" } = error ?? {};
  if (LASTING_LIMIT.test(errorCode)) return "upstream_quota";
  if (code === "upstream_rate_limited" && shouldRetry === "false") return "upstream_quota";
  if (code !== "upstream_rejected") return code;
  if (TOO_LONG.test(message)) return "context_too_long";
  if (NO_CREDIT.test(message)) return "upstream_quota";
  return FILTERED.test(message) ? "upstream_filtered" : code;
}

export function isOperational(code: AnthropicCode): code is CodeOf<"operational"> {
  return errorCatalogue[code].family === "operational";
}

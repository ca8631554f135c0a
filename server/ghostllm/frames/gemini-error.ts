/**
 * What Gemini's errors mean in our catalogue, whether they come as a status or inside a stream. Pure.
 * `{"error":{"code":429,"message":"…","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37s"}]}}`
 * The status word counts; words are read where one has several meanings (https://ai.google.dev/gemini-api/docs/troubleshooting).
 */
import { type CodeOf, errorCatalogue } from "../../../protocol/errors.ts";
import { countAt, isRecord, recordAt, recordsAt, stringAt, textAt } from "./json.ts";

export interface GeminiError {
  /** The HTTP status that it stands for; 0 where it says none. */
  readonly status: number;
  /** `RESOURCE_EXHAUSTED` and its like; empty where there is none. */
  readonly word: string;
  readonly message: string;
  /** `API_KEY_INVALID` and its like. */
  readonly reason: string | undefined;
  /** The names of the quotas that are used up. */
  readonly quotas: readonly string[];
  readonly retryAfterMs: number | undefined;
}

export type GeminiCode = CodeOf<"user"> | CodeOf<"operational">;

/** Undefined for what is no error of Google's, such as a proxy's page. A stream's error may come as the one entry of a list. */
export function readGeminiError(json: unknown): GeminiError | undefined {
  const value: unknown = Array.isArray(json) ? json[0] : json;
  if (!isRecord(value) || !isRecord(value["error"])) return undefined;
  const { error } = value;
  const details = recordsAt(error, "details");
  const typed = (type: string) => details.filter((detail) => textAt(detail, "@type").endsWith(`.${type}`));
  return {
    status: countAt(error, "code") ?? 0,
    word: textAt(error, "status"),
    message: textAt(error, "message"),
    reason: typed("ErrorInfo").flatMap((detail) => stringAt(detail, "reason") ?? [])[0],
    quotas: typed("QuotaFailure").flatMap((detail) => recordsAt(detail, "violations").map(quotaName)),
    retryAfterMs: typed("RetryInfo").flatMap((detail) => durationMs(detail["retryDelay"]) ?? [])[0],
  };
}

function quotaName(violation: Readonly<Record<string, unknown>>): string {
  return textAt(violation, "quotaId") || textAt(recordAt(violation, "quotaDimensions"), "quotaId");
}

/** `"37s"`, `"1.5s"` or `{seconds, nanos}`, as the two JSON forms of a duration are. */
function durationMs(value: unknown): number | undefined {
  if (isRecord(value)) return positive(Number(value["seconds"] ?? 0) * 1000 + Number(value["nanos"] ?? 0) / 1e6);
  const match = typeof value === "string" ? /^(\d+(?:\.\d+)?)s$/.exec(value) : null;
  return match === null ? undefined : positive(Number(match[1]) * 1000);
}

const positive = (ms: number) => (Number.isFinite(ms) && ms > 0 ? Math.ceil(ms) : undefined);

const BY_WORD: ReadonlyMap<string, GeminiCode> = new Map([
  ["INVALID_ARGUMENT", "upstream_rejected"],
  ["FAILED_PRECONDITION", "upstream_rejected"],
  ["OUT_OF_RANGE", "upstream_rejected"],
  ["UNIMPLEMENTED", "upstream_rejected"],
  ["UNAUTHENTICATED", "upstream_auth"],
  ["PERMISSION_DENIED", "upstream_auth"],
  ["NOT_FOUND", "model_not_found"],
  ["RESOURCE_EXHAUSTED", "upstream_rate_limited"],
  ["UNAVAILABLE", "upstream_overloaded"],
  ["DEADLINE_EXCEEDED", "upstream_timeout"],
]);
const BY_STATUS: ReadonlyMap<number, GeminiCode> = new Map([
  [400, "upstream_rejected"],
  [401, "upstream_auth"],
  [402, "upstream_quota"],
  [403, "upstream_auth"],
  [404, "model_not_found"],
  [413, "upstream_rejected"],
  [422, "upstream_rejected"],
  [429, "upstream_rate_limited"],
  [503, "upstream_overloaded"],
  [504, "upstream_timeout"],
]);

const WRONG_KEY = /^API_KEY_|^(?:ACCESS_TOKEN|CREDENTIALS)_/;
const TOO_LONG = /input token count|exceeds? the maximum number of (?:input )?tokens|context (?:window|length)/i;
const NO_CREDIT = /billing|prepa(?:y|id)|credits? (?:are|is|has|have)|spend(?:ing)? (?:cap|limit)/i;
/** A limit of none, and the day's: to wait a little does not lift them. */
const LASTING_LIMIT = /\blimit: 0\b/;
const DAILY = /PerDay/i;
/** Said of every limit, those of a minute, too. */
const USUAL_WORDS = /please check your plan and billing details/i;

export function codeOfGemini(error: GeminiError | undefined, httpStatus = 0): GeminiCode {
  const status = error === undefined || error.status === 0 ? httpStatus : error.status;
  const code = BY_WORD.get(error?.word ?? "") ?? BY_STATUS.get(status) ?? "upstream_failed";
  if (error === undefined) return code;
  const { message, reason = "", quotas } = error;
  if (WRONG_KEY.test(reason) || /api key (?:not valid|expired|not found)/i.test(message)) return "upstream_auth";
  if (code === "upstream_rate_limited") {
    const isLasting = LASTING_LIMIT.test(message) || quotas.some((quota) => DAILY.test(quota));
    return isLasting || NO_CREDIT.test(message.replace(USUAL_WORDS, "")) ? "upstream_quota" : code;
  }
  if (code !== "upstream_rejected") return code;
  if (TOO_LONG.test(message)) return "context_too_long";
  return error.word === "FAILED_PRECONDITION" && NO_CREDIT.test(message) ? "upstream_quota" : code;
}

export function isOperational(code: GeminiCode): code is CodeOf<"operational"> {
  return errorCatalogue[code].family === "operational";
}

/**
 * What the servers that speak OpenAI's Responses mean by their errors, in our catalogue. Pure. Their code counts first, then their words, then the status.
 * Shapes: OpenAI and Azure `{"error":{"message","type","param","code"}}`; xAI also `{"code","error":"text"}` and `{"error":"text"}`; in a stream the flat
 * `{"type":"error","code","message","param"}`.
 */
import type { CodeOf } from "../../../protocol/errors.ts";
import { isRecord, textAt } from "./json.ts";

export interface ErrorWords {
  /** `error.code`, else `error.type`; empty where there is neither. */
  readonly code: string;
  readonly message: string;
  /** The field that is wrong; empty where none is named. */
  readonly param: string;
}

export type Meaning =
  | {
      readonly family: "user";
      readonly code: Extract<
        CodeOf<"user">,
        | "upstream_auth"
        | "upstream_quota"
        | "upstream_filtered"
        | "upstream_rejected"
        | "model_not_found"
        | "context_too_long"
      >;
    }
  | {
      readonly family: "operational";
      readonly code: Extract<
        CodeOf<"operational">,
        "upstream_rate_limited" | "upstream_overloaded" | "upstream_timeout" | "upstream_failed"
      >;
    };

const user = (code: Extract<Meaning, { family: "user" }>["code"]): Meaning => ({ family: "user", code });
const operational = (code: Extract<Meaning, { family: "operational" }>["code"]): Meaning => ({
  family: "operational",
  code,
});

/** The first row whose code fits counts, then the first whose words fit. */
const ROWS: readonly { readonly means: Meaning; readonly codes: RegExp; readonly says?: RegExp }[] = [
  {
    means: user("context_too_long"),
    codes: /^context_length_exceeded$/,
    says: /maximum (context|prompt) length|exceeds the context window/i,
  },
  {
    means: user("upstream_quota"),
    codes:
      /^(insufficient_quota|credit_balance_exhausted|billing_hard_limit_reached|billing_not_active|quota_exceeded)$/,
    says: /exceeded your current quota|used all available credits|monthly spending limit|(does not|doesn't) have any credits/i,
  },
  {
    means: user("upstream_auth"),
    codes: /^(invalid_api_key|invalid_authentication|authentication_error|account_deactivated)$/,
    says: /(incorrect|invalid) api key/i,
  },
  {
    means: user("upstream_filtered"),
    codes:
      /^(content_filter|content_policy_violation|image_content_policy_violation|moderation_blocked|invalid_prompt|bio_policy|misalignment_policy_violation)$/,
    says: /content management policy|violating our usage policy/i,
  },
  {
    means: user("model_not_found"),
    codes: /^(model_not_found|DeploymentNotFound)$/,
    says: /^the model .{1,300} does not exist/i,
  },
  {
    means: operational("upstream_overloaded"),
    codes: /^(server_is_overloaded|engine_overloaded|overloaded_error|service_unavailable_error)$/,
    says: /currently overloaded/i,
  },
  {
    means: operational("upstream_rate_limited"),
    codes: /^(rate_limit_exceeded|slow_down|too_many_requests|tokens|requests)$/,
  },
  {
    means: user("upstream_rejected"),
    codes:
      /^(invalid_|image_|unsupported_|unknown_parameter|missing_required|empty_image_file|failed_to_download_image)/,
  },
];

/** What the error says, whichever shape it has; undefined for what is no error. */
export function errorWords(value: unknown): ErrorWords | undefined {
  if (!isRecord(value)) return undefined;
  const { error } = value;
  if (typeof error === "string") return { code: textAt(value, "code"), message: error, param: "" };
  const source = isRecord(error) ? error : value["type"] === "error" || "message" in value ? value : undefined;
  if (source === undefined) return undefined;
  const code = textAt(source, "code") || (source === value ? "" : textAt(source, "type"));
  return { code, message: textAt(source, "message"), param: textAt(source, "param") };
}

/** @param status undefined for an error under status 200, in the answer itself. */
export function meaningOf({ code, message, param }: ErrorWords, status: number | undefined): Meaning {
  // A busy server says so by its status, whatever code it adds.
  if (status === 503 || status === 529) return operational("upstream_overloaded");
  const row = ROWS.find(({ codes }) => codes.test(code));
  // "Rejected" is what the status says better, where there is one.
  const isVague = row === undefined || row.means.code === "upstream_rejected";
  const said = isVague || status === 429 ? ROWS.find(({ says }) => says?.test(message)) : undefined;
  if (said !== undefined) return said.means;
  if (row !== undefined && (!isVague || status === undefined)) return row.means;
  return status === undefined ? operational("upstream_failed") : byStatus(status, `${param} ${message}`);
}

function byStatus(status: number, said: string): Meaning {
  switch (status) {
    case 401:
    case 403:
      return user("upstream_auth");
    case 402:
      return user("upstream_quota");
    case 404:
      // What was not found may be an item of the request's own.
      return user(/^input\b|^\S* ?item with id/i.test(said) ? "upstream_rejected" : "model_not_found");
    case 408:
    case 504:
      return operational("upstream_timeout");
    case 429:
      return operational("upstream_rate_limited");
    default:
      return status >= 500 ? operational("upstream_failed") : user("upstream_rejected");
  }
}

/** The replayed reasoning cannot be read there: it was made elsewhere, or is forgotten. */
export function refusesSeals({ code, message }: ErrorWords): boolean {
  return (
    code === "invalid_encrypted_content" || /encrypted content|^item with id 'rs_|of type 'reasoning'/i.test(message)
  );
}

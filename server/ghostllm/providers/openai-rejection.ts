/** Answers with an error status from servers that speak OpenAI's API, as errors of ours. The server's own words are kept, shortened. */
import { z } from "zod";
import { type GhostError, OperationalError, UserError } from "../../base/errors.ts";
import type { HttpResponse } from "../../platform/http-client.ts";
import { firstWords, readRefusal, type Server } from "./upstream.ts";

const errorBody = z.looseObject({
  error: z.union([
    z.string(),
    z.looseObject({
      message: z.string().nullish(),
      code: z.union([z.string(), z.number()]).nullish().catch(undefined),
      type: z.string().nullish().catch(undefined),
    }),
  ]),
});

/** What servers say of a prompt that is too long, beside OpenAI's own code: vLLM, llama-server, LM Studio, xAI. */
const TOO_LONG: readonly RegExp[] = [
  /maximum context length/i,
  /exceeds? the available context size/i,
  /greater than the context length/i,
  /maximum prompt length/i,
];

/** What a code says more exactly than the status. */
const CODES: Readonly<
  Record<string, "context_too_long" | "upstream_quota" | "upstream_filtered" | "upstream_overloaded">
> = {
  context_length_exceeded: "context_too_long",
  insufficient_quota: "upstream_quota",
  credit_balance_exhausted: "upstream_quota",
  payment_required: "upstream_quota",
  content_filter: "upstream_filtered",
  content_policy_violation: "upstream_filtered",
  server_is_overloaded: "upstream_overloaded",
  provider_overloaded: "upstream_overloaded",
};

/** Reads the rest of the answer, at most 64 KiB of it. */
export async function openAiRejection(server: Server, response: HttpResponse): Promise<GhostError> {
  const { status, body, json, retryAfterMs } = await readRefusal(response);
  const parsed = errorBody.safeParse(json);
  const error = parsed.success ? parsed.data.error : undefined;
  const { id, clean } = server;
  // Before it is shortened: half a key is no key to look for.
  const text = clean(typeof error === "string" ? error : (error?.message ?? firstWords(body, clean))).slice(0, 500);
  const code = typeof error === "object" ? String(error.code ?? error.type ?? "") : "";
  const message = `${id} answered ${status}${text === "" ? "" : `: ${text}`}`;
  const details = { provider: id, status, ...(code === "" ? {} : { reason: clean(code).slice(0, 100) }) };
  const isTooLong = TOO_LONG.some((words) => words.test(text));
  return asError(isTooLong ? "context_too_long" : CODES[code], status, message, {
    details,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

function asError(
  told: (typeof CODES)[string] | undefined,
  status: number,
  message: string,
  options: { readonly details: Readonly<Record<string, string | number>>; readonly retryAfterMs?: number },
): GhostError {
  const { details } = options;
  if (told === "upstream_overloaded" || status === 503 || status === 529)
    return new OperationalError("upstream_overloaded", message, options);
  if (told !== undefined) return new UserError(told, message, { details });
  switch (status) {
    case 401:
    case 403:
      return new UserError("upstream_auth", message, { details });
    case 402:
      return new UserError("upstream_quota", message, { details });
    case 404:
      return new UserError("model_not_found", message, { details });
    case 400:
    case 413:
    case 422:
      return new UserError("upstream_rejected", message, { details });
    case 429:
      return new OperationalError("upstream_rate_limited", message, options);
    default:
      return new OperationalError("upstream_failed", message, options);
  }
}

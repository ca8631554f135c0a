/** Answers with an error status from servers that speak OpenAI's Responses, as errors of ours. The server's own words are kept, shortened. */
import { type GhostError, OperationalError, UserError } from "../../base/errors.ts";
import { type ErrorWords, errorWords, meaningOf } from "../frames/responses-error.ts";
import { firstWords, type Refusal, type Server } from "./upstream.ts";

/** What a refusal says; without words where its body is none of the API's. */
export function wordsOf({ json }: Refusal): ErrorWords {
  return errorWords(json) ?? { code: "", message: "", param: "" };
}

export function refusalError({ id, clean }: Server, refusal: Refusal): GhostError {
  const { status, body, retryAfterMs } = refusal;
  const words = wordsOf(refusal);
  const { family, code } = meaningOf(words, status);
  // Before it is shortened: half a key is no key to look for.
  const text = clean(words.message === "" ? firstWords(body, clean) : words.message).slice(0, 500);
  const message = `${id} answered ${status}${text === "" ? "" : `: ${text}`}`;
  const reason = clean(words.code).slice(0, 100);
  const details = { provider: id, status, ...(reason === "" ? {} : { reason }) };
  if (family === "user") return new UserError(code, message, { details });
  return new OperationalError(code, message, { details, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
}

/** What an Ollama host's refusal means in our catalogue. Pure. The status counts; the text is read only where one status has two meanings. */
import { z } from "zod";
import { type GhostError, OperationalError, UserError } from "../../base/errors.ts";
import { ollamaErrorText } from "../frames/ollama.ts";

export interface Refusal {
  readonly status: number;
  readonly body: string;
  /** The header `retry-after`, as it came. */
  readonly retryAfter: string | undefined;
}

const errorBody = z.looseObject({ error: z.union([z.string(), z.looseObject({ message: z.string() })]) });
/** A host that is told to wait longer than this is not asked again for this request anyway. */
const MAX_RETRY_AFTER_S = 3600;

/**
 * `{status: 404, body: '{"error":"model \'x\' not found"}'}` → UserError `model_not_found`.
 * @param host the host's name, @param model the model's name there
 */
export function refusalError(refusal: Refusal, host: string, model: string): GhostError {
  const { status } = refusal;
  const said = saidBy(refusal.body);
  const text = `the Ollama host ${host} answers ${status}${said === undefined ? "" : `: ${said}`}`;
  if (status === 400) return badRequest(said ?? "", text, model);
  if (status === 401 || status === 403) {
    const hint =
      said === undefined ? "; it refuses addresses that are not its own unless OLLAMA_HOST is set there" : "";
    return new UserError("upstream_auth", text + hint);
  }
  // A 404 without Ollama's error body comes from something else at this address.
  if (status === 404 && said !== undefined)
    return new UserError("model_not_found", `the Ollama host ${host} has no model ${model}`);
  if (status === 429 || status === 503) {
    return new OperationalError("upstream_rate_limited", text, retryAfter(refusal.retryAfter));
  }
  if (status >= 400 && status < 500 && status !== 404 && status !== 408 && status !== 499) {
    return new UserError("upstream_rejected", text);
  }
  return new OperationalError("upstream_failed", text);
}

function badRequest(said: string, text: string, model: string): GhostError {
  if (/context (?:length|size|window)|prompt (?:is )?too long|exceed_context/i.test(said)) {
    return new UserError("context_too_long", `the prompt does not fit into ${model}: ${said}`);
  }
  if (/does not support/i.test(said)) return new UserError("capability_missing", `${model}: ${said}`);
  return new UserError("upstream_rejected", text);
}

/** Ollama's own words; undefined for anything else, such as a proxy's page. */
function saidBy(body: string): string | undefined {
  try {
    const parsed = errorBody.safeParse(JSON.parse(body));
    if (!parsed.success) return undefined;
    const { error } = parsed.data;
    return ollamaErrorText(typeof error === "string" ? error : error.message);
  } catch {
    return undefined;
  }
}

function retryAfter(header: string | undefined): { readonly retryAfterMs?: number } {
  if (header === undefined || !/^\d{1,9}$/.test(header)) return {};
  return { retryAfterMs: Math.min(Number(header), MAX_RETRY_AFTER_S) * 1000 };
}

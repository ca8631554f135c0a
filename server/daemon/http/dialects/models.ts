/**
 * `/v1/models` and `/v1/models/{id}`, which three dialects share: with a header `anthropic-version` they answer in Anthropic's form, with `x-goog-api-key`
 * in Gemini's, else in OpenAI's.
 * A model's id holds a slash: it may come percent-encoded, as SDKs send it, or as it is.
 */
import type { FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import { UserError } from "../../../base/errors.ts";
import { checkValue } from "./chat-facts.ts";
import { geminiModel, geminiPage } from "./gemini-models.ts";
import { findRow, listRows, type ModelRow } from "./model-rows.ts";
import type { DialectOptions } from "./serve.ts";

/** https://docs.claude.com/en/api/models-list */
const DEFAULT_LIMIT = 20;
const MAX_LIMIT = 1_000;
const page = z.object({
  limit: z.coerce.number().int().min(1).max(MAX_LIMIT).default(DEFAULT_LIMIT),
  after_id: z.string().optional(),
  before_id: z.string().optional(),
});

export function registerModels(app: FastifyInstance, options: DialectOptions): void {
  const config = { audience: "model" } as const;
  app.get("/v1/models", { config }, async (request) => {
    const rows = await listRows(options, request);
    if (isAnthropic(request)) return anthropicPage(rows, checkValue(page, request.query));
    if (isGemini(request)) return geminiPage(rows, request.query);
    return { object: "list", data: rows.map(openAiModel) };
  });
  app.get<{ Params: { "*": string } }>("/v1/models/*", { config }, async (request) => {
    const { "*": id } = request.params;
    const row = await findRow(options, request, id);
    if (isGemini(request)) return geminiModel(row);
    return isAnthropic(request) ? anthropicModel(row) : openAiModel(row);
  });
}

const isAnthropic = ({ headers }: FastifyRequest): boolean => headers["anthropic-version"] !== undefined;
const isGemini = ({ headers }: FastifyRequest): boolean => headers["x-goog-api-key"] !== undefined;

function openAiModel({ id, owner }: ModelRow): object {
  return { id, object: "model", created: 0, owned_by: owner };
}

function anthropicModel({ id, contextWindow, maxOutputTokens }: ModelRow): object {
  return {
    type: "model",
    id,
    display_name: id,
    // Anthropic's own word for a release that nobody dated.
    created_at: "1970-01-01T00:00:00Z",
    lifecycle: "active",
    deprecated_at: null,
    retires_at: null,
    line: null,
    max_input_tokens: contextWindow ?? null,
    max_tokens: maxOutputTokens ?? null,
    capabilities: null,
  };
}

/** @throws UserError `invalid_params` for a cursor that names no model */
function anthropicPage(rows: readonly ModelRow[], { limit, after_id: after, before_id: before }: z.infer<typeof page>) {
  const placeOf = (id: string, field: string): number => {
    const index = rows.findIndex((row) => row.id === id);
    if (index >= 0) return index;
    throw new UserError("invalid_params", `\`${field}\`: there is no model ${JSON.stringify(id.slice(0, 256))}`, {
      details: { field },
    });
  };
  const end = before === undefined ? undefined : placeOf(before, "before_id");
  const first = after === undefined ? 0 : placeOf(after, "after_id") + 1;
  const start = end === undefined ? first : Math.max(first, end - limit);
  const data = rows.slice(start, Math.min(start + limit, end ?? rows.length));
  return {
    data: data.map(anthropicModel),
    has_more: end === undefined ? start + data.length < rows.length : start > first,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
  };
}

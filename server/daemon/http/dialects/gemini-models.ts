/** Lists of models in Gemini's form (https://ai.google.dev/api/models). */
import { z } from "zod";
import { UserError } from "../../../base/errors.ts";
import { present } from "../../../base/optional.ts";
import { checkValue } from "./chat-facts.ts";
import type { ModelRow } from "./model-rows.ts";

const DEFAULT_PAGE = 50;
const MAX_PAGE = 1_000;
const page = z.object({
  /** A larger page than the largest is that one, as there. */
  pageSize: z.coerce.number().int().min(0).default(DEFAULT_PAGE),
  pageToken: z.string().optional(),
});

/** A token is the id of the model that the page before ended with. @throws UserError `invalid_params` for one that names no model */
export function geminiPage(rows: readonly ModelRow[], query: unknown): object {
  const { pageSize, pageToken = "" } = checkValue(page, query);
  const size = pageSize === 0 ? DEFAULT_PAGE : Math.min(pageSize, MAX_PAGE);
  const start = pageToken === "" ? 0 : rows.findIndex(({ id }) => id === pageToken) + 1;
  if (pageToken !== "" && start === 0) {
    throw new UserError("invalid_params", "`pageToken`: it is of no page of this list", {
      details: { field: "pageToken" },
    });
  }
  const models = rows.slice(start, start + size);
  const isMore = start + models.length < rows.length;
  return { models: models.map(geminiModel), ...present("nextPageToken", isMore ? models.at(-1)?.id : undefined) };
}

const CHAT = ["generateContent", "countTokens"] as const;
const EMBEDDING = ["embedContent"] as const;

export function geminiModel({ id, contextWindow, maxOutputTokens, capabilities }: ModelRow): object {
  const isChat = capabilities?.chat ?? true;
  const isEmbedding = capabilities?.embeddings ?? false;
  return {
    name: `models/${id}`,
    version: "001",
    displayName: id,
    ...present("inputTokenLimit", contextWindow),
    ...present("outputTokenLimit", maxOutputTokens),
    supportedGenerationMethods: [...(isChat ? CHAT : []), ...(isEmbedding ? EMBEDDING : [])],
    ...present("thinking", capabilities?.reasoning),
  };
}

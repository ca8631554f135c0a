/** Requests for embeddings in Gemini's form (https://ai.google.dev/api/embeddings), and their answers. Pure. */
import { z } from "zod";
import { UserError } from "../../../base/errors.ts";
import { present } from "../../../base/optional.ts";
import type { Embeddings } from "../../../ghostllm/stream.ts";
import { checkBody, extrasOf } from "./chat-facts.ts";
import { protoMessage } from "./gemini-tools.ts";

/** Gemini takes 100; more texts at once than this would hold a model for too long. */
const MAX_TEXTS = 2_048;

const shape = {
  model: z.string().nullish(),
  content: z.looseObject({
    parts: z.array(z.looseObject({ text: z.string({ error: "only text is embedded" }) })).min(1),
  }),
  outputDimensionality: z.int().positive().nullish(),
};
const oneSchema = protoMessage(shape);
const batchSchema = z.looseObject({ requests: z.array(oneSchema).min(1).max(MAX_TEXTS) });
const FIELDS: ReadonlySet<string> = new Set(Object.keys(shape));

export interface EmbedFacts {
  readonly texts: readonly string[];
  /** Asked for, text by text; undefined: as many as the model makes. */
  readonly dimensions: readonly (number | undefined)[];
  /** Fields that models cannot be told. */
  readonly dropped: readonly string[];
}

/** @throws UserError `invalid_json` | `invalid_params` */
export function parseEmbed(body: Buffer, how: "one" | "batch"): EmbedFacts {
  const requests = how === "one" ? [checkBody(oneSchema, body)] : checkBody(batchSchema, body).requests;
  return {
    texts: requests.map(({ content }) => content.parts.map(({ text }) => text).join("\n")),
    dimensions: requests.map(({ outputDimensionality }) => outputDimensionality ?? undefined),
    dropped: [...new Set(requests.flatMap((request) => Object.keys(extrasOf(request, FIELDS))))],
  };
}

/** @throws UserError `capability_missing` where other dimensions were asked for than the model has */
export function renderEmbeddings(
  { vectors, promptTokens, model }: Embeddings,
  { dimensions }: EmbedFacts,
  how: "one" | "batch",
): object {
  for (const [index, vector] of vectors.entries()) {
    const wanted = dimensions[index];
    if (wanted === undefined || wanted === vector.length) continue;
    const message = `${model} makes vectors of ${vector.length} dimensions, not of ${wanted}`;
    throw new UserError("capability_missing", message, { details: { field: "outputDimensionality" } });
  }
  const embeddings = vectors.map((values) => ({ values }));
  const usage = promptTokens === undefined ? undefined : { promptTokenCount: promptTokens };
  return { ...(how === "one" ? { embedding: embeddings[0] } : { embeddings }), ...present("usageMetadata", usage) };
}

/** The models as every dialect lists them: virtual ones, the user's aliases, then those of the providers. */
import type { FastifyRequest } from "fastify";
import type { ModelInfo } from "../../../../protocol/model.ts";
import { UserError } from "../../../base/errors.ts";
import { VIRTUAL_MODELS } from "../../../ghostllm/open-brain.ts";
import { type DialectOptions, gone } from "./serve.ts";

export interface ModelRow {
  readonly id: string;
  readonly owner: string;
  readonly contextWindow?: number | undefined;
  readonly maxOutputTokens?: number | undefined;
  /** Absent where it depends on the model that is chosen. */
  readonly capabilities?: ModelInfo["capabilities"];
}

export async function listRows(options: DialectOptions, request: FastifyRequest): Promise<readonly ModelRow[]> {
  const { models } = await options.brain.catalogue({ refresh: false }, gone(request.raw.socket));
  return [
    ...VIRTUAL_MODELS.map((id) => ({ id, owner: "ghoststack" })),
    ...options.aliases.map((id) => ({ id, owner: "you" })),
    ...models.map(({ ref, provider, contextWindow, maxOutputTokens, capabilities }) => ({
      id: ref,
      owner: provider,
      contextWindow,
      maxOutputTokens,
      capabilities,
    })),
  ];
}

/** @throws UserError `model_not_found` */
export async function findRow(options: DialectOptions, request: FastifyRequest, id: string): Promise<ModelRow> {
  const row = (await listRows(options, request)).find((candidate) => candidate.id === id);
  if (row !== undefined) return row;
  throw new UserError("model_not_found", `there is no model ${JSON.stringify(id.slice(0, 256))}`);
}

/** xAI's API (https://docs.x.ai): Responses, since its chat completions lose the reasoning between turns. */
import { z } from "zod";
import type { ModelPrices } from "../../../protocol/model.ts";
import { present } from "../../base/optional.ts";
import type { ReasoningEffort } from "../stream.ts";
import type { RelayingProvider } from "./compatible.ts";
import type { ResponsesFamily } from "./responses-family.ts";
import {
  createResponsesProvider,
  type ListedModel,
  type ResponsesFlavour,
  type ResponsesOptions,
} from "./responses-upstream.ts";

export function createXaiProvider(options: Omit<ResponsesOptions, "flavour">): RelayingProvider {
  return createResponsesProvider({ ...options, flavour: XAI });
}

const XAI: ResponsesFlavour = {
  id: "xai",
  keyVariables: ["XAI_API_KEY"],
  authorization: (key) => ({ authorization: `Bearer ${key}` }),
  familyOf: xaiFamily,
  list: { path: "language-models", read: readModels },
  relay: { takesChat: false, takesAllTools: false, isReference: false },
  extras: new Set(["user"]),
  isPadding: false,
  countsTokens: false,
};

const price = z.number().nonnegative().nullish().catch(undefined);
const modelList = z.looseObject({
  models: z.array(
    z.looseObject({
      id: z.string().min(1).max(200),
      input_modalities: z.array(z.string()).nullish().catch(undefined),
      prompt_text_token_price: price,
      cached_prompt_text_token_price: price,
      completion_text_token_price: price,
    }),
  ),
});
type XaiModel = z.infer<typeof modelList>["models"][number];

/** Its prices are integers: so many are one dollar per million tokens. */
const PRICE_UNITS_PER_USD = 10_000;

function readModels(json: unknown): readonly ListedModel[] | undefined {
  const parsed = modelList.safeParse(json);
  if (!parsed.success) return undefined;
  return parsed.data.models.map((model) => ({
    name: model.id,
    ...present("vision", model.input_modalities?.includes("image")),
    prices: pricesOf(model),
  }));
}

function pricesOf(model: XaiModel): ModelPrices {
  const usd = (units: number | null | undefined) =>
    typeof units === "number" ? units / PRICE_UNITS_PER_USD : undefined;
  return {
    ...present("input", usd(model.prompt_text_token_price)),
    ...present("cachedInput", usd(model.cached_prompt_text_token_price)),
    ...present("output", usd(model.completion_text_token_price)),
  };
}

const grok = (...efforts: readonly ReasoningEffort[]): ResponsesFamily => ({
  kind: "chat",
  efforts,
  isReasoning: true,
  sampling: "always",
  customTools: false,
  instructionRole: "system",
  chat: "none",
  vision: true,
});

/** By the name; the first that fits. */
const FAMILIES: readonly (readonly [RegExp, ResponsesFamily])[] = [
  [/^grok-4\.20|^grok-4(-\d{4}|-latest|-fast|-1)|^grok-4$|^grok-code/, grok()],
  [/^grok-4\.3/, { ...grok("none", "low", "medium", "high"), contextWindow: 1_000_000 }],
  [/^grok-4\.5/, grok("low", "medium", "high")],
  [/^grok-4\.[67]/, { ...grok("low", "medium", "high", "xhigh"), contextWindow: 500_000 }],
  [/^grok-3-mini/, { ...grok("low", "high"), vision: false }],
  [/^grok-[23]/, { ...grok(), isReasoning: false }],
];

/** A name that no row knows is one of the newest. */
function xaiFamily(name: string): ResponsesFamily {
  return FAMILIES.find(([pattern]) => pattern.test(name))?.[1] ?? grok("low", "medium", "high", "xhigh");
}

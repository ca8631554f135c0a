/** What the models behind the Responses API accept, as the fake of it knows them: the facts behind its rules and its lists. */

export type ResponsesFlavour = "openai" | "azure" | "xai";

export interface ResponsesFacts {
  /** The efforts that `reasoning.effort` may have; none where the model does not know the field. */
  readonly efforts: readonly string[];
  readonly reasons: boolean;
  /** When `temperature`, `top_p` and `top_logprobs` are taken. */
  readonly sampling: "always" | "without-reasoning" | "never";
  /** Encrypted reasoning comes unasked. */
  readonly alwaysEncrypts: boolean;
  readonly takesCacheRetention: boolean;
}

const upTo = (...efforts: readonly string[]): ResponsesFacts => ({
  efforts,
  reasons: true,
  sampling: efforts[0] === "none" ? "without-reasoning" : "never",
  alwaysEncrypts: false,
  takesCacheRetention: true,
});
const plain: ResponsesFacts = { ...upTo(), reasons: false, sampling: "always" };
const grok = (...efforts: readonly string[]): ResponsesFacts => ({ ...upTo(...efforts), sampling: "always" });
/** What an unknown model is taken for. */
const newest = upTo("none", "low", "medium", "high", "xhigh", "max");
const six = { ...newest, sampling: "never", takesCacheRetention: false } as const;
const alwaysThinking = { ...six, efforts: ["low", "medium", "high", "xhigh", "max"] } as const;

/** By the start of the id; the first that fits. */
const models: readonly (readonly [string, ResponsesFacts])[] = [
  ["gpt-6-astra", alwaysThinking],
  ["gpt-6.1-sol", alwaysThinking],
  ["gpt-6", six],
  ["gpt-5.6", newest],
  ["gpt-5.2", upTo("none", "low", "medium", "high", "xhigh")],
  ["gpt-5.4", upTo("none", "low", "medium", "high", "xhigh")],
  ["gpt-5.5", upTo("none", "low", "medium", "high", "xhigh")],
  ["gpt-5.1", upTo("none", "low", "medium", "high")],
  ["gpt-5", upTo("minimal", "low", "medium", "high")],
  ["gpt-4", plain],
  ["o3", upTo("low", "medium", "high")],
  ["o4", upTo("low", "medium", "high")],
  ["text-embedding", plain],
  ["grok-4.7", { ...grok("low", "medium", "high", "xhigh"), alwaysEncrypts: true }],
  ["grok-4.6", grok("low", "medium", "high", "xhigh")],
  ["grok-4.5", grok("low", "medium", "high")],
  ["grok-4.3", grok("none", "low", "medium", "high")],
  ["grok-4.20", grok()],
];

export const DEFAULT_MODELS: Readonly<Record<ResponsesFlavour, readonly string[]>> = {
  openai: ["gpt-6-astra", "gpt-6.1-sol", "gpt-5.6-sol", "gpt-5.5", "gpt-4.1", "text-embedding-3-small"],
  azure: ["my-deployment"],
  xai: ["grok-4.7", "grok-4.3"],
};

export function responsesFactsOf(model: string): ResponsesFacts {
  return models.find(([start]) => model.startsWith(start))?.[1] ?? newest;
}

/** Whether a model reasons at this effort. */
export function reasonsAt(facts: ResponsesFacts, effort: string | null | undefined): boolean {
  return facts.reasons && effort !== "none";
}

/** One entry of `GET /models`. */
export function openAiModel(id: string, flavour: ResponsesFlavour): object {
  const owned = { openai: "openai", azure: "azure-openai", xai: "xai" };
  return { id, object: "model", created: 1_780_000_000, owned_by: owned[flavour], shutdown_date: null };
}

/** One entry of xAI's `GET /language-models`; prices: 10,000 are one dollar per million tokens. */
export function xaiLanguageModel(id: string): object {
  return {
    id,
    object: "model",
    created: 1_780_000_000,
    owned_by: "xai",
    version: "1.0",
    fingerprint: "fp_fake",
    aliases: [],
    input_modalities: ["text", "image"],
    output_modalities: ["text"],
    prompt_text_token_price: 20_000,
    cached_prompt_text_token_price: 5_000,
    completion_text_token_price: 60_000,
    prompt_image_token_price: 20_000,
  };
}

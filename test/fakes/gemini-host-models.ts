/** What each Gemini accepts, as the fake of its API knows it: the facts behind its rules and its list of models. */

export interface GeminiFacts {
  readonly generation: number;
  readonly takesBudget: boolean;
  readonly takesLevel: boolean;
  /** Level `MINIMAL`. */
  readonly takesMinimal: boolean;
  /** Whether thinking may be off. */
  readonly canBeQuiet: boolean;
  /** Calls are signed, and must come back so. */
  readonly signsCalls: boolean;
  /** A long answer goes on in another request. */
  readonly continues: boolean;
}

const three: GeminiFacts = {
  generation: 3,
  takesBudget: true,
  takesLevel: true,
  takesMinimal: true,
  canBeQuiet: false,
  signsCalls: true,
  continues: false,
};
const twoFive: GeminiFacts = {
  ...three,
  generation: 2,
  takesLevel: false,
  takesMinimal: false,
  canBeQuiet: true,
  signsCalls: false,
};
/** What an unknown model is taken for. */
const newest: GeminiFacts = { ...three, generation: 4, takesBudget: false, continues: true };

/** By the start of the id; the first that fits. */
const geminis: readonly (readonly [string, GeminiFacts])[] = [
  ["gemini-2.5-pro", { ...twoFive, canBeQuiet: false }],
  ["gemini-2", twoFive],
  ["gemini-3.1-pro", { ...three, takesMinimal: false }],
  ["gemini-3.7", { ...three, takesMinimal: false }],
  ["gemini-3.8", { ...three, takesMinimal: false }],
  ["gemini-3", three],
  ["gemini-4", newest],
];

export function geminiFactsOf(model: string): GeminiFacts {
  return geminis.find(([start]) => model.startsWith(start))?.[1] ?? newest;
}

/** One entry of `GET /v1beta/models`. */
export function geminiModel(id: string): object {
  const methods = id.includes("embedding")
    ? ["embedContent", "countTextTokens", "countTokens", "asyncBatchEmbedContent"]
    : ["generateContent", "countTokens", "createCachedContent", "batchGenerateContent"];
  return {
    name: `models/${id}`,
    version: "001",
    displayName: id
      .split("-")
      .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
      .join(" "),
    description: "A model of the fake host.",
    inputTokenLimit: 1_048_576,
    outputTokenLimit: 65_536,
    supportedGenerationMethods: methods,
    temperature: 1,
    topP: 0.95,
    topK: 64,
    maxTemperature: 2,
    thinking: true,
  };
}

/**
 * OpenAI's models in an Azure resource of the user's own (https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle): the same API,
 * where a model is called by the name of its deployment. Azure lists no deployments: they stand in the settings.
 */
import type { RelayingProvider } from "./compatible.ts";
import type { ProviderKeys } from "./keys.ts";
import { OPENAI_EXTRAS, openAiFamily, PLAIN_FAMILY } from "./openai.ts";
import { createResponsesProvider, type ResponsesConfig, type ResponsesOptions } from "./responses-upstream.ts";

export interface AzureConfig extends Omit<ResponsesConfig, "models"> {
  /** By deployment: the model that it runs. */
  readonly deployments: Readonly<Record<string, string>>;
}

interface AzureOptions extends Omit<ResponsesOptions, "flavour" | "config"> {
  readonly config: AzureConfig;
}

export function createAzureProvider(options: AzureOptions): RelayingProvider {
  const { deployments } = options.config;
  return createResponsesProvider({
    ...options,
    flavour: {
      id: "azure",
      keyVariables: KEY_VARIABLES,
      authorization: (key) => ({ "api-key": key }),
      familyOf: (deployment) => azureFamily(deployments[deployment] ?? deployment),
      list: { path: "models", known: Object.keys(deployments).map((name) => ({ name })) },
      relay: { takesChat: true, takesAllTools: true, isReference: false },
      extras: OPENAI_EXTRAS,
      isPadding: true,
      countsTokens: true,
      continuation: "anchored",
    },
  });
}

/** Also before the resource's address is known: its key can be stored by then. */
export function declareAzureKey(keys: ProviderKeys, keyEnv: string | undefined): void {
  keys.declare({ provider: "azure", keyEnv, variables: KEY_VARIABLES });
}

const KEY_VARIABLES = ["AZURE_OPENAI_API_KEY"] as const;

/** Other makers' models can be deployed, too. */
function azureFamily(model: string) {
  return /^(gpt-|chatgpt-|o\d|codex|text-embedding)/.test(model) ? openAiFamily(model) : PLAIN_FAMILY;
}

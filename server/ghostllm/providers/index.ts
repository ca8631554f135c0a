/** All kinds of providers. A new one is a file beside this, a line here, and its fixture. */
import type { Locality } from "../../../protocol/model.ts";
import type { Clock, Environment, Ids } from "../../base/clock.ts";
import type { GhostConfig } from "../../platform/config/schema.ts";
import { type ClaudePlace, createClaudeProgram } from "../../platform/adapters/claude-program.ts";
import { type CopilotPlace, createCopilotRuntime } from "../../platform/adapters/copilot-runtime.ts";
import type { HttpClient } from "../../platform/http-client.ts";
import type { FileLog } from "../../platform/log.ts";
import type { StandingPermit } from "../../platform/permit.ts";
import { createAzureProvider, declareAzureKey } from "./azure.ts";
import { createAnthropicProvider } from "./anthropic.ts";
import { createClaudeCodeProvider } from "./claude-code.ts";
import { createCompatibleProvider } from "./compatible.ts";
import { createCopilotProvider } from "./copilot.ts";
import { createEmbeddedProvider, type EmbeddedProvider } from "./embedded.ts";
import { createGeminiProvider } from "./gemini.ts";
import type { ProviderKeys } from "./keys.ts";
import { localityOf } from "./locality.ts";
import { createOllamaProvider } from "./ollama.ts";
import { createOpenAiProvider } from "./openai.ts";
import type { Provider } from "./provider.ts";
import { createXaiProvider } from "./xai.ts";

export interface ProviderContext {
  readonly config: GhostConfig["providers"];
  readonly http: HttpClient;
  /** A standing permit for one origin of a model server. */
  readonly permitFor: (origin: string) => StandingPermit;
  /** Covers the engine's child process and the folders of weights. */
  readonly enginePermit: StandingPermit;
  readonly environment: Environment;
  /** Every provider that takes a key declares its slot there, and asks there for the key of each request. */
  readonly keys: ProviderKeys;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: FileLog;
  readonly builtinModelsFolder: string;
  readonly modelsFolder: string;
  readonly nodeExecutable: string;
  /** Other programs that answer; each is absent unless the settings turn it on. */
  readonly programs: ProgramPlaces;
  /** Where Ollama is looked for; tests have their own. */
  readonly ollamaDiscoveryUrl?: string | undefined;
}

/** The programs that are started to ask their models, each in a folder of its own. */
export interface ProgramPlaces {
  readonly copilot?: CopilotPlace;
  readonly claudeCode?: ClaudePlace;
}

export interface ProviderSet {
  readonly all: readonly Provider[];
  /** The engine inside the daemon; absent when it is switched off. */
  readonly embedded: EmbeddedProvider;
}

export function createProviders(context: ProviderContext): ProviderSet {
  const { config, clock, ids, log, http } = context;
  const embedded = createEmbeddedProvider({
    config: config.embedded,
    builtinModelsFolder: context.builtinModelsFolder,
    modelsFolder: context.modelsFolder,
    permits: { engine: context.enginePermit, files: context.enginePermit },
    nodeExecutable: context.nodeExecutable,
    http,
    clock,
    ids,
    log,
  });
  const ollama = createOllamaProvider({
    config: config.ollama,
    http,
    permitFor: context.permitFor,
    clock,
    ids,
    log,
    ...(context.ollamaDiscoveryUrl === undefined ? {} : { discoveryUrl: context.ollamaDiscoveryUrl }),
  });
  const compatible = Object.entries(config.compatible).map(([id, server]) =>
    createCompatibleProvider({
      id,
      config: server,
      locality: server.locality ?? localityOf(server.base_url),
      http,
      permit: context.permitFor(new URL(server.base_url).origin),
      keys: context.keys,
      ids,
    }),
  );
  return { all: [embedded, ollama, ...compatible, ...withAccounts(context), ...withPrograms(context)], embedded };
}

/** Those that need an account of the user's own: each has no models until there is a key for it. */
function withAccounts({ config, http, permitFor, keys, ids }: ProviderContext): readonly Provider[] {
  const { anthropic, openai, azure, xai, gemini } = config;
  const at = <Settings extends { readonly base_url: string; readonly locality?: Locality | undefined }>(
    settings: Settings,
  ) => ({
    config: settings,
    locality: settings.locality ?? localityOf(settings.base_url),
    http,
    permit: permitFor(new URL(settings.base_url).origin),
    keys,
  });
  const { base_url: azureUrl } = azure;
  if (azure.enabled) declareAzureKey(keys, azure.key_env);
  return [
    ...(anthropic.enabled ? [createAnthropicProvider(at(anthropic))] : []),
    ...(openai.enabled ? [createOpenAiProvider(at(openai))] : []),
    ...(azure.enabled && azureUrl !== undefined ? [createAzureProvider(at({ ...azure, base_url: azureUrl }))] : []),
    ...(xai.enabled ? [createXaiProvider(at(xai))] : []),
    ...(gemini.enabled ? [createGeminiProvider({ ...at(gemini), ids })] : []),
  ];
}

/** Those that start a program of another maker's: off unless the user turns them on. */
function withPrograms({ config, programs, keys, clock, environment }: ProviderContext): readonly Provider[] {
  const { copilot, claudeCode } = programs;
  const providers: Provider[] = [];
  if (copilot !== undefined) {
    const runtime = createCopilotRuntime(copilot, { clock, uid: environment.uid });
    providers.push(createCopilotProvider({ config: config.copilot, runtime, keys, clock }));
  }
  if (claudeCode !== undefined) {
    const program = createClaudeProgram(claudeCode, { environment, clock });
    providers.push(createClaudeCodeProvider({ config: config.claude_code, program, clock }));
  }
  return providers;
}

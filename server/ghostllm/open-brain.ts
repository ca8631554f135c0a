/** Puts GhostLLM together: providers, transcript, brain. The other door of its face, used by `compose.ts`; `brain.ts` is what everybody else talks to. */
import type { Clock, Environment, Ids } from "../base/clock.ts";
import { DisposableStore } from "../base/disposable.ts";
import type { GhostConfig } from "../platform/config/schema.ts";
import type { Database } from "../platform/database.ts";
import type { HttpClient } from "../platform/http-client.ts";
import type { FileLog } from "../platform/log.ts";
import type { StandingPermit } from "../platform/permit.ts";
import type { Spool } from "../platform/spool.ts";
import { type Authorizer, type Brain, createBrain } from "./brain.ts";
import { decodeFrame } from "./frames/decode.ts";
import type { EmbeddedProvider } from "./providers/embedded.ts";
import { createProviders, type ProgramPlaces } from "./providers/index.ts";
import { checkKey, type KeyVerdict } from "./providers/key-check.ts";
import { type KeyCabinet, type KeyPlaces, openProviderKeys } from "./providers/keys.ts";
import { createReasoningKeeper } from "./session/reasoning-keeper.ts";
import { openTranscript, type Transcript } from "./session/transcript.ts";
import type { Dialect, Message } from "./stream.ts";

export { VIRTUAL_MODELS } from "./routing/route.ts";
export { transcriptMigrations } from "./session/schema.ts";
export type { ProgramPlaces } from "./providers/index.ts";
export type { KeyPlaces } from "./providers/keys.ts";
export type { Transcript } from "./session/transcript.ts";

/** The engine inside the daemon, as far as others see it. */
export type Weights = Pick<EmbeddedProvider, "pull" | "engineState">;

export interface GhostLlm extends AsyncDisposable {
  readonly brain: Brain;
  readonly transcript: Transcript;
  readonly weights: Weights;
  readonly keys: KeyDesk;
}

/** What faces may do with the keys of providers. Nothing here gives one back (I5). */
export interface KeyDesk extends KeyCabinet {
  /** Whether the provider takes its key. @throws UserError `provider_unknown` */
  test(provider: string, signal: AbortSignal): Promise<KeyVerdict>;
}

export interface GhostLlmOptions {
  readonly config: Pick<GhostConfig, "providers" | "routing">;
  /** With `transcriptMigrations` applied. */
  readonly database: Database;
  readonly spool: Spool;
  readonly http: HttpClient;
  readonly authorizer: Authorizer;
  /** A standing permit for one origin of a model server. */
  readonly permitFor: (origin: string) => StandingPermit;
  /** Covers the engine's child process and both folders of weights. */
  readonly enginePermit: StandingPermit;
  /** The messages of a client's body; the dialects live above. */
  readonly decodeRequest: (dialect: Dialect, body: Buffer) => Promise<readonly Message[]>;
  readonly builtinModelsFolder: string;
  readonly modelsFolder: string;
  readonly nodeExecutable: string;
  /** Where Ollama is looked for; tests have their own. */
  readonly ollamaDiscoveryUrl: string | undefined;
  readonly keyPlaces: KeyPlaces;
  /** Other programs that answer; each is absent unless the settings turn it on. */
  readonly programs: ProgramPlaces;
  readonly environment: Environment;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: FileLog;
}

/** Absorbs what an earlier process left before it resolves. Disposing it stops open answers, then stores their ends. */
export async function openBrain(options: GhostLlmOptions): Promise<GhostLlm> {
  const { config, clock, ids, log, authorizer } = options;
  const store = new DisposableStore();
  const transcript = store.use(await openTranscript({ ...options, decodeFrame }));
  const keys = store.use(openProviderKeys({ ...options, places: options.keyPlaces }));
  const providers = createProviders({ ...options, keys, config: config.providers });
  const { aliases, intents } = config.routing;
  const brain = store.use(
    createBrain({
      providers: providers.all,
      transcript,
      keeper: createReasoningKeeper(options),
      authorizer,
      aliases,
      intents,
      clock,
      ids,
      log,
    }),
  );
  store.use(keys.onChange(() => brain.forgetCatalogue()));
  const desk: KeyDesk = {
    set: (provider, secret) => keys.set(provider, secret),
    list: (signal) => keys.list(signal),
    remove: (provider) => keys.remove(provider),
    test: (name, signal) => {
      keys.lookAgain();
      return checkKey(name, { provider: providers.all.find(({ id }) => id === name), keys }, signal);
    },
  };
  return {
    brain,
    transcript,
    weights: providers.embedded,
    keys: desk,
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

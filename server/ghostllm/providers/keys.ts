/**
 * The keys of providers, for providers: the only reader of the environment's and of the stored ones (I5).
 * 1. What the user wrote comes first: the variable that `key_env` names, then the stored key, then the provider's well-known variables.
 * 2. A key is known to the log's redaction, and to `clean`, before anybody has it.
 * 3. Changes are seen by the next `find`; nobody keeps a key across two requests.
 * 4. Where the stored key cannot be read, no other key takes its place: it may be another account's.
 */
import { createHash } from "node:crypto";
import type { KeyRow } from "../../../protocol/key.ts";
import type { Clock, Environment, Ids } from "../../base/clock.ts";
import { onDispose } from "../../base/disposable.ts";
import { GhostError, OperationalError, toGhostError, UserError } from "../../base/errors.ts";
import type { Secret } from "../../base/secret.ts";
import { suggestion } from "../../base/text.ts";
import type { FileLog } from "../../platform/log.ts";
import type { StandingPermit } from "../../platform/permit.ts";
import { environmentSecret, openSecretStore, type SecretStore, type StoredName } from "../../platform/secrets.ts";

/** A provider that takes a key, and where its key may stand. Each provider declares its own. */
export interface KeySlot {
  readonly provider: string;
  /** `key_env` of its settings: the user's own word, before everything else. */
  readonly keyEnv?: string | undefined;
  /** Variables in which its users have its key anyway; the first that is set counts. */
  readonly variables: readonly string[];
}

export interface FoundKey {
  readonly secret: Secret;
  readonly source: "keyring" | "file" | "environment";
  /** The name of the environment variable. */
  readonly variable?: string;
}

/** What a provider gets. */
export interface ProviderKeys {
  /** To be called once by each provider that takes a key, when it is made; also by one that is made without settings of its own. */
  declare(slot: KeySlot): void;
  /**
   * The key to send now; undefined where there is none. Cheap after the first time.
   * @throws OperationalError `key_unreadable` where one is stored and cannot be had (4); BugError for a provider that has declared no slot.
   * An aborted signal ends the wait only: the look goes on for others.
   */
  find(provider: string, signal: AbortSignal): Promise<FoundKey | undefined>;
  /** Blanks every key that was handed out, whatever encoding it is echoed in. For texts that come from a server. */
  clean(text: string): string;
  /** Calls back after a provider's key was stored or removed. */
  onChange(callback: (provider: string) => void): Disposable;
}

/** What faces may do with keys: everything but look at them. */
export interface KeyCabinet {
  /** @throws UserError `provider_unknown`, `folder_unusable`; OperationalError `storage_full` */
  set(provider: string, secret: Secret): Promise<{ readonly row: KeyRow; readonly note?: string }>;
  /** Never fails for a store that cannot be read: `problem` says so. */
  list(signal: AbortSignal): Promise<{ readonly keys: readonly KeyRow[]; readonly problem?: string }>;
  /** @throws UserError `provider_unknown`, `key_missing` where none is stored; OperationalError `key_unreadable` */
  remove(provider: string): Promise<{ readonly note?: string }>;
}

export interface ProviderKeyring extends ProviderKeys, KeyCabinet {
  /** A person asks: a keyring that has said no is asked again by the next `find`. */
  lookAgain(): void;
}

/** Where stored keys lie; `compose.ts` says it. */
export interface KeyPlaces {
  /** Covers both places for reading and writing, and `cmd.exec` of node, in which the OS keyring is asked. */
  readonly permit: StandingPermit;
  readonly file: string;
  /** Of the key that opens the file; undefined where there is no home folder: then only the OS keyring can take keys. */
  readonly keyFolder: string | undefined;
}

/** Opens nothing before a key is asked for. */
export function openProviderKeys(options: {
  readonly places: KeyPlaces;
  readonly nodeExecutable: string;
  readonly environment: Environment;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: FileLog;
}): ProviderKeyring & AsyncDisposable {
  const { places, environment, log } = options;
  const store = openSecretStore({ ...options, ...places, uid: environment.uid });
  const keys = new Keys({ store, environment, redact: (text) => log.redact(text) });
  return Object.assign(keys, { [Symbol.asyncDispose]: async () => store[Symbol.asyncDispose]() });
}

interface ProviderKeysOptions {
  readonly store: SecretStore;
  readonly environment: Environment;
  /** Keeps a text out of the log from now on. */
  readonly redact: (text: string) => void;
}

/** What our own keys begin with: `ghost env` puts the model key where other programs look for OpenAI's. */
const OWN_KEYS = /^ghost-(model|face)-/;
/** The variables that it writes: a user who named one of them meant the provider's key that was there before. */
const OWN_VARIABLES: ReadonlySet<string> = new Set(["OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GEMINI_API_KEY"]);
/** What can stand in a header; anything else is a whole file, or a text in which a line broke. */
const HEADER_SAFE = /^[\x20-\x7e]+$/;
/** Texts that `clean` looks for; the oldest is forgotten. Many more than there are providers. */
const MAX_KNOWN_TEXTS = 1_024;
/** Some local servers want a word like `x` for a key: to blank that would only garble texts. */
const MIN_KNOWN_CHARACTERS = 4;

export function createProviderKeys(options: ProviderKeysOptions): ProviderKeyring {
  return new Keys(options);
}

class Keys implements ProviderKeyring {
  readonly #options: ProviderKeysOptions;
  readonly #slots = new Map<string, KeySlot>();
  /** Stored keys that were read, or are being read; what fails is not kept. */
  readonly #stored = new Map<string, Promise<FoundKey | undefined>>();
  /** The keys in use, until they change: every request asks for one. */
  readonly #current = new Map<string, FoundKey>();
  /** Counts changes: what was read before one is not kept after it. */
  #changes = 0;
  readonly #listeners = new Set<(provider: string) => void>();
  readonly #known = new Set<string>();

  constructor(options: ProviderKeysOptions) {
    this.#options = options;
  }

  declare(slot: KeySlot): void {
    this.#slots.set(slot.provider, slot);
  }

  async find(provider: string, signal: AbortSignal): Promise<FoundKey | undefined> {
    const current = this.#current.get(provider);
    if (current !== undefined) return current;
    const slot = this.#slot(provider);
    const changes = this.#changes;
    const found =
      this.#named(slot) ?? (await untilAborted(this.#findStored(provider), signal)) ?? this.#wellKnown(slot);
    if (found !== undefined && changes === this.#changes) this.#current.set(provider, found);
    return found;
  }

  clean(text: string): string {
    let cleaned = text;
    // A key that was pasted in part, and then whole, is the beginning of another.
    for (const known of [...this.#known].toSorted((a, b) => b.length - a.length))
      cleaned = cleaned.replaceAll(known, "[secret]");
    return cleaned;
  }

  onChange(callback: (provider: string) => void): Disposable {
    this.#listeners.add(callback);
    return onDispose(() => this.#listeners.delete(callback));
  }

  async set(provider: string, secret: Secret): ReturnType<KeyCabinet["set"]> {
    const slot = this.#slot(provider);
    this.#learn(secret);
    const { place, note } = await this.#options.store.set(provider, secret);
    this.#changed(provider);
    const winner = this.#named(slot);
    const notes = [...(note === undefined ? [] : [note]), ...(winner === undefined ? [] : [unused(winner)])];
    return {
      row: { provider, source: place, fingerprint: fingerprintOf(secret) },
      ...(notes.length === 0 ? {} : { note: notes.join("; ") }),
    };
  }

  async list(signal: AbortSignal): ReturnType<KeyCabinet["list"]> {
    const { store } = this.#options;
    this.lookAgain();
    const { names, unreadable } = await listStored(store);
    const stored = new Map(names.map((row) => [row.name, row]));
    const providers = [...new Set([...this.#slots.keys(), ...stored.keys()])].toSorted();
    const keys: KeyRow[] = [];
    for (const provider of providers) {
      const inStore = stored.get(provider);
      const row = await this.#describe(provider, inStore !== undefined, signal);
      const isShown = inStore !== undefined && row.source === inStore.place;
      keys.push(isShown ? { ...row, updatedAtMs: inStore.updatedAtMs } : row);
    }
    const problem = unreadable ?? store.problem;
    return { keys, ...(problem === undefined ? {} : { problem }) };
  }

  lookAgain(): void {
    this.#options.store.lookAgain();
  }

  async remove(provider: string): ReturnType<KeyCabinet["remove"]> {
    const { existed, note } = await this.#options.store.delete(provider);
    const slot = this.#slots.get(provider);
    const left = slot === undefined ? undefined : (this.#named(slot) ?? this.#wellKnown(slot));
    if (!existed) {
      this.#slot(provider);
      const where = left === undefined ? "" : `; the one in use is in the environment variable ${left.variable}`;
      throw new UserError("key_missing", `no key of ${provider} is stored${where}`, { details: { provider } });
    }
    this.#changed(provider);
    const notes = [
      ...(note === undefined ? [] : [note]),
      ...(left === undefined ? [] : [`the key in the environment variable ${left.variable} is used from now on`]),
    ];
    return notes.length === 0 ? {} : { note: notes.join("; ") };
  }

  async #describe(provider: string, isStored: boolean, signal: AbortSignal): Promise<KeyRow> {
    const slot = this.#slots.get(provider);
    try {
      const found = slot === undefined ? await this.#findStored(provider) : await this.find(provider, signal);
      if (found === undefined) return { provider, source: "none" };
      const { secret, ...where } = found;
      const note =
        slot === undefined
          ? "no provider of this name is set up"
          : isStored && found.source === "environment"
            ? unused(found)
            : undefined;
      return { provider, ...where, fingerprint: fingerprintOf(secret), ...(note === undefined ? {} : { note }) };
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      return { provider, source: "none", problem: toGhostError(thrown).message };
    }
  }

  /**
   * A key of ours that took the place of the provider's counts as none. Under other names a model key is another daemon's, which may well be a provider;
   * a face credential never is for anybody else.
   */
  #named({ keyEnv }: KeySlot): FoundKey | undefined {
    const found = keyEnv === undefined ? undefined : this.#inEnvironment(keyEnv);
    const text = found?.secret.reveal() ?? "";
    const isOurs = text.startsWith("ghost-face-") || (OWN_VARIABLES.has(keyEnv ?? "") && OWN_KEYS.test(text));
    return isOurs ? undefined : found;
  }

  /** A well-known variable may hold a key of ours, which is nobody's business outside. */
  #wellKnown({ variables }: KeySlot): FoundKey | undefined {
    for (const variable of variables) {
      const found = this.#inEnvironment(variable);
      if (found !== undefined && !OWN_KEYS.test(found.secret.reveal())) return found;
    }
    return undefined;
  }

  #inEnvironment(variable: string): FoundKey | undefined {
    const secret = environmentSecret(this.#options.environment, variable);
    if (secret === undefined) return undefined;
    this.#learn(secret);
    if (!HEADER_SAFE.test(secret.reveal())) {
      const message = `the environment variable ${variable} holds something that cannot be a key`;
      throw new OperationalError("key_unreadable", message, { details: { variable } });
    }
    return { secret, source: "environment", variable };
  }

  #findStored(provider: string): Promise<FoundKey | undefined> {
    const known = this.#stored.get(provider);
    if (known !== undefined) return known;
    const reading = this.#readStored(provider);
    this.#stored.set(provider, reading);
    reading.catch(() => {
      if (this.#stored.get(provider) === reading) this.#stored.delete(provider);
    });
    return reading;
  }

  async #readStored(provider: string): Promise<FoundKey | undefined> {
    try {
      const stored = await this.#options.store.get(provider);
      if (stored === undefined) return undefined;
      this.#learn(stored.secret);
      return { secret: stored.secret, source: stored.place };
    } catch (error) {
      if (error instanceof GhostError && error.code === "folder_unusable") {
        throw new OperationalError("key_unreadable", error.message, { cause: error, details: { provider } });
      }
      throw error;
    }
  }

  #slot(provider: string): KeySlot {
    const slot = this.#slots.get(provider);
    if (slot !== undefined) return slot;
    const names = [...this.#slots.keys()].toSorted();
    const list = names.length === 0 ? "No provider in ghost.toml does." : `These do: ${names.join(", ")}.`;
    const message = `no provider "${provider}" takes a key.${suggestion(provider, names)} ${list}`;
    throw new UserError("provider_unknown", message, { details: { provider, providers: names } });
  }

  #changed(provider: string): void {
    this.#changes += 1;
    this.#stored.delete(provider);
    this.#current.delete(provider);
    for (const listener of this.#listeners) listener(provider);
  }

  /** (2) As it is, and as it stands in JSON and in an address. */
  #learn(secret: Secret): void {
    const text = secret.reveal();
    if (text.length < MIN_KNOWN_CHARACTERS) return;
    for (const form of new Set([text, JSON.stringify(text).slice(1, -1), encodeURIComponent(text)])) {
      if (this.#known.has(form)) continue;
      this.#known.add(form);
      this.#options.redact(form);
      const [oldest] = this.#known;
      if (this.#known.size > MAX_KNOWN_TEXTS && oldest !== undefined) this.#known.delete(oldest);
    }
  }
}

/** A file that cannot be read hides no key that is in the environment. */
async function listStored(
  store: SecretStore,
): Promise<{ readonly names: readonly StoredName[]; readonly unreadable?: string }> {
  try {
    return { names: await store.list() };
  } catch (error) {
    if (error instanceof GhostError && error.code === "folder_unusable")
      return { names: [], unreadable: error.message };
    throw error;
  }
}

function unused({ variable = "" }: FoundKey): string {
  return `the stored key is not used: \`key_env\` names the environment variable ${variable}`;
}

/** Tells two keys apart and says nothing about either: the last 4 hexadecimal digits of its SHA-256. */
function fingerprintOf(secret: Secret): string {
  return createHash("sha256").update(secret.reveal()).digest("hex").slice(-4);
}

/** Ends the wait, not the work. */
function untilAborted<Result>(work: Promise<Result>, signal: AbortSignal): Promise<Result> {
  if (signal.aborted) return Promise.reject(toGhostError(signal.reason));
  return new Promise((resolve, reject) => {
    const abort = () => reject(toGhostError(signal.reason));
    signal.addEventListener("abort", abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/**
 * Where provider keys come from: the environment, and the store that `ghost keys set` fills. Only `ghostllm/providers` may import this file, and those
 * behind it (I5; test/architecture.test.ts).
 * 1. A secret goes into the OS keyring where one takes it, else sealed into a file (`secret-file.ts`); the file knows the names of both.
 * 2. The keyring is asked only for what the file says is in it: who stored nothing there never waits for it.
 * 3. Changes happen one after the other; once one is acknowledged it survives a killed daemon.
 */
import type { Environment } from "../base/clock.ts";
import { OperationalError } from "../base/errors.ts";
import { Secret } from "../base/secret.ts";
import { createTurns } from "../base/turns.ts";
import { createKeyring, type Keyring, type KeyringOptions } from "./adapters/keyring.ts";
import { type SecretEntry, SecretFile, type SecretFileContent, type SecretFileOptions } from "./secret-file.ts";

/** The key in an environment variable, wrapped so that it cannot be printed; a line break that came along with it is left out. */
export function environmentSecret(environment: Environment, name: string): Secret | undefined {
  const text = environment.get(name)?.trim() ?? "";
  return text === "" ? undefined : new Secret(text);
}

export type SecretPlace = SecretEntry["place"];

export interface StoredName {
  readonly name: string;
  readonly place: SecretPlace;
  readonly updatedAtMs: number;
}

export interface SecretStore extends AsyncDisposable {
  /** @throws OperationalError `key_unreadable` where it is stored and cannot be had; UserError `folder_unusable` where the file cannot be read. */
  get(name: string): Promise<(StoredName & { readonly secret: Secret }) | undefined>;
  /** Replaces what is there. `note`: what its owner should know. @throws UserError `folder_unusable`, OperationalError `storage_full` */
  set(name: string, secret: Secret): Promise<{ readonly place: SecretPlace; readonly note?: string }>;
  /** `existed: false` where there was nothing. @throws OperationalError `key_unreadable` where the keyring does not let go of it. */
  delete(name: string): Promise<{ readonly existed: boolean; readonly note?: string }>;
  /** By name. Nothing is unlocked for it. @throws UserError `folder_unusable` */
  list(): Promise<readonly StoredName[]>;
  /** What was found damaged and put aside since the start. */
  readonly problem: string | undefined;
  /** Somebody is there who can unlock the keyring: the next `get` asks it, even if it has just said no. */
  lookAgain(): void;
}

/** Where the store lies, and what it may do: `compose.ts` says both, once. */
export type SecretStoreOptions = SecretFileOptions & Omit<KeyringOptions, "platform">;

/** Opens nothing: the first use does. */
export function openSecretStore(options: SecretStoreOptions): SecretStore {
  const { platform } = process;
  return new Vault(new SecretFile(options), createKeyring({ ...options, platform }), options);
}

/** More than one face ever sends at once; a flood is told to wait. */
const MAX_WAITING_CHANGES = 64;
const MAX_WAITING_READS = 1_024;

class Vault implements SecretStore {
  readonly #file: SecretFile;
  readonly #keyring: Keyring;
  readonly #options: SecretStoreOptions;
  readonly #changing = createTurns(MAX_WAITING_CHANGES);
  /** A reader may put a damaged file aside, which must not happen twice at once. */
  readonly #reading = createTurns(MAX_WAITING_READS);

  constructor(file: SecretFile, keyring: Keyring, options: SecretStoreOptions) {
    this.#file = file;
    this.#keyring = keyring;
    this.#options = options;
  }

  get problem(): string | undefined {
    return this.#file.problem;
  }

  async get(name: string): ReturnType<SecretStore["get"]> {
    const content = await this.#read();
    const entry = entryOf(content, name);
    if (content === undefined || entry === undefined) return undefined;
    const secret = await (entry.place === "file"
      ? this.#unseal(content.id, name, entry)
      : this.#fromKeyring(content.id, name));
    if (secret === undefined) return undefined;
    return { name, place: entry.place, updatedAtMs: entry.updatedAtMs, secret };
  }

  set(name: string, secret: Secret): ReturnType<SecretStore["set"]> {
    return this.#changing(async () => {
      const content = await this.#readOrCreate();
      const before = entryOf(content, name);
      const kept = await this.#keyring.set(accountOf(content.id, name), secret);
      const updatedAtMs = this.#options.clock.now();
      if (kept.kind === "done") {
        await this.#replace(content, name, { place: "keyring", updatedAtMs });
        return { place: "keyring" };
      }
      const isOldInKeyring = before !== undefined && isInKeyring(before);
      const sealed = await this.#file.seal(content.id, name, secret);
      await this.#replace(content, name, {
        place: "file",
        updatedAtMs,
        ...(isOldInKeyring ? { oldInKeyring: true } : {}),
        ...sealed,
      });
      if (isOldInKeyring) return { place: "file", note: `${LEFT_BEHIND} (${kept.why})` };
      return kept.kind === "refused"
        ? { place: "file", note: `the OS keyring did not take it: ${kept.why}` }
        : { place: "file" };
    });
  }

  delete(name: string): ReturnType<SecretStore["delete"]> {
    return this.#changing(async () => {
      const content = await this.#read();
      const entry = entryOf(content, name);
      if (content === undefined || entry === undefined) return { existed: false };
      const removed = isInKeyring(entry) ? await this.#keyring.delete(accountOf(content.id, name)) : undefined;
      const why = removed === undefined || removed.kind === "done" ? undefined : removed.why;
      if (why !== undefined && entry.place === "keyring") {
        throw new OperationalError("key_unreadable", `the key of ${name} stays in the OS keyring: ${why}`, {
          details: { provider: name },
        });
      }
      await this.#replace(content, name, undefined);
      return why === undefined ? { existed: true } : { existed: true, note: `${LEFT_BEHIND} (${why})` };
    });
  }

  async list(): Promise<readonly StoredName[]> {
    const content = await this.#read();
    return Object.entries(content?.entries ?? {})
      .map(([name, { place, updatedAtMs }]) => ({ name, place, updatedAtMs }))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  lookAgain(): void {
    this.#keyring.lookAgain();
  }

  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.#keyring[Symbol.asyncDispose]();
  }

  #read(): Promise<SecretFileContent | undefined> {
    return this.#reading(() => this.#file.read());
  }

  /** The id must be known before anything is stored under it elsewhere. */
  async #readOrCreate(): Promise<SecretFileContent> {
    const known = await this.#read();
    if (known !== undefined) return known;
    const content = this.#file.create();
    await this.#file.write(content);
    return content;
  }

  /** Only ever called in a turn of `#changing`, which `content` was read in. */
  #replace({ id, entries }: SecretFileContent, name: string, entry: SecretEntry | undefined): Promise<void> {
    const { [name]: _old, ...others } = entries;
    return this.#file.write({ id, entries: entry === undefined ? others : { ...others, [name]: entry } });
  }

  async #unseal(id: string, name: string, entry: SecretEntry & { readonly place: "file" }): Promise<Secret> {
    const secret = await this.#file.unseal(id, name, entry);
    if (secret !== undefined) return secret;
    throw new OperationalError(
      "key_unreadable",
      `the stored key of ${name} does not open: ${this.#file.path} or its key ${this.#file.keyFile(id)} was changed or is gone`,
      { details: { provider: name } },
    );
  }

  /** Undefined when its owner has removed it there. */
  async #fromKeyring(id: string, name: string): Promise<Secret | undefined> {
    const answer = await this.#keyring.get(accountOf(id, name));
    if (answer.kind === "done") return answer.value;
    const what = answer.kind === "absent" ? "which does not answer" : "which does not give it";
    throw new OperationalError("key_unreadable", `the key of ${name} is in the OS keyring, ${what}: ${answer.why}`, {
      details: { provider: name },
    });
  }
}

const LEFT_BEHIND = "an earlier key of this provider is still in the OS keyring, which does not let go of it now";

function entryOf(content: SecretFileContent | undefined, name: string): SecretEntry | undefined {
  return content !== undefined && Object.hasOwn(content.entries, name) ? content.entries[name] : undefined;
}

/** This secret, or an earlier one of its name. */
function isInKeyring(entry: SecretEntry): boolean {
  return entry.place === "keyring" || entry.oldInKeyring === true;
}

/** Keyrings show this name to their owner. */
function accountOf(id: string, name: string): string {
  return `${name}@${id}`;
}

/**
 * The file of stored secrets: which names there are, and, where no OS keyring took them, the secrets themselves, sealed.
 * 1. The file and the key that opens it lie in different folders, each with mode 0600: a copy of one of them is of no use.
 * 2. The file is replaced as a whole: a daemon that is killed leaves the old one or the new one.
 * 3. A file that is not ours to understand is kept aside under another name, never overwritten, and that is said.
 * 4. It is read anew each time: it is small, and nobody is served from what somebody has since removed.
 */
import { join } from "node:path";
import { z } from "zod";
import type { Clock, Ids } from "../base/clock.ts";
import { UserError } from "../base/errors.ts";
import type { Secret } from "../base/secret.ts";
import { moveFile, preparePrivateFolder, readFile, writeFile } from "./filesystem.ts";
import type { Log } from "./log.ts";
import type { StandingPermit } from "./permit.ts";
import { CIPHER_KEY_BYTES, NONCE_BYTES, type SealedBox, seal, unseal } from "./secret-cipher.ts";

export interface SecretFileOptions {
  /** Covers the file and its folder, and the folder of the key, for reading and writing. */
  readonly permit: StandingPermit;
  readonly file: string;
  /** Where the key lies; undefined where there is no home folder to keep it in. */
  readonly keyFolder: string | undefined;
  readonly uid: number;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: Log;
}

const box = { nonce: z.string().max(64), sealed: z.string().max(32_768) };
const entrySchema = z.discriminatedUnion("place", [
  z.object({ place: z.literal("keyring"), updatedAtMs: z.number() }),
  /** `oldInKeyring`: an earlier secret of that name is still in the keyring, which could not be reached to remove it. */
  z.object({ place: z.literal("file"), updatedAtMs: z.number(), oldInKeyring: z.boolean().optional(), ...box }),
]);
export type SecretEntry = Readonly<z.infer<typeof entrySchema>>;

const VERSION = 1;
const contentSchema = z.object({
  version: z.literal(VERSION),
  /** Part of the key file's name and of the names in the keyring, so that two data folders never share a secret. */
  id: z.string().regex(/^[A-Za-z0-9_-]{4,64}$/),
  entries: z.record(z.string(), entrySchema),
});
export interface SecretFileContent {
  readonly id: string;
  readonly entries: Readonly<Record<string, SecretEntry>>;
}

/** Hundreds of providers; a larger file is not ours. */
const MAX_FILE_BYTES = 1024 * 1024;
const MAX_KEY_FILE_BYTES = 4096;
const ID_BYTES = 9;

export class SecretFile {
  readonly #options: SecretFileOptions;
  #problem: string | undefined;

  constructor(options: SecretFileOptions) {
    this.#options = options;
  }

  get path(): string {
    return this.#options.file;
  }

  /** What was found damaged and put aside since the start (3). */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Undefined where nothing was ever stored. @throws UserError `folder_unusable` where it cannot be read, or is of a newer version. */
  async read(): Promise<SecretFileContent | undefined> {
    const { permit, file } = this.#options;
    const bytes = await readFile(permit, file, MAX_FILE_BYTES);
    if (bytes === undefined) return undefined;
    const json = parseJson(bytes.toString("utf8"));
    const parsed = contentSchema.safeParse(json);
    if (parsed.success) return parsed.data;
    const newer = z.looseObject({ version: z.int().gt(VERSION) }).safeParse(json);
    if (newer.success) {
      const message = `${file} was written by a newer version of GhostStack`;
      throw new UserError("folder_unusable", message, { details: { path: file } });
    }
    await this.#keepAside(file, "the file of stored keys was damaged");
    return undefined;
  }

  /** An empty content with an id of its own, not written yet. */
  create(): SecretFileContent {
    return { id: this.#options.ids.secret(ID_BYTES), entries: {} };
  }

  /** @throws OperationalError `storage_full`, UserError `folder_unusable` */
  async write({ id, entries }: SecretFileContent): Promise<void> {
    const { permit, file } = this.#options;
    const text = JSON.stringify({ version: VERSION, id, entries }, null, 2);
    await writeFile(permit, file, `${text}\n`);
  }

  /** Makes the key where there is none. @throws UserError `folder_unusable`, OperationalError `storage_full` */
  async seal(id: string, name: string, secret: Secret): Promise<SealedBox> {
    const nonce = randomBytes(this.#options.ids, NONCE_BYTES);
    return seal(await this.#key(id), nonce, contextOf(id, name), secret);
  }

  /** Undefined where the key is not the one that sealed it, or either was changed. */
  async unseal(id: string, name: string, sealed: SealedBox): Promise<Secret | undefined> {
    const key = await this.#readKey(id);
    return key === undefined ? undefined : unseal(key, contextOf(id, name), sealed);
  }

  async #key(id: string): Promise<Buffer> {
    const known = await this.#readKey(id);
    if (known !== undefined) return known;
    const { permit, uid, ids } = this.#options;
    preparePrivateFolder(permit, this.#keyFolder(), uid);
    const file = this.keyFile(id);
    if ((await readFile(permit, file, MAX_KEY_FILE_BYTES)) !== undefined) {
      await this.#keepAside(file, "the key of the file of stored keys was damaged");
    }
    const key = randomBytes(ids, CIPHER_KEY_BYTES);
    await writeFile(permit, file, `${key.toString("base64url")}\n`);
    return key;
  }

  /** Undefined where there is none, or what is there cannot be a key. */
  async #readKey(id: string): Promise<Buffer | undefined> {
    const bytes = await readFile(this.#options.permit, this.keyFile(id), MAX_KEY_FILE_BYTES);
    const key = Buffer.from(bytes?.toString("utf8").trim() ?? "", "base64url");
    return key.length === CIPHER_KEY_BYTES ? key : undefined;
  }

  keyFile(id: string): string {
    return join(this.#keyFolder(), `provider-keys-${id}.key`);
  }

  #keyFolder(): string {
    const { keyFolder } = this.#options;
    if (keyFolder !== undefined) return keyFolder;
    throw new UserError("folder_unusable", "there is no folder for the key of stored keys: set HOME or XDG_STATE_HOME");
  }

  /** (3) */
  async #keepAside(file: string, what: string): Promise<void> {
    const { permit, clock, log } = this.#options;
    const keptAs = `${file}.damaged-${clock.now()}`;
    await moveFile(permit, file, keptAs);
    this.#problem = `${what}; it is kept as ${keptAs}, and the keys in it must be stored again`;
    log.error({ event: "keys.damaged", file, keptAs });
  }
}

/** What a sealed box is for: it opens under no other name, and in no other file. */
function contextOf(id: string, name: string): string {
  return JSON.stringify(["ghoststack provider key", VERSION, id, name]);
}

function randomBytes(ids: Ids, sizeBytes: number): Buffer {
  return Buffer.from(ids.secret(sizeBytes), "base64url");
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // Damaged; whoever asked keeps it aside.
  }
}

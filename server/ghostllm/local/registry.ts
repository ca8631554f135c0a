/**
 * Which weights the embedded engine knows: the built-in ones, and those that `registry.json` in the models folder lists.
 * 1. The registry is replaced as a whole, so that a killed daemon leaves the old or the new one.
 * 2. One that cannot be read is kept aside and reported, never overwritten.
 */
import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../../base/errors.ts";
import { fileStamp, moveFile, openReader, readFile, writeFile } from "../../platform/filesystem.ts";
import type { Log } from "../../platform/log.ts";
import type { AnyPermit } from "../../platform/permit.ts";
import { type GgufFacts, readGgufFacts } from "./gguf.ts";

const entrySchema = z.object({
  name: z.string(),
  /** Its name inside the models folder. */
  file: z.string().regex(/^[^/\\]+$/),
  sha256: z.string(),
  source: z.string(),
  sizeBytes: z.number(),
});
export type RegisteredModel = z.infer<typeof entrySchema>;
const registrySchema = z.object({ version: z.literal(1), models: z.array(entrySchema).max(1024) });

/** 1024 entries of the longest sources. */
const MAX_REGISTRY_BYTES = 4 * 1024 * 1024;

export interface WeightsFacts extends GgufFacts {
  readonly sizeBytes: number;
  /** Changes when the file does. */
  readonly version: string;
}

export class ModelRegistry {
  readonly #folder: string;
  readonly #permit: AnyPermit;
  readonly #log: Log;
  #entries: Promise<readonly RegisteredModel[]> | undefined;
  #writes: Promise<void> = Promise.resolve();
  readonly #facts = new Map<string, WeightsFacts>();
  /** Why the registry is not what it was, in one sentence. */
  problem: string | undefined;

  constructor(options: { readonly folder: string; readonly permit: AnyPermit; readonly log: Log }) {
    this.#folder = options.folder;
    this.#permit = options.permit;
    this.#log = options.log;
  }

  list(): Promise<readonly RegisteredModel[]> {
    this.#entries ??= this.#read().catch((error: unknown) => {
      this.#entries = undefined;
      throw error;
    });
    return this.#entries;
  }

  /** Adds a model, or replaces the one of the same name. @throws OperationalError `storage_full`. */
  async add(entry: RegisteredModel): Promise<void> {
    const write = this.#writes.then(async () => {
      const models = [...(await this.list()).filter(({ name }) => name !== entry.name), entry];
      await writeFile(this.#permit, this.#file, `${JSON.stringify({ version: 1, models }, null, 2)}\n`);
      this.#entries = Promise.resolve(models);
    });
    // A write that failed is its caller's affair; the next one is tried all the same.
    this.#writes = write.catch(() => {});
    await write;
  }

  path(entry: RegisteredModel): string {
    return join(this.#folder, entry.file);
  }

  /** What a weights file says about itself, read again when the file changed. @throws UserError `weights_missing`, `weights_corrupt`. */
  async facts(path: string): Promise<WeightsFacts> {
    const stamp = await fileStamp(this.#permit, path);
    if (stamp === undefined) throw new UserError("weights_missing", `there is no file ${path}`, { details: { path } });
    const version = `${stamp.sizeBytes}-${stamp.modifiedAtMs}`;
    const known = this.#facts.get(path);
    if (known?.version === version) return known;
    await using reader = await openReader(this.#permit, path);
    const facts = { ...(await readGgufFacts(reader, path)), sizeBytes: stamp.sizeBytes, version };
    this.#facts.set(path, facts);
    return facts;
  }

  get #file(): string {
    return join(this.#folder, "registry.json");
  }

  async #read(): Promise<readonly RegisteredModel[]> {
    const content = await readFile(this.#permit, this.#file, MAX_REGISTRY_BYTES);
    if (content === undefined) return [];
    const parsed = registrySchema.safeParse(parseJson(content.toString("utf8")));
    if (parsed.success) return parsed.data.models;
    const aside = `${this.#file}.unreadable`;
    await moveFile(this.#permit, this.#file, aside);
    this.problem = `the list of downloaded models was damaged and is kept as ${aside}; pull the models again`;
    this.#log.error({ event: "models.registry.unreadable", aside, problem: parsed.error.message });
    return [];
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not JSON: the schema refuses undefined and the caller keeps the file aside.
    return undefined;
  }
}

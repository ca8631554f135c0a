/** The daemon's two doors have a key each (docs/security.md): files of mode 0600 in the data folder, made at the first start. */
import { join } from "node:path";
import type { Ids } from "../base/clock.ts";
import { UserError } from "../base/errors.ts";
import { readFile, writeFile } from "../platform/filesystem.ts";
import type { StandingPermit } from "../platform/permit.ts";
import type { Keys } from "./http/access.ts";

/** 256 bits: beyond guessing, whatever the number of tries. */
const KEY_BYTES = 32;
const MIN_KEY_LENGTH = 20;
const MAX_KEY_FILE_BYTES = 4096;

export interface KeyFiles {
  readonly keys: Keys;
  readonly modelKeyFile: string;
}

/** @throws UserError `folder_unusable` for a key file that cannot be read, or that somebody has emptied or shortened. */
export async function loadKeys(permit: StandingPermit, dataDir: string, ids: Ids): Promise<KeyFiles> {
  const modelKeyFile = join(dataDir, "model.key");
  return {
    keys: {
      model: await loadKey(permit, modelKeyFile, () => `ghost-model-${ids.secret(KEY_BYTES)}`),
      face: await loadKey(permit, join(dataDir, "face.key"), () => `ghost-face-${ids.secret(KEY_BYTES)}`),
    },
    modelKeyFile,
  };
}

async function loadKey(permit: StandingPermit, file: string, make: () => string): Promise<string> {
  const stored = (await readFile(permit, file, MAX_KEY_FILE_BYTES))?.toString("utf8").trim();
  if (stored !== undefined) {
    if (stored.length >= MIN_KEY_LENGTH && /^[\x21-\x7e]+$/.test(stored)) return stored;
    throw new UserError("folder_unusable", `${file} does not hold a usable key; remove it and start again`, {
      details: { path: file },
    });
  }
  const key = make();
  await writeFile(permit, file, `${key}\n`);
  return key;
}

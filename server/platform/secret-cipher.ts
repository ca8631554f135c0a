/**
 * How a secret lies in a file: AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce for each sealing.
 * What a box is for (`context`) is authenticated with it, so that a box which was moved to another name does not open.
 */
import { createCipheriv, createDecipheriv } from "node:crypto";
import { Secret } from "../base/secret.ts";

export const CIPHER_KEY_BYTES = 32;
export const NONCE_BYTES = 12;
const TAG_BYTES = 16;

export interface SealedBox {
  /** Base64url, as is the rest. */
  readonly nonce: string;
  /** The ciphertext, then its tag. */
  readonly sealed: string;
}

export function seal(key: Buffer, nonce: Buffer, context: string, secret: Secret): SealedBox {
  const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(Buffer.from(context));
  const sealed = Buffer.concat([cipher.update(secret.reveal(), "utf8"), cipher.final(), cipher.getAuthTag()]);
  return { nonce: nonce.toString("base64url"), sealed: sealed.toString("base64url") };
}

/** Undefined for a box that was made with another key, for another context, or was changed. */
export function unseal(key: Buffer, context: string, box: SealedBox): Secret | undefined {
  const sealed = Buffer.from(box.sealed, "base64url");
  const tagAt = sealed.length - TAG_BYTES;
  const nonce = Buffer.from(box.nonce, "base64url");
  if (tagAt < 0 || nonce.length !== NONCE_BYTES) return undefined;
  try {
    const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(Buffer.from(context));
    decipher.setAuthTag(sealed.subarray(tagAt));
    const text = Buffer.concat([decipher.update(sealed.subarray(0, tagAt)), decipher.final()]);
    return new Secret(text.toString("utf8"));
  } catch {
    return undefined; // The tag does not fit; why it does not is not to be known.
  }
}

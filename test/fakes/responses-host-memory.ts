/**
 * What a fake of the Responses API remembers: responses that were stored, and the reasoning that it gave out encrypted.
 * A response with `store: false` is known to nobody afterwards; its encrypted reasoning is, for it carries itself.
 */
import { createHash } from "node:crypto";
import type { InputItem } from "./responses-host-body.ts";

export interface StoredResponse {
  /** The response object, as it was sent. */
  readonly body: object;
  /** The whole conversation up to and with this response. */
  readonly items: readonly InputItem[];
}

export class ResponsesMemory {
  readonly #responses = new Map<string, StoredResponse>();
  /** By encrypted content: the id of the item that it belongs to. */
  readonly #encrypted = new Map<string, string>();

  encrypt(itemId: string, text: string): string {
    const secret = createHash("sha512").update(`${itemId} ${text}`).digest("base64url");
    const encrypted = `gAAAA${secret}`;
    this.#encrypted.set(encrypted, itemId);
    return encrypted;
  }

  /** The reasoning item that this content was made for. */
  ownerOf(encrypted: string): string | undefined {
    return this.#encrypted.get(encrypted);
  }

  store(id: string, response: StoredResponse): void {
    this.#responses.set(id, response);
  }

  find(id: string): StoredResponse | undefined {
    return this.#responses.get(id);
  }

  forget(id: string): boolean {
    return this.#responses.delete(id);
  }

  /** An item of a stored response. */
  findItem(id: string): InputItem | undefined {
    for (const { items } of this.#responses.values()) {
      const item = items.find((each) => each.id === id);
      if (item !== undefined) return item;
    }
    return undefined;
  }
}

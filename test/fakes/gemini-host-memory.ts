/** What a fake of the Gemini API has given out and expects back as it was: the signatures of parts, and the tokens by which an answer goes on. */
import { createHash } from "node:crypto";
import type { GeminiPart, GenerateBody } from "./gemini-host-body.ts";

/** What a client puts on calls that another vendor's model made. */
const PLACEHOLDERS = ["skip_thought_signature_validator", "context_engineering_is_the_way_to_go"];

export class GeminiMemory {
  /** By signature: the call it is bound to; undefined on text, which may be cut and joined. */
  readonly #signed = new Map<string, string | undefined>();
  /** By token: the request that it continues. */
  readonly #tokens = new Map<string, string>();

  sign(part: Pick<GeminiPart, "functionCall" | "text">): string {
    const call = part.functionCall === undefined ? undefined : callText(part.functionCall);
    const number = this.#signed.size + 1;
    const signature = createHash("sha512")
      .update(`${number} ${call ?? part.text ?? ""}`)
      .digest("base64");
    this.#signed.set(signature, call);
    return signature;
  }

  /** Whether the part's signature is one that may be there. */
  isGenuine({ thoughtSignature: signature, functionCall }: GeminiPart): boolean {
    if (signature === undefined || PLACEHOLDERS.includes(signature)) return true;
    if (!this.#signed.has(signature)) return false;
    const call = this.#signed.get(signature);
    return call === undefined || (functionCall !== undefined && call === callText(functionCall));
  }

  giveToken(token: string, body: GenerateBody): void {
    this.#tokens.set(token, bodyText(body));
  }

  /** Whether the body is the one that its token was given out for, but for the token. */
  continues(body: GenerateBody): boolean {
    return body.continuationToken !== undefined && this.#tokens.get(body.continuationToken) === bodyText(body);
  }
}

function callText({ name, args }: NonNullable<GeminiPart["functionCall"]>): string {
  return JSON.stringify([name, args ?? {}]);
}

function bodyText(body: GenerateBody): string {
  return JSON.stringify({ ...body, continuationToken: undefined });
}

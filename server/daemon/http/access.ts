/**
 * Who may come in by HTTP (docs/security.md): `Host` and `Origin` on every request, then the key of the route's audience.
 * Pure; `http-server.ts` asks it before anything else happens.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { UserId } from "../../../protocol/ids.ts";
import { type GhostError, UserError } from "../../base/errors.ts";

/** `model`: the model APIs. `face`: GhostApi's side doors. `none`: open to everybody on this machine; the list of these is tested. */
export type Audience = "none" | "model" | "face";

export interface Keys {
  readonly model: string;
  readonly face: string;
}

export interface AccessRequest {
  readonly host: string | undefined;
  readonly origin: string | undefined;
  readonly authorization: string | undefined;
  readonly apiKey: string | undefined;
  /** The address says `?key=`, as Gemini's older clients do. */
  readonly hasKeyInAddress: boolean;
}

export interface AccessControl {
  /** The error that answers the request, or undefined when it may pass. */
  refuse(request: AccessRequest, audience: Audience): GhostError | undefined;
}

/** `port()` is the port we listen on, known once the listener is up. */
export function createAccessControl(options: { readonly keys: Keys; readonly port: () => number }): AccessControl {
  const codes = { model: codeOf(options.keys.model), face: codeOf(options.keys.face) };
  const isLoopback = (authority: string) => {
    const match = /^(127\.0\.0\.1|localhost|\[::1\])(?::(\d+))?$/i.exec(authority);
    return match !== null && Number(match[2] ?? 80) === options.port();
  };
  return {
    refuse({ host, origin, authorization, apiKey, hasKeyInAddress }, audience) {
      if (host === undefined || !isLoopback(host)) {
        return new UserError(
          "foreign_host",
          `the Host header names ${JSON.stringify((host ?? "").slice(0, 100))}, not this daemon`,
        );
      }
      if (origin !== undefined && !(origin.startsWith("http://") && isLoopback(origin.slice("http://".length)))) {
        return new UserError(
          "foreign_origin",
          `the page ${JSON.stringify(origin.slice(0, 100))} may not call this daemon`,
        );
      }
      if (audience === "none") return undefined;
      if (hasKeyInAddress) {
        return new UserError(
          "unauthenticated",
          "a key in the address (`?key=`) is not taken, because addresses are logged: send it in the header `x-goog-api-key`",
        );
      }
      // Clients send what they find in the environment: a key for the provider itself may stand beside ours.
      const bearer = /^Bearer +(.+)$/i.exec(authorization ?? "")?.[1]?.trim();
      const given = [apiKey, bearer].flatMap((key) => (key === undefined ? [] : [codeOf(key)]));
      if (given.length === 0) return new UserError("unauthenticated", "the request carries no key");
      // All comparisons always run: time tells nothing about which one failed, or where.
      const matches = (code: Buffer) => given.map((key) => timingSafeEqual(key, code)).includes(true);
      const isModel = matches(codes.model);
      const isFace = matches(codes.face);
      if (audience === "model" ? isModel : isFace) return undefined;
      if (isModel || isFace)
        return new UserError(
          "wrong_audience",
          `a ${isModel ? "model key" : "face credential"} does not open this route`,
        );
      return new UserError("unauthenticated", "the key is wrong");
    },
  };
}

/** Keys of ours have 54 and 55 characters; a character takes at most three bytes. */
const MAX_PLAIN_CHARACTERS = 100;
const CODE_BYTES = 3 * MAX_PLAIN_CHARACTERS + 32;

/**
 * Stands for a key in comparisons, and has one length for all: the key's own bytes, which costs each request a fifth of what a digest does, or the
 * digest behind them where it is longer than any key of ours. No key holds a zero, so different keys have different codes.
 */
function codeOf(key: string): Buffer {
  const code = Buffer.alloc(CODE_BYTES);
  if (key.length <= MAX_PLAIN_CHARACTERS) code.write(key);
  else digest(key).copy(code, 3 * MAX_PLAIN_CHARACTERS);
  return code;
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** The same for the socket: the face credential stands for its user. */
export function createFaceAuthentication(
  faceKey: string,
  userId: UserId,
): (key: string) => { readonly userId: UserId } | undefined {
  const expected = digest(faceKey);
  return (key) => (timingSafeEqual(digest(key), expected) ? { userId } : undefined);
}

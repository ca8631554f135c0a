/** The machine's own clock, randomness and environment, as the interfaces of base/clock.ts. Only `main.ts` and tests create them. */
import { randomBytes } from "node:crypto";
import { homedir, userInfo } from "node:os";
import { setTimeout as sleepFor } from "node:timers/promises";
import type { Clock, Environment, Ids } from "../base/clock.ts";
import { onDispose } from "../base/disposable.ts";

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs).unref();
    return onDispose(() => clearTimeout(timer));
  },
  every(periodMs, callback) {
    const timer = setInterval(callback, periodMs).unref();
    return onDispose(() => clearInterval(timer));
  },
  async sleep(delayMs, signal) {
    await sleepFor(delayMs, undefined, { ref: true, ...(signal === undefined ? {} : { signal }) });
  },
};

const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** Ids after the ULID layout (https://github.com/ulid/spec): 48 bits of time, 80 of randomness, Crockford base 32. */
export const systemIds: Ids = {
  next(prefix) {
    let time = Date.now();
    let text = "";
    for (let digit = 0; digit < 10; digit += 1) {
      text = (ALPHABET[time % 32] ?? "0") + text;
      time = Math.floor(time / 32);
    }
    for (const byte of randomBytes(16)) text += ALPHABET[byte % 32] ?? "0";
    return `${prefix}_${text}`;
  },
  secret: (sizeBytes) => randomBytes(sizeBytes).toString("base64url"),
};

export function systemEnvironment(): Environment {
  const user = userInfo();
  return {
    get: (name) => {
      const value = process.env[name];
      return value === "" ? undefined : value;
    },
    homeDir: homedir(),
    userName: user.username,
    uid: user.uid,
  };
}

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

const CODES = Buffer.from("0123456789ABCDEFGHJKMNPQRSTVWXYZ");

const TIME_DIGITS = 10;
const RANDOM_DIGITS = 16;
/** The system is asked for this many ids' randomness at once: one by one, asking costs a relay 4 % of its time. Secrets never come from here. */
const POOLED_IDS = 256;
let pool = Buffer.alloc(0);
let taken = 0;
/** Each id is made in here: as a sum of single characters it would leave 1 KB of garbage. */
const digits = Buffer.alloc(TIME_DIGITS + RANDOM_DIGITS);

/** Ids after the ULID layout (https://github.com/ulid/spec): 48 bits of time, 80 of randomness, Crockford base 32. */
export const systemIds: Ids = {
  next(prefix) {
    let time = Date.now();
    for (let digit = TIME_DIGITS - 1; digit >= 0; digit -= 1) {
      digits[digit] = CODES[time % 32] ?? 0;
      time = Math.floor(time / 32);
    }
    if (taken >= pool.length) {
      pool = randomBytes(RANDOM_DIGITS * POOLED_IDS);
      taken = 0;
    }
    for (let index = 0; index < RANDOM_DIGITS; index += 1) {
      digits[TIME_DIGITS + index] = CODES[(pool[taken + index] ?? 0) % 32] ?? 0;
    }
    taken += RANDOM_DIGITS;
    return `${prefix}_${digits.toString("latin1")}`;
  },
  secret: (sizeBytes) => randomBytes(sizeBytes).toString("base64url"),
};

/** A container may run as a user that the system has nothing on record for; then `os` throws where it is asked. */
function onRecord(read: () => string): string | undefined {
  try {
    return read();
  } catch {
    return undefined; // What is missing for good is said by whoever needs it (config/paths.ts).
  }
}

export function systemEnvironment(): Environment {
  const uid = process.getuid?.() ?? -1;
  return {
    get: (name) => {
      const value = process.env[name];
      return value === "" ? undefined : value;
    },
    homeDir: onRecord(homedir) ?? "",
    userName: onRecord(() => userInfo().username) ?? process.env["USER"] ?? String(uid),
    uid,
  };
}

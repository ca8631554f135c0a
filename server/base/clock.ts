/** Time, ids and the environment come from injected sources (I12): these are the interfaces. */

export interface Clock {
  /** Wall time in milliseconds since the epoch. */
  now(): number;
  /** Monotonic time in milliseconds, with fractions; only differences mean anything. */
  monotonic(): number;
  /** Calls back once after `delayMs`; disposing the handle before then prevents it. The timer never keeps the process alive. */
  after(delayMs: number, callback: () => void): Disposable;
  /** Calls back every `periodMs` until disposed. The timer never keeps the process alive. */
  every(periodMs: number, callback: () => void): Disposable;
  /** Resolves after `delayMs`, or rejects with the signal's reason as soon as it aborts. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

export interface Ids {
  /** A new id, `prefix_` and 26 characters; ids made later sort after ids made earlier (to the millisecond). */
  next(prefix: string): string;
  /** `sizeBytes` of unguessable randomness, as base64url. */
  secret(sizeBytes: number): string;
}

export interface Environment {
  get(name: string): string | undefined;
  readonly homeDir: string;
  readonly userName: string;
  /** The numeric user id of the process; -1 where the system has none. */
  readonly uid: number;
}

import { BugError } from "./errors.ts";

/** Throws a {@link BugError} when a belief of ours turns out false. Never use it on input from outside. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new BugError("internal", message);
}

/** Makes a `switch` over a union exhaustive: it compiles only when every case was handled. */
export function assertNever(value: never): never {
  throw new BugError("internal", `unexpected case ${JSON.stringify(value)}`);
}

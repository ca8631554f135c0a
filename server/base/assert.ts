import { BugError } from "./errors.ts";

/** Throws a {@link BugError} when a belief of ours turns out false. Never use it on input from outside. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new BugError("internal", message);
}

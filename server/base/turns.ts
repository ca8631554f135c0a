/** Work that must not overlap: one task after the other, in the order in which they came. */
import { OperationalError } from "./errors.ts";

export type TakeTurn = <Result>(task: () => Promise<Result>) => Promise<Result>;

/** A task that fails does not keep the next from its turn. @throws OperationalError `overloaded` when `limit` tasks wait already. */
export function createTurns(limit: number): TakeTurn {
  let last: Promise<unknown> = Promise.resolve();
  let waiting = 0;
  return async (task) => {
    if (waiting >= limit) throw new OperationalError("overloaded", `${limit} such requests wait already`);
    waiting += 1;
    const turn = last.then(task);
    last = turn.catch(() => {}); // Whoever waits for the turn learns of it.
    try {
      return await turn;
    } finally {
      waiting -= 1;
    }
  };
}

/** Random numbers that a printed seed repeats: `GHOST_TEST_SEED=…` runs the same suite again, `GHOST_TEST_FULL=1` runs all of it. */

export interface Random {
  readonly seed: number;
  /** A whole number from 0 up to, without, `limit`. */
  below(limit: number): number;
  pick<Item>(items: readonly [Item, ...Item[]]): Item;
}

export const isFullRun = process.env["GHOST_TEST_FULL"] === "1";

/** With the seed of the environment, else with one of the clock. */
export function testRandom(): Random {
  const given = Number(process.env["GHOST_TEST_SEED"] ?? 0);
  return seededRandom(given > 0 ? given : (Date.now() % 1_000_000) + 1);
}

/** mulberry32: small, and good enough to choose moments. */
export function seededRandom(seed: number): Random {
  let state = seed;
  const below = (limit: number): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
  return { seed, below, pick: (items) => items[below(items.length)] ?? items[0] };
}

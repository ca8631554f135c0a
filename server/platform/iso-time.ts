/** A time of the clock in words: `isoTime(0)` → `1970-01-01T00:00:00.000Z`. */
export const isoTime = (atMs: number): string => new Date(atMs).toISOString();

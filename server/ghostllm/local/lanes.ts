/**
 * Which waiting request the engine takes next. Pure.
 * 1. Completions go before chats, chats before background work; inside a lane the first come goes first.
 * 2. One sequence of each model is kept free of chats, and one more of background work, so that a completion need not wait for them (I13).
 * 3. No more models are in use at once than fit into memory; a request that waits for that is not overtaken for ever.
 */
import type { GenerateJob } from "./engine-protocol.ts";

export type Lane = GenerateJob["lane"];

export interface Work {
  readonly kind: "generate" | "embed" | "load";
  readonly lane: Lane;
  readonly modelKey: string;
  /** How many answers its model can give at once. */
  readonly sequences: number;
}

const LANES: readonly Lane[] = ["completion", "chat", "background"];

/** The first of `waiting` (oldest first) that may start beside `running`, or undefined. */
export function nextWork<Item extends Work>(
  waiting: readonly Item[],
  running: readonly Work[],
  maxModels: number,
): Item | undefined {
  const models = new Set(running.map((work) => work.modelKey));
  for (const lane of LANES) {
    for (const work of waiting) {
      if (work.lane !== lane) continue;
      // (3) What comes behind must not keep the other models busy: it waits too, until one of them is free.
      if (!models.has(work.modelKey) && models.size >= maxModels) return undefined;
      if (hasPlace(work, running)) return work;
    }
  }
  return undefined;
}

function hasPlace(work: Work, running: readonly Work[]): boolean {
  const same = running.filter((other) => other.modelKey === work.modelKey && other.kind === work.kind);
  if (work.kind === "load") return true;
  // Embeddings have a context of their own, which takes one text at a time.
  if (work.kind === "embed") return same.length === 0;
  if (same.length >= work.sequences) return false;
  if (work.lane === "completion") return true;
  const slow = same.filter((other) => other.lane !== "completion").length;
  if (slow >= Math.max(1, work.sequences - 1)) return false;
  const background = same.filter((other) => other.lane === "background").length;
  return work.lane === "chat" || background < Math.max(1, work.sequences - 2);
}

/** What the answers of all fake cloud hosts have in common: pure, from a script and what a request allows to blocks, counts and frames. */
import type { AnswerBlock, CloudScript, CloudWire } from "./cloud-script.ts";
import type { Frame } from "./host-player.ts";
import { countWords } from "./openai-host-frames.ts";
import { renderFrame } from "./sse-frame.ts";

/** One event of a stream: its name, where the dialect has names, its JSON, and whether it is a content delta. */
export interface Step {
  readonly event: string | undefined;
  readonly data: string;
  readonly isToken: boolean;
  /** Written as it is, outside any event. */
  readonly isBare?: boolean;
}

/** In our counts: `inputTokens` includes the cache's, `outputTokens` reasoning. */
export interface Counts {
  readonly inputTokens: number;
  readonly cachedTokens: number;
  readonly cacheWriteTokens: number;
  readonly outputTokens: number;
  readonly reasoningTokens: number;
}

/** The blocks that a request lets through, and what shortened them. */
export interface Shortened {
  readonly blocks: readonly AnswerBlock[];
  readonly cutBy: "length" | "stop" | undefined;
  readonly stopSequence: string | undefined;
}

const DEFAULT_BLOCKS: readonly AnswerBlock[] = [
  { kind: "text", deltas: ["Hello", " from", " the", " fake", " host", "."] },
];

/** Applies the request's limit (in deltas) and stop sequences (in text). */
export function shorten(
  script: CloudScript,
  limits: { readonly maxTokens?: number | undefined; readonly stops?: readonly string[] | undefined },
): Shortened {
  const blocks: AnswerBlock[] = [];
  let left = limits.maxTokens ?? Number.POSITIVE_INFINITY;
  for (const block of script.blocks ?? DEFAULT_BLOCKS) {
    const stop = block.kind === "text" ? firstStop(block.deltas.join(""), limits.stops ?? []) : undefined;
    const whole = stop === undefined ? block : withPieces(block, cutPieces(piecesOf(block), stop.at));
    const pieces = piecesOf(whole);
    if (pieces.length > left) {
      if (left > 0) blocks.push(withPieces(whole, pieces.slice(0, left)));
      return { blocks, cutBy: "length", stopSequence: undefined };
    }
    blocks.push(whole);
    if (stop !== undefined) return { blocks, cutBy: "stop", stopSequence: stop.sequence };
    left -= pieces.length;
  }
  return { blocks, cutBy: undefined, stopSequence: undefined };
}

/** The counts of one answer; undefined where the script leaves usage out. */
export function countUsage(
  script: CloudScript,
  { blocks, promptText }: { readonly blocks: readonly AnswerBlock[]; readonly promptText: string },
): Counts | undefined {
  const { usage } = script;
  if (usage === "never") return undefined;
  const counted = (kind: "all" | "reasoning") =>
    blocks
      .filter((block) => kind === "all" || block.kind === "reasoning")
      .reduce((sum, block) => sum + piecesOf(block).length, 0);
  return {
    inputTokens: usage?.inputTokens ?? countWords(promptText),
    cachedTokens: usage?.cachedTokens ?? 0,
    cacheWriteTokens: usage?.cacheWriteTokens ?? 0,
    outputTokens: usage?.outputTokens ?? counted("all"),
    reasoningTokens: usage?.reasoningTokens ?? counted("reasoning"),
  };
}

export function tokensOf(blocks: readonly AnswerBlock[]): number {
  return blocks.reduce((sum, block) => sum + piecesOf(block).length, 0);
}

/** The arguments of a call as a value: none, or an empty text, mean an empty object. */
export function argumentsOf(pieces: readonly string[]): unknown {
  const text = pieces.join("");
  return text === "" ? {} : JSON.parse(text);
}

/** The steps as the wire has them: pings, unknown events and omissions are put in here. */
export function* framesOf(
  steps: Iterable<Step>,
  how: { readonly wire: CloudWire; readonly ping: Step | undefined; readonly unknown: Step },
): Generator<Frame> {
  const { wire, ping, unknown } = how;
  let index = 0;
  let held: Step | undefined;
  const frame = (step: Step, isLast: boolean): Frame => {
    const bytes = renderFrame(step.data, { wire, index, event: step.event, isLast });
    index += 1;
    return { bytes, isToken: step.isToken };
  };
  let number = 0;
  for (const step of steps) {
    if (step.event !== undefined && wire.omitEvents?.includes(step.event) === true) continue;
    if (held !== undefined) yield frame(held, false);
    held = step;
    if (wire.pingEvery !== undefined && ping !== undefined && number > 0 && number % wire.pingEvery === 0)
      yield frame(ping, false);
    if (wire.unknownEventEvery !== undefined && number > 0 && number % wire.unknownEventEvery === 0)
      yield frame(unknown, false);
    number += 1;
  }
  if (held !== undefined) yield frame(held, true);
}

function piecesOf(block: AnswerBlock): readonly string[] {
  return block.kind === "tool-call" ? block.arguments : block.deltas;
}

function withPieces(block: AnswerBlock, pieces: readonly string[]): AnswerBlock {
  return block.kind === "tool-call" ? { ...block, arguments: pieces } : { ...block, deltas: pieces };
}

function firstStop(
  text: string,
  stops: readonly string[],
): { readonly at: number; readonly sequence: string } | undefined {
  const found = stops.map((sequence) => ({ at: text.indexOf(sequence), sequence })).filter(({ at }) => at >= 0);
  return found.toSorted((a, b) => a.at - b.at)[0];
}

/** The pieces of the first `length` characters. */
function cutPieces(pieces: readonly string[], length: number): readonly string[] {
  const cut: string[] = [];
  let left = length;
  for (const piece of pieces) {
    if (left <= 0) break;
    cut.push(piece.slice(0, left));
    left -= piece.length;
  }
  return cut;
}

/**
 * One answer, from prompt to finish.
 * 1. The abort signal is looked at before each piece of the prompt and before each token.
 * 2. Nothing runs past the window: the answer ends with `length` where it is full.
 */
import type { EvaluationPriority, LlamaContextSequence, Token } from "node-llama-cpp";
import type { EngineUsage, GenerateJob } from "../engine-protocol.ts";
import { buildPrompt, type Prompt } from "./prompt.ts";
import { StopMatcher } from "../../frames/stop-matcher.ts";
import { TokenText } from "./token-text.ts";
import type { Weights } from "./weights.ts";

export interface Generated {
  readonly reason: "stop" | "length";
  readonly usage: EngineUsage;
  readonly trimmedCharacters: number;
}

/** Who goes first where a batch is too small for all; a completion blocks typing. */
const PRIORITIES: Readonly<Record<GenerateJob["lane"], EvaluationPriority>> = { completion: 5, chat: 3, background: 1 };

/** `onText` gets every piece as soon as it is certain. @throws UserError of {@link buildPrompt}; the signal's reason. */
export async function generate(
  weights: Weights,
  job: GenerateJob,
  signal: AbortSignal,
  onText: (text: string, trimmedCharacters: number) => void,
): Promise<Generated> {
  const prompt = buildPrompt(weights, job);
  const grammarState = await weights.grammarState(job.grammar);
  signal.throwIfAborted();
  const lease = weights.lease(prompt.tokens);
  let state: "usable" | "broken" = "broken";
  try {
    const cachedTokens = await readPrompt({ weights, sequence: lease.sequence, prompt, job, signal });
    const limit = Math.min(job.maxTokens ?? weights.window, weights.window - prompt.tokens.length);
    const text = new TokenText((tokens, before) => weights.model.detokenize(tokens, false, before), prompt.tokens);
    const matcher = new StopMatcher([...job.stop, ...prompt.stopTexts]);
    const send = (piece: string) => {
      if (piece !== "") onText(piece, prompt.trimmedCharacters);
    };
    let completionTokens = 0;
    let reason: Generated["reason"] = "stop";
    const tokens = lease.sequence.evaluate(prompt.tokens.slice(-1), {
      temperature: job.temperature,
      topP: job.topP,
      seed: job.seed,
      evaluationPriority: PRIORITIES[job.lane],
      ...(grammarState === undefined ? {} : { grammarEvaluationState: grammarState }),
    });
    for await (const token of tokens) {
      signal.throwIfAborted();
      if (prompt.stopTokens.has(token)) break;
      completionTokens += 1;
      send(matcher.push(text.push(token)));
      if (matcher.stopped) break;
      if (completionTokens >= limit) {
        reason = "length";
        break;
      }
      await weights.turn();
    }
    if (!matcher.stopped) send(matcher.push(text.end()) + matcher.end());
    state = "usable";
    return {
      reason: matcher.stopped ? "stop" : reason,
      usage: { promptTokens: prompt.tokens.length, completionTokens, cachedTokens },
      trimmedCharacters: prompt.trimmedCharacters,
    };
  } catch (error) {
    // Between two evaluations the sequence is as it should be, and keeps what it read for the next try.
    if (signal.aborted) state = "usable";
    throw error;
  } finally {
    await lease.release(state);
  }
}

/** Evaluates all of the prompt but its last token; answers how many tokens the sequence still remembered. */
async function readPrompt(options: {
  readonly weights: Weights;
  readonly sequence: LlamaContextSequence;
  readonly prompt: Prompt;
  readonly job: GenerateJob;
  readonly signal: AbortSignal;
}): Promise<number> {
  const { weights, sequence, signal } = options;
  const head: Token[] = options.prompt.tokens.slice(0, -1);
  const evaluatedBefore = sequence.tokenMeter.usedInputTokens;
  await weights.adapt(sequence, head);
  // A memory that does not begin as the prompt does (or goes on behind it) is of no use; adapting removed it.
  for (let position = sequence.nextTokenIndex; position < head.length; position += weights.chunkTokens) {
    await weights.turn();
    signal.throwIfAborted();
    await sequence.evaluateWithoutGeneratingNewTokens(head.slice(position, position + weights.chunkTokens), {
      evaluationPriority: PRIORITIES[options.job.lane],
    });
  }
  await weights.turn();
  signal.throwIfAborted();
  return head.length - (sequence.tokenMeter.usedInputTokens - evaluatedBefore);
}

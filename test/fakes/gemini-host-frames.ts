/** The bytes of the fake Gemini host's answers: pure, from a script and a request to chunks or one JSON text. */
import { argumentsOf, type Counts, countUsage, type Step, shorten } from "./cloud-frames.ts";
import type { AnswerBlock, CloudScript, ErrorWords, ToolCallBlock } from "./cloud-script.ts";
import type { GeminiPart, GenerateBody } from "./gemini-host-body.ts";
import type { GeminiMemory } from "./gemini-host-memory.ts";
import { geminiFactsOf } from "./gemini-host-models.ts";

/** One part as it is streamed, and whether it is a delta. */
interface Piece {
  readonly part: GeminiPart;
  readonly isToken: boolean;
}

/** What an answer is made of, once script and request are put together. */
export interface GeminiAnswer {
  readonly id: string;
  readonly model: string;
  readonly pieces: readonly Piece[];
  readonly finishReason: string;
  /** Why the prompt was blocked; then there is no candidate at all. */
  readonly blockReason: string | undefined;
  readonly counts: Counts | undefined;
  readonly script: CloudScript;
}

const STATUS_WORDS: Readonly<Record<number, readonly [string, string]>> = {
  400: ["INVALID_ARGUMENT", "Request contains an invalid argument."],
  401: ["UNAUTHENTICATED", "Request had invalid authentication credentials."],
  403: ["PERMISSION_DENIED", "The caller does not have permission"],
  404: ["NOT_FOUND", "Requested entity was not found."],
  429: ["RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."],
  500: ["INTERNAL", "An internal error has occurred. Please retry."],
  501: ["UNIMPLEMENTED", "Operation is not implemented."],
  503: ["UNAVAILABLE", "The model is overloaded. Please try again later."],
  504: ["DEADLINE_EXCEEDED", "Deadline expired before operation could complete."],
};

export function composeGemini(
  script: CloudScript,
  request: {
    readonly body: GenerateBody;
    readonly model: string;
    readonly number: number;
    readonly memory: GeminiMemory;
  },
): GeminiAnswer {
  const { body, model, memory } = request;
  const { blocks, cutBy } = shorten(script, {
    maxTokens: body.generationConfig?.maxOutputTokens,
    stops: body.generationConfig?.stopSequences,
  });
  const refusal = blocks.find((block) => block.kind === "refusal");
  const isBlocked = refusal !== undefined && refusal.deltas.length === 0 && blocks.length === 1;
  const cut = cutBy === "length" ? "MAX_TOKENS" : "STOP";
  const natural = script.continuationToken === undefined ? cut : "CONTINUATION";
  const { continuationToken, checkpoints = [] } = script;
  for (const token of [continuationToken, ...checkpoints.map((each) => each.token)]) {
    if (token !== undefined) memory.giveToken(token, body);
  }
  return {
    id: `fake-response-${request.number}`,
    model: script.model ?? model,
    pieces: piecesOf(blocks, request),
    finishReason: script.finishReason ?? (refusal === undefined ? natural : "SAFETY"),
    blockReason: isBlocked ? (refusal.category ?? "SAFETY") : undefined,
    counts: countUsage(script, { blocks, promptText: JSON.stringify([body.systemInstruction, body.contents]) }),
    script,
  };
}

function piecesOf(
  blocks: readonly AnswerBlock[],
  request: {
    readonly body: GenerateBody;
    readonly model: string;
    readonly number: number;
    readonly memory: GeminiMemory;
  },
): readonly Piece[] {
  const { body, memory } = request;
  const signs = geminiFactsOf(request.model).signsCalls;
  const firstCall = blocks.findIndex((block) => block.kind === "tool-call");
  return blocks.flatMap((block, index): readonly Piece[] => {
    switch (block.kind) {
      case "reasoning":
        if (body.generationConfig?.thinkingConfig?.includeThoughts !== true) return [];
        return block.deltas.map((text) => ({ part: { text, thought: true }, isToken: true }));
      case "text": {
        const deltas = block.deltas.map((text) => ({ part: { text }, isToken: true }));
        if (block.isSigned !== true) return deltas;
        // The signature comes behind the text, on a part without one.
        const thoughtSignature = memory.sign({ text: block.deltas.join("") });
        return [...deltas, { part: { text: "", thoughtSignature }, isToken: false }];
      }
      case "refusal":
        return block.deltas.map((text) => ({ part: { text }, isToken: true }));
      case "tool-call": {
        const functionCall = callOf(block, `call_fake_${request.number}_${index}`);
        const isSigned = block.isSigned ?? (signs && index === firstCall);
        const signature = isSigned ? { thoughtSignature: memory.sign({ functionCall }) } : {};
        return [{ part: { functionCall, ...signature }, isToken: true }];
      }
    }
  });
}

function callOf(block: ToolCallBlock, madeId: string): NonNullable<GeminiPart["functionCall"]> {
  const args = argumentsOf(block.arguments);
  const id = block.id ?? madeId;
  if (typeof args !== "object" || args === null) throw new Error(`the arguments of ${block.name} are no object`);
  return { ...(id === "" ? {} : { id }), name: block.name, args: { ...args } };
}

/** How many deltas a stream of this answer has. */
export function geminiTokens({ pieces }: GeminiAnswer): number {
  return pieces.filter(({ isToken }) => isToken).length;
}

/** All chunks of a healthy stream, in order. */
export function* geminiSteps(answer: GeminiAnswer): Generator<Step> {
  if (answer.blockReason !== undefined) {
    yield chunk(answer, { promptFeedback: { blockReason: answer.blockReason } }, { sent: 0, isToken: false });
    return;
  }
  let sent = 0;
  for (const { part, isToken } of answer.pieces) {
    if (isToken) sent += 1;
    const checkpoint = answer.script.checkpoints?.find(({ afterTokens }) => isToken && afterTokens === sent);
    const token = checkpoint === undefined ? {} : { continuationToken: checkpoint.token };
    const candidate = { content: { parts: [part], role: "model" }, index: 0, ...token };
    yield chunk(answer, { candidates: [candidate] }, { sent, isToken });
  }
  const last = { content: { parts: [{ text: "" }], role: "model" }, ...endOf(answer), index: 0 };
  yield chunk(answer, { candidates: [last] }, { sent: "all", isToken: false });
}

/** A chunk with nothing in it but a field that the API does not have. */
export function unknownGeminiStep(): Step {
  return { event: undefined, data: JSON.stringify({ newIn2027: { hint: 1 } }), isToken: false };
}

/** The body of an answer that is not streamed: the texts of a kind that follow each other are one part. */
export function geminiBody(answer: GeminiAnswer): string {
  const feedback = { promptFeedback: { blockReason: answer.blockReason } };
  const parts: GeminiPart[] = [];
  for (const { part } of answer.pieces) {
    const before = parts.at(-1);
    const isSame =
      part.text !== undefined &&
      before?.text !== undefined &&
      before.thought === part.thought &&
      before.thoughtSignature === undefined;
    if (isSame) parts.splice(-1, 1, { ...before, ...part, text: `${before.text}${part.text}` });
    else parts.push(part);
  }
  const candidates = { candidates: [{ content: { parts, role: "model" }, ...endOf(answer), index: 0 }] };
  return chunk(answer, answer.blockReason === undefined ? candidates : feedback, { sent: "all", isToken: false }).data;
}

function endOf({ finishReason, script }: GeminiAnswer): object {
  const token = script.continuationToken === undefined ? {} : { continuationToken: script.continuationToken };
  return { finishReason, ...token };
}

function chunk(
  answer: GeminiAnswer,
  fields: object,
  { sent, isToken }: { readonly sent: number | "all"; readonly isToken: boolean },
): Step {
  const usage = answer.counts === undefined ? {} : { usageMetadata: usageOf(answer.counts, sent) };
  const data = JSON.stringify({ ...fields, ...usage, modelVersion: answer.model, responseId: answer.id });
  return { event: undefined, data, isToken };
}

/** A running total: what was sent so far, never more than the whole. */
function usageOf(counts: Counts, sent: number | "all"): object {
  const visible = counts.outputTokens - counts.reasoningTokens;
  const candidates = sent === "all" ? visible : Math.min(visible, sent);
  return {
    promptTokenCount: counts.inputTokens,
    ...(counts.cachedTokens > 0 ? { cachedContentTokenCount: counts.cachedTokens } : {}),
    candidatesTokenCount: candidates,
    ...(counts.reasoningTokens > 0 ? { thoughtsTokenCount: counts.reasoningTokens } : {}),
    totalTokenCount: counts.inputTokens + candidates + counts.reasoningTokens,
    promptTokensDetails: [{ modality: "TEXT", tokenCount: counts.inputTokens }],
  };
}

/** An error in Google's shape. */
export function geminiError(
  error: ErrorWords,
  { status, details = [] }: { readonly status: number; readonly details?: readonly object[] },
): object {
  const code = typeof error.errorCode === "number" ? error.errorCode : status;
  const [name, message] = STATUS_WORDS[code] ?? ["UNKNOWN", "Unknown error."];
  const more = details.length > 0 ? { details } : {};
  return { error: { code, message: error.message ?? message, status: error.type ?? name, ...more } };
}

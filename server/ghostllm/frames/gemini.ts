/**
 * Gemini's own API as frames: the chunks of a stream, or the one JSON object of a plain answer.
 * Format: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
 * 1. Every chunk is a whole answer of its own. Calls come whole and without a number: theirs is made of what they say, so that the same call has the same one
 *    whenever it is read.
 * 2. There is no mark of the end: an answer is whole when it says why it ended. `CONTINUATION` only ends a hop of it.
 * 3. A seal (`Opaque.data`) is a `GeminiSeal`. Thoughts are block 0 of the reasoning; a seal on text stands behind it as block 1.
 * 4. An end in a word that we do not know, or that says that the answer cannot be used (MALFORMED_FUNCTION_CALL and its like), is `unknown`: a relay passes
 *    it on, everybody else must not take it for a stop.
 * 5. Counts are totals of the request so far. What is 0 is left out there.
 */
import type { FinishReason } from "../../../protocol/chat.ts";
import type { Usage } from "../../../protocol/usage.ts";
import { present } from "../../base/optional.ts";
import type { Frame, StreamEvent } from "../stream.ts";
import { codeOfGemini, readGeminiError } from "./gemini-error.ts";
import { countAt, isRecord, parseRecord, recordAt, recordsAt, stringAt, textAt } from "./json.ts";
import { sseData } from "./sse.ts";

type Json = Readonly<Record<string, unknown>>;

/** A `thoughtSignature` and the part that it stood on; `end`: on a text part without text. */
export interface GeminiSeal {
  readonly signature: string;
  readonly on: "call" | "thought" | "text" | "end";
}

/** @returns undefined for what is no seal of ours */
export function readSeal(data: string): GeminiSeal | undefined {
  const json = parseRecord(data);
  const signature = json === undefined ? undefined : stringAt(json, "signature");
  if (json === undefined || signature === undefined) return undefined;
  const on = (["call", "thought", "text"] as const).find((place) => place === json["on"]);
  return { signature, on: on ?? "end" };
}

const sealText = (seal: GeminiSeal): string => JSON.stringify(seal);

/** A run of whole frames whose events are parsed when first asked for. */
export function geminiFrame(bytes: Buffer): Frame {
  let events: readonly StreamEvent[] | undefined;
  return { dialect: "gemini", bytes, events: () => (events ??= decodeGemini(bytes)) };
}

const OPEN_BRACE = 0x7b;
const isPlain = (bytes: Buffer) => bytes[0] === OPEN_BRACE;
const chunkTexts = (bytes: Buffer) => (isPlain(bytes) ? [bytes.toString("utf8")] : sseData(bytes));

interface Draft {
  readonly events: StreamEvent[];
  calls: number;
  isEnded: boolean;
}

/**
 * The events in a run of whole SSE frames or in one JSON answer:
 * `data: {"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"index":0}]}\r\n\r\n` → `[{kind: "text", text: "Hi"}]`.
 * A frame that is not JSON yields an `error` event: the answer cannot be trusted from there on.
 */
export function decodeGemini(bytes: Buffer): readonly StreamEvent[] {
  const draft: Draft = { events: [], calls: 0, isEnded: false };
  for (const text of chunkTexts(bytes)) {
    const chunk = parseRecord(text);
    if (chunk === undefined) {
      fail(draft, `the server sent something that is no part of an answer: ${text.slice(0, 120)}`);
      return draft.events;
    }
    addChunk(draft, chunk);
  }
  if (isPlain(bytes) && !draft.isEnded) fail(draft, "the server's answer does not say why it ended");
  return draft.events;
}

/** Whether a hop's end is among these frames (2). */
export function endsHop(bytes: Buffer): boolean {
  // A call's arguments may hold the word, too; then it is looked at more closely.
  return bytes.includes('"finishReason"') && chunkTexts(bytes).some((text) => finishWord(text) !== undefined);
}

function finishWord(text: string): string | undefined {
  const chunk = parseRecord(text);
  return chunk === undefined ? undefined : stringAt(candidateOf(chunk), "finishReason");
}

/** Why the answer ended, in the server's own words: `MALFORMED_FUNCTION_CALL (print(1))`. */
export function endWords(bytes: Buffer): string {
  const candidates = chunkTexts(bytes).map((text) => candidateOf(parseRecord(text) ?? {}));
  const last = candidates.findLast((candidate) => stringAt(candidate, "finishReason") !== undefined) ?? {};
  const said = textAt(last, "finishMessage");
  return `${textAt(last, "finishReason")}${said === "" ? "" : ` (${said.slice(0, 300)})`}`;
}

/** The last token in these frames by which the answer goes on, and whether anything of the answer came behind it. */
export function continuationIn(bytes: Buffer): { readonly token: string; readonly isLast: boolean } | undefined {
  if (!bytes.includes('"continuationToken"')) return undefined;
  let found: { readonly token: string; readonly isLast: boolean } | undefined;
  for (const text of chunkTexts(bytes)) {
    const chunk = parseRecord(text) ?? {};
    const token = stringAt(candidateOf(chunk), "continuationToken");
    if (token !== undefined) found = { token, isLast: true };
    else if (found !== undefined && decodeGemini(Buffer.from(`data: ${text}`)).some(isContent))
      found = { ...found, isLast: false };
  }
  return found;
}

/** Part of what the model says. */
export function isContent({ kind }: StreamEvent): boolean {
  return kind === "text" || kind === "reasoning" || kind === "toolCall";
}

/** Only one is ever asked for. */
const candidateOf = (chunk: Json): Json => recordsAt(chunk, "candidates")[0] ?? {};

function addChunk(draft: Draft, chunk: Json): void {
  const error = readGeminiError(chunk);
  if (error !== undefined) {
    const { word, reason, retryAfterMs } = error;
    const message = error.message === "" ? "the server reported an error" : error.message;
    const details = { ...present("status", word === "" ? undefined : word), ...present("reason", reason) };
    const code = codeOfGemini(error);
    draft.isEnded = true;
    draft.events.push({ kind: "error", error: { code, message, details, ...present("retryAfterMs", retryAfterMs) } });
    return;
  }
  const candidate = candidateOf(chunk);
  for (const part of recordsAt(recordAt(candidate, "content"), "parts")) addPart(draft, part);
  addUsage(draft, chunk["usageMetadata"]);
  addBlock(draft, recordAt(chunk, "promptFeedback"));
  addFinish(draft, candidate);
}

function addPart(draft: Draft, part: Json): void {
  const { events } = draft;
  const { functionCall, text, thoughtSignature } = part;
  const signature = typeof thoughtSignature === "string" && thoughtSignature !== "" ? thoughtSignature : undefined;
  if (isRecord(functionCall)) {
    const { args } = functionCall;
    const [callId, name] = [stringAt(functionCall, "id"), textAt(functionCall, "name")];
    const given = JSON.stringify(isRecord(args) ? args : {});
    events.push({
      kind: "toolCall",
      index: numberOf(callId ?? `${draft.calls} ${name} ${given}`),
      ...present("callId", callId),
      name,
      arguments: given,
      isWhole: true,
      ...(signature === undefined ? {} : { opaque: sealText({ signature, on: "call" }) }),
    });
    draft.calls += 1;
    return;
  }
  const said = typeof text === "string" ? text : "";
  if (part["thought"] === true) {
    const seal = signature === undefined ? {} : { opaque: sealText({ signature, on: "thought" }) };
    if (said !== "" || signature !== undefined) events.push({ kind: "reasoning", text: said, block: 0, ...seal });
    return;
  }
  if (said !== "") events.push({ kind: "text", text: said });
  if (signature === undefined) return;
  const opaque = sealText({ signature, on: said === "" ? "end" : "text" });
  events.push({ kind: "reasoning", text: "", block: 1, opaque });
}

/** (1): FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/), 31 bits of it. */
function numberOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 1;
}

/** (5) */
function addUsage({ events }: Draft, usage: unknown): void {
  if (!isRecord(usage)) return;
  const candidates = countAt(usage, "candidatesTokenCount");
  const thoughts = countAt(usage, "thoughtsTokenCount");
  const isSaid = candidates !== undefined || thoughts !== undefined;
  const counts: Usage = {
    ...present("promptTokens", countAt(usage, "promptTokenCount")),
    ...(isSaid ? { completionTokens: (candidates ?? 0) + (thoughts ?? 0) } : {}),
    ...present("cachedTokens", countAt(usage, "cachedContentTokenCount")),
    ...present("reasoningTokens", thoughts),
  };
  if (Object.keys(counts).length > 0) events.push({ kind: "usage", usage: counts });
}

/** The prompt was refused: then there is no candidate at all. */
function addBlock(draft: Draft, feedback: Json): void {
  const reason = stringAt(feedback, "blockReason");
  if (reason === undefined || reason === "BLOCK_REASON_UNSPECIFIED") return;
  const said = textAt(feedback, "blockReasonMessage");
  const message = `the prompt was refused: ${reason}${said === "" ? "" : ` (${said})`}`;
  draft.isEnded = true;
  draft.events.push({ kind: "error", error: { code: "upstream_filtered", message, details: { reason } } });
}

const FINISHES: ReadonlyMap<string, FinishReason> = new Map([
  ["STOP", "stop"],
  ["MAX_TOKENS", "length"],
  ["SAFETY", "contentFilter"],
  ["RECITATION", "contentFilter"],
  ["BLOCKLIST", "contentFilter"],
  ["PROHIBITED_CONTENT", "contentFilter"],
  ["SPII", "contentFilter"],
]);

function addFinish(draft: Draft, candidate: Json): void {
  const word = stringAt(candidate, "finishReason");
  if (word === undefined) return;
  draft.isEnded = true;
  if (word === "CONTINUATION") return;
  draft.events.push({ kind: "finish", reason: FINISHES.get(word) ?? "unknown" });
}

function fail(draft: Draft, message: string): void {
  draft.isEnded = true;
  draft.events.push({ kind: "error", error: { code: "upstream_failed", message, details: {} } });
}

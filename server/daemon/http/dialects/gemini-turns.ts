/**
 * The `contents` of Gemini's requests, checked and made canonical. Pure.
 * Format: https://ai.google.dev/api/caching#Content
 * 1. Results of tools come before the other parts of a user's turn, in one message of the role `tool`. A result belongs to the call with its id, else to
 *    the first open call of its name, else to the first that is open.
 * 2. Calls without ids get some by their place, the same in every request of a conversation.
 * 3. Turns of the model that follow each other are one: some clients send a stream's pieces back as turns of their own. Pieces of text, and of thinking,
 *    are put together.
 * 4. A part that no other maker's model can be shown is named (`survey`), never lost in silence: `carriage.ts` decides.
 */
import { z } from "zod";
import type { Message, Part } from "../../../ghostllm/stream.ts";
import { openSignature } from "./gemini-seal.ts";
import { protoMessage } from "./gemini-tools.ts";

const blob = protoMessage({ mimeType: z.string(), data: z.string() });
const fileData = protoMessage({ fileUri: z.string() });
const responsePart = protoMessage({ inlineData: blob.nullish(), fileData: fileData.nullish() });
const call = z.looseObject({
  id: z.string().nullish(),
  name: z.string().min(1),
  args: z.record(z.string(), z.unknown()).nullish(),
});
const response = z.looseObject({
  id: z.string().nullish(),
  name: z.string().nullish(),
  response: z.record(z.string(), z.unknown()).nullish(),
  parts: z.array(responsePart).nullish(),
});
const partShape = {
  text: z.string().nullish(),
  thought: z.boolean().nullish(),
  thoughtSignature: z.string().nullish(),
  inlineData: blob.nullish(),
  fileData: fileData.nullish(),
  functionCall: call.nullish(),
  functionResponse: response.nullish(),
  /** Of Google's own code tool, in earlier turns: other models are told in words. */
  executableCode: z.looseObject({ language: z.string().nullish(), code: z.string() }).nullish(),
  codeExecutionResult: z.looseObject({ outcome: z.string().nullish(), output: z.string().nullish() }).nullish(),
};
const partSchema = protoMessage(partShape);
const PART_KINDS = [
  "text",
  "inlineData",
  "fileData",
  "functionCall",
  "functionResponse",
  "executableCode",
  "codeExecutionResult",
] as const;
const PART_FIELDS: ReadonlySet<string> = new Set(Object.keys(partShape));

export const contentSchema = z.looseObject({
  role: z.enum(["user", "model", "function"]).nullish(),
  parts: z.array(partSchema).nullish(),
});
export type Content = z.infer<typeof contentSchema>;
type WirePart = z.infer<typeof partSchema>;
type WireResponse = z.infer<typeof response>;
type WireBlob = z.infer<typeof blob>;

export interface Survey {
  readonly hasImages: boolean;
  readonly hasFiles: boolean;
  readonly extras: Readonly<Record<string, unknown>>;
}

/** (4) */
export function survey(contents: readonly Content[]): Survey {
  let hasImages = false;
  let hasFiles = false;
  const extras: Record<string, unknown> = {};
  const seeBlob = ({ mimeType }: WireBlob): void => {
    if (isImage(mimeType)) hasImages = true;
    else hasFiles = true;
    const medium = /^(audio|video)\//.exec(mimeType)?.[1];
    if (medium !== undefined) extras[medium] = true;
  };
  for (const part of contents.flatMap(({ parts }) => parts ?? [])) {
    const { inlineData, fileData: file, functionResponse } = part;
    if (isGiven(inlineData)) seeBlob(inlineData);
    if (isGiven(file)) extras["fileData"] = true;
    for (const inner of functionResponse?.parts ?? []) {
      if (isGiven(inner.inlineData) && isImage(inner.inlineData.mimeType)) hasImages = true;
      else if (isGiven(inner.inlineData)) extras["files in tool results"] = true;
      if (isGiven(inner.fileData)) extras["fileData"] = true;
    }
    const others = Object.keys(part).filter((key) => !PART_FIELDS.has(key) && isGiven(part[key]));
    const isKnown = PART_KINDS.some((kind) => isGiven(part[kind]));
    if (isKnown) for (const key of others) extras[`parts.${key}`] = true;
    else if (others.length > 0) extras["parts of other kinds"] = others.join(", ");
  }
  return { hasImages, hasFiles, extras };
}

const isGiven = <Value>(value: Value | null | undefined): value is Value => value !== null && value !== undefined;
const isImage = (mimeType: string) => mimeType.startsWith("image/");

interface OpenCall {
  readonly id: string;
  readonly name: string;
}
interface Turn {
  readonly role: Message["role"];
  readonly parts: Part[];
}
interface Draft {
  readonly turns: Turn[];
  /** Calls without a result so far. */
  readonly open: OpenCall[];
  calls: number;
  /** The last part is thinking without an end so far (3). */
  isThinking: boolean;
}

export function toMessages(system: Content | null | undefined, contents: readonly Content[]): readonly Message[] {
  const draft: Draft = { turns: [], open: [], calls: 0, isThinking: false };
  const instructions = (system?.parts ?? []).flatMap(({ text }) => (isGiven(text) && text !== "" ? [text] : []));
  // Other servers' templates run parts together.
  if (instructions.length > 0) {
    draft.turns.push({ role: "system", parts: [{ kind: "text", text: instructions.join("\n\n") }] });
  }
  for (const { role, parts } of contents) {
    if (role === "model") addModelTurn(draft, parts ?? []);
    else addUserTurn(draft, parts ?? []);
  }
  return draft.turns.filter(({ role, parts }) => role === "user" || parts.length > 0);
}

function addUserTurn(draft: Draft, parts: readonly WirePart[]): void {
  const results = parts.flatMap(({ functionResponse }) =>
    isGiven(functionResponse) ? [toResult(draft, functionResponse)] : [],
  );
  const rest = parts.flatMap(userParts);
  if (results.length > 0) draft.turns.push({ role: "tool", parts: results });
  if (rest.length > 0 || results.length === 0) draft.turns.push({ role: "user", parts: rest });
}

function userParts(part: WirePart): readonly Part[] {
  const { text, inlineData, thought } = part;
  if (isGiven(inlineData)) return [mediaPart(inlineData)];
  const said = thought === true ? "" : (text ?? "") + codeText(part);
  return said === "" ? [] : [{ kind: "text", text: said }];
}

function mediaPart(data: WireBlob): Part {
  const url = dataUrl(data);
  const { mimeType, displayName } = data;
  if (isImage(mimeType)) return { kind: "image", url };
  return { kind: "file", url, mediaType: mimeType, ...(typeof displayName === "string" ? { name: displayName } : {}) };
}

/** Google takes both alphabets of base64; others take the common one. */
function dataUrl({ mimeType, data }: WireBlob): string {
  return `data:${mimeType};base64,${/[-_]/.test(data) ? data.replace(/-/g, "+").replace(/_/g, "/") : data}`;
}

function codeText({ executableCode, codeExecutionResult }: WirePart): string {
  if (isGiven(executableCode))
    return `\n\`\`\`${(executableCode.language ?? "").toLowerCase()}\n${executableCode.code}\n\`\`\`\n`;
  return isGiven(codeExecutionResult) ? `\n\`\`\`\n${codeExecutionResult.output ?? ""}\n\`\`\`\n` : "";
}

function toResult(draft: Draft, result: WireResponse): Part {
  const inner = (result.parts ?? []).flatMap(({ inlineData }) => (isGiven(inlineData) ? [inlineData] : []));
  const images = inner.filter(({ mimeType }) => isImage(mimeType)).map(dataUrl);
  const { text, isError } = resultText(result.response ?? {});
  const documents = inner.length > images.length ? ["[a document that cannot be shown here]"] : [];
  return {
    kind: "toolResult",
    callId: answeredCall(draft, result),
    text: [...(text === "" && documents.length > 0 ? [] : [text]), ...documents].join("\n"),
    ...(isError ? { isError } : {}),
    ...(images.length === 0 ? {} : { images }),
  };
}

/** `output` and `error` have a meaning of their own; anything else is all of the result. */
function resultText(given: Readonly<Record<string, unknown>>): { readonly text: string; readonly isError: boolean } {
  const [only, ...more] = Object.keys(given);
  const value = only === undefined ? undefined : given[only];
  if (more.length === 0 && (only === "output" || only === "error"))
    return { text: typeof value === "string" ? value : JSON.stringify(value), isError: only === "error" };
  return { text: only === undefined ? "" : JSON.stringify(given), isError: false };
}

/** (1) */
function answeredCall({ open }: Draft, { id, name }: WireResponse): string {
  const byId = isGiven(id) ? open.findIndex((entry) => entry.id === id) : -1;
  const byName = byId >= 0 ? byId : open.findIndex((entry) => entry.name === name);
  const at = byName >= 0 || isGiven(id) ? byName : open.length > 0 ? 0 : -1;
  const [found] = at < 0 ? [] : open.splice(at, 1);
  return found?.id ?? id ?? name ?? "";
}

function addModelTurn(draft: Draft, parts: readonly WirePart[]): void {
  const last = draft.turns.at(-1);
  const turn: Turn = last?.role === "assistant" ? last : { role: "assistant", parts: [] };
  if (turn !== last) {
    draft.turns.push(turn);
    draft.isThinking = false;
    // What was not answered before the model spoke again is never answered.
    draft.open.length = 0;
  }
  for (const part of parts) addModelPart(draft, turn.parts, part);
}

function addModelPart(draft: Draft, parts: Part[], part: WirePart): void {
  const { functionCall, thought, text, thoughtSignature, inlineData } = part;
  if (isGiven(functionCall)) {
    draft.isThinking = false;
    parts.push(toCall(draft, part, functionCall));
    return;
  }
  if (thought === true) return addThought(draft, parts, part);
  const said = (text ?? "") + codeText(part);
  if (said !== "") addText(draft, parts, said);
  if (isGiven(inlineData)) parts.push(mediaPart(inlineData));
  const seal = openSignature(thoughtSignature, said === "" ? "end" : "text");
  if (seal === undefined) return;
  draft.isThinking = false;
  parts.push({ kind: "reasoning", text: seal.hidden, opaque: seal.opaque });
}

function toCall(draft: Draft, part: WirePart, { id, name, args }: z.infer<typeof call>): Part {
  const callId = isGiven(id) && id !== "" ? id : `call_gemini_${draft.calls}`;
  draft.calls += 1;
  draft.open.push({ id: callId, name });
  const opaque = openSignature(part.thoughtSignature, "call")?.opaque;
  return {
    kind: "toolCall",
    callId,
    name,
    arguments: JSON.stringify(args ?? {}),
    ...(opaque === undefined ? {} : { opaque }),
  };
}

function addThought(draft: Draft, parts: Part[], { text, thoughtSignature }: WirePart): void {
  const opaque = openSignature(thoughtSignature, "thought")?.opaque;
  const said = text ?? "";
  if (said === "" && opaque === undefined) return;
  const last = parts.at(-1);
  const isMore = draft.isThinking && last?.kind === "reasoning";
  const thought = `${isMore ? last.text : ""}${said}`;
  parts.splice(isMore ? -1 : parts.length, isMore ? 1 : 0, {
    kind: "reasoning",
    text: thought,
    ...(opaque === undefined ? {} : { opaque }),
  });
  draft.isThinking = opaque === undefined;
}

function addText(draft: Draft, parts: Part[], text: string): void {
  draft.isThinking = false;
  const last = parts.at(-1);
  if (last?.kind === "text") parts.splice(-1, 1, { kind: "text", text: last.text + text });
  else parts.push({ kind: "text", text });
}

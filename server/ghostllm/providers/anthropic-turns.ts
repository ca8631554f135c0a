/**
 * A canonical conversation as Anthropic's Messages take it. Pure.
 * 1. The results of one assistant turn stand in the one user turn behind it, before everything else, one for each call; what has no call left is text.
 * 2. Equal roles never follow each other, no block is empty, and the first turn is the user's.
 * 3. The same beginning of a conversation always gives the same turns: a prompt cache and signed thinking hang on it.
 * 4. Thinking of our own maker goes back as it came; that of others, and what is not sealed, is left out: no Claude could read it.
 */
import { percentDecoded } from "./data-url.ts";
import { createHash } from "node:crypto";
import { UserError } from "../../base/errors.ts";
import { present } from "../../base/optional.ts";
import { readSeal } from "../frames/anthropic.ts";
import { parseRecord } from "../frames/json.ts";
import type { Message, Part } from "../stream.ts";

export interface TextBlock {
  readonly type: "text";
  readonly text: string;
}
type ImageBlock = { readonly type: "image"; readonly source: object };
interface ResultBlock {
  readonly type: "tool_result";
  readonly tool_use_id: string;
  readonly content?: string | readonly (TextBlock | ImageBlock)[];
  readonly is_error?: true;
}
type ThinkingBlock =
  | { readonly type: "thinking"; readonly thinking: string; readonly signature: string }
  | { readonly type: "redacted_thinking"; readonly data: string };
type Block =
  | TextBlock
  | ImageBlock
  | ResultBlock
  | ThinkingBlock
  | { readonly type: "document"; readonly source: object; readonly title?: string }
  | { readonly type: "tool_use"; readonly id: string; readonly name: string; readonly input: object };

export interface Turn {
  readonly role: "user" | "assistant" | "system";
  readonly content: readonly Block[];
}

export interface TurnOptions {
  /** Whose seals can be read again. */
  readonly maker: string;
  readonly takesSystemTurns: boolean;
  /** The last turn may be the model's own. */
  readonly takesPrefill: boolean;
  readonly wireName: (call: { readonly name: string; readonly namespace?: string | undefined }) => string;
  /** A seal that was refused before: its thinking stays out, so that what was thought after it stays valid. */
  readonly isRefused: (seal: string) => boolean;
  /** Said by the system behind everything else: for what the API has no field. */
  readonly closing: readonly string[];
}

export interface Conversation {
  readonly system: readonly TextBlock[];
  readonly turns: readonly Turn[];
  /** What could not be told, by name. */
  readonly dropped: readonly string[];
}

export function toTurns(messages: readonly Message[], options: TurnOptions): Conversation {
  const first = messages.findIndex(({ role }) => !isSystem(role));
  // Somebody has to say something: without a user, the last instruction is what is asked.
  const end = first === -1 ? messages.length - 1 : first;
  const draft: Draft = { options, turns: [], calls: new Map(), seen: new Map(), dropped: new Set() };
  for (const [index, message] of messages.slice(Math.max(end, 0)).entries()) {
    addMessage(draft, first === -1 && index === 0 ? { ...message, role: "user" } : message);
  }
  for (const text of options.closing) addSystem(draft, text);
  answerOpenCalls(draft);
  const system = messages.slice(0, Math.max(end, 0)).flatMap(textBlocks);
  return { system, turns: finish(draft), dropped: [...draft.dropped] };
}

/** The name of thinking that was left out because its maker refuses it now. */
export const EARLIER_THINKING = "earlier thinking";

export interface Place {
  readonly turn: number;
  readonly block: number;
}

/** Without thinking from this place on, which a model that binds its thinking to the conversation no longer accepts; and the seals of what went. */
export function withoutThinking(
  turns: readonly Turn[],
  from: Place,
): { readonly turns: readonly Turn[]; readonly seals: readonly string[] } {
  const seals: string[] = [];
  const kept = turns.map(({ role, content }, index) => ({
    role,
    content: content.filter((block, at) => {
      const isBefore = index < from.turn || (index === from.turn && at < from.block);
      if (isBefore || !isThinking(block)) return true;
      seals.push(block.type === "thinking" ? block.signature : block.data);
      return false;
    }),
  }));
  return { turns: merge(kept), seals };
}

/** Whether a model that is told to think by a budget would refuse: its last turn calls tools without thinking before them. */
export function callsWithoutThinking(turns: readonly Turn[]): boolean {
  const last = turns.findLast(({ role }) => role === "assistant")?.content ?? [];
  const [start] = last;
  return last.some(({ type }) => type === "tool_use") && (start === undefined || !isThinking(start));
}

const isThinking = (block: Block): block is ThinkingBlock =>
  block.type === "thinking" || block.type === "redacted_thinking";
const isSystem = (role: Message["role"]) => role === "system" || role === "developer";

interface DraftTurn {
  readonly role: Turn["role"];
  /** They come before the content (1). */
  readonly results: ResultBlock[];
  readonly content: Block[];
}
interface OpenCall {
  readonly wireId: string;
  readonly turn: DraftTurn;
}
interface Draft {
  readonly options: TurnOptions;
  readonly turns: DraftTurn[];
  /** Calls without a result so far, by the id that the conversation has for them. */
  readonly calls: Map<string, OpenCall[]>;
  /** How often each id was used: some makers count anew with each answer, and here no two calls may share one. */
  readonly seen: Map<string, number>;
  readonly dropped: Set<string>;
}

function addMessage(draft: Draft, message: Message): void {
  if (isSystem(message.role)) {
    for (const { text } of textBlocks(message)) addSystem(draft, text);
    return;
  }
  for (const part of message.parts) {
    if (message.role === "assistant") addAssistantPart(draft, part);
    else addUserPart(draft, part);
  }
}

function textBlocks(message: Message): readonly TextBlock[] {
  return message.parts.flatMap((part) => (part.kind === "text" ? textBlock(part.text) : []));
}

/** None for a text of white space only: it would be refused (2). */
function textBlock(text: string): readonly TextBlock[] {
  return text.trim() === "" ? [] : [{ type: "text", text }];
}

function turnOf(draft: Draft, role: Turn["role"]): DraftTurn {
  const last = draft.turns.at(-1);
  if (last?.role === role) return last;
  const turn: DraftTurn = { role, results: [], content: [] };
  draft.turns.push(turn);
  return turn;
}

function addSystem(draft: Draft, text: string): void {
  if (text.trim() === "") return;
  const block: TextBlock = { type: "text", text };
  if (draft.options.takesSystemTurns) turnOf(draft, "system").content.push(block);
  else turnOf(draft, "user").content.push(asUserText(block));
}

/** So that the model can tell it from what the user says. */
function asUserText({ text }: TextBlock): TextBlock {
  return { type: "text", text: `<system>\n${text}\n</system>` };
}

function addAssistantPart(draft: Draft, part: Part): void {
  switch (part.kind) {
    case "text":
      turnOf(draft, "assistant").content.push(...textBlock(part.text));
      return;
    case "toolCall": {
      const turn = turnOf(draft, "assistant");
      const wireId = wireIdOf(draft, part.callId);
      const open = draft.calls.get(part.callId) ?? [];
      draft.calls.set(part.callId, [...open, { wireId, turn }]);
      const name = draft.options.wireName(part);
      turn.content.push({ type: "tool_use", id: wireId, name, input: inputOf(part.arguments) });
      return;
    }
    case "reasoning":
      turnOf(draft, "assistant").content.push(...thinkingBlock(draft, part));
      return;
    case "toolResult":
      addResult(draft, part);
      return;
    case "image":
    case "file":
      // A model's own pictures have no place in its turns.
      draft.dropped.add(`${part.kind}s of the assistant`);
  }
}

function thinkingBlock(draft: Draft, { text, opaque }: Extract<Part, { kind: "reasoning" }>): readonly ThinkingBlock[] {
  const seal = opaque?.maker === draft.options.maker ? readSeal(opaque.data) : undefined;
  if (seal === undefined) return [];
  if (draft.options.isRefused("signature" in seal ? seal.signature : seal.redacted)) {
    draft.dropped.add(EARLIER_THINKING);
    return [];
  }
  return "signature" in seal
    ? [{ type: "thinking", thinking: text, signature: seal.signature }]
    : [{ type: "redacted_thinking", data: seal.redacted }];
}

/** Arguments that are no JSON object were cut, or come from a model that cannot do better: they are shown as they are. */
function inputOf(text: string): object {
  return text.trim() === "" ? {} : (parseRecord(text) ?? { input: text });
}

const CALL_ID = /^[A-Za-z0-9_-]{1,64}$/;
/** Of a hash, in an id that is made up here: far too many for two ids to meet. */
const ID_DIGITS = 32;

/** The id itself where it is allowed and new; else one that is made of it, always the same (3). */
function wireIdOf(draft: Draft, callId: string): string {
  const count = (draft.seen.get(callId) ?? 0) + 1;
  draft.seen.set(callId, count);
  if (count === 1 && CALL_ID.test(callId)) return callId;
  return `call_${createHash("sha256").update(`${count} ${callId}`).digest("hex").slice(0, ID_DIGITS)}`;
}

function addUserPart(draft: Draft, part: Part): void {
  const push = (...blocks: readonly Block[]) => void turnOf(draft, "user").content.push(...blocks);
  switch (part.kind) {
    case "text":
      return push(...textBlock(part.text));
    case "image":
      return push(imageBlock(part.url));
    case "file":
      return push(documentBlock(part));
    case "toolResult":
      return addResult(draft, part);
    case "toolCall":
    case "reasoning": // Nobody but the model calls and thinks.
  }
}

function addResult(draft: Draft, part: Extract<Part, { kind: "toolResult" }>): void {
  const call = draft.calls.get(part.callId)?.shift();
  const images = (part.images ?? []).map(imageBlock);
  if (call === undefined) {
    const text = `<tool_result>\n${part.text}\n</tool_result>`;
    turnOf(draft, "user").content.push({ type: "text", text }, ...images);
    return;
  }
  const turn = turnBehind(draft, call.turn);
  const isError = part.isError === true;
  turn.results.push({
    type: "tool_result",
    tool_use_id: call.wireId,
    ...present("content", resultContent(part, isError ? [] : images)),
    ...(isError ? { is_error: true } : {}),
  });
  // A result that is an error takes text only: its pictures follow it.
  if (isError) turn.content.push(...images);
}

function resultContent({ text, isError }: Extract<Part, { kind: "toolResult" }>, images: readonly ImageBlock[]) {
  if (images.length > 0) return [...textBlock(text), ...images];
  if (text.trim() !== "") return text;
  return isError === true ? "It failed, and said nothing." : undefined;
}

/** The user's turn right behind it, made where there is none. */
function turnBehind(draft: Draft, turn: DraftTurn): DraftTurn {
  const at = draft.turns.indexOf(turn) + 1;
  const next = draft.turns[at];
  if (next?.role === "user") return next;
  const made: DraftTurn = { role: "user", results: [], content: [] };
  draft.turns.splice(at, 0, made);
  return made;
}

/** A call without a result is refused (1): what a client broke off has none. */
function answerOpenCalls(draft: Draft): void {
  for (const { wireId, turn } of [...draft.calls.values()].flat()) {
    const content = "It was broken off: there is no result.";
    turnBehind(draft, turn).results.push({ type: "tool_result", tool_use_id: wireId, content, is_error: true });
  }
}

/** A model that takes no last words of its own is asked to go on. */
function continuation(words: string): TextBlock {
  const end = words.slice(-CONTINUED_CHARACTERS);
  return {
    type: "text",
    text: `Your previous response was interrupted and ended with \`${end}\`. Continue from where you left off.`,
  };
}
/** Enough to find the place again. */
const CONTINUED_CHARACTERS = 40;
const FIRST_WORDS: TextBlock = { type: "text", text: "(The conversation begins with your own words.)" };

function finish(draft: Draft): readonly Turn[] {
  const turns: Turn[] = [];
  for (const { role, results, content } of draft.turns) {
    const blocks = [...results, ...content];
    if (blocks.length === 0) continue;
    const before = turns.at(-1)?.role;
    // The API takes a system's turn behind a user's only.
    if (role === "system" && before !== "user") {
      turns.push({ role: "user", content: blocks.map((block) => (block.type === "text" ? asUserText(block) : block)) });
    } else turns.push({ role, content: blocks });
  }
  const merged = merge(turns);
  const whole: readonly Turn[] =
    merged[0]?.role === "assistant" ? [{ role: "user", content: [FIRST_WORDS] }, ...merged] : merged;
  return whole.at(-1)?.role === "assistant" ? endWithUser(whole, draft.options) : whole;
}

function endWithUser(turns: readonly Turn[], { takesPrefill }: TurnOptions): readonly Turn[] {
  const last = turns.at(-1)?.content.at(-1);
  if (last?.type !== "text") return [...turns, { role: "user", content: [continuation("")] }];
  if (!takesPrefill) return [...turns, { role: "user", content: [continuation(last.text)] }];
  // White space at the end of its own words is refused.
  const trimmed: TextBlock = { type: "text", text: last.text.trimEnd() };
  return turns.with(-1, { role: "assistant", content: (turns.at(-1)?.content ?? []).with(-1, trimmed) });
}

/** (2) */
function merge(turns: readonly Turn[]): readonly Turn[] {
  const merged: Turn[] = [];
  for (const turn of turns) {
    if (turn.content.length === 0) continue;
    const last = merged.at(-1);
    if (last?.role !== turn.role) merged.push(turn);
    else merged[merged.length - 1] = { role: last.role, content: [...last.content, ...turn.content] };
  }
  return merged;
}

/** `data:image/png;base64,AAAA` → its parts; undefined for other addresses. */
function dataUrl(url: string): { readonly mediaType: string; readonly base64: string } | undefined {
  const match = /^data:([^;,]*)((?:;[^;,]*)*),/i.exec(url);
  if (match === null) return undefined;
  const [head, mediaType = "", parameters = ""] = match;
  const data = url.slice(head.length);
  const isBase64 = /;base64$/i.test(parameters);
  const base64 = isBase64 ? data : Buffer.from(percentDecoded(data)).toString("base64");
  return { mediaType: mediaType.toLowerCase(), base64 };
}

const isHttp = (url: string) => /^https?:\/\//i.test(url);

function imageBlock(url: string): ImageBlock {
  const data = dataUrl(url);
  if (data !== undefined) {
    const mediaType = data.mediaType === "image/jpg" ? "image/jpeg" : data.mediaType;
    return { type: "image", source: { type: "base64", media_type: mediaType, data: data.base64 } };
  }
  if (isHttp(url)) return { type: "image", source: { type: "url", url } };
  throw new UserError("invalid_params", `an image is at neither a data: nor an http(s) address: ${url.slice(0, 60)}`);
}

function documentBlock({ url, mediaType, name }: Extract<Part, { kind: "file" }>): Block {
  const title = present("title", name);
  if (isHttp(url)) return { type: "document", source: { type: "url", url }, ...title };
  const data = dataUrl(url);
  const type = data?.mediaType === "" ? mediaType : (data?.mediaType ?? mediaType);
  if (data !== undefined && type.startsWith("image/")) return imageBlock(url);
  if (data !== undefined && type === "application/pdf") {
    return { type: "document", source: { type: "base64", media_type: type, data: data.base64 }, ...title };
  }
  if (data !== undefined && (type.startsWith("text/") || type === "application/json")) {
    const text = Buffer.from(data.base64, "base64").toString("utf8");
    return { type: "document", source: { type: "text", media_type: "text/plain", data: text }, ...title };
  }
  throw new UserError(
    "capability_missing",
    `Claude reads PDF and text, not ${data === undefined ? "files without their data" : type}`,
  );
}

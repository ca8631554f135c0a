/**
 * A canonical conversation as Gemini's `contents` (https://ai.google.dev/api/caching#Content). Pure.
 * 1. The results of one model turn stand in the one user turn behind it, one for each call, with the call's id and its name; what has no call left is text.
 * 2. Equal roles never follow each other, no turn is empty, the first and the last are the user's.
 * 3. The same beginning of a conversation always gives the same turns: the cache hangs on it.
 * 4. Signatures of our own maker go back on the part on which they came, and parts are not merged. A call that another maker's model made gets the
 *    documented placeholder (https://ai.google.dev/gemini-api/docs/thought-signatures), where the model asks for signatures at all.
 */
import { percentDecoded } from "./data-url.ts";
import { UserError } from "../../base/errors.ts";
import { present } from "../../base/optional.ts";
import { readSeal } from "../frames/gemini.ts";
import { parseRecord } from "../frames/json.ts";
import type { Message, Part } from "../stream.ts";

export interface InlineData {
  readonly inlineData: { readonly mimeType: string; readonly data: string };
}
interface TextPart {
  readonly text: string;
  readonly thought?: true;
  readonly thoughtSignature?: string;
}
interface CallPart {
  readonly functionCall: { readonly id?: string; readonly name: string; readonly args: object };
  readonly thoughtSignature?: string;
}
interface ResponsePart {
  readonly functionResponse: {
    readonly id?: string;
    readonly name: string;
    readonly response: { readonly output: string } | { readonly error: string };
    readonly parts?: readonly InlineData[];
  };
}
export type ContentPart = TextPart | CallPart | ResponsePart | InlineData;
export interface Content {
  readonly role: "user" | "model";
  readonly parts: readonly ContentPart[];
}

/** On a call that no Gemini made. */
export const PLACEHOLDER = "skip_thought_signature_validator";

export interface TurnOptions {
  /** Whose seals go back. */
  readonly maker: string;
  readonly signsCalls: boolean;
  readonly takesResultImages: boolean;
  readonly takesSystem: boolean;
  readonly wireName: (call: { readonly name: string; readonly namespace?: string | undefined }) => string;
  /** Said behind everything else: for what the API has no field. */
  readonly closing: readonly string[];
}

export interface Conversation {
  readonly system: readonly TextPart[];
  readonly contents: readonly Content[];
  /** What could not be told, by name. */
  readonly dropped: readonly string[];
}

export function toContents(messages: readonly Message[], options: TurnOptions): Conversation {
  const draft: Draft = { options, turns: [], calls: new Map(), dropped: new Set() };
  const first = messages.findIndex(({ role }) => !isSystem(role));
  // Somebody has to say something: without a user, the last instruction is what is asked.
  const end = Math.max(first === -1 ? messages.length - 1 : first, 0);
  const system = messages.slice(0, end).flatMap((message) => textsOf(message).map((text) => ({ text })));
  if (!options.takesSystem) for (const { text } of system) addSystem(draft, text);
  for (const [index, message] of messages.slice(end).entries()) {
    addMessage(draft, first === -1 && index === 0 ? { ...message, role: "user" } : message);
  }
  for (const text of options.closing) addSystem(draft, text);
  answerOpenCalls(draft);
  return { system: options.takesSystem ? system : [], contents: finish(draft), dropped: [...draft.dropped] };
}

/** Without earlier signatures, which this model cannot read. */
export function withoutSignatures(contents: readonly Content[]): readonly Content[] {
  return contents.map(({ role, parts }) => {
    const kept = parts.flatMap((part): readonly ContentPart[] => {
      if ("functionCall" in part)
        return [part.thoughtSignature === undefined ? part : { ...part, thoughtSignature: PLACEHOLDER }];
      if (!("text" in part) || part.thoughtSignature === undefined) return [part];
      return part.text === "" || part.thought === true ? [] : [{ text: part.text }];
    });
    return { role, parts: kept.length === 0 ? [{ text: " " }] : kept };
  });
}

const isSystem = (role: Message["role"]) => role === "system" || role === "developer";
const textsOf = ({ parts }: Message) =>
  parts.flatMap((part) => (part.kind === "text" && part.text !== "" ? part.text : []));

interface DraftTurn {
  readonly role: Content["role"];
  /** They come before the other parts (1). */
  readonly results: ResponsePart[];
  readonly parts: ContentPart[];
}
interface OpenCall {
  readonly id: string;
  readonly name: string;
  readonly turn: DraftTurn;
}
interface Draft {
  readonly options: TurnOptions;
  readonly turns: DraftTurn[];
  /** Calls without a result so far, by their id; some makers count anew with each answer. */
  readonly calls: Map<string, OpenCall[]>;
  readonly dropped: Set<string>;
}

function addMessage(draft: Draft, message: Message): void {
  if (isSystem(message.role)) {
    for (const text of textsOf(message)) addSystem(draft, text);
    return;
  }
  for (const part of message.parts) {
    if (message.role === "assistant") addModelPart(draft, part);
    else addUserPart(draft, part);
  }
}

function turnOf(draft: Draft, role: Content["role"]): DraftTurn {
  const last = draft.turns.at(-1);
  if (last?.role === role) return last;
  const turn: DraftTurn = { role, results: [], parts: [] };
  draft.turns.push(turn);
  return turn;
}

/** So that the model can tell it from what the user says. */
function addSystem(draft: Draft, text: string): void {
  if (text.trim() !== "") turnOf(draft, "user").parts.push({ text: `<system>\n${text}\n</system>` });
}

function addModelPart(draft: Draft, part: Part): void {
  switch (part.kind) {
    case "text":
      if (part.text !== "") turnOf(draft, "model").parts.push({ text: part.text });
      return;
    case "reasoning":
      return addThought(draft, part);
    case "toolCall":
      return addCall(draft, part);
    case "toolResult":
      return addResult(draft, part);
    case "image":
    case "file":
      draft.dropped.add(`${part.kind}s of the assistant`);
  }
}

/** What is not sealed by Google is of no use to a model: it is left out. */
function addThought(draft: Draft, { text, opaque }: Extract<Part, { kind: "reasoning" }>): void {
  const seal = opaque?.maker === draft.options.maker ? readSeal(opaque.data) : undefined;
  if (seal === undefined) return;
  const { parts } = turnOf(draft, "model");
  const thoughtSignature = seal.signature;
  const last = parts.at(-1);
  if (seal.on === "thought") parts.push({ text, thought: true, thoughtSignature });
  else if (seal.on === "text" && last !== undefined && "text" in last && last.thoughtSignature === undefined) {
    parts.splice(-1, 1, { ...last, thoughtSignature });
  } else parts.push({ text: "", thoughtSignature });
}

function addCall(draft: Draft, part: Extract<Part, { kind: "toolCall" }>): void {
  const { maker, signsCalls, wireName } = draft.options;
  const turn = turnOf(draft, "model");
  const name = wireName(part);
  const open = draft.calls.get(part.callId) ?? [];
  draft.calls.set(part.callId, [...open, { id: part.callId, name, turn }]);
  const own = part.opaque?.maker === maker ? readSeal(part.opaque.data)?.signature : undefined;
  // Of calls at once only the first is signed (4).
  const isFirst = !turn.parts.some((other) => "functionCall" in other);
  turn.parts.push({
    functionCall: { ...idOf(part.callId), name, args: argumentsOf(part.arguments) },
    ...present("thoughtSignature", own ?? (signsCalls && isFirst ? PLACEHOLDER : undefined)),
  });
}

const idOf = (id: string) => (id === "" ? {} : { id });

/** Arguments that are no JSON object were cut, or come from a model that cannot do better: they are shown as they are. */
function argumentsOf(text: string): object {
  return text.trim() === "" ? {} : (parseRecord(text) ?? { input: text });
}

function addUserPart(draft: Draft, part: Part): void {
  const push = (added: ContentPart) => void turnOf(draft, "user").parts.push(added);
  switch (part.kind) {
    case "text":
      if (part.text !== "") push({ text: part.text });
      return;
    case "image":
      return push(inlineImage(part.url));
    case "file":
      return push(filePart(part));
    case "toolResult":
      return addResult(draft, part);
    case "toolCall":
    case "reasoning": // Nobody but the model calls and thinks.
  }
}

function addResult(draft: Draft, part: Extract<Part, { kind: "toolResult" }>): void {
  const call = draft.calls.get(part.callId)?.shift();
  const images = (part.images ?? []).map(inlineImage);
  if (call === undefined) {
    turnOf(draft, "user").parts.push({ text: `<tool_result>\n${part.text}\n</tool_result>` }, ...images);
    return;
  }
  const isInside = draft.options.takesResultImages && images.length > 0;
  const turn = turnBehind(draft, call.turn);
  turn.results.push({
    functionResponse: {
      ...idOf(call.id),
      name: call.name,
      response: part.isError === true ? { error: part.text } : { output: part.text },
      ...(isInside ? { parts: images } : {}),
    },
  });
  if (!isInside) turn.parts.push(...images);
}

/** The user's turn right behind it, made where there is none. */
function turnBehind(draft: Draft, turn: DraftTurn): DraftTurn {
  const at = draft.turns.indexOf(turn) + 1;
  const next = draft.turns[at];
  if (next?.role === "user") return next;
  const made: DraftTurn = { role: "user", results: [], parts: [] };
  draft.turns.splice(at, 0, made);
  return made;
}

/** A call without a result is refused (1): what a client broke off has none. */
function answerOpenCalls(draft: Draft): void {
  for (const { id, name, turn } of [...draft.calls.values()].flat()) {
    const response = { error: "It was broken off: there is no result." };
    turnBehind(draft, turn).results.push({ functionResponse: { ...idOf(id), name, response } });
  }
}

/** (2) */
function finish(draft: Draft): readonly Content[] {
  const contents: Content[] = [];
  for (const { role, results, parts } of draft.turns) {
    const all = [...results, ...parts];
    if (all.length === 0) continue;
    const last = contents.at(-1);
    if (last?.role === role) contents.splice(-1, 1, { role, parts: [...last.parts, ...all] });
    else contents.push({ role, parts: all });
  }
  if (contents[0]?.role === "model") contents.unshift({ role: "user", parts: [FIRST_WORDS] });
  const last = contents.at(-1);
  if (last?.role === "model") contents.push({ role: "user", parts: [continuation(last)] });
  return contents;
}

const FIRST_WORDS: TextPart = { text: "(The conversation begins with your own words.)" };
/** Enough to find the place again. */
const CONTINUED_CHARACTERS = 40;

/** A model takes no last words of its own: it is asked to go on. */
function continuation({ parts }: Content): TextPart {
  const said = parts.flatMap((part) => ("text" in part && part.thought !== true ? part.text : [])).join("");
  const words = said.slice(-CONTINUED_CHARACTERS);
  return {
    text: `Your previous response was interrupted and ended with \`${words}\`. Continue from where you left off.`,
  };
}

interface DataUrl {
  readonly mimeType: string;
  readonly data: string;
}

/** `data:image/png;base64,AAAA` as its parts. @throws UserError `capability_missing` for other addresses: nothing is fetched for a client */
function dataOf(url: string, what: string): DataUrl {
  const match = /^data:([^;,]*)((?:;[^;,]*)*),/i.exec(url);
  if (match === null) {
    const message = `Gemini is shown ${what} by their data only (data:…;base64,…): nothing is fetched from ${url.slice(0, 60)}`;
    throw new UserError("capability_missing", message, { details: { field: what } });
  }
  const [head, mimeType = "", parameters = ""] = match;
  const data = url.slice(head.length);
  const isBase64 = /;base64$/i.test(parameters);
  return {
    mimeType: mimeType.toLowerCase(),
    data: isBase64 ? data : Buffer.from(percentDecoded(data)).toString("base64"),
  };
}

function inlineImage(url: string): InlineData {
  const { mimeType, data } = dataOf(url, "images");
  return { inlineData: { mimeType: mimeType === "image/jpg" ? "image/jpeg" : mimeType, data } };
}

/** Kinds that Gemini reads by themselves. */
const MEDIA = /^(?:image|audio|video)\/|^application\/pdf$/;
const TEXTS = /^text\/|^application\/(?:json|xml|yaml|x-yaml|toml|javascript|x-sh|sql)$/;

function filePart({ url, mediaType, name }: Extract<Part, { kind: "file" }>): ContentPart {
  const { mimeType, data } = dataOf(url, "files");
  const type = mimeType === "" ? mediaType : mimeType;
  if (MEDIA.test(type)) return { inlineData: { mimeType: type, data } };
  if (TEXTS.test(type)) {
    const title = name === undefined ? "" : ` name=${JSON.stringify(name)}`;
    return { text: `<file${title}>\n${Buffer.from(data, "base64").toString("utf8")}\n</file>` };
  }
  throw new UserError("capability_missing", `Gemini reads PDF, text and media, not ${type}`, {
    details: { field: "files" },
  });
}

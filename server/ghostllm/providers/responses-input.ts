/**
 * A conversation as the items of OpenAI's Responses (https://platform.openai.com/docs/api-reference/responses/create#responses-create-input). Pure.
 * 1. Items come in the order of the parts, whoever's message they are in.
 * 2. A reasoning item is followed by what the model did next: without that it is left out.
 * 3. Every call has its result, and every result its call.
 */
import { createHash } from "node:crypto";
import { present } from "../../base/optional.ts";
import { argumentsOf } from "../frames/answer-fold.ts";
import { isRecord, parseJson } from "../frames/json.ts";
import { readSeal } from "../frames/responses.ts";
import type { Message, Opaque, Part } from "../stream.ts";
import { OPENAI_NAMES, type WireTools } from "../tool-names.ts";
import { withPairedCalls } from "./paired-calls.ts";

export interface InputOptions {
  /** Whose reasoning goes back; undefined: none. */
  readonly maker: string | undefined;
  /** Free-form tools are called as such. */
  readonly takesCustom: boolean;
  readonly instructionRole: "developer" | "system";
  readonly wireName: WireTools["wireName"];
}

interface Item {
  readonly type: string;
  readonly role?: string;
}

const item = (type: string, fields: object): Item => ({ type, ...fields });

export function inputItems(messages: readonly Message[], options: InputOptions): readonly object[] {
  const writer = new ItemWriter(options);
  for (const message of withPairedCalls(messages)) {
    for (const part of message.parts) writer.add(message.role, part);
    writer.endMessage();
  }
  const { items } = writer;
  return items.filter(({ type }, index) => type !== "reasoning" || isFollowed(items, index));
}

export function isPlainName(name: string): boolean {
  return name.length <= OPENAI_NAMES.maxLength && OPENAI_NAMES.allowed.test(name);
}

/** (2) */
function isFollowed(items: readonly Item[], index: number): boolean {
  const next = items.slice(index + 1).find(({ type }) => type !== "reasoning");
  return next?.role === "assistant" || next?.type === "function_call" || next?.type === "custom_tool_call";
}

class ItemWriter {
  readonly items: Item[] = [];
  readonly #options: InputOptions;
  /** Calls of free-form tools: their results have a type of their own. */
  readonly #customCalls = new Set<string>();
  /** The message that is being filled. */
  #open: { readonly role: string; readonly texts: string[]; readonly others: object[] } | undefined;
  /** Of the model's next message. */
  #phase: string | undefined;

  constructor(options: InputOptions) {
    this.#options = options;
  }

  add(role: Message["role"], part: Part): void {
    switch (part.kind) {
      case "text":
        return this.#say(this.#roleOf(role), part.text);
      case "image":
        return this.#show(imagePart(part.url));
      case "file":
        return this.#show(filePart(part));
      case "reasoning":
        return this.#replay(part.text, part.opaque);
      case "toolCall":
        return this.#call(part);
      case "toolResult":
        return this.#result(part);
    }
  }

  endMessage(): void {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined) return;
    const { role, texts, others } = open;
    const phase = role === "assistant" ? this.#phase : undefined;
    this.#phase = undefined;
    const isText = others.length === 0 && (role === "assistant" || texts.length === 1);
    const content = isText ? texts.join("") : others;
    this.items.push(item("message", { role, content, ...present("phase", phase) }));
  }

  #roleOf(role: Message["role"]): string {
    if (role === "system" || role === "developer") return this.#options.instructionRole;
    return role === "assistant" ? role : "user";
  }

  #say(role: string, text: string): void {
    if (text === "") return;
    const { texts, others } = this.#openAs(role);
    // Parts are written out as soon as a message has more than one text of a model, or one of anybody else.
    if (others.length > 0) others.push(textPart(text));
    else if (role === "assistant" || texts.length === 0) texts.push(text);
    else others.push(...texts.map(textPart), textPart(text));
  }

  /** Models say text only: what else stands in their messages is shown to them as the user's. */
  #show(part: object): void {
    const { texts, others } = this.#openAs("user");
    if (others.length === 0) others.push(...texts.map(textPart));
    others.push(part);
  }

  #openAs(role: string): { readonly texts: string[]; readonly others: object[] } {
    if (this.#open !== undefined && this.#open.role !== role) this.endMessage();
    this.#open ??= { role, texts: [], others: [] };
    return this.#open;
  }

  #push(type: string, fields: object): void {
    this.endMessage();
    this.#phase = undefined;
    this.items.push(item(type, fields));
  }

  #replay(text: string, opaque: Opaque | undefined): void {
    if (opaque === undefined || opaque.maker !== this.#options.maker) return;
    const seal = readSeal(opaque.data);
    if (seal === undefined) return;
    this.endMessage();
    if (seal.kind === "phase") {
      this.#phase = seal.phase;
      return;
    }
    const parts = seal.summary ?? (text === "" ? [] : [text]);
    this.#push("reasoning", {
      ...(seal.id === "" ? {} : { id: seal.id }),
      summary: parts.map((part) => ({ type: "summary_text", text: part })),
      encrypted_content: seal.encryptedContent,
    });
  }

  #call(part: Extract<Part, { kind: "toolCall" }>): void {
    const call_id = wireCallId(part.callId);
    const isNative =
      part.isCustom === true && this.#options.takesCustom && part.namespace === undefined && isPlainName(part.name);
    if (isNative) {
      this.#customCalls.add(part.callId);
      this.#push("custom_tool_call", { call_id, name: part.name, input: inputOf(part.arguments) });
      return;
    }
    const name = this.#options.wireName(part);
    this.#push("function_call", { call_id, name, arguments: argumentsOf(part.arguments) });
  }

  #result({ callId, text, isError, images = [] }: Extract<Part, { kind: "toolResult" }>): void {
    const isCustom = this.#customCalls.has(callId);
    // There is no field for it: the words say it.
    const said = isError === true && !/^\W*error/i.test(text) ? `Error: ${text}` : text;
    const output = images.length === 0 ? said : [...(said === "" ? [] : [textPart(said)]), ...images.map(imagePart)];
    const type = isCustom ? "custom_tool_call_output" : "function_call_output";
    this.#push(type, { call_id: wireCallId(callId), output });
  }
}

const textPart = (text: string) => ({ type: "input_text", text });
const imagePart = (url: string) => ({ type: "input_image", image_url: url, detail: "auto" });

function filePart({ url, mediaType, name }: Extract<Part, { kind: "file" }>): object {
  if (!url.startsWith("data:")) return { type: "input_file", file_url: url };
  const filename = name ?? `document.${mediaType.split("/").at(-1) ?? "pdf"}`;
  return { type: "input_file", filename, file_data: url };
}

/** The text of a free-form tool's call; what is no such JSON stands as it is. */
function inputOf(json: string): string {
  const value = parseJson(argumentsOf(json));
  return isRecord(value) && typeof value["input"] === "string" ? value["input"] : json;
}

const CALL_ID = /^[A-Za-z0-9_-]{1,64}$/;
/** Hex digits of a hash that keep encoded ids apart. */
const SUFFIX_LENGTH = 16;

/** Ids of other providers' calls, as OpenAI takes them; the same one always gets the same. */
function wireCallId(callId: string): string {
  if (CALL_ID.test(callId)) return callId;
  const suffix = createHash("sha256").update(callId).digest("hex").slice(0, SUFFIX_LENGTH);
  return `${callId.replace(/[^A-Za-z0-9_-]/g, "_").slice(0, 64 - SUFFIX_LENGTH - 1)}_${suffix}`;
}

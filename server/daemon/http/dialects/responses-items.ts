/**
 * The items of OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses/create#responses-create-input) as canonical messages. Pure.
 * 1. Calls and results are paired by `call_id`, never by an item's own id: clients leave ids out, or make their own.
 * 2. What stands between two messages of others is one message of the assistant: its thinking, its text and its calls, in their order.
 * 3. What has no canonical form is named in `extras`, so that it is refused or reported where it cannot be relayed.
 */
import { z } from "zod";
import { present } from "../../../base/optional.ts";
import { parseJson } from "../../../ghostllm/frames/json.ts";
import { OPAQUE_MARK, openOpaque, sealOpaque } from "../../../ghostllm/frames/opaque.ts";
import { SUMMARY_GAP } from "../../../ghostllm/frames/responses.ts";
import type { Message, Opaque, Part } from "../../../ghostllm/stream.ts";
import { checkValue } from "./chat-facts.ts";

const partSchema = z.looseObject({
  type: z.string(),
  text: z.string().nullish(),
  refusal: z.string().nullish(),
  image_url: z.union([z.string(), z.looseObject({ url: z.string() })]).nullish(),
  file_id: z.string().nullish(),
  file_data: z.string().nullish(),
  file_url: z.string().nullish(),
  filename: z.string().nullish(),
});
const contentSchema = z.union([z.string(), z.array(partSchema)]);
type Content = z.infer<typeof contentSchema>;

const messageSchema = z.looseObject({
  role: z.enum(["user", "assistant", "system", "developer"]),
  content: contentSchema,
  phase: z.string().nullish(),
});
const callId = z.string().min(1).max(256);
const callSchema = z.looseObject({
  call_id: callId,
  name: z.string().min(1),
  arguments: z.string(),
  namespace: z.string().nullish(),
});
const customCallSchema = z.looseObject({
  call_id: callId,
  name: z.string().min(1),
  input: z.string(),
  namespace: z.string().nullish(),
});
const outputSchema = z.looseObject({ call_id: callId, output: contentSchema });
const reasoningSchema = z.looseObject({
  id: z.string().nullish(),
  summary: z.array(z.looseObject({ text: z.string() })).nullish(),
  content: z.array(z.looseObject({ text: z.string() })).nullish(),
  encrypted_content: z.string().nullish(),
});
/** Tools that the client offers from this place on. */
const toolsSchema = z.looseObject({ tools: z.array(z.unknown()) });
const compactionSchema = z.looseObject({ encrypted_content: z.string() });
const otherSchema = z.looseObject({
  type: z.string().nullish(),
  id: z.string().nullish(),
  role: z.unknown().optional(),
  call_id: z.string().nullish(),
});
const callSealSchema = z.object({ callId: z.string(), opaque: z.string() });
const summarySchema = z.object({ summary: z.string() });

/** The maker of our own compaction items: every model reads them, as text. */
const COMPACTION_MAKER = "ghost-compaction";
/** Reasoning that is not sealed by us is OpenAI's own; `Opaque.data` of it is the JSON of a `ResponsesSeal`. */
const OPENAI_MAKER = "openai";

/** Items of tools that run on the provider's side: without them the conversation still reads. What is not named here or above is refused. */
const DROPPABLE_ITEMS: readonly string[] = [
  "web_search_call",
  "file_search_call",
  "code_interpreter_call",
  "image_generation_call",
  "mcp_list_tools",
  "tool_search_call",
  "tool_search_output",
  "configuration_update",
];

type Entry =
  | { readonly kind: "message"; readonly message: Message }
  /** Of the assistant's turn that is going on. */
  | { readonly kind: "assistant"; readonly parts: readonly Part[] }
  /** What the maker of a call wants back with it. */
  | { readonly kind: "seal"; readonly callId: string; readonly opaque: Opaque };

export interface ReadItems {
  messages(): readonly Message[];
  readonly hasImages: boolean;
  readonly hasFiles: boolean;
  /** The `call_id` of a result whose call is not among the items. */
  readonly unmatched: string | undefined;
  /** Offered by an item, as the client wrote them. */
  readonly tools: readonly unknown[];
  /** Some items are only named, by their ids: they must be put in their places first. */
  readonly hasReferences: boolean;
  /** Its last item asks for a compaction of all others. */
  readonly isCompaction: boolean;
  readonly extras: Readonly<Record<string, unknown>>;
  /** Holds thinking that only another maker's model, or nobody, can read. */
  readonly isForeign: boolean;
}

/** @throws UserError `invalid_params` with the item's place */
export function readItems(input: string | readonly unknown[]): ReadItems {
  const reader = new ItemReader();
  if (typeof input === "string") reader.read({ role: "user", content: input }, 0);
  else for (const [index, item] of input.entries()) reader.read(item, index);
  return reader.result(typeof input === "string" ? undefined : input.at(-1));
}

class ItemReader {
  readonly #entries: Entry[] = [];
  readonly #calls = new Set<string>();
  readonly #results: string[] = [];
  readonly #extras: Record<string, unknown> = {};
  readonly #tools: unknown[] = [];
  #hasImages = false;
  #hasFiles = false;
  #isForeign = false;
  #hasReferences = false;

  read(value: unknown, index: number): void {
    const place = `input.${index}`;
    const { type, role, id } = checkValue(otherSchema, value, place);
    if (type === "item_reference" || (!type && role === undefined && id !== undefined)) {
      this.#hasReferences = true;
      return;
    }
    switch (type) {
      case undefined:
      case null:
      case "message":
        return this.#message(checkValue(messageSchema, value, place));
      case "function_call": {
        const { call_id, name, namespace, arguments: text } = checkValue(callSchema, value, place);
        return this.#call({
          kind: "toolCall",
          callId: call_id,
          name,
          arguments: text,
          ...present("namespace", namespace),
        });
      }
      case "custom_tool_call": {
        const { call_id, name, namespace, input } = checkValue(customCallSchema, value, place);
        const text = JSON.stringify({ input });
        const call = { kind: "toolCall", callId: call_id, name, arguments: text, isCustom: true } as const;
        return this.#call({ ...call, ...present("namespace", namespace) });
      }
      case "function_call_output":
      case "custom_tool_call_output":
        return this.#output(checkValue(outputSchema, value, place));
      case "reasoning":
        return this.#reasoning(checkValue(reasoningSchema, value, place));
      case "additional_tools":
        this.#tools.push(...checkValue(toolsSchema, value, place).tools);
        return;
      case "compaction":
        return this.#compaction(checkValue(compactionSchema, value, place));
      default:
        return this.#other(type, checkValue(otherSchema, value, place).call_id);
    }
  }

  result(last: unknown): ReadItems {
    const trigger = otherSchema.safeParse(last);
    return {
      messages: () => toMessages(this.#entries),
      hasImages: this.#hasImages,
      hasFiles: this.#hasFiles,
      unmatched: this.#results.find((id) => !this.#calls.has(id)),
      tools: this.#tools,
      hasReferences: this.#hasReferences,
      isCompaction: trigger.success && trigger.data.type === "compaction_trigger",
      extras: this.#extras,
      isForeign: this.#isForeign,
    };
  }

  #message({ role, content, phase }: z.infer<typeof messageSchema>): void {
    const parts = this.#parts(content);
    if (role === "assistant") {
      const opaque = { maker: OPENAI_MAKER, data: JSON.stringify({ phase }) };
      const before: readonly Part[] = phase ? [{ kind: "reasoning", text: "", opaque }] : [];
      this.#entries.push({ kind: "assistant", parts: [...before, ...parts] });
    } else this.#entries.push({ kind: "message", message: { role, parts } });
  }

  #call(part: Extract<Part, { kind: "toolCall" }>): void {
    this.#calls.add(part.callId);
    this.#entries.push({ kind: "assistant", parts: [part] });
  }

  #output({ call_id, output }: z.infer<typeof outputSchema>): void {
    this.#results.push(call_id);
    const parts = this.#parts(output);
    const text = parts.flatMap((part) => (part.kind === "text" ? [part.text] : [])).join("");
    const images = parts.flatMap((part) => (part.kind === "image" ? [part.url] : []));
    if (parts.some(({ kind }) => kind === "file")) this.#extras["files in tool results"] = true;
    const result = { kind: "toolResult", callId: call_id, text, ...(images.length === 0 ? {} : { images }) } as const;
    this.#entries.push({ kind: "message", message: { role: "tool", parts: [result] } });
  }

  #reasoning({ id, summary, content, encrypted_content }: z.infer<typeof reasoningSchema>): void {
    const shown = summary === null || summary === undefined || summary.length === 0 ? (content ?? []) : summary;
    const texts = shown.map((part) => part.text);
    const text = texts.join(SUMMARY_GAP);
    if (encrypted_content === null || encrypted_content === undefined) {
      // OpenAI refuses thinking that comes back without its seal.
      this.#isForeign = true;
      this.#entries.push({ kind: "assistant", parts: text === "" ? [] : [{ kind: "reasoning", text }] });
      return;
    }
    const isOurs = encrypted_content.startsWith(OPAQUE_MARK);
    this.#isForeign ||= isOurs;
    const opaque = isOurs
      ? openOpaque(encrypted_content)
      : {
          maker: OPENAI_MAKER,
          data: JSON.stringify({ id: id ?? "", encrypted_content, ...(texts.length > 1 ? { summary: texts } : {}) }),
        };
    const seal = opaque === undefined ? undefined : openCallSeal(opaque);
    if (seal !== undefined) this.#entries.push({ kind: "seal", ...seal });
    else if (text !== "" || opaque !== undefined)
      this.#entries.push({ kind: "assistant", parts: [{ kind: "reasoning", text, ...present("opaque", opaque) }] });
  }

  #compaction({ encrypted_content }: z.infer<typeof compactionSchema>): void {
    this.#isForeign ||= encrypted_content.startsWith(OPAQUE_MARK);
    const summary = openCompaction(encrypted_content);
    if (summary === undefined) {
      this.#extras["compaction"] = true;
      return;
    }
    const text = `What was said before, in short:\n\n${summary}`;
    this.#entries.push({ kind: "message", message: { role: "user", parts: [{ kind: "text", text }] } });
  }

  #other(type: string, id: string | null | undefined): void {
    if (type === "compaction_trigger") return;
    if (id !== null && id !== undefined && type.endsWith("_output")) this.#results.push(id);
    else if (id !== null && id !== undefined) this.#calls.add(id);
    if (DROPPABLE_ITEMS.includes(type)) this.#extras[type] = true;
    else this.#extras["items of other tools"] = type;
  }

  #parts(content: Content): readonly Part[] {
    if (typeof content === "string") return content === "" ? [] : [{ kind: "text", text: content }];
    const parts: Part[] = [];
    for (const part of content) this.#part(part, parts);
    return parts;
  }

  #part(part: z.infer<typeof partSchema>, parts: Part[]): void {
    const text = part.text ?? part.refusal ?? "";
    switch (part.type) {
      case "input_text":
      case "output_text":
      case "text":
      case "refusal":
        if (text !== "") parts.push({ kind: "text", text });
        return;
      case "input_image": {
        const url = typeof part.image_url === "string" ? part.image_url : part.image_url?.url;
        if (url === undefined) this.#extras["file_id"] = true;
        else parts.push({ kind: "image", url });
        this.#hasImages = true;
        return;
      }
      case "input_file": {
        const url = part.file_data ?? part.file_url;
        const mediaType = /^data:([^;,]+)/.exec(url ?? "")?.[1] ?? "application/pdf";
        if (url === undefined || url === null) this.#extras["file_id"] = true;
        else parts.push({ kind: "file", url, mediaType, ...present("name", part.filename) });
        this.#hasFiles = true;
        return;
      }
      case "input_audio":
        this.#extras["audio"] = true;
        return;
      default:
        this.#extras["items of other tools"] = part.type;
    }
  }
}

function toMessages(entries: readonly Entry[]): readonly Message[] {
  const seals = new Map(entries.flatMap((entry) => (entry.kind === "seal" ? [[entry.callId, entry.opaque]] : [])));
  const messages: Message[] = [];
  let turn: Part[] = [];
  const close = () => {
    if (turn.length > 0) messages.push({ role: "assistant", parts: turn });
    turn = [];
  };
  for (const entry of entries) {
    if (entry.kind === "assistant") {
      for (const part of entry.parts) {
        const opaque = part.kind === "toolCall" ? seals.get(part.callId) : undefined;
        turn.push(part.kind === "toolCall" && opaque !== undefined ? { ...part, opaque } : part);
      }
    } else if (entry.kind === "message") {
      close();
      messages.push(entry.message);
    }
  }
  close();
  return messages;
}

/** A call has no field for what its maker wants back with it: an item of reasoning beside it carries that. */
export function sealCall(maker: string, callIdText: string, opaque: string): string {
  return sealOpaque({ maker, data: JSON.stringify({ callId: callIdText, opaque }) });
}

function openCallSeal({ maker, data }: Opaque): { readonly callId: string; readonly opaque: Opaque } | undefined {
  const parsed = callSealSchema.safeParse(parseJson(data));
  if (!parsed.success) return undefined;
  return { callId: parsed.data.callId, opaque: { maker, data: parsed.data.opaque } };
}

export function sealCompaction(summary: string): string {
  return sealOpaque({ maker: COMPACTION_MAKER, data: JSON.stringify({ summary }) });
}

/** Undefined for another maker's. */
export function openCompaction(text: string): string | undefined {
  const opaque = openOpaque(text);
  if (opaque?.maker !== COMPACTION_MAKER) return undefined;
  const parsed = summarySchema.safeParse(parseJson(opaque.data));
  return parsed.success ? parsed.data.summary : undefined;
}

/**
 * Content blocks of Anthropic's Messages, checked and made canonical. Pure.
 * 1. Results of tools come before the other parts of a user's turn, in one message of the role `tool`.
 * 2. A block that no other maker's model can be shown is named (`survey`), never lost in silence: `carriage.ts` decides.
 */
import { z } from "zod";
import { present } from "../../../base/optional.ts";
import type { Message, Opaque, Part } from "../../../ghostllm/stream.ts";
import { ownCallId } from "./messages-call-id.ts";
import { isSealOfOurs, openSeal } from "./messages-seal.ts";
import { type ToolChange, toolAddition, toolRemoval } from "./messages-tools.ts";

const textBlock = z.object({ type: z.literal("text"), text: z.string() });
const fileSource = z.object({ type: z.literal("file"), file_id: z.string() });
const base64Source = z.object({ type: z.literal("base64"), media_type: z.string(), data: z.string() });
const urlSource = z.object({ type: z.literal("url"), url: z.string() });
const imageBlock = z.object({
  type: z.literal("image"),
  source: z.discriminatedUnion("type", [base64Source, urlSource, fileSource]),
});
const documentBlock = z.object({
  type: z.literal("document"),
  title: z.string().nullish(),
  context: z.string().nullish(),
  source: z.discriminatedUnion("type", [
    base64Source,
    urlSource,
    fileSource,
    z.object({ type: z.literal("text"), data: z.string() }),
    z.object({
      type: z.literal("content"),
      content: z.union([z.string(), z.array(z.discriminatedUnion("type", [textBlock, imageBlock]))]),
    }),
  ]),
});
const searchResultBlock = z.object({
  type: z.literal("search_result"),
  title: z.string(),
  source: z.string(),
  content: z.array(textBlock),
});
/** Blocks of the provider's own making, and those that came after this was written. */
const otherBlock = (known: ReadonlySet<string>) =>
  z
    .object({ type: z.string().refine((type) => !known.has(type)) })
    .transform(({ type }) => ({ type: OTHER, name: type }));
const OTHER = "other" as const;

/** What a search of the client's own found among its tools. */
const toolReference = z.object({ type: z.literal("tool_reference"), tool_name: z.string() });

const resultBlock = z.union([
  z.discriminatedUnion("type", [textBlock, imageBlock, documentBlock, searchResultBlock, toolReference]),
  otherBlock(new Set(["text", "image", "document", "search_result", "tool_reference"])),
]);
const toolResultBlock = z.object({
  type: z.literal("tool_result"),
  tool_use_id: z.string(),
  content: z.union([z.string(), z.array(resultBlock)]).nullish(),
  is_error: z.boolean().nullish(),
});
const knownBlock = z.discriminatedUnion("type", [
  textBlock,
  imageBlock,
  documentBlock,
  searchResultBlock,
  toolResultBlock,
  z.object({ type: z.literal("tool_use"), id: z.string(), name: z.string().min(1), input: z.unknown() }),
  z.object({ type: z.literal("thinking"), thinking: z.string(), signature: z.string().nullish() }),
  z.object({ type: z.literal("redacted_thinking"), data: z.string() }),
  /** What a conversation was summed up to. */
  z.object({ type: z.literal("compaction"), content: z.string().nullish() }),
  toolAddition,
  toolRemoval,
]);
const KNOWN_BLOCKS: ReadonlySet<string> = new Set([
  "text",
  "image",
  "document",
  "search_result",
  "tool_result",
  "tool_use",
  "thinking",
  "redacted_thinking",
  "compaction",
  "tool_addition",
  "tool_removal",
]);
const contentBlock = z.union([knownBlock, otherBlock(KNOWN_BLOCKS)]);

/** The instructions before the conversation. */
export const textSchema = z.union([z.string(), z.array(textBlock)]);
export const effort = z.enum(["low", "medium", "high", "xhigh", "max"]);
const contentSchema = z.union([z.string(), z.array(contentBlock)]);
export const messageSchema = z.discriminatedUnion("role", [
  z.object({
    role: z.literal("system"),
    content: contentSchema.nullish().transform((content) => content ?? []),
    /** `next_user_message`: once the user has said something else, it is no longer shown. */
    clear_at: z.string().nullish(),
    output_config: z.object({ effort: effort.nullish() }).nullish(),
  }),
  z.object({ role: z.enum(["user", "assistant"]), content: contentSchema }),
]);

type Text = z.infer<typeof textSchema>;
type Turn = z.infer<typeof messageSchema>;
type Block = z.infer<typeof contentBlock>;
type ResultBlock = z.infer<typeof resultBlock>;
type ImageBlock = z.infer<typeof imageBlock>;
type DocumentBlock = z.infer<typeof documentBlock>;

/** Traces of work that a provider did on its side: their answers stand in the text that follows them, so that a model can do without. */
const SERVER_BLOCKS = /^(server_tool_use|mcp_tool_use|mcp_tool_listing|fallback|browser_state|.*_tool_result)$/;

export interface Survey {
  readonly hasImages: boolean;
  readonly hasFiles: boolean;
  /** A seal of ours is among them (`messages-seal.ts`, 1). */
  readonly isForeign: boolean;
  /** Extras (`ChatFacts`) for what has no canonical form (2). */
  readonly extras: Readonly<Record<string, unknown>>;
  readonly toolChanges: readonly ToolChange[];
  /** The last that a turn of the system asked for. */
  readonly effort: z.infer<typeof effort> | undefined;
}

export function survey(turns: readonly Turn[]): Survey {
  const found = { hasImages: false, hasFiles: false, isForeign: false };
  const extras: Record<string, unknown> = {};
  const toolChanges: ToolChange[] = [];
  const look = (block: Block | ResultBlock, isResult: boolean): void => {
    switch (block.type) {
      case "image":
        found.hasImages = true;
        if (block.source.type === "file") extras["file_id"] = block.source.file_id;
        return;
      case "document": {
        const { source } = block;
        if (source.type === "file") extras["file_id"] = source.file_id;
        else if (source.type === "content") found.hasImages ||= hasImage(source.content);
        else if (source.type !== "text" && isResult) extras["documents in tool results"] = true;
        else if (source.type !== "text") found.hasFiles = true;
        return;
      }
      case "tool_result":
        if (typeof block.content !== "string") for (const inner of block.content ?? []) look(inner, true);
        return;
      case "other":
        extras[SERVER_BLOCKS.test(block.name) ? block.name : "content_block"] = block.name;
        return;
      case "tool_reference":
        toolChanges.push({ kind: "named", name: block.tool_name });
        return;
      case "tool_addition":
        toolChanges.push({ kind: "added", tool: block.tool });
        return;
      case "tool_removal":
        toolChanges.push({ kind: "removed", tool: block.tool });
        return;
      case "thinking":
        found.isForeign ||= isSealOfOurs(block.signature ?? "");
        return;
      case "redacted_thinking":
        found.isForeign ||= isSealOfOurs(block.data);
        return;
      case "text":
      case "search_result":
      case "tool_use":
      case "compaction":
        return;
    }
  };
  for (const { content } of turns) if (typeof content !== "string") for (const block of content) look(block, false);
  const efforts = turns.flatMap((turn) => (turn.role === "system" ? (turn.output_config?.effort ?? []) : []));
  return { ...found, extras, toolChanges, effort: efforts.at(-1) };
}

function hasImage(content: string | readonly { readonly type: "text" | "image" }[]): boolean {
  return typeof content !== "string" && content.some(({ type }) => type === "image");
}

/** A line of Claude Code for Anthropic's accounts. It changes with each request, so that behind it no prompt cache and no conversation would be found again. */
export const BILLING_HEADER = "x-anthropic-billing-header:";

export function toMessages(system: Text | null | undefined, turns: readonly Turn[]): readonly Message[] {
  const before = typeof system === "string" ? [system] : (system ?? []).map(({ text }) => text);
  const parts = before.filter((text) => text !== "" && !text.startsWith(BILLING_HEADER));
  return [
    // Other servers' templates run parts together.
    ...(parts.length === 0 ? [] : [message("system", [{ kind: "text", text: parts.join("\n\n") }])]),
    ...turns.filter((turn, index) => !isCleared(turn, turns.slice(index + 1))).flatMap(toTurn),
  ];
}

const message = (role: Message["role"], parts: readonly Part[]): Message => ({ role, parts });

function isCleared(turn: Turn, later: readonly Turn[]): boolean {
  return turn.role === "system" && turn.clear_at === "next_user_message" && later.some(({ role }) => role === "user");
}

function toTurn({ role, content }: Turn): readonly Message[] {
  const blocks = typeof content === "string" ? [{ type: "text", text: content } as const] : content;
  if (role === "assistant") return [message(role, assistantParts(blocks))];
  const results = blocks.flatMap((block) => (block.type === "tool_result" ? [toResult(block)] : []));
  const rest = blocks.flatMap((block) => (block.type === "tool_result" ? [] : toParts(block)));
  return [
    ...(results.length === 0 ? [] : [message("tool", results)]),
    ...(rest.length === 0 && (results.length > 0 || role === "system") ? [] : [message(role, rest)]),
  ];
}

/** Seals of calls stand before them (`messages-seal.ts`, 3). */
function assistantParts(blocks: readonly Block[]): readonly Part[] {
  const seals = new Map<string, Opaque>();
  const parts: Part[] = [];
  for (const block of blocks) {
    if (block.type === "thinking" || block.type === "redacted_thinking") {
      const opened = openSeal(
        block.type === "thinking" ? { signature: block.signature ?? "" } : { redacted: block.data },
      );
      if (opened.kind === "call") seals.set(opened.callId, opened.opaque);
      else
        parts.push({
          kind: "reasoning",
          text: block.type === "thinking" ? block.thinking : "",
          ...present("opaque", opened.opaque),
        });
    } else parts.push(...toParts(block));
  }
  return seals.size === 0 ? parts : parts.map((part) => sealed(part, seals));
}

function sealed(part: Part, seals: ReadonlyMap<string, Opaque>): Part {
  return part.kind === "toolCall" ? { ...part, ...present("opaque", seals.get(part.callId)) } : part;
}

function toParts(block: Block | ResultBlock): readonly Part[] {
  switch (block.type) {
    case "text":
      return textParts(block.text);
    case "image":
      return [{ kind: "image", url: imageUrl(block) }];
    case "document":
      return documentParts(block);
    case "search_result":
      return textParts(searchText(block));
    case "tool_use": {
      const { id, name, input } = block;
      return [{ kind: "toolCall", callId: ownCallId(id), name, arguments: JSON.stringify(input ?? {}) }];
    }
    case "compaction":
      return textParts(block.content ?? "");
    case "tool_reference":
      return textParts(`The tool ${block.tool_name} can be called now.`);
    case "tool_result":
    case "tool_addition":
    case "tool_removal":
    case "thinking":
    case "redacted_thinking":
    case "other":
      return [];
  }
}

/** An empty text says nothing, and some providers refuse it. */
const textParts = (text: string): readonly Part[] => (text === "" ? [] : [{ kind: "text", text }]);

function imageUrl({ source }: ImageBlock): string {
  switch (source.type) {
    case "base64":
      return `data:${source.media_type};base64,${source.data}`;
    case "url":
      return source.url;
    case "file":
      return ""; // Refused by everybody but Anthropic, who gets it as it came.
  }
}

function documentParts({ source, title, context }: DocumentBlock): readonly Part[] {
  const head = [title, context].filter((line) => line !== null && line !== undefined && line !== "").join("\n");
  const file = (url: string, mediaType: string): Part => ({ kind: "file", url, mediaType, ...present("name", title) });
  switch (source.type) {
    case "base64":
      return [file(`data:${source.media_type};base64,${source.data}`, source.media_type)];
    case "url":
      return [file(source.url, "application/pdf")];
    case "file":
      return [file("", "application/pdf")];
    case "text":
      return textParts(head === "" ? source.data : `${head}\n${source.data}`);
    case "content": {
      const inner =
        typeof source.content === "string" ? [{ type: "text", text: source.content } as const] : source.content;
      return [...textParts(head), ...inner.flatMap(toParts)];
    }
  }
}

function searchText({ title, source, content }: z.infer<typeof searchResultBlock>): string {
  return [`${title} (${source})`, ...content.map(({ text }) => text)].join("\n");
}

function toResult({ tool_use_id, content, is_error }: z.infer<typeof toolResultBlock>): Part {
  const blocks = typeof content === "string" ? [{ type: "text", text: content } as const] : (content ?? []);
  const parts = blocks.flatMap(toParts);
  const texts = parts.flatMap((part) =>
    part.kind === "text" ? [part.text] : part.kind === "file" ? ["[a document that cannot be shown here]"] : [],
  );
  const images = parts.flatMap((part) => (part.kind === "image" ? [part.url] : []));
  return {
    kind: "toolResult",
    callId: ownCallId(tool_use_id),
    text: texts.join("\n"),
    ...(is_error === true ? { isError: true } : {}),
    ...(images.length === 0 ? {} : { images }),
  };
}

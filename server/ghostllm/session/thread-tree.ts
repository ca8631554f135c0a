/**
 * The tree of a session, without storage: what makes two messages the same, the hash of a conversation's beginning, and where a request attaches.
 * 1. The same answer hashes equally as we stored it and as a client sends it back: `developer` is `system`, text parts are one text, the JSON of
 *    tool arguments is compared by value, an image or file by the hash of its URL; thinking does not count, since not every dialect can carry it.
 * 2. An assistant message without content does not count: an answer that failed before its first word leaves the conversation where it was.
 * 3. A hash stands for a message and everything before it. It does not contain the user: every look-up filters by user (I15).
 */
import { createHash, hash } from "node:crypto";
import { branded, type Brand } from "../../base/brand.ts";
import type { EntryId, SessionId, ThreadId } from "../../../protocol/ids.ts";
import type { Message, Part } from "../stream.ts";

/** The sha256 of a conversation from its first message to some message, in base64url. */
export type PrefixHash = Brand<string, "PrefixHash">;

/** The hash of the empty conversation. */
export const ROOT_HASH: PrefixHash = branded("root");

/** The text of equal messages is equal. */
export function canonicalText(message: Message): string {
  const role = message.role === "developer" ? "system" : message.role;
  let text = "";
  const others: (readonly string[])[] = [];
  for (const part of message.parts) {
    if (part.kind === "text") text += part.text;
    else if (part.kind !== "reasoning") others.push(canonicalPart(part));
  }
  return JSON.stringify([role, text, ...others]);
}

/** True for a message that leaves the conversation where it was (2). */
export function isEmptyAnswer(message: Message): boolean {
  return (
    message.role === "assistant" &&
    message.parts.every((part) => (part.kind === "text" && part.text === "") || part.kind === "reasoning")
  );
}

export function nextHash(previous: PrefixHash, message: Message): PrefixHash {
  if (isEmptyAnswer(message)) return previous;
  const canonical = canonicalText(message);
  // One call is cheaper for short texts; a long one is not copied again to put the previous hash before it.
  if (canonical.length < 4_096) return branded(hash("sha256", `${previous}\n${canonical}`, "base64url"));
  return branded(createHash("sha256").update(`${previous}\n`).update(canonical).digest("base64url"));
}

/** The hash after each message, made as it is asked for: those of a long conversation take some milliseconds for each megabyte. */
export function* hashesOf(messages: readonly Message[]): Generator<PrefixHash, undefined> {
  let previous = ROOT_HASH;
  for (const message of messages) {
    previous = nextHash(previous, message);
    yield previous;
  }
}

/** A stored message that may be where a request attaches. */
export interface StoredEntry {
  readonly id: EntryId;
  readonly sessionId: SessionId;
  readonly prefixHash: PrefixHash;
  readonly createdAtMs: number;
  /** The thread whose last message it is, with the number of times that thread has grown; null inside the tree. */
  readonly head: { readonly threadId: ThreadId; readonly epoch: number } | null;
}

export type Attachment =
  | { readonly kind: "newSession" }
  /** The request goes on where a thread ended. */
  | {
      readonly kind: "continue";
      readonly at: StoredEntry;
      readonly threadId: ThreadId;
      readonly epoch: number;
      readonly matched: number;
    }
  /** The request leaves a thread at an earlier message. */
  | { readonly kind: "fork"; readonly at: StoredEntry; readonly matched: number };

/**
 * The hashes worth looking up: those of prefixes that hold a user message. A shared system prompt alone never makes two conversations one.
 * `chain[0]` is the hash after the first message.
 */
export function attachableHashes(messages: readonly Message[], chain: readonly PrefixHash[]): readonly PrefixHash[] {
  const firstUser = messages.findIndex((message) => message.role === "user");
  return firstUser < 0 ? [] : chain.slice(firstUser);
}

/**
 * Where a request with these messages attaches among `stored` entries of its own user: at the longest matching prefix; among equal ones at the
 * head of `threadId`, else at a thread's head rather than inside, else at the newest. `matched` counts the request's messages that are stored already.
 */
export function attach(
  messages: readonly Message[],
  chain: readonly PrefixHash[],
  stored: (hash: PrefixHash) => readonly StoredEntry[],
  threadId: ThreadId | null = null,
): Attachment {
  const hashes = attachableHashes(messages, chain);
  for (let index = hashes.length - 1; index >= 0; index -= 1) {
    const prefix = hashes[index];
    if (prefix === undefined) break;
    const candidates = stored(prefix).toSorted(preferred);
    const at = candidates.find(({ head }) => head !== null && head.threadId === threadId) ?? candidates[0];
    if (at === undefined) continue;
    const matched = chain.length - hashes.length + index + 1;
    return at.head === null
      ? { kind: "fork", at, matched }
      : { kind: "continue", at, threadId: at.head.threadId, epoch: at.head.epoch, matched };
  }
  return { kind: "newSession" };
}

function preferred(a: StoredEntry, b: StoredEntry): number {
  if ((a.head === null) !== (b.head === null)) return a.head === null ? 1 : -1;
  return b.createdAtMs - a.createdAtMs || (a.id < b.id ? 1 : -1);
}

function canonicalPart(part: Exclude<Part, { kind: "text" | "reasoning" }>): readonly string[] {
  switch (part.kind) {
    case "image":
    case "file":
      return [part.kind, hash("sha256", part.url, "base64url")];
    case "toolCall":
      return ["toolCall", part.callId, part.name, canonicalJson(part.arguments)];
    case "toolResult":
      return ["toolResult", part.callId, part.text];
  }
}

/** JSON text with its keys sorted and its white space gone; text that is not JSON as it is. `{"b":1, "a":2}` → `{"a":2,"b":1}`. */
function canonicalJson(text: string): string {
  if (text.trim() === "") return "{}";
  try {
    return JSON.stringify(JSON.parse(text), (_key, value: unknown) =>
      isRecord(value) ? Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))) : value,
    );
  } catch {
    return text;
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The first words of the first user message, on one line: what a list of sessions shows. */
export function titleOf(messages: readonly Message[]): string {
  const first = messages.find((message) => message.role === "user");
  let text = "";
  for (const part of first?.parts ?? []) {
    if (part.kind === "text") text += text === "" ? part.text : ` ${part.text}`;
    if (text.length > 4 * MAX_TITLE) break;
  }
  const begin = text.slice(0, 4 * MAX_TITLE);
  // What is a single space already is left alone: most are, and to replace each costs ten times as much.
  const line = begin.replace(/ *(?:[^\S ]|\p{Cc}| (?= ))[\s\p{Cc}]*/gu, " ").trim();
  if (line.length <= MAX_TITLE) return line;
  if (!/[\ud800-\udfff]/.test(line)) return `${line.slice(0, MAX_TITLE - 1)}…`;
  const characters = Array.from(line.slice(0, 2 * MAX_TITLE + 1));
  return characters.length <= MAX_TITLE ? line : `${characters.slice(0, MAX_TITLE - 1).join("")}…`;
}

/** A terminal's width less a session's other columns. */
const MAX_TITLE = 80;

/** How a chat request goes to a server that speaks Responses, and how again where that was refused. Pure; each further way leaves something out. */
import { meaningOf, refusesSeals } from "../frames/responses-error.ts";
import type { ChatRequest, ToolSpec } from "../stream.ts";
import type { Omissions } from "./responses-body.ts";
import { effortFor, type ResponsesFamily } from "./responses-family.ts";
import { wordsOf } from "./responses-refusal.ts";
import type { Refusal } from "./upstream.ts";

export type Way =
  /** The client's own bytes. */
  | { readonly kind: "relay"; readonly dialect: "openai-chat" | "openai-responses" }
  /** Responses in our words. */
  | { readonly kind: "own"; readonly omit: Omissions };

/** What a server takes of its clients' own bytes. */
export interface RelayRules {
  /** It has /chat/completions, too, and loses nothing there. */
  readonly takesChat: boolean;
  /** All tools of Responses. */
  readonly takesAllTools: boolean;
  /** OpenAI's own server: what it refuses is the client's fault. */
  readonly isReference: boolean;
}

const WHOLE: Omissions = { seals: false, summary: false, include: false };

export function firstWay(request: ChatRequest, family: ResponsesFamily, rules: RelayRules): Way {
  const dialect = request.origin?.dialect;
  if (dialect === "openai-responses" && (rules.takesAllTools || request.tools.every(isPlain)))
    return { kind: "relay", dialect };
  if (dialect === "openai-chat" && rules.takesChat && takesAsChat(request, family)) return { kind: "relay", dialect };
  return { kind: "own", omit: WHOLE };
}

/** The next way after a refusal; undefined where the refusal stands. */
export function nextWay(way: Way, refusal: Refusal, rules: RelayRules): Way | undefined {
  const words = wordsOf(refusal);
  if (refusal.status !== 400 && refusal.status !== 404 && refusal.status !== 422) return undefined;
  const isUnread = refusesSeals(words);
  if (way.kind === "relay") {
    if (isUnread) return { kind: "own", omit: { ...WHOLE, seals: true } };
    const isMended =
      way.dialect === "openai-chat"
        ? isNotForChat(words)
        : !rules.isReference && meaningOf(words, refusal.status).code === "upstream_rejected";
    return isMended ? { kind: "own", omit: WHOLE } : undefined;
  }
  const { omit } = way;
  const isNeverEncrypted = /encrypted content is not supported/i.test(words.message);
  if (isNeverEncrypted && !omit.include) return { kind: "own", omit: { ...omit, seals: true, include: true } };
  if (isUnread && !omit.seals) return { kind: "own", omit: { ...omit, seals: true } };
  // Organisations that OpenAI has not verified get no summaries.
  const isSummary = words.param === "reasoning.summary" || /reasoning[ .]summar/i.test(words.message);
  if (isSummary && !omit.summary) return { kind: "own", omit: { ...omit, summary: true } };
  return undefined;
}

function isPlain(tool: ToolSpec): boolean {
  return tool.kind === "hosted" || (tool.kind === "function" && tool.namespace === undefined);
}

/** Functions together with reasoning need Responses from GPT-5.6 on. */
function takesAsChat(request: ChatRequest, family: ResponsesFamily): boolean {
  if (family.chat !== "without-tools") return family.chat === "all";
  return request.tools.length === 0 || effortFor(request.reasoning, family) === "none";
}

/** A field that this model takes in Responses only, or a model that is there only. */
function isNotForChat({ code, message }: ReturnType<typeof wordsOf>): boolean {
  return (
    /^unsupported_(parameter|value)$/.test(code) ||
    /^unsupported (parameter|value)|v1\/responses|not a chat model/i.test(message)
  );
}

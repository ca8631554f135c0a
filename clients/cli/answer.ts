/**
 * Shows one answer while it streams: its text on stdout, and who answers, why, and at what cost on stderr.
 * With `--json`, every update as one object a line, and nothing is left out.
 */
import type { ChatUpdate } from "../../protocol/chat.ts";
import type { CompletionUpdate } from "../../protocol/completion.ts";
import { GhostApiError } from "../../protocol/errors.ts";
import type { Usage } from "../../protocol/usage.ts";
import type { Output } from "./output.ts";
import { escapeLine, escapeText, formatDuration } from "./terminal-text.ts";

export interface AnswerOptions {
  readonly onStarted?: (sessionId: string | undefined) => void;
  /** The route line of the answer before, in a conversation: it is not said again. */
  readonly lastRoute?: string | undefined;
}

export interface Answered {
  /** Set when the answer began: the session that keeps it. */
  readonly sessionId: string | undefined;
  readonly text: string;
  /** Who answered and why, as it was (or would have been) shown. */
  readonly route: string | undefined;
}

/**
 * Writes the updates of one answer.
 * @throws GhostApiError what the answer failed with, or `cancelled`; the line that was begun is ended before.
 */
export async function showAnswer(
  output: Output,
  updates: AsyncIterable<ChatUpdate | CompletionUpdate>,
  { onStarted = () => {}, lastRoute }: AnswerOptions = {},
): Promise<Answered> {
  let sessionId: string | undefined;
  let text = "";
  let route: string | undefined;
  let isLineOpen = false;
  const endLine = () => {
    if (isLineOpen && !output.json) output.line();
    isLineOpen = false;
  };
  try {
    for await (const update of updates) {
      if (output.json) output.item(update);
      if (update.kind === "failed") throw new GhostApiError(update.error);
      if (update.kind === "started") {
        sessionId = "sessionId" in update ? update.sessionId : undefined;
        onStarted(sessionId);
        route = describeRoute(update.model, update.decision.reason);
        if (!output.json && route !== lastRoute) output.note(route);
      }
      if (update.kind === "text") {
        text += update.text;
        isLineOpen = true;
      }
      if (update.kind === "finished") endLine();
      if (!output.json) showUpdate(output, update, sessionId);
    }
  } finally {
    endLine();
  }
  return { sessionId, text, route };
}

function showUpdate(output: Output, update: ChatUpdate | CompletionUpdate, sessionId: string | undefined): void {
  switch (update.kind) {
    case "started":
      if (update.note !== undefined) output.note(escapeLine(update.note), "yellow");
      return;
    case "text":
      output.answer(update.text);
      return;
    case "reasoning":
      output.raw(escapeText(update.text));
      return;
    case "toolCall":
      output.note(`tool call ${escapeLine(update.name)}(${escapeLine(update.arguments)})`);
      return;
    case "finished":
      output.note(describeEnd(update, sessionId));
      return;
    case "failed":
      return;
  }
}

/** `embedded/x · local before cloud`. The daemon's reason ends with the model that it means; where that is the one that answers, once is enough. */
function describeRoute(model: string, reason: string): string {
  const end = `: ${model}`;
  const why = reason.endsWith(end) ? reason.slice(0, -end.length) : reason;
  return `${escapeLine(model)} · ${escapeLine(why)}`;
}

function describeEnd(end: Extract<ChatUpdate, { kind: "finished" }>, sessionId: string | undefined): string {
  const reasons: Readonly<Record<typeof end.reason, string>> = {
    stop: "",
    length: "cut at the token limit",
    toolCalls: "waits for its tools",
    contentFilter: "stopped by the content filter",
    unknown: "ended without a reason",
  };
  const parts = [
    reasons[end.reason],
    describeUsage(end.usage),
    `first token after ${formatDuration(end.firstTokenMs)}`,
    `${formatDuration(end.elapsedMs)} in all`,
    sessionId ?? "",
  ];
  return parts.filter((part) => part !== "").join(" · ");
}

function describeUsage(usage: Usage): string {
  const { promptTokens, completionTokens } = usage;
  if (promptTokens === undefined && completionTokens === undefined) return "";
  return `${promptTokens ?? "?"} tokens in, ${completionTokens ?? "?"} out`;
}

/**
 * Compaction: a conversation is put into a summary that stands for it from then on. The summary is sealed by us, so that the client keeps it as it keeps
 * OpenAI's, and any model can go on from it.
 */
import type { Usage } from "../../../../protocol/usage.ts";
import { OperationalError } from "../../../base/errors.ts";
import type { Answer } from "../../../ghostllm/brain.ts";
import { AnswerFold } from "../../../ghostllm/frames/answer-fold.ts";
import type { ChatRequest, Message, Part } from "../../../ghostllm/stream.ts";
import type { DialectOptions } from "./serve.ts";
import { sealCompaction } from "./responses-items.ts";

const TASK = `Below is a conversation between a user and an assistant that works with tools. It has grown too long, and your summary will replace it: the
assistant goes on from your words alone. Write down, for the assistant: what the user wants, in the user's own words where they matter; rules and
preferences that were stated; what was done and found out, with the exact names of files, commands, values and errors that are still needed; decisions and
their reasons; what is under way, and the next step. Leave out what is finished and will not be needed. Answer with the summary only.`;

interface Compaction {
  readonly answer: Answer;
  readonly usage: Usage | undefined;
  /** The `encrypted_content` of a compaction item. */
  readonly sealed: string;
}

/** @throws what `brain.answer` throws; OperationalError `upstream_failed` where the model wrote nothing */
export async function compact(
  { brain }: Pick<DialectOptions, "brain">,
  request: ChatRequest,
  signal: AbortSignal,
): Promise<Compaction> {
  const messages = async (): Promise<readonly Message[]> => [
    { role: "system", parts: [{ kind: "text", text: TASK }] },
    { role: "user", parts: [{ kind: "text", text: toText(await request.messages()) }] },
  ];
  const { target, actor, reasoning } = request;
  const asked: ChatRequest = {
    task: "chat",
    target,
    actor,
    messages,
    tools: [],
    toolChoice: "none",
    ...(reasoning === undefined ? {} : { reasoning }),
    output: { stop: [], format: { kind: "text" } },
    sampling: {},
    lane: "chat",
    stream: true,
  };
  await using answer = await brain.answer(asked, {}, signal);
  const fold = new AnswerFold();
  for await (const frame of answer.frames) fold.addAll(frame.events());
  const summary = fold.blocks.flatMap((block) => (block.kind === "text" ? [block.text] : [])).join("");
  if (summary.trim() === "" || fold.reason === "length") {
    throw new OperationalError("upstream_failed", `${answer.model.ref} did not finish its summary`);
  }
  return { answer, usage: fold.usage, sealed: sealCompaction(summary) };
}

export function compactionItem(id: string, sealed: string): string {
  return JSON.stringify({ id, type: "compaction", encrypted_content: sealed });
}

/** The conversation as one text: calls and results would be invalid without their tools. */
function toText(messages: readonly Message[]): string {
  return messages.map(({ role, parts }) => `[${role}]\n${parts.map(partText).filter(Boolean).join("\n")}`).join("\n\n");
}

function partText(part: Part): string {
  switch (part.kind) {
    case "text":
      return part.text;
    case "toolCall":
      return `calls ${part.namespace === undefined ? "" : `${part.namespace}.`}${part.name}(${part.arguments})`;
    case "toolResult":
      return `result of ${part.callId}${part.isError === true ? " (failed)" : ""}: ${part.text}`;
    case "image":
      return "(an image)";
    case "file":
      return `(a file${part.name === undefined ? "" : `: ${part.name}`})`;
    case "reasoning":
      return "";
  }
}

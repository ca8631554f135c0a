/**
 * A whole conversation as one prompt, for programs that take nothing else: what the system says apart, then everything that was said and done, in order.
 * Pure. A conversation of one question is that question. Thinking is left out: only its maker can use it.
 */
import { argumentsOf } from "../frames/answer-fold.ts";
import type { Message, Part } from "../stream.ts";

export interface PromptText {
  readonly system: string;
  readonly prompt: string;
}

export function promptText(messages: readonly Message[]): PromptText {
  const first = messages.findIndex(({ role }) => !isSystem(role));
  const end = first === -1 ? messages.length - 1 : first;
  const system = messages.slice(0, Math.max(end, 0)).map(plainText).filter(Boolean).join("\n\n");
  const rest = messages.slice(Math.max(end, 0));
  const [only] = rest;
  const isQuestion = rest.length === 1 && only !== undefined && only.parts.every(({ kind }) => kind === "text");
  if (isQuestion && only.role !== "assistant") return { system, prompt: plainText(only) };
  const names = new Map<string, string>();
  const told = rest.flatMap((message) => message.parts.flatMap((part) => tell(message.role, part, names)));
  const last = rest.at(-1);
  return { system, prompt: [OPENING, ...told, last?.role === "assistant" ? GO_ON : CLOSING].join("\n\n") };
}

const OPENING = "This is the conversation so far. Earlier words of yours are marked as the assistant's.";
const CLOSING = "Now give the assistant's next message, and nothing else: no marks around it.";
const GO_ON =
  "The assistant's last message was interrupted. Continue it exactly from where it ends, without repeating any of it.";

const isSystem = (role: Message["role"]) => role === "system" || role === "developer";

function plainText({ parts }: Message): string {
  return parts.flatMap((part) => (part.kind === "text" ? part.text : [])).join("\n");
}

function tell(role: Message["role"], part: Part, names: Map<string, string>): readonly string[] {
  switch (part.kind) {
    case "text":
      return part.text.trim() === ""
        ? []
        : [`<${isSystem(role) ? "system" : role}>\n${part.text}\n</${isSystem(role) ? "system" : role}>`];
    case "toolCall":
      names.set(part.callId, part.name);
      return [
        `<assistant_calls tool="${part.name}" id="${part.callId}">\n${argumentsOf(part.arguments)}\n</assistant_calls>`,
      ];
    case "toolResult": {
      const failed = part.isError === true ? ' failed="true"' : "";
      const tool = names.get(part.callId) ?? "unknown";
      return [`<tool_result tool="${tool}" id="${part.callId}"${failed}>\n${part.text}\n</tool_result>`];
    }
    case "image":
    case "file":
      // `carriage.ts` has refused a request with any; of a tool's answer they are dropped with its name.
      return [`<${part.kind}/>`];
    case "reasoning":
      return [];
  }
}

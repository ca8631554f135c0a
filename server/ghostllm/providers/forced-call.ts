/**
 * A tool call that must happen, from engines that cannot be made to call a tool but can be held to a JSON schema: the model is asked for the arguments
 * alone, and its answer becomes the call. Pure.
 */
import { eventsFrame, type ChatRequest, type Frame, type Message, type StreamEvent, type ToolSpec } from "../stream.ts";

export interface ForcedCall {
  /** The request for the arguments. */
  readonly request: ChatRequest;
  /** Turns the answer's frames into the call, one after the other. */
  readonly change: (frame: Frame) => Frame;
}

/** Undefined where no call is forced, or it is open which tool: then the engine has nothing that could be held to one schema. */
export function forcedCall(request: ChatRequest, callId: string): ForcedCall | undefined {
  const tool = forcedTool(request);
  if (tool === undefined) return undefined;
  const { name, parameters } = tool;
  const schema = parameters ?? { type: "object", properties: {} };
  return {
    request: {
      ...request,
      tools: [],
      toolChoice: "none",
      messages: async () => withInstruction(await request.messages(), tool),
      output: { ...request.output, format: { kind: "schema", name, schema } },
    },
    change: createChange(tool, callId),
  };
}

type FunctionTool = Extract<ToolSpec, { kind: "function" }>;

function forcedTool({ tools, toolChoice, output }: ChatRequest): FunctionTool | undefined {
  if (output.format.kind !== "text") return undefined;
  const functions = tools.flatMap((tool) => (tool.kind === "function" ? [tool] : []));
  if (toolChoice === "required") return functions.length === 1 && tools.length === 1 ? functions[0] : undefined;
  if (typeof toolChoice === "string") return undefined;
  return functions.find(({ name, namespace }) => name === toolChoice.name && namespace === toolChoice.namespace);
}

/** Behind the conversation, where a small model heeds it most. */
function withInstruction(messages: readonly Message[], { name, description }: FunctionTool): readonly Message[] {
  const about = description === undefined ? "" : ` It does this: ${description}`;
  const text = `Call the tool "${name}" now.${about} Answer with its arguments as one JSON object, and nothing else.`;
  return [...messages, { role: "user", parts: [{ kind: "text", text }] }];
}

function createChange({ name, namespace }: FunctionTool, callId: string): ForcedCall["change"] {
  let isOpen = false;
  const changeEvent = (event: StreamEvent): StreamEvent => {
    if (event.kind === "finish") return event.reason === "stop" ? { kind: "finish", reason: "toolCalls" } : event;
    if (event.kind !== "text") return event;
    const start = isOpen ? {} : { callId, name, ...(namespace === undefined ? {} : { namespace }) };
    isOpen = true;
    return { kind: "toolCall", index: 0, ...start, arguments: event.text };
  };
  return (frame) => eventsFrame(frame.events().map(changeEvent));
}

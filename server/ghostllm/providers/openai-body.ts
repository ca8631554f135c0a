/** Canonical requests as bodies of OpenAI's chat and text completions, for requests that did not come in that dialect. Pure. */
import { present } from "../../base/optional.ts";
import type { ChatRequest, CompletionRequest, Message, OutputOptions, Part, Sampling, TextFormat } from "../stream.ts";
import { OPENAI_NAMES, type WireTools, wireTools } from "../tool-names.ts";
import { argumentsOf } from "../frames/answer-fold.ts";
import { withPairedCalls } from "./paired-calls.ts";

/** The body of `POST /chat/completions`, always asking for usage in a stream; `tools` turns the model's calls back. */
export async function chatBody(
  request: ChatRequest,
  modelName: string,
): Promise<{ readonly body: Buffer; readonly tools: WireTools }> {
  const tools = wireTools(request, OPENAI_NAMES);
  const messages = withPairedCalls(await request.messages());
  const body = {
    model: modelName,
    messages: toOpenAiMessages(messages, tools),
    ...toolMembers(request, tools),
    ...common(request.output, request.sampling, request.stream),
    ...formatOf(request.output.format),
    ...present("reasoning_effort", request.reasoning?.effort),
    ...present("frequency_penalty", request.sampling.frequencyPenalty),
    ...present("presence_penalty", request.sampling.presencePenalty),
  };
  return { body: Buffer.from(JSON.stringify(body)), tools };
}

/** The body of `POST /completions`. */
export function completionBody(request: CompletionRequest, modelName: string): Buffer {
  return Buffer.from(
    JSON.stringify({
      model: modelName,
      prompt: request.prefix,
      ...(request.suffix === "" ? {} : { suffix: request.suffix }),
      ...common(request.output, request.sampling, request.stream),
    }),
  );
}

function toolMembers(request: ChatRequest, tools: WireTools): object {
  if (tools.functions.length === 0) return {};
  return {
    tools: tools.functions.map(({ name, description, parameters, strict }) => ({
      type: "function",
      function: { name, ...present("description", description), parameters, ...present("strict", strict) },
    })),
    tool_choice: typeof tools.choice === "string" ? tools.choice : { type: "function", function: tools.choice },
    ...(request.parallelToolCalls === false ? { parallel_tool_calls: false } : {}),
  };
}

function formatOf(format: TextFormat): object {
  if (format.kind === "text") return {};
  if (format.kind === "json") return { response_format: { type: "json_object" } };
  const { name, schema, strict } = format;
  return { response_format: { type: "json_schema", json_schema: { name, schema, ...present("strict", strict) } } };
}

function common(output: OutputOptions, sampling: Sampling, stream: boolean): object {
  return {
    stream,
    ...(stream ? { stream_options: { include_usage: true } } : {}),
    ...present("max_tokens", output.maxTokens),
    ...(output.stop.length === 0 ? {} : { stop: output.stop }),
    ...present("temperature", sampling.temperature),
    ...present("top_p", sampling.topP),
    ...present("seed", sampling.seed),
  };
}

/**
 * Results come first, one message each, and all those of one turn stand together: nothing may come between them. Images among them follow the last one
 * as the user's, since servers take them from nobody else.
 */
function toOpenAiMessages(messages: readonly Message[], tools: WireTools): readonly object[] {
  let waiting: object[] = [];
  const shown = () => {
    const content = waiting;
    waiting = [];
    return content.length === 0 ? [] : [{ role: "user", content }];
  };
  const written = messages.flatMap(({ role, parts }) => {
    const results = parts.flatMap((part) => (part.kind === "toolResult" ? [part] : []));
    const rest = parts.filter(({ kind }) => kind !== "toolResult" && kind !== "reasoning");
    const before = results.length === 0 ? shown() : [];
    for (const { callId, images: urls = [] } of results) {
      if (urls.length === 0) continue;
      waiting.push({ type: "text", text: `Image from the tool call ${callId}:` }, ...urls.map(imagePart));
    }
    return [
      ...before,
      ...results.map(toResultMessage),
      ...(rest.length > 0 || results.length === 0 ? [...shown(), toOpenAiMessage(role, rest, tools)] : []),
    ];
  });
  return [...written, ...shown()];
}

function toResultMessage({ callId, text, isError }: Extract<Part, { kind: "toolResult" }>): object {
  return { role: "tool", tool_call_id: callId, content: isError === true ? `Error: ${text}` : text };
}

function toOpenAiMessage(role: Message["role"], parts: readonly Part[], tools: WireTools): object {
  const calls = parts.flatMap((part) => (part.kind === "toolCall" ? [part] : []));
  const isPlain = parts.every(({ kind }) => kind === "text" || kind === "toolCall");
  const content = isPlain
    ? parts.flatMap((part) => (part.kind === "text" ? [part.text] : [])).join("")
    : parts.flatMap(contentPart);
  return {
    // Servers other than OpenAI's know no "developer"; it means the same.
    role: role === "developer" ? "system" : role === "tool" ? "user" : role,
    content: content === "" && calls.length > 0 ? null : content,
    ...(calls.length === 0
      ? {}
      : {
          tool_calls: calls.map((call) => ({
            id: call.callId,
            type: "function",
            function: { name: tools.wireName(call), arguments: argumentsOf(call.arguments) },
          })),
        }),
  };
}

function contentPart(part: Part): readonly object[] {
  switch (part.kind) {
    case "text":
      return [{ type: "text", text: part.text }];
    case "image":
      return [imagePart(part.url)];
    case "file":
      return [{ type: "file", file: { file_data: part.url, ...present("filename", part.name) } }];
    case "toolCall":
    case "toolResult":
    case "reasoning":
      return [];
  }
}

const imagePart = (url: string) => ({ type: "image_url", image_url: { url } });

/** Canonical requests as bodies of OpenAI's API, for requests that did not come in that dialect. */
import type { ChatRequest, CompletionRequest, Message, OutputOptions, Sampling } from "../stream.ts";
import { OPENAI_NAMES, wireTools } from "../tool-names.ts";

/** The body of `POST /chat/completions`, always asking for usage in a stream. */
export async function chatBody(request: ChatRequest, modelName: string): Promise<Buffer> {
  const messages = await request.messages();
  const tools = wireTools(request, OPENAI_NAMES);
  return Buffer.from(
    JSON.stringify({
      model: modelName,
      messages: messages.flatMap(toOpenAiMessages),
      ...(tools.functions.length === 0
        ? {}
        : {
            tools: tools.functions.map((tool) => ({ type: "function", function: tool })),
            tool_choice: typeof tools.choice === "string" ? tools.choice : { type: "function", function: tools.choice },
          }),
      ...common(request.output, request.sampling, request.stream),
      ...(request.output.format.kind === "json" ? { response_format: { type: "json_object" } } : {}),
      ...(request.output.format.kind === "schema"
        ? {
            response_format: {
              type: "json_schema",
              json_schema: { name: request.output.format.name, schema: request.output.format.schema },
            },
          }
        : {}),
    }),
  );
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

function common(output: OutputOptions, sampling: Sampling, stream: boolean): object {
  return {
    stream,
    ...(stream ? { stream_options: { include_usage: true } } : {}),
    ...(output.maxTokens === undefined ? {} : { max_tokens: output.maxTokens }),
    ...(output.stop.length === 0 ? {} : { stop: output.stop }),
    ...(sampling.temperature === undefined ? {} : { temperature: sampling.temperature }),
    ...(sampling.topP === undefined ? {} : { top_p: sampling.topP }),
    ...(sampling.seed === undefined ? {} : { seed: sampling.seed }),
  };
}

function toOpenAiMessages(message: Message): readonly object[] {
  const results = message.parts.filter((part) => part.kind === "toolResult");
  if (results.length > 0)
    return results.map(({ callId, text }) => ({ role: "tool", tool_call_id: callId, content: text }));
  const calls = message.parts.filter((part) => part.kind === "toolCall");
  const hasImages = message.parts.some((part) => part.kind === "image");
  const content = hasImages
    ? message.parts.flatMap((part): object[] =>
        part.kind === "text"
          ? [{ type: "text", text: part.text }]
          : part.kind === "image"
            ? [{ type: "image_url", image_url: { url: part.url } }]
            : [],
      )
    : message.parts.flatMap((part) => (part.kind === "text" ? [part.text] : [])).join("");
  return [
    {
      role: message.role,
      content: content === "" && calls.length > 0 ? null : content,
      ...(calls.length === 0
        ? {}
        : {
            tool_calls: calls.map((call) => ({
              id: call.callId,
              type: "function",
              function: { name: call.name, arguments: call.arguments },
            })),
          }),
    },
  ];
}

/** The Vercel AI SDK (`ai`) with its providers for chat completions, Responses and Messages. */
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, type LanguageModel, Output, stepCountIs, streamText, tool } from "ai";
import { CITY_SCHEMA, type Doors, QUESTION, resultOf, type Sdk, type SdkCall, testSdk, TOOLS } from "./sdk-kit.ts";

function sdkFor(
  name: string,
  modelFor: (model: string) => LanguageModel,
  more: Pick<Sdk, "structuresByTool"> = {},
): Sdk {
  const once = { maxRetries: 0 } as const;
  return {
    ...more,
    name,
    plain: async (model) =>
      (await generateText({ model: modelFor(model), prompt: QUESTION, ...once, maxOutputTokens: 64 })).text,
    async *stream(model) {
      yield* streamText({ model: modelFor(model), prompt: QUESTION, ...once, maxOutputTokens: 64 }).textStream;
    },
    async tools(model) {
      const calls: SdkCall[] = [];
      const made = (called: keyof typeof TOOLS) =>
        tool({
          description: TOOLS[called].description,
          inputSchema: jsonSchema(JSON.parse(JSON.stringify(TOOLS[called].parameters))),
          execute(input: unknown) {
            calls.push({ name: called, arguments: input });
            return resultOf(called);
          },
        });
      const tools = { get_weather: made("get_weather"), get_time: made("get_time") };
      const { text } = await generateText({
        model: modelFor(model),
        prompt: QUESTION,
        tools,
        stopWhen: stepCountIs(3),
        ...once,
      });
      return { calls, text };
    },
    async structured(model) {
      const schema = jsonSchema<{ city: string }>(JSON.parse(JSON.stringify(CITY_SCHEMA)));
      const output = Output.object({ schema });
      return (await generateText({ model: modelFor(model), prompt: QUESTION, output, ...once })).output;
    },
    async abort(model) {
      const leaving = new AbortController();
      const { textStream } = streamText({
        model: modelFor(model),
        prompt: QUESTION,
        abortSignal: leaving.signal,
        onError() {},
        ...once,
      });
      for await (const _text of textStream) leaving.abort();
    },
  };
}

const base = ({ root, key }: Doors) => ({ baseURL: `${root}/v1`, apiKey: key });
testSdk("ai, @ai-sdk/openai-compatible", (doors) => {
  const provider = createOpenAICompatible({ name: "ghost", ...base(doors), supportsStructuredOutputs: true });
  return sdkFor("compatible", (model) => provider(model));
});
testSdk("ai, @ai-sdk/openai", (doors) => {
  const provider = createOpenAI(base(doors));
  return sdkFor("openai", (model) => provider(model));
});
testSdk("ai, @ai-sdk/anthropic", (doors) => {
  const provider = createAnthropic(base(doors));
  return sdkFor("anthropic", (model) => provider(model), { structuresByTool: true });
});

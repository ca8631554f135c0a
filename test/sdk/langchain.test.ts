/** LangChain's `@langchain/openai`, by chat completions and by Responses. */
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { ChatOpenAI } from "@langchain/openai";
import { CITY_SCHEMA, type Doors, QUESTION, resultOf, type Sdk, testSdk, TOOLS } from "./sdk-kit.ts";

function sdkFor({ root, key }: Doors, useResponsesApi: boolean): Sdk {
  const chat = (model: string, maxTokens?: number) =>
    new ChatOpenAI({
      model,
      apiKey: key,
      maxRetries: 0,
      useResponsesApi,
      configuration: { baseURL: `${root}/v1` },
      ...(maxTokens === undefined ? {} : { maxTokens }),
    });
  const functions = Object.entries(TOOLS).map(([name, tool]) => ({
    type: "function" as const,
    function: { name, ...tool },
  }));
  return {
    name: "langchain",
    plain: async (model) => (await chat(model, 64).invoke(QUESTION)).text,
    async *stream(model) {
      for await (const chunk of await chat(model, 64).stream(QUESTION)) yield chunk.text;
    },
    async tools(model) {
      const bound = chat(model).bindTools(functions);
      const question = new HumanMessage(QUESTION);
      const first = await bound.invoke([question]);
      const made = first.tool_calls ?? [];
      const results = made.map(
        ({ id = "", name }) => new ToolMessage({ tool_call_id: id, name, content: resultOf(name) }),
      );
      const last = await bound.invoke([question, first, ...results]);
      return { calls: made.map(({ name, args }) => ({ name, arguments: args })), text: last.text };
    },
    structured: (model) =>
      chat(model)
        .withStructuredOutput({ title: "answer", ...CITY_SCHEMA }, { method: "jsonSchema", name: "answer" })
        .invoke(QUESTION),
    async abort(model) {
      for await (const chunk of await chat(model).stream(QUESTION)) if (chunk.text !== "") break;
    },
  };
}

testSdk("@langchain/openai, chat completions", (doors) => sdkFor(doors, false));
testSdk("@langchain/openai, Responses", (doors) => sdkFor(doors, true));

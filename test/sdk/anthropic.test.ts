/** The official `@anthropic-ai/sdk` package. */
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { CITY_SCHEMA, QUESTION, resultOf, type Sdk, testSdk, TOOLS } from "./sdk-kit.ts";

testSdk("@anthropic-ai/sdk", ({ root, key }): Sdk => {
  const client = new Anthropic({ baseURL: root, apiKey: key, maxRetries: 0 });
  const tools = Object.entries(TOOLS).map(([name, { description, parameters }]) => ({
    name,
    description,
    input_schema: { ...parameters, required: [...parameters.required] },
  }));
  const ask = (model: string) => ({
    model,
    max_tokens: 2048,
    messages: [{ role: "user" as const, content: QUESTION }],
  });
  const textOf = ({ content }: Anthropic.Message) =>
    content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("");
  return {
    name: "anthropic",
    plain: async (model) => textOf(await client.messages.create({ ...ask(model), max_tokens: 32 })),
    async *stream(model) {
      for await (const event of client.messages.stream({ ...ask(model), max_tokens: 32 }))
        if (event.type === "content_block_delta" && event.delta.type === "text_delta") yield event.delta.text;
    },
    async tools(model) {
      const { messages, ...rest } = { ...ask(model), tools };
      const first = await client.messages.stream({ ...rest, messages }).finalMessage();
      assert.equal(first.stop_reason, "tool_use");
      const made = first.content.flatMap((block) => (block.type === "tool_use" ? [block] : []));
      const results = made.map(({ id, name }) => ({
        type: "tool_result" as const,
        tool_use_id: id,
        content: resultOf(name),
      }));
      const last = await client.messages.create({
        ...rest,
        messages: [...messages, { role: "assistant", content: first.content }, { role: "user", content: results }],
      });
      return { calls: made.map(({ name, input }) => ({ name, arguments: input })), text: textOf(last) };
    },
    async structured(model) {
      const format = { type: "json_schema" as const, schema: CITY_SCHEMA };
      return JSON.parse(textOf(await client.messages.create({ ...ask(model), output_config: { format } })));
    },
    async abort(model) {
      for await (const event of client.messages.stream(ask(model))) if (event.type === "content_block_delta") break;
    },
  };
});

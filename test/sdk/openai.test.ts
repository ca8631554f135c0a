/** The official `openai` package, by chat completions and by Responses. */
import assert from "node:assert/strict";
import OpenAI from "openai";
import type { ChatCompletionMessageParam } from "openai/resources/chat/completions";
import type { ResponseInputItem } from "openai/resources/responses/responses";
import { CITY_SCHEMA, type Doors, QUESTION, resultOf, type Sdk, type SdkCall, testSdk, TOOLS } from "./sdk-kit.ts";

const clientFor = ({ root, key }: Doors) => new OpenAI({ baseURL: `${root}/v1`, apiKey: key, maxRetries: 0 });
const tools = Object.entries(TOOLS).map(([name, tool]) => ({ name, ...tool }));

testSdk("openai, chat completions", (doors): Sdk => {
  const client = clientFor(doors);
  const question: ChatCompletionMessageParam = { role: "user", content: QUESTION };
  const functions = tools.map((tool) => ({ type: "function" as const, function: tool }));
  return {
    name: "openai",
    async plain(model) {
      const { choices } = await client.chat.completions.create({ model, messages: [question], max_tokens: 32 });
      return choices[0]?.message.content ?? "";
    },
    async *stream(model) {
      const chunks = await client.chat.completions.create({
        model,
        messages: [question],
        max_tokens: 32,
        stream: true,
      });
      for await (const chunk of chunks) yield chunk.choices[0]?.delta.content ?? "";
    },
    async tools(model) {
      const first = await client.chat.completions
        .stream({ model, messages: [question], tools: functions })
        .finalChatCompletion();
      const message = first.choices[0]?.message;
      assert.equal(first.choices[0]?.finish_reason, "tool_calls");
      const made = (message?.tool_calls ?? []).flatMap((call) => (call.type === "function" ? [call] : []));
      const turn = {
        role: "assistant" as const,
        content: message?.content ?? null,
        tool_calls: made.map(({ id, type, function: { name, arguments: text } }) => ({
          id,
          type,
          function: { name, arguments: text },
        })),
      };
      const results = made.map((call) => ({
        role: "tool" as const,
        tool_call_id: call.id,
        content: resultOf(call.function.name),
      }));
      const last = await client.chat.completions.create({
        model,
        messages: [question, turn, ...results],
        tools: functions,
      });
      return {
        calls: made.map(
          ({ function: called }): SdkCall => ({
            name: called.name,
            // A compatible server may leave an empty object out.
            arguments: JSON.parse(called.arguments || "{}"),
          }),
        ),
        text: last.choices[0]?.message.content ?? "",
      };
    },
    async structured(model) {
      const { choices } = await client.chat.completions.create({
        model,
        messages: [question],
        response_format: { type: "json_schema", json_schema: { name: "answer", schema: CITY_SCHEMA, strict: true } },
      });
      return JSON.parse(choices[0]?.message.content ?? "");
    },
    async abort(model) {
      const chunks = await client.chat.completions.create({ model, messages: [question], stream: true });
      for await (const chunk of chunks) if (chunk.choices[0]?.delta.content) break;
    },
  };
});

testSdk("openai, Responses", (doors): Sdk => {
  const client = clientFor(doors);
  const functions = tools.map((tool) => ({ type: "function" as const, ...tool, strict: false }));
  return {
    name: "openai",
    async plain(model) {
      return (await client.responses.create({ model, input: QUESTION, max_output_tokens: 32 })).output_text;
    },
    async *stream(model) {
      const events = await client.responses.create({ model, input: QUESTION, max_output_tokens: 32, stream: true });
      for await (const event of events) if (event.type === "response.output_text.delta") yield event.delta;
    },
    async tools(model) {
      const first = await client.responses.create({ model, input: QUESTION, tools: functions });
      const made = first.output.flatMap((item) => (item.type === "function_call" ? [item] : []));
      const results = made.map(
        (call): ResponseInputItem => ({
          type: "function_call_output",
          call_id: call.call_id,
          output: resultOf(call.name),
        }),
      );
      // By the id of what was stored, without repeating it.
      const last = await client.responses.create({
        model,
        previous_response_id: first.id,
        input: results,
        tools: functions,
      });
      return {
        calls: made.map((call): SdkCall => ({ name: call.name, arguments: JSON.parse(call.arguments) })),
        text: last.output_text,
      };
    },
    async structured(model) {
      const format = { type: "json_schema" as const, name: "answer", schema: CITY_SCHEMA, strict: true };
      const answer = await client.responses.create({ model, input: QUESTION, text: { format } });
      return JSON.parse(answer.output_text);
    },
    async abort(model) {
      const events = await client.responses.create({ model, input: QUESTION, stream: true });
      for await (const event of events) if (event.type === "response.output_text.delta") break;
    },
  };
});

/** The official `@google/genai` package, under `/v1beta` and `/v1`, as its older and newer versions ask. */
import assert from "node:assert/strict";
import { type Content, type FunctionCall, GoogleGenAI } from "@google/genai";
import { CITY_SCHEMA, type Doors, QUESTION, resultOf, type Sdk, testSdk, TOOLS } from "./sdk-kit.ts";

const functionDeclarations = Object.entries(TOOLS).map(([name, { description, parameters }]) => ({
  name,
  description,
  parametersJsonSchema: parameters,
}));

function sdkFor({ root, key }: Doors, apiVersion: string): Sdk {
  const { models } = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: root, apiVersion } });
  const ask = (model: string) => ({ model, contents: QUESTION });
  const short = { config: { maxOutputTokens: 64 } };
  return {
    name: "google-genai",
    plain: async (model) => (await models.generateContent({ ...ask(model), ...short })).text ?? "",
    async *stream(model) {
      for await (const chunk of await models.generateContentStream({ ...ask(model), ...short })) yield chunk.text ?? "";
    },
    async tools(model) {
      const question: Content = { role: "user", parts: [{ text: QUESTION }] };
      const config = { tools: [{ functionDeclarations }] };
      // As the package's own chats do, each piece of the stream goes back as a turn.
      const turns: Content[] = [];
      const made: FunctionCall[] = [];
      for await (const chunk of await models.generateContentStream({ model, contents: [question], config })) {
        made.push(...(chunk.functionCalls ?? []));
        const content = chunk.candidates?.[0]?.content;
        if (content !== undefined) turns.push(content);
      }
      const parts = made.map(({ id = "", name = "" }) => ({
        functionResponse: { id, name, response: { output: resultOf(name) } },
      }));
      const contents = [question, ...turns, { role: "user", parts }];
      const last = await models.generateContent({ model, contents, config });
      return { calls: made.map(({ name = "", args }) => ({ name, arguments: args })), text: last.text ?? "" };
    },
    async structured(model) {
      const config = { responseMimeType: "application/json", responseJsonSchema: CITY_SCHEMA };
      return JSON.parse((await models.generateContent({ ...ask(model), config })).text ?? "");
    },
    async abort(model) {
      const chunks = await models.generateContentStream(ask(model));
      for await (const chunk of chunks) if (chunk.text !== undefined) break;
      assert.ok(chunks !== undefined);
    },
  };
}

testSdk("@google/genai, /v1beta", (doors) => sdkFor(doors, "v1beta"));
testSdk("@google/genai, /v1", (doors) => sdkFor(doors, "v1"));

/** The official `@google/genai` package, under `/v1beta` and `/v1`, as its older and newer versions ask. */
import { type Content, type FunctionCall, GoogleGenAI, type Part } from "@google/genai";
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
      const said: Part[] = [];
      const made: FunctionCall[] = [];
      for await (const chunk of await models.generateContentStream({ model, contents: [question], config })) {
        made.push(...(chunk.functionCalls ?? []));
        said.push(...(chunk.candidates?.[0]?.content?.parts ?? []));
      }
      const parts = made.map(({ id = "", name = "" }) => ({
        functionResponse: { id, name, response: { output: resultOf(name) } },
      }));
      const contents = [question, { role: "model", parts: said }, { role: "user", parts }];
      const last = await models.generateContent({ model, contents, config });
      return { calls: made.map(({ name = "", args }) => ({ name, arguments: args })), text: last.text ?? "" };
    },
    async structured(model) {
      const config = { responseMimeType: "application/json", responseJsonSchema: CITY_SCHEMA };
      return JSON.parse((await models.generateContent({ ...ask(model), config })).text ?? "");
    },
    async abort(model) {
      // Only a signal lets it go: its iteration's end leaves the connection open.
      const leaving = new AbortController();
      const config = { abortSignal: leaving.signal };
      for await (const chunk of await models.generateContentStream({ ...ask(model), config })) {
        if (chunk.text === undefined) continue;
        leaving.abort();
        break;
      }
    },
  };
}

testSdk("@google/genai, /v1beta", (doors) => sdkFor(doors, "v1beta"));
testSdk("@google/genai, /v1", (doors) => sdkFor(doors, "v1"));

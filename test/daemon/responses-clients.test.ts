/** Libraries that agents are built on, as clients of the Responses API: each runs a tool, and goes on with its result. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { type AnthropicHost, startAnthropicHost } from "../fakes/anthropic-host.ts";
import { type CloudRequest, type CloudScript, textScript } from "../fakes/cloud-script.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";

const CLAUDE = "claude-opus-5-5";
const MODEL = `anthropic/${CLAUDE}`;
const KEY = "sk-test-key-of-nobody";
let claude: AnthropicHost;
let daemon: TestDaemon;

const answer = ({ toolResults }: CloudRequest): CloudScript =>
  toolResults.length > 0
    ? textScript("It says ", toolResults[0]?.text ?? "", ".")
    : {
        blocks: [
          { kind: "reasoning", deltas: ["I must ", "look."] },
          { kind: "tool-call", name: "read", arguments: ['{"path":', '"a.txt"}'] },
        ],
      };

before(async () => {
  claude = await startAnthropicHost({ models: [CLAUDE], apiKey: KEY, script: answer });
  const config = `[providers.ollama]\ndiscover = false\n[providers.anthropic]\nbase_url = "${claude.baseUrl}/v1"\nlocality = "machine"\n`;
  daemon = await startTestDaemon({ config, env: { ANTHROPIC_API_KEY: KEY } });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await claude[Symbol.asyncDispose]();
  assert.deepEqual([claude.violations, claude.refusals], [[], []]);
});

/** Claude accepts its own thinking only as it signed it: a refusal of the fake fails the tests above. */
const returnedSignature = () => (claude.requests.at(-1)?.bodyText ?? "").includes('"signature":"');

const read = tool({
  description: "Reads a file.",
  inputSchema: z.object({ path: z.string() }),
  execute: async ({ path }) => `hello from ${path}`,
});
const provider = () => createOpenAI({ baseURL: `${daemon.http}/v1`, apiKey: daemon.modelKey });
const options = (store: boolean) => ({
  model: provider().responses(MODEL),
  prompt: "What is in a.txt?",
  tools: { read },
  stopWhen: stepCountIs(4),
  maxRetries: 0,
  providerOptions: {
    openai: {
      store,
      reasoningEffort: "medium",
      reasoningSummary: "auto",
      forceReasoning: true,
      include: ["reasoning.encrypted_content"],
    },
  },
});

for (const store of [true, false]) {
  test(`the AI SDK, ${store ? "which leaves its history to the server" : "which keeps its history itself"}`, async () => {
    const { text, steps } = await generateText(options(store));
    assert.deepEqual([text, steps.length], ["It says hello from a.txt.", 2]);
    const streamed = streamText(options(store));
    let seen = "";
    for await (const piece of streamed.textStream) seen += piece;
    assert.equal(seen, "It says hello from a.txt.");
    assert.match((await streamed.steps)[0]?.reasoningText ?? "", /I must look\./);
    assert.ok(returnedSignature(), "the thinking went back to its maker");
  });
}

test("LangChain", async () => {
  const model = new ChatOpenAI({
    model: MODEL,
    apiKey: daemon.modelKey,
    maxRetries: 0,
    useResponsesApi: true,
    configuration: { baseURL: `${daemon.http}/v1` },
  }).bindTools([{ type: "function", function: { name: "read", parameters: { type: "object", properties: {} } } }]);
  const first = await model.invoke([{ role: "user", content: "What is in a.txt?" }]);
  assert.deepEqual(
    first.tool_calls?.map(({ name, args }) => [name, args]),
    [["read", { path: "a.txt" }]],
  );
  const result = { role: "tool", content: "bye", tool_call_id: first.tool_calls?.[0]?.id ?? "" };
  const second = await model.invoke([{ role: "user", content: "What is in a.txt?" }, first, result]);
  assert.equal(second.text, "It says bye.");
});

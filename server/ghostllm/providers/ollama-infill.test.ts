/** Infill where a model's template has no place for a suffix: by the words of its family, or not at all. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { completion, eventsOf, failsWith, never, setUp, textOf } from "../../../test/fakes/ollama-provider-kit.ts";
import { infillOf } from "./ollama-infill.ts";

const prompts: readonly (readonly [family: string, prompt: string, names: readonly string[]])[] = [
  [
    "qwen-coder",
    "<|fim_prefix|>BEFORE<|fim_suffix|>AFTER<|fim_middle|>",
    ["qwen2.5-coder", "hf.co/bartowski/Qwen2.5-Coder-7B-Instruct-GGUF:Q4_K_M", "qwen3-coder:30b", "me/qwen2.5-coder:x"],
  ],
  [
    "deepseek-coder",
    "<｜fim▁begin｜>BEFORE<｜fim▁hole｜>AFTER<｜fim▁end｜>",
    ["deepseek-coder:6.7b-base", "deepseek-coder-v2", "hf.co/x/DeepSeek-Coder-V2-Lite-Base-GGUF"],
  ],
  ["codellama", "<PRE> BEFORE <SUF>AFTER <MID>", ["codellama", "codellama:13b-code", "CodeLlama-7B-GGUF"]],
  [
    "starcoder",
    "<fim_prefix>BEFORE<fim_suffix>AFTER<fim_middle>",
    ["starcoder2:3b", "starcoder", "stable-code:3b", "granite-code:8b", "granite-8b-code-base-4k-GGUF"],
  ],
  ["codegemma", "<|fim_prefix|>BEFORE<|fim_suffix|>AFTER<|fim_middle|>", ["codegemma:2b", "codegemma:7b-code"]],
  [
    "granite",
    "<|fim_prefix|>BEFORE<|fim_suffix|>AFTER<|fim_middle|>",
    ["granite4:micro", "granite-4.0-h-tiny", "granite3.3"],
  ],
  ["codestral", "[SUFFIX]AFTER[PREFIX]BEFORE", ["codestral:22b", "hf.co/mistral/Codestral-22B-v0.1-GGUF"]],
];
for (const [family, prompt, names] of prompts) {
  test(`the words of ${family}, by the names that its models have`, () => {
    for (const name of names) {
      const infill = infillOf(name);
      assert.equal(infill?.family, family, name);
      assert.equal(infill.prompt("BEFORE", "AFTER"), prompt, name);
      assert.ok(infill.stop.length > 0);
    }
  });
}

test("a model of another family, or one that was not trained for it, gets no words", () => {
  const names = [
    "llama3",
    "qwen2.5:7b",
    "qwen3:8b",
    "deepseek-r1:8b",
    "granite3.1-dense",
    "codellama:34b",
    "codellama:7b-python",
    "codegemma:7b-instruct",
    "codegemma-7b-it",
    "not-qwen2.5-coder",
    "qwen2.5-coder/other",
    "gemma3",
    "starcoder2x",
    "",
  ];
  for (const name of names) assert.equal(infillOf(name), undefined, name);
});

test("without a place in its template, a known model is asked raw, and stops where its family stops", async (context) => {
  const { provider, host, model } = await setUp(context, [
    { name: "qwen2.5-coder:7b", capabilities: ["completion"], answer: () => " 1;<|endoftext|>more" },
    { name: "codestral", capabilities: ["completion"], answer: () => " 2;" },
  ]);
  const qwen = await model("qwen2.5-coder:7b");
  assert.equal(qwen.capabilities.fim, true);
  const output = { maxTokens: 9, stop: ["STOP"], format: { kind: "text" } } as const;
  const request = completion({ prefix: "const a =", suffix: "\n", output });
  assert.equal(textOf(await eventsOf(await provider.complete(request, qwen, never))), " 1;");
  const sent = host.requests.at(-1);
  assert.deepEqual(
    [sent?.raw, sent?.suffix, sent?.prompt, sent?.think],
    [true, "", "<|fim_prefix|>const a =<|fim_suffix|>\n<|fim_middle|>", false],
  );
  assert.equal(sent?.options.stop[0], "STOP", "the request's own stop comes first");
  assert.ok(sent.options.stop.includes("<|endoftext|>"));
  await eventsOf(await provider.complete(completion({ prefix: "", suffix: "end" }), await model("codestral"), never));
  assert.equal(host.requests.at(-1)?.prompt, "[SUFFIX]end[PREFIX]");
});

test("text that is only continued has no words of infill in it, and no stop of theirs", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "starcoder2", capabilities: ["completion"] }]);
  await eventsOf(await provider.complete(completion({ prefix: "let x" }), await model("starcoder2"), never));
  const sent = host.requests.at(-1);
  assert.deepEqual([sent?.prompt, sent?.raw, sent?.options.stop], ["let x", true, []]);
});

test("a template with a place is used; what has neither, or does not run here, is refused", async (context) => {
  const { provider, host, model } = await setUp(context, [
    { name: "codegemma", capabilities: ["completion", "insert"] },
    { name: "llama3", capabilities: ["completion"] },
    { name: "qwen3-coder", capabilities: ["completion"], remoteHost: "https://ollama.com:443" },
  ]);
  await eventsOf(await provider.complete(completion({ suffix: "b" }), await model("codegemma"), never));
  assert.deepEqual([host.requests.at(-1)?.raw, host.requests.at(-1)?.suffix], [false, "b"]);
  for (const name of ["llama3", "qwen3-coder"]) {
    const found = await model(name);
    assert.equal(found.capabilities.fim, false);
    await assert.rejects(provider.complete(completion({ suffix: "b" }), found, never), failsWith("capability_missing"));
  }
});

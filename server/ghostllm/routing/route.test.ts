import assert from "node:assert/strict";
import { test } from "node:test";
import { modelRefSchema } from "../../../protocol/ids.ts";
import type { ModelInfo } from "../../../protocol/model.ts";
import { GhostError } from "../../base/errors.ts";
import { decide, NO_NEEDS, type RouteFacts } from "./route.ts";

const can = { chat: true, complete: true, fim: false, embeddings: false, tools: true, vision: false, jsonSchema: true };
const model = (ref: string, more: Partial<ModelInfo> = {}): ModelInfo => {
  const [provider = "", name = ""] = ref.split("/");
  const [bare = "", host] = name.split("@");
  return {
    ref: modelRefSchema.parse(ref),
    provider,
    name: bare,
    ...(host === undefined ? {} : { host }),
    locality: "machine",
    capabilities: can,
    ...more,
  };
};
const demo = model("embedded/tiny-code-fim", {
  demonstration: true,
  sizeBytes: 7e6,
  capabilities: { ...can, fim: true, tools: false },
});
const coder = model("ollama/coder@ws4090", { locality: "lan", sizeBytes: 9e9, capabilities: { ...can, fim: true } });
const coderAgain = model("ollama/coder@srv3070", { locality: "lan", sizeBytes: 9e9 });
const cloud = model("claude/opus", { locality: "cloud", sizeBytes: 900e9 });
const all = [demo, coder, coderAgain, cloud];
const base: RouteFacts = {
  target: "ghost/auto",
  task: "chat",
  needs: NO_NEEDS,
  models: all,
  aliases: {},
  intents: {},
  cloudDenied: () => undefined,
};

const cases: readonly {
  readonly name: string;
  readonly facts: Partial<RouteFacts>;
  readonly plan: readonly string[];
}[] = [
  {
    name: "auto goes from near to far and takes demonstration weights last",
    facts: {},
    plan: [coder.ref, coderAgain.ref, cloud.ref, demo.ref],
  },
  {
    name: "local never names a cloud model",
    facts: { target: "ghost/local" },
    plan: [coder.ref, coderAgain.ref, demo.ref],
  },
  {
    name: "reason prefers the largest",
    facts: { target: "ghost/reason" },
    plan: [cloud.ref, coder.ref, coderAgain.ref, demo.ref],
  },
  { name: "an explicit model is that model alone", facts: { target: "claude/opus" }, plan: [cloud.ref] },
  {
    name: "an explicit demonstration model is taken at its word",
    facts: { target: "embedded/tiny-code-fim" },
    plan: [demo.ref],
  },
  {
    name: "a model without host means every host that has it",
    facts: { target: "ollama/coder" },
    plan: [coder.ref, coderAgain.ref],
  },
  { name: "a bare name finds its model", facts: { target: "opus" }, plan: [cloud.ref] },
  {
    name: "an alias is tried in its order",
    facts: { target: "mine", aliases: { mine: ["claude/*", "ollama/coder@ws*"] } },
    plan: [cloud.ref, coder.ref],
  },
  {
    name: "code follows the user's list, then the rest",
    facts: { target: "ghost/code", intents: { code: ["claude/*"] } },
    plan: [cloud.ref, coder.ref, coderAgain.ref, demo.ref],
  },
  {
    name: "infill needs a model that can",
    facts: { task: "completion", needs: { ...NO_NEEDS, fim: true } },
    plan: [coder.ref, demo.ref],
  },
  {
    name: "what cannot be used is left out",
    facts: { models: [model("embedded/broken", { unusable: true }), demo] },
    plan: [demo.ref],
  },
  {
    name: "what cannot be used is tried when it is named",
    facts: { target: "embedded/broken", models: [model("embedded/broken", { unusable: true }), demo] },
    plan: ["embedded/broken"],
  },
  {
    name: "a denied cloud is left out",
    facts: { cloudDenied: () => "llm.cloud is denied" },
    plan: [coder.ref, coderAgain.ref, demo.ref],
  },
];
for (const { name, facts, plan } of cases) {
  test(name, () => assert.deepEqual(decide({ ...base, ...facts }).plan, plan));
}

const failures: readonly {
  readonly name: string;
  readonly facts: Partial<RouteFacts>;
  readonly code: string;
  readonly says: RegExp;
}[] = [
  {
    name: "an unknown name gets suggestions",
    facts: { target: "claude/opsu" },
    code: "model_not_found",
    says: /Did you mean `claude\/opus`/,
  },
  {
    name: "a named model that is denied says so",
    facts: { target: "claude/opus", cloudDenied: () => "is denied by llm.cloud" },
    code: "denied",
    says: /denied by llm\.cloud/,
  },
  {
    name: "a named model that cannot says what",
    facts: { target: "embedded/tiny-code-fim", needs: { ...NO_NEEDS, tools: true } },
    code: "capability_missing",
    says: /cannot call tools/,
  },
  {
    name: "an alias that matches nothing is not available",
    facts: { target: "mine", aliases: { mine: ["nobody/*"] } },
    code: "no_model_available",
    says: /finds no model/,
  },
  {
    name: "a name from Object's prototype is not an alias",
    facts: { target: "constructor" },
    code: "model_not_found",
    says: /constructor/,
  },
];
for (const { name, facts, code, says } of failures) {
  test(name, () => {
    assert.throws(
      () => decide({ ...base, ...facts }),
      (error) => error instanceof GhostError && error.code === code && says.test(error.message),
    );
  });
}

test("every rejected candidate says why", () => {
  const { candidates } = decide({ ...base, target: "ghost/local" });
  assert.equal(candidates.length, all.length);
  assert.equal(candidates.find(({ model: ref }) => ref === cloud.ref)?.rejectedBecause, "is not local");
});

test("equal facts get the same decision; any other fact, and whatever a rule may say, is asked anew", () => {
  const facts: RouteFacts = { ...base, models: [demo, coder] };
  const decision = decide(facts);
  assert.equal(decide({ ...facts, needs: { ...NO_NEEDS } }), decision);
  const others: readonly Partial<RouteFacts>[] = [
    { models: [demo, coder] },
    { aliases: { "ghost/auto": ["embedded/*"] } },
    { intents: {} },
    { needs: { ...NO_NEEDS, fim: true } },
    { task: "completion" },
    { target: "ghost/fast" },
  ];
  for (const other of others) assert.notEqual(decide({ ...facts, ...other }), decision);
  assert.deepEqual(decide({ ...facts, aliases: { "ghost/auto": ["embedded/*"] } }).plan, [demo.ref]);
  let isDenied = false;
  const ruled: RouteFacts = { ...base, cloudDenied: () => (isDenied ? "a rule says no" : undefined) };
  assert.ok(decide(ruled).plan.includes(cloud.ref));
  isDenied = true;
  assert.ok(!decide(ruled).plan.includes(cloud.ref));
});

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { eventsFrame, type ToolSpec } from "./stream.ts";
import { ANTHROPIC_NAMES, GEMINI_NAMES, OPENAI_NAMES, wireTools } from "./tool-names.ts";

const fn = (name: string, namespace?: string): ToolSpec => ({
  kind: "function",
  name,
  description: undefined,
  parameters: { type: "object" },
  ...(namespace === undefined ? {} : { namespace }),
});

test("plain tools keep their names, and frames pass as they are", () => {
  const tools = wireTools({ tools: [fn("read")], toolChoice: { name: "read" } }, OPENAI_NAMES);
  assert.deepEqual([tools.functions[0]?.name, tools.choice], ["read", { name: "read" }]);
  const frame = eventsFrame([{ kind: "toolCall", index: 0, callId: "c", name: "read", arguments: "{}" }]);
  assert.equal(tools.restore(frame), frame);
});

test("a namespaced and a free-form tool are called as functions and come back as what they are", () => {
  const patch: ToolSpec = { kind: "custom", name: "apply_patch", description: "Edits.", format: { type: "grammar" } };
  const tools = wireTools({ tools: [fn("open", "files"), patch], toolChoice: "auto" }, OPENAI_NAMES);
  assert.deepEqual(
    tools.functions.map(({ name }) => name),
    ["files__open", "apply_patch"],
  );
  assert.match(
    tools.functions[1]?.description ?? "",
    /^Edits\.\nThe input must follow this format: \{"type":"grammar"\}$/,
  );
  const restored = tools.restore(
    eventsFrame([
      { kind: "toolCall", index: 0, callId: "a", name: "files__open", arguments: "" },
      { kind: "toolCall", index: 1, callId: "b", name: "apply_patch", arguments: '{"input":"x"}' },
      { kind: "toolCall", index: 1, arguments: "" },
    ]),
  );
  assert.deepEqual(restored.events(), [
    { kind: "toolCall", index: 0, callId: "a", name: "open", namespace: "files", arguments: "" },
    { kind: "toolCall", index: 1, callId: "b", name: "apply_patch", isCustom: true, arguments: '{"input":"x"}' },
    { kind: "toolCall", index: 1, arguments: "" },
  ]);
});

test("hosted tools are left out and named", () => {
  const tools = wireTools(
    { tools: [{ kind: "hosted", name: "web_search", spec: {} }], toolChoice: "auto" },
    OPENAI_NAMES,
  );
  assert.deepEqual([tools.functions, tools.hosted], [[], ["web_search"]]);
});

test("any names fit their upstream, stay apart, and are the same every time", () => {
  const names = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 200 }), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(names, fc.constantFrom(OPENAI_NAMES, ANTHROPIC_NAMES, GEMINI_NAMES), (given, limits) => {
      const ask = () => wireTools({ tools: given.map((name) => fn(name)), toolChoice: "auto" }, limits);
      const wire = ask().functions.map(({ name }) => name);
      assert.equal(new Set(wire).size, given.length);
      for (const name of wire) assert.ok(name.length <= limits.maxLength && limits.allowed.test(name), name);
      assert.deepEqual(
        ask().functions.map(({ name }) => name),
        wire,
      );
      const back = ask().restore(
        eventsFrame(wire.map((name, index) => ({ kind: "toolCall", index, callId: `c${index}`, name, arguments: "" }))),
      );
      assert.deepEqual(
        back.events().map((event) => (event.kind === "toolCall" ? event.name : undefined)),
        given,
      );
    }),
  );
});

test("tools that would share a name upstream stay apart, and calls of each come back as its own", () => {
  const given = [fn("a__b"), fn("b", "a"), fn("b__c", "a"), fn("c", "a__b")];
  const tools = wireTools({ tools: given, toolChoice: { name: "b", namespace: "a" } }, OPENAI_NAMES);
  const wire = tools.functions.map(({ name }) => name);
  assert.equal(new Set(wire).size, given.length);
  assert.equal(wire[0], "a__b");
  assert.deepEqual(tools.choice, { name: wire[1] });
  assert.equal(tools.wireName({ name: "b", namespace: "a" }), wire[1]);
  const back = tools.restore(
    eventsFrame(wire.map((name, index) => ({ kind: "toolCall", index, callId: `c${index}`, name, arguments: "" }))),
  );
  assert.deepEqual(
    back.events().map((event) => (event.kind === "toolCall" ? [event.name, event.namespace] : [])),
    given.map((tool) => (tool.kind === "hosted" ? [] : [tool.name, tool.namespace])),
  );
});

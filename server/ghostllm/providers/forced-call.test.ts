import assert from "node:assert/strict";
import { test } from "node:test";
import { clientIdSchema, userIdSchema } from "../../../protocol/ids.ts";
import { type ChatRequest, eventsFrame, type ToolSpec } from "../stream.ts";
import { forcedCall } from "./forced-call.ts";

const schema = { type: "object", properties: { city: { type: "string" } } };
const weather: ToolSpec = { kind: "function", name: "weather", description: "Tells it.", parameters: schema };
const other: ToolSpec = { kind: "function", name: "other", description: undefined, parameters: undefined };
const base: ChatRequest = {
  task: "chat",
  target: "m",
  messages: async () => [{ role: "user", parts: [{ kind: "text", text: "Hi" }] }],
  tools: [weather, other],
  toolChoice: { name: "weather" },
  output: { stop: [], format: { kind: "text" } },
  sampling: {},
  lane: "chat",
  stream: true,
  actor: { userId: userIdSchema.parse("local"), client: clientIdSchema.parse("t"), via: { kind: "api", id: "t" } },
};

test("the named tool's arguments are asked for alone, and come back as its call", async () => {
  const forced = forcedCall(base, "call_1");
  assert.ok(forced !== undefined);
  assert.deepEqual(forced.request.output.format, { kind: "schema", name: "weather", schema });
  assert.deepEqual([forced.request.tools, forced.request.toolChoice], [[], "none"]);
  assert.match(JSON.stringify((await forced.request.messages()).at(-1)), /Call the tool \\"weather\\" now.*Tells it/);
  const frames = [
    eventsFrame([{ kind: "text", text: '{"city":' }]),
    eventsFrame([
      { kind: "text", text: '"Bonn"}' },
      { kind: "finish", reason: "stop" },
    ]),
  ];
  assert.deepEqual(
    frames.flatMap((frame) => forced.change(frame).events()),
    [
      { kind: "toolCall", index: 0, callId: "call_1", name: "weather", arguments: '{"city":' },
      { kind: "toolCall", index: 0, arguments: '"Bonn"}' },
      { kind: "finish", reason: "toolCalls" },
    ],
  );
});

test("a call that was cut short stays cut short", () => {
  const frame = eventsFrame([{ kind: "finish", reason: "length" }]);
  assert.deepEqual(forcedCall(base, "c")?.change(frame).events(), frame.events());
});

test("one offered tool can be required; of several nobody knows which", () => {
  assert.ok(forcedCall({ ...base, tools: [weather], toolChoice: "required" }, "c") !== undefined);
  for (const toolChoice of ["required", "auto", "none", { name: "missing" }] as const)
    assert.equal(forcedCall({ ...base, toolChoice }, "c"), undefined);
});

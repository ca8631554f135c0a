/** Conversations as items: what the fake host cannot tell apart. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Message, Part } from "../stream.ts";
import { inputItems } from "./responses-input.ts";

const options = {
  maker: "openai",
  takesCustom: true,
  instructionRole: "developer",
  wireName: ({ name }: { readonly name: string }) => name,
} as const;
const check = (messages: readonly Message[], expected: readonly object[]) =>
  assert.deepEqual(inputItems(messages, options), expected);
const says = (role: Message["role"], ...parts: readonly Part[]): Message => ({ role, parts });
const text = (words: string): Part => ({ kind: "text", text: words });
const seal = (data: object, words = ""): Part => ({
  kind: "reasoning",
  text: words,
  opaque: { maker: "openai", data: JSON.stringify(data) },
});

test("a summary of several parts comes back in its parts, one of one part as it is, and none as none", () => {
  const item = (id: string, summary: readonly string[]) => ({
    type: "reasoning",
    id,
    summary: summary.map((part) => ({ type: "summary_text", text: part })),
    encrypted_content: "x",
  });
  check(
    [
      says(
        "assistant",
        seal({ id: "rs_1", encrypted_content: "x", summary: ["a", "b"] }, "a\n\nb"),
        seal({ id: "rs_2", encrypted_content: "x" }, "a\n\nb"),
        seal({ id: "rs_3", encrypted_content: "x" }),
        text("c"),
      ),
    ],
    [
      item("rs_1", ["a", "b"]),
      item("rs_2", ["a\n\nb"]),
      item("rs_3", []),
      { type: "message", role: "assistant", content: "c" },
    ],
  );
});

test("reasoning may stand in a message of its own before what it led to", () => {
  const items = inputItems(
    [
      says("assistant", seal({ id: "rs_1", encrypted_content: "x" })),
      says("assistant", { kind: "toolCall", callId: "c", name: "f", arguments: "" }),
      says("tool", { kind: "toolResult", callId: "c", text: "r" }),
    ],
    options,
  );
  assert.equal(items.length, 3);
});

test("a phase belongs to the next words of the model, and to no others", () => {
  const spoken = (content: string, phase?: string) => ({
    type: "message",
    role: "assistant",
    content,
    ...(phase === undefined ? {} : { phase }),
  });
  const commentary = seal({ phase: "commentary" });
  check(
    [
      says(
        "assistant",
        text("before"),
        commentary,
        text("one, "),
        text("still one"),
        seal({ phase: "final_answer" }),
        text("two"),
      ),
    ],
    [spoken("before"), spoken("one, still one", "commentary"), spoken("two", "final_answer")],
  );
  check(
    [says("assistant", commentary), says("user", text("u")), says("assistant", text("a"))],
    [{ type: "message", role: "user", content: "u" }, spoken("a")],
  );
});

test("a free-form call whose text is no JSON, or has a namespace, is still a call", () => {
  const call = (more: object): Part => ({
    kind: "toolCall",
    callId: "c",
    name: "p",
    arguments: "*** cut",
    isCustom: true,
    ...more,
  });
  check(
    [
      says("assistant", call({}), call({ callId: "d", namespace: "ns" })),
      says("tool", { kind: "toolResult", callId: "c", text: "1" }, { kind: "toolResult", callId: "d", text: "2" }),
    ],
    [
      { type: "custom_tool_call", call_id: "c", name: "p", input: "*** cut" },
      { type: "function_call", call_id: "d", name: "p", arguments: "*** cut" },
      { type: "custom_tool_call_output", call_id: "c", output: "1" },
      { type: "function_call_output", call_id: "d", output: "2" },
    ],
  );
});

test("a result in a user's message comes before what the user says behind it", () => {
  check(
    [
      says("assistant", { kind: "toolCall", callId: "c", name: "f", arguments: "" }),
      says("user", { kind: "toolResult", callId: "c", text: "r", isError: true }, text("go on"), text("")),
    ],
    [
      { type: "function_call", call_id: "c", name: "f", arguments: "{}" },
      { type: "function_call_output", call_id: "c", output: "Error: r" },
      { type: "message", role: "user", content: "go on" },
    ],
  );
});

test("a call without a result has one that says so, and a result without a call is words", () => {
  check(
    [
      says("assistant", { kind: "toolCall", callId: "c", name: "f", arguments: "" }),
      says("user", { kind: "toolResult", callId: "d", text: "r" }),
    ],
    [
      { type: "function_call", call_id: "c", name: "f", arguments: "{}" },
      { type: "function_call_output", call_id: "c", output: "Error: It was broken off: there is no result." },
      { type: "message", role: "user", content: "<tool_result>\nr\n</tool_result>" },
    ],
  );
});

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Message, Part } from "../stream.ts";
import { withPairedCalls } from "./paired-calls.ts";

const call = (callId: string): Part => ({ kind: "toolCall", callId, name: "f", arguments: "{}" });
const result = (callId: string): Part => ({ kind: "toolResult", callId, text: `of ${callId}` });
const text = (words: string): Part => ({ kind: "text", text: words });
const turn = (role: Message["role"], ...parts: Part[]): Message => ({ role, parts });

/** `a` for a call, `=a` for its result, `!a` for a result that is an error, words as they are. */
const brief = (messages: readonly Message[]) =>
  withPairedCalls(messages).map(({ role, parts }) => [
    role,
    ...parts.map((part) =>
      part.kind === "toolCall"
        ? part.callId
        : part.kind === "toolResult"
          ? `${part.isError === true ? "!" : "="}${part.callId}`
          : part.kind === "text"
            ? part.text
            : part.kind,
    ),
  ]);

test("a conversation in which every call has its result is left as it is, also where ids come twice", () => {
  const messages = [
    turn("user", text("go")),
    turn("assistant", call("a"), call("b")),
    turn("tool", result("b"), result("a")),
    turn("assistant", call("a")),
    turn("tool", result("a")),
  ];
  assert.equal(withPairedCalls(messages), messages);
});

test("a call that was broken off gets a result behind it that says so", () => {
  assert.deepEqual(
    brief([
      turn("assistant", call("a"), call("b")),
      turn("tool", result("b")),
      turn("user", text("never mind")),
      turn("assistant", text("well"), call("a")),
    ]),
    [
      ["assistant", "a", "b"],
      ["tool", "!a"],
      ["tool", "=b"],
      ["user", "never mind"],
      ["assistant", "well", "a"],
      ["tool", "!a"],
    ],
  );
});

test("a result whose call is not there is shown by the user, with its images", () => {
  const orphan: Part = { kind: "toolResult", callId: "z", text: "seen", images: ["data:image/png;base64,AA"] };
  assert.deepEqual(brief([turn("tool", orphan), turn("user", text("hi")), turn("user", result("y"), text("so"))]), [
    ["user", "<tool_result>\nseen\n</tool_result>", "image"],
    ["user", "hi"],
    ["user", "so"],
    ["user", "<tool_result>\nof y\n</tool_result>"],
  ]);
  // Before its call it is no result of it.
  assert.deepEqual(brief([turn("tool", result("a")), turn("assistant", call("a"))]), [
    ["user", "<tool_result>\nof a\n</tool_result>"],
    ["assistant", "a"],
    ["tool", "!a"],
  ]);
});

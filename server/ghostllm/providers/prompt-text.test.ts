/** Conversations as one prompt. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { call, result, say } from "../../../test/support/anthropic.ts";
import { promptText } from "./prompt-text.ts";

test("one question is itself, and what the system says stands apart", () => {
  assert.deepEqual(promptText([say("system", "Be brief."), say("developer", "Now."), say("user", "hi")]), {
    system: "Be brief.\n\nNow.",
    prompt: "hi",
  });
  assert.deepEqual(promptText([say("system", "a"), say("system", "b")]), { system: "a", prompt: "b" });
  assert.deepEqual(promptText([]), {
    system: "",
    prompt: promptText([]).prompt,
  });
});

test("a conversation is told in order, with its calls and their results", () => {
  const { system, prompt } = promptText([
    say("system", "Be brief."),
    say("user", "What is in a?"),
    {
      role: "assistant",
      parts: [
        { kind: "reasoning", text: "secret thought" },
        { kind: "text", text: "Looking." },
        call("c1", "read", { arguments: '{"path":"a"}' }),
        call("c2", "list", { arguments: "" }),
      ],
    },
    result("c1", "It is empty."),
    { role: "tool", parts: [{ kind: "toolResult", callId: "c2", text: "no", isError: true }] },
    say("system", "Hurry."),
    say("user", "And?"),
  ]);
  assert.equal(system, "Be brief.");
  assert.deepEqual(prompt.split("\n\n").slice(1, -1), [
    "<user>\nWhat is in a?\n</user>",
    "<assistant>\nLooking.\n</assistant>",
    '<assistant_calls tool="read" id="c1">\n{"path":"a"}\n</assistant_calls>',
    '<assistant_calls tool="list" id="c2">\n{}\n</assistant_calls>',
    '<tool_result tool="read" id="c1">\nIt is empty.\n</tool_result>',
    '<tool_result tool="list" id="c2" failed="true">\nno\n</tool_result>',
    "<system>\nHurry.\n</system>",
    "<user>\nAnd?\n</user>",
  ]);
  assert.match(prompt, /Now give the assistant's next message/);
  assert.doesNotMatch(prompt, /secret thought/);
});

test("an answer that broke off is asked to go on", () => {
  const { prompt } = promptText([say("user", "a"), say("assistant", "Once upon")]);
  assert.match(prompt, /<assistant>\nOnce upon\n<\/assistant>\n\nThe assistant's last message was interrupted\./);
});

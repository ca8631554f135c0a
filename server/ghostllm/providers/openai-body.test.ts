import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { clientIdSchema, userIdSchema } from "../../../protocol/ids.ts";
import type { ChatRequest, Message, Part } from "../stream.ts";
import { chatBody } from "./openai-body.ts";

const bodySchema = z.looseObject({
  messages: z.array(
    z.looseObject({
      role: z.string(),
      content: z.unknown(),
      tool_call_id: z.string().optional(),
      tool_calls: z.array(z.looseObject({ id: z.string(), function: z.looseObject({ name: z.string() }) })).optional(),
    }),
  ),
});

async function messagesOf(messages: readonly Message[], more: Partial<ChatRequest> = {}) {
  const request: ChatRequest = {
    task: "chat",
    target: "up/m",
    messages: async () => messages,
    tools: [],
    toolChoice: "auto",
    output: { stop: [], format: { kind: "text" } },
    sampling: {},
    lane: "chat",
    actor: { userId: userIdSchema.parse("local"), client: clientIdSchema.parse("t"), via: { kind: "api", id: "t" } },
    stream: true,
    ...more,
  };
  const { body } = await chatBody(request, "m");
  return bodySchema.parse(JSON.parse(body.toString())).messages;
}

const text = (words: string): Part => ({ kind: "text", text: words });
const call = (callId: string): Part => ({ kind: "toolCall", callId, name: "look", arguments: "" });
const result = (callId: string, images: readonly string[] = []): Part => ({
  kind: "toolResult",
  callId,
  text: `result of ${callId}`,
  ...(images.length === 0 ? {} : { images }),
});
const PIXEL = "data:image/png;base64,AAAA";

test("images of results come behind all results of their turn, whether those are one message or several", async () => {
  const calls: Message = { role: "assistant", parts: [call("a"), call("b")] };
  const turns: readonly (readonly Message[])[] = [
    [{ role: "tool", parts: [result("a", [PIXEL]), result("b")] }],
    [
      { role: "tool", parts: [result("a", [PIXEL])] },
      { role: "tool", parts: [result("b")] },
    ],
  ];
  for (const results of turns) {
    const all = await messagesOf([{ role: "user", parts: [text("go")] }, calls, ...results]);
    assert.deepEqual(
      all.map(({ role, tool_call_id: id }) => id ?? role),
      ["user", "assistant", "a", "b", "user"],
    );
    assert.deepEqual(all.at(-1)?.content, [
      { type: "text", text: "Image from the tool call a:" },
      { type: "image_url", image_url: { url: PIXEL } },
    ]);
    const more = await messagesOf([calls, ...results, { role: "user", parts: [text("and?")] }]);
    assert.deepEqual(
      more.map(({ role, tool_call_id: id }) => id ?? role),
      ["assistant", "a", "b", "user", "user"],
    );
    assert.equal(more.at(-1)?.content, "and?");
  }
});

test("instructions stay where they are, in a role that every server knows", async () => {
  const roles = ["system", "user", "developer", "assistant", "system"] as const;
  const all = await messagesOf(roles.map((role) => ({ role, parts: [text(role)] })));
  assert.deepEqual(
    all.map(({ role, content }) => [role, content]),
    [
      ["system", "system"],
      ["user", "user"],
      ["system", "developer"],
      ["assistant", "assistant"],
      ["system", "system"],
    ],
  );
});

test("a result that is an error says so, and thinking of any maker stays out", async () => {
  const opaque = { maker: "anthropic", data: '{"signature":"s"}' };
  const all = await messagesOf([
    { role: "assistant", parts: [{ kind: "reasoning", text: "hm", opaque }, call("a")] },
    { role: "tool", parts: [{ kind: "toolResult", callId: "a", text: "no such file", isError: true }] },
  ]);
  assert.doesNotMatch(JSON.stringify(all), /hm|signature/);
  assert.equal(all[1]?.content, "Error: no such file");
});

/** Stop strings over the frames of an upstream that has none. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventsFrame, type StreamEvent } from "../stream.ts";
import { stopAt } from "./stopped.ts";

const text = (words: string): StreamEvent => ({ kind: "text", text: words });
const finish = { kind: "finish", reason: "length" } as const;
const usage = { kind: "usage", usage: { completionTokens: 9 } } as const;
const call = { kind: "toolCall", index: 0, callId: "c", name: "read", arguments: "{}" } as const;

/** What comes out, and how many frames were asked for. */
async function check(frames: readonly (readonly StreamEvent[])[], expected: readonly StreamEvent[], asked: number) {
  let count = 0;
  async function* source() {
    for (const events of frames) {
      count += 1;
      yield eventsFrame(events);
    }
  }
  const events: StreamEvent[] = [];
  for await (const frame of stopAt(source(), ["END"])) events.push(...frame.events());
  assert.deepEqual(events, expected);
  assert.equal(count, asked);
}

test("the text ends before the stop string, and nothing more is asked for", () =>
  check([[text("a E")], [text("ND b")], [text("c")]], [text("a "), { kind: "finish", reason: "stop" }], 2));

test("what only begins like a stop string comes out before the block behind it", () =>
  check([[text("a EN")], [call], [text("D")], [finish]], [text("a "), text("EN"), call, text("D"), finish], 4));

test("it comes out at the end, too, whether the upstream says one or not", async () => {
  await check([[text("a E")], [usage, finish]], [text("a "), usage, text("E"), finish], 2);
  await check([[text("a E")]], [text("a "), text("E")], 1);
});

test("of an answer that comes at once, what it cost is kept", () =>
  check([[text("a END b"), text("c"), usage, finish]], [text("a "), usage, { kind: "finish", reason: "stop" }], 1));

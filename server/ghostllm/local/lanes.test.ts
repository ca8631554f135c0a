import assert from "node:assert/strict";
import { test } from "node:test";
import { nextWork, type Work } from "./lanes.ts";

const work = (lane: Work["lane"], modelKey = "a", kind: Work["kind"] = "generate"): Work => ({
  kind,
  lane,
  modelKey,
  sequences: 4,
});
const chat = work("chat");
const completion = work("completion");
const background = work("background");

const cases: readonly (readonly [
  what: string,
  waiting: readonly Work[],
  running: readonly Work[],
  expected: Work | undefined,
])[] = [
  ["a completion overtakes what came before it", [background, chat, completion], [], completion],
  ["a chat overtakes background work", [background, chat], [], chat],
  ["chats leave one sequence for completions", [chat], [chat, chat, chat], undefined],
  ["which a completion takes", [chat, completion], [chat, chat, chat], completion],
  ["background work leaves one more for chats", [background], [background, background], undefined],
  ["which a chat takes", [background, chat], [background, background], chat],
  ["four at once are all there is", [completion], [completion, chat, chat, chat], undefined],
  ["one text for embedding at a time", [work("chat", "a", "embed")], [work("chat", "a", "embed")], undefined],
  ["embedding has a context of its own", [work("chat", "a", "embed")], [chat, chat, chat], work("chat", "a", "embed")],
  [
    "a third model waits until one of two is idle",
    [work("chat", "c")],
    [work("chat", "a"), work("chat", "b")],
    undefined,
  ],
  [
    "and is not overtaken by what would keep them busy",
    [work("chat", "c"), work("chat", "a")],
    [work("chat", "a"), work("chat", "b")],
    undefined,
  ],
  ["except by a higher lane", [work("chat", "c"), completion], [work("chat", "a"), work("chat", "b")], completion],
];
for (const [what, waiting, running, expected] of cases) {
  test(what, () => assert.deepEqual(nextWork(waiting, running, 2), expected));
}

test("a model with one sequence serves everybody, one by one", () => {
  const single = { ...background, sequences: 1 };
  assert.equal(nextWork([single], [], 2), single);
  assert.equal(nextWork([single], [single], 2), undefined);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Ids } from "../../base/clock.ts";
import { eventsFrame, type StreamEvent } from "../stream.ts";
import { createChatRepair } from "./chat-repair.ts";

const countingIds = (): Ids => {
  let count = 0;
  return { next: (prefix: string) => `${prefix}_${++count}`, secret: () => "x" };
};
const call = (index: number, more: object): StreamEvent => ({ kind: "toolCall", index, arguments: "", ...more });

function repair(...events: StreamEvent[]): readonly StreamEvent[] {
  const fix = createChatRepair(countingIds());
  return events.flatMap((event) => fix(eventsFrame([event])).events());
}

test("calls that all say 0 are told apart by their ids, and their deltas stay with them", () => {
  assert.deepEqual(
    repair(
      call(0, { callId: "a", name: "f" }),
      call(0, { arguments: "{}" }),
      call(0, { callId: "b", name: "g" }),
      call(0, { arguments: "[]" }),
    ),
    [
      call(0, { callId: "a", name: "f" }),
      call(0, { arguments: "{}" }),
      call(1, { callId: "b", name: "g" }),
      call(1, { arguments: "[]" }),
    ],
  );
});

test("calls without ids get some; those that are repeated with every delta are one call", () => {
  assert.deepEqual(repair(call(0, { name: "f" }), call(0, { name: "g" })), [
    call(0, { name: "f", callId: "call_1" }),
    call(1, { name: "g", callId: "call_2" }),
  ]);
  assert.deepEqual(
    repair(
      call(0, { callId: "", name: "f" }),
      call(0, { callId: "", arguments: "{}" }),
      call(0, { callId: "", name: "g" }),
    ),
    [call(0, { name: "f", callId: "call_1" }), call(0, { arguments: "{}" }), call(1, { name: "g", callId: "call_2" })],
  );
  assert.deepEqual(repair(call(3, { callId: "a", name: "f" }), call(3, { callId: "a", name: "f", arguments: "{}" })), [
    call(0, { callId: "a", name: "f" }),
    call(0, { arguments: "{}" }),
  ]);
});

test("an end that nobody knows is an error, and plain frames are untouched", () => {
  assert.deepEqual(
    repair({ kind: "finish", reason: "unknown" }).map(({ kind }) => kind),
    ["error"],
  );
  const frame = eventsFrame([{ kind: "text", text: "x" }]);
  assert.equal(createChatRepair(countingIds())(frame), frame);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Message } from "../stream.ts";
import { openingOf } from "./placement.ts";
import { hashesOf } from "./thread-tree.ts";

test("a long conversation is hashed message by message, with turns for others in between", async () => {
  const messages = Array.from(
    { length: 5 },
    (_, index): Message => ({ role: "user", parts: [{ kind: "text", text: `${index}` }] }),
  );
  const events: string[] = [];
  let asked = 0;
  const breathe = () => {
    asked += 1;
    if (asked % 2 !== 0) return undefined;
    return new Promise<void>((resolve) => {
      setImmediate(() => {
        events.push(`others after ${asked}`);
        resolve();
      });
    });
  };
  const named = { sessionId: null, threadId: null, exists: false, isFree: true };
  const { chain } = await openingOf(messages, named, breathe);
  assert.deepEqual(chain, [...hashesOf(messages)]);
  assert.deepEqual([asked, events], [5, ["others after 2", "others after 4"]]);
});

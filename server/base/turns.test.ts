import assert from "node:assert/strict";
import { test } from "node:test";
import { createTurns } from "./turns.ts";

test("tasks run one after the other, in the order in which they came, whatever becomes of them", async () => {
  const takeTurn = createTurns(10);
  const seen: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = takeTurn(async () => {
    seen.push("first begins");
    await gate.promise;
    seen.push("first ends");
    throw new Error("and fails");
  });
  const second = takeTurn(async () => seen.push("second"));
  const third = takeTurn(async () => {
    seen.push("third");
    return 3;
  });
  gate.resolve();
  await assert.rejects(first, /and fails/);
  assert.deepEqual([await second, await third], [3, 3]);
  assert.deepEqual(seen, ["first begins", "first ends", "second", "third"]);
});

test("beyond the limit a task is refused at once, and there is room again afterwards", async () => {
  const takeTurn = createTurns(2);
  const gate = Promise.withResolvers<void>();
  const running = [takeTurn(() => gate.promise), takeTurn(() => gate.promise)];
  await assert.rejects(
    takeTurn(async () => {}),
    { code: "overloaded" },
  );
  gate.resolve();
  await Promise.all(running);
  assert.equal(await takeTurn(async () => "room"), "room");
});

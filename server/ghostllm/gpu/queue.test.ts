import assert from "node:assert/strict";
import { test } from "node:test";
import { GhostError } from "../../base/errors.ts";
import { systemClock } from "../../platform/system-clock.ts";
import { type Lane, SlotQueue } from "./queue.ts";

const never = new AbortController().signal;
const queueOf = (slots: number) => new SlotQueue({ name: "coder on ws", slots, clock: systemClock });

/** Lets every promise that can settle do so. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

function ask(queue: SlotQueue, lane: Lane, order: string[], name: string): Promise<Disposable> {
  return queue.acquire(lane, never).then((slot) => {
    order.push(name);
    return slot;
  });
}

test("waiting requests enter by lane, and first come first inside a lane", async () => {
  const queue = queueOf(1);
  let slot = await queue.acquire("chat", never);
  const order: string[] = [];
  const waiting = [
    ask(queue, "background", order, "b1"),
    ask(queue, "chat", order, "c1"),
    ask(queue, "chat", order, "c2"),
  ];
  const completion = ask(queue, "completion", order, "f1");
  slot[Symbol.dispose]();
  slot = await completion;
  for (const next of [1, 2, 0]) {
    slot[Symbol.dispose]();
    const entered = waiting[next];
    assert.ok(entered !== undefined);
    slot = await entered;
  }
  assert.deepEqual(order, ["f1", "c1", "c2", "b1"]);
});

test("of several slots one stays free for completions", async () => {
  const queue = queueOf(2);
  await queue.acquire("chat", never);
  const order: string[] = [];
  void ask(queue, "chat", order, "second chat");
  await settle();
  assert.deepEqual(order, []);
  await ask(queue, "completion", order, "completion");
  assert.deepEqual(order, ["completion"]);
});

test("a completion that finds no slot in time is told so, and its place is given up", async () => {
  const queue = queueOf(1);
  const slot = await queue.acquire("chat", never);
  await assert.rejects(
    queue.acquire("completion", never),
    (error) => error instanceof GhostError && error.code === "overloaded",
  );
  const order: string[] = [];
  const chat = ask(queue, "chat", order, "chat");
  slot[Symbol.dispose]();
  await chat;
});

test("an aborted request leaves the queue at once and takes no slot", async () => {
  const queue = queueOf(1);
  const slot = await queue.acquire("chat", never);
  const controller = new AbortController();
  const aborted = queue.acquire("chat", controller.signal);
  const behind = queue.acquire("background", never);
  controller.abort();
  await assert.rejects(aborted, (error) => error instanceof Error && error.name === "AbortError");
  slot[Symbol.dispose]();
  await behind;
});

test("giving a slot back twice gives back one", async () => {
  const queue = queueOf(1);
  const slot = await queue.acquire("chat", never);
  slot[Symbol.dispose]();
  slot[Symbol.dispose]();
  await queue.acquire("chat", never);
  const order: string[] = [];
  void ask(queue, "chat", order, "third");
  await settle();
  assert.deepEqual(order, []);
});

test("the queue is bounded", async () => {
  const queue = queueOf(1);
  await queue.acquire("chat", never);
  const controller = new AbortController();
  const waiting = Array.from({ length: 256 }, () => queue.acquire("background", controller.signal));
  await assert.rejects(
    queue.acquire("chat", never),
    (error) => error instanceof GhostError && error.code === "overloaded",
  );
  controller.abort();
  for (const outcome of await Promise.allSettled(waiting)) assert.equal(outcome.status, "rejected");
});

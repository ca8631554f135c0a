import assert from "node:assert/strict";
import { test } from "node:test";
import { sessionIdSchema, userIdSchema } from "../../protocol/ids.ts";
import { systemClock } from "../platform/system-clock.ts";
import { SessionTurns } from "./session-turns.ts";

const ada = userIdSchema.parse("ada");
const bob = userIdSchema.parse("bob");
const session = sessionIdSchema.parse("ses_1");
const never = new AbortController().signal;

test("who leaves while waiting is told at once, and takes no turn from those behind", async () => {
  const turns = new SessionTurns(systemClock);
  const first = await turns.begin(ada, session, never);
  const leave = new AbortController();
  const left = turns.begin(ada, session, leave.signal);
  const order: string[] = [];
  const second = turns.begin(ada, session, never).then((turn) => {
    order.push("second");
    return turn;
  });
  leave.abort(new Error("gone"));
  await assert.rejects(left, /gone/);
  await assert.rejects(turns.begin(ada, session, leave.signal), /gone/);
  order.push("first is over");
  first[Symbol.dispose]();
  (await second)[Symbol.dispose]();
  assert.deepEqual(order, ["first is over", "second"]);
});

test("users and sessions do not wait for each other", async () => {
  const turns = new SessionTurns(systemClock);
  using _adas = await turns.begin(ada, session, never);
  using _bobs = await turns.begin(bob, session, never);
  using _others = await turns.begin(ada, sessionIdSchema.parse("ses_2"), never);
  using fresh = await turns.begin(ada, undefined, never);
  using _another = await turns.begin(ada, undefined, never);
  fresh.enter(sessionIdSchema.parse("ses_3"));
  const waiting = turns.begin(ada, sessionIdSchema.parse("ses_3"), never);
  fresh[Symbol.dispose]();
  using _third = await waiting;
});

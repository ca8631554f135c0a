import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { z } from "zod";
import { userIdSchema } from "../../../protocol/ids.ts";
import type { Database } from "../../platform/database.ts";
import type { Log } from "../../platform/log.ts";
import { StandingPermit } from "../../platform/permit-mint.ts";
import { openDatabase } from "../../platform/sqlite.ts";
import { systemClock } from "../../platform/system-clock.ts";
import { eventsFrame, type Message, type Part, type StreamEvent } from "../stream.ts";
import { createReasoningKeeper, type ReasoningKeeper } from "./reasoning-keeper.ts";
import { transcriptMigrations } from "./schema.ts";

const ada = userIdSchema.parse("ada");
const bob = userIdSchema.parse("bob");
const silent: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

async function setUp(context: TestContext) {
  const folder = await mkdtemp(join(tmpdir(), "keeper-"));
  const permit = new StandingPermit("test", [{ capability: "fs.write", resource: { kind: "path", path: folder } }]);
  const options = { file: join(folder, "g.db"), migrations: transcriptMigrations, clock: systemClock, log: silent };
  const { database } = await openDatabase(permit, options);
  context.after(async () => {
    await database[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });
  return { database, keeper: keeperOf(database) };
}

const keeperOf = (database: Database) => createReasoningKeeper({ database, clock: systemClock, log: silent });

const TURN: readonly StreamEvent[] = [
  { kind: "reasoning", text: "let me", block: 0 },
  { kind: "reasoning", text: " look", block: 0 },
  { kind: "reasoning", text: "", block: 0, opaque: '{"signature":"S"}' },
  { kind: "text", text: "Reading." },
  { kind: "toolCall", index: 2, callId: "a", name: "read", arguments: '{"p":1}' },
  { kind: "toolCall", index: 3, callId: "b", name: "read", arguments: '{"p":2}', opaque: '"T"' },
  { kind: "finish", reason: "toolCalls" },
];

function answer(keeper: ReasoningKeeper, events: readonly StreamEvent[], user = ada): void {
  const turn = keeper.watch(user, "anthropic");
  for (const event of events) turn.add(eventsFrame([event]));
  turn.end();
}

const call = (callId: string): Part => ({ kind: "toolCall", callId, name: "read", arguments: `{"from":"${callId}"}` });
const said = (text: string): Part => ({ kind: "text", text });
const assistant = (...parts: Part[]): Message => ({ role: "assistant", parts });
const seal = { kind: "reasoning", text: "let me look", opaque: { maker: "anthropic", data: '{"signature":"S"}' } };

test("thinking comes back before its calls, with the client's own text and arguments", async (context) => {
  const { keeper } = await setUp(context);
  answer(keeper, TURN);
  const [message] = await keeper.restore(ada, [assistant(said("Reading."), call("a"), call("b"))]);
  assert.deepEqual(message?.parts, [
    seal,
    said("Reading."),
    call("a"),
    { ...call("b"), opaque: { maker: "anthropic", data: '"T"' } },
  ]);
});

test("it survives a restart", async (context) => {
  const { database, keeper } = await setUp(context);
  answer(keeper, TURN);
  const row = z.object({ call_id: z.string() });
  while ((await database.read(row, "SELECT call_id FROM kept_turns", [])).length === 0) await systemClock.sleep(1);
  const [message] = await keeperOf(database).restore(ada, [assistant(call("a"), call("b"))]);
  assert.deepEqual(message?.parts[0], seal);
});

test("another user's call of the same id brings nothing, in memory and from the store", async (context) => {
  const { database, keeper } = await setUp(context);
  answer(keeper, TURN);
  const messages = [assistant(call("a"), call("b"))];
  assert.equal(await keeper.restore(bob, messages), messages);
  assert.equal(await keeperOf(database).restore(bob, messages), messages);
});

test("a turn that the client changed, or that carries its own thinking, is left as it is", async (context) => {
  const { keeper } = await setUp(context);
  answer(keeper, TURN);
  const other = [assistant(call("a"), call("x"))];
  assert.deepEqual(await keeper.restore(ada, other), other);
  const own = [assistant({ kind: "reasoning", text: "mine" }, call("a"), call("b"))];
  assert.equal(await keeper.restore(ada, own), own);
});

test("answers without calls or without seals are not kept", async (context) => {
  const { database, keeper } = await setUp(context);
  answer(keeper, TURN.slice(0, 4));
  answer(keeper, [{ kind: "reasoning", text: "open" }, ...TURN.slice(4, 5)]);
  const messages = [assistant(call("a"))];
  assert.equal(await keeper.restore(ada, messages), messages);
  assert.deepEqual(await database.read(z.object({ call_id: z.string() }), "SELECT call_id FROM kept_turns", []), []);
});

test("whatever was kept, no text, call, argument or order of a client's message changes", async (context) => {
  const { keeper } = await setUp(context);
  answer(keeper, TURN);
  const part = fc.oneof(fc.constantFrom(call("a"), call("b"), call("c")), fc.string().map(said));
  const roles = fc.constantFrom<Message["role"]>("assistant", "user");
  const messages = fc.array(
    fc.record({ role: roles, parts: fc.uniqueArray(part, { selector: (one) => JSON.stringify(one) }) }),
  );
  await fc.assert(
    fc.asyncProperty(messages, async (given) => {
      const restored = await keeper.restore(ada, given);
      const plain = restored.map(({ role, parts }) => ({
        role,
        texts: parts.filter(({ kind }) => kind === "text"),
        calls: parts.flatMap((one) => (one.kind === "toolCall" ? [{ ...one, opaque: undefined }] : [])),
      }));
      const expected = given.map(({ role, parts }) => ({
        role,
        texts: parts.filter(({ kind }) => kind === "text"),
        calls: parts.flatMap((one) => (one.kind === "toolCall" ? [{ ...one, opaque: undefined }] : [])),
      }));
      assert.deepEqual(
        plain.map(({ texts, role }) => ({ texts, role })),
        expected.map(({ texts, role }) => ({ texts, role })),
      );
      for (const [index, { calls }] of plain.entries())
        assert.deepEqual(
          new Set(calls.map((one) => JSON.stringify(one))),
          new Set(expected[index]?.calls.map((one) => JSON.stringify(one))),
        );
    }),
  );
});

test("what is not there, or was read before, is not looked up with every turn; what is kept later is found", async (context) => {
  const { database, keeper: before } = await setUp(context);
  answer(before, TURN);
  await database.write([{ sql: "SELECT 1", values: [] }]); // Writes go in order: the turn is stored now.
  let reads = 0;
  const read: Database["read"] = (...asked) => {
    reads += 1;
    return database.read(...asked);
  };
  const counted = new Proxy(database, { get: (target, key) => (key === "read" ? read : boundMember(target, key)) });
  const keeper = keeperOf(counted);
  const history = [assistant(call("a"), call("b")), assistant(call("c"))];
  for (let turn = 0; turn < 3; turn += 1) {
    const [first, second] = await keeper.restore(ada, history);
    assert.deepEqual(first?.parts[0], seal);
    assert.deepEqual(second, history[1]);
  }
  assert.equal(reads, 1);
  answer(
    keeper,
    TURN.map((event) => (event.kind === "toolCall" && event.callId === "a" ? { ...event, callId: "c" } : event)),
  );
  const [, late] = await keeper.restore(ada, [history[0] ?? assistant(), assistant(call("c"), call("b"))]);
  assert.deepEqual(late?.parts[0], seal);
  assert.equal(reads, 1);
});

function boundMember(target: Database, key: string | symbol): unknown {
  const member: unknown = Reflect.get(target, key);
  return typeof member === "function" ? member.bind(target) : member;
}

test("long turns take no more memory than many short ones, and what is too long is not kept, wherever it is long", async (context) => {
  const { database, keeper } = await setUp(context);
  const turn = (callId: string, thinking: string, seal: string): readonly StreamEvent[] => [
    { kind: "reasoning", text: thinking, block: 0, opaque: '"R"' },
    { kind: "toolCall", index: 0, callId, name: "read", arguments: "{}", opaque: seal },
  ];
  for (let index = 0; index < 40; index += 1) answer(keeper, turn(`long${index}`, "t".repeat(500_000), '"S"'));
  answer(keeper, turn("sealed", "short", "s".repeat(600_000)));
  const count = z.object({ n: z.int() });
  const signal = AbortSignal.timeout(20_000);
  while ((await database.read(count, "SELECT count(*) AS n FROM kept_turns", []))[0]?.n !== 40) signal.throwIfAborted();
  await database.write([{ sql: "DELETE FROM kept_turns", values: [] }]);
  const isHeld = async (callId: string) => {
    const [message] = await keeper.restore(ada, [assistant(call(callId))]);
    return message?.parts.length === 2;
  };
  assert.deepEqual([await isHeld("long0"), await isHeld("long39"), await isHeld("sealed")], [false, true, false]);
});

test("ids of any length that a client writes are not remembered", async (context) => {
  const { database, keeper } = await setUp(context);
  const long = "x".repeat(10_000);
  const messages = [assistant(call(long))];
  assert.equal(await keeper.restore(ada, messages), messages);
  const body = JSON.stringify([seal, { kind: "toolCall", callId: long, name: "read", arguments: "" }]);
  const sql = "INSERT INTO kept_turns (user_id, call_id, body, created_at) VALUES (?, ?, ?, ?)";
  await database.write([{ sql, values: [ada, long, body, 1] }]);
  const [message] = await keeper.restore(ada, messages);
  assert.equal(message?.parts.length, 2, "it is looked up again");
});

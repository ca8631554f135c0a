import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { entryIdSchema, sessionIdSchema, threadIdSchema } from "../../../protocol/ids.ts";
import type { Message, Part } from "../stream.ts";
import { attach, attachableHashes, hashesOf, type PrefixHash, type StoredEntry, titleOf } from "./thread-tree.ts";

const say = (role: Message["role"], ...parts: (string | Part)[]): Message => ({
  role,
  parts: parts.map((part) => (typeof part === "string" ? { kind: "text", text: part } : part)),
});
const hashChain = (messages: readonly Message[]): readonly PrefixHash[] => [...hashesOf(messages)];
const call = (text: string): Part => ({ kind: "toolCall", callId: "c1", name: "read", arguments: text });

const EQUAL: readonly (readonly [string, Message, Message])[] = [
  ["text in one part or several", say("assistant", "Hello, world"), say("assistant", "Hello", ", ", "world")],
  ["developer and system", say("developer", "Be brief."), say("system", "Be brief.")],
  [
    "tool arguments with other white space and key order",
    say("assistant", call('{"b": 1, "a": [1, {"d":2,"c":3}]}')),
    say("assistant", call('{"a":[1,{"c":3,"d":2}],"b":1}')),
  ],
  ["no arguments and empty ones", say("assistant", call("")), say("assistant", call("{}"))],
  ["an empty text beside a call", say("assistant", "", call("{}")), say("assistant", call("{}"))],
];
for (const [name, left, right] of EQUAL) {
  test(`${name} make the same message`, () => assert.deepEqual(hashChain([left]), hashChain([right])));
}

const DIFFERENT: readonly (readonly [string, readonly Message[], readonly Message[]])[] = [
  ["another role", [say("user", "a")], [say("assistant", "a")]],
  ["another text", [say("user", "a")], [say("user", "a ")]],
  ["one message or two", [say("user", "ab")], [say("user", "a"), say("user", "b")]],
  ["another order of list elements in arguments", [say("assistant", call("[1,2]"))], [say("assistant", call("[2,1]"))]],
  ["broken arguments", [say("assistant", call('{"a":'))], [say("assistant", call('{"a"'))]],
  ["another image", [say("user", { kind: "image", url: "data:a" })], [say("user", { kind: "image", url: "data:b" })]],
  [
    "a result of another call",
    [say("tool", { kind: "toolResult", callId: "1", text: "x" })],
    [say("tool", { kind: "toolResult", callId: "2", text: "x" })],
  ],
];
for (const [name, left, right] of DIFFERENT) {
  test(`${name} makes another conversation`, () => assert.notEqual(hashChain(left).at(-1), hashChain(right).at(-1)));
}

test("an answer without content leaves the conversation where it was", () => {
  const [, after, end] = hashChain([say("user", "a"), say("assistant", ""), say("user", "b")]);
  assert.equal(hashChain([say("user", "a")]).at(-1), after);
  assert.equal(hashChain([say("user", "a"), say("user", "b")]).at(-1), end);
});

test("a prefix without a user message is never looked up", () => {
  const messages = [say("system", "s"), say("assistant", "hi"), say("user", "u"), say("assistant", "a")];
  assert.equal(attachableHashes(messages, hashChain(messages)).length, 2);
  assert.deepEqual(attachableHashes([say("system", "s")], hashChain([say("system", "s")])), []);
});

test("a title is one short line of the first user message", () => {
  assert.equal(titleOf([say("system", "s"), say("user", "  a\n\tb\u0000c  "), say("user", "d")]), "a b c");
  assert.equal(Array.from(titleOf([say("user", "😀".repeat(300))])).length, 80);
  assert.equal(titleOf([]), "");
});

const session = sessionIdSchema.parse("ses_1");
const message = fc.record({
  role: fc.constantFrom("system", "user", "assistant", "tool"),
  text: fc.constantFrom("a", "b", "c", ""),
});

test("a request attaches to the longest stored prefix that holds a user message, at a head if there is one", () => {
  const conversation = fc
    .array(message, { minLength: 1, maxLength: 6 })
    .map((turns) => turns.map(({ role, text }) => say(role, text)));
  fc.assert(
    fc.property(fc.array(fc.tuple(conversation, fc.boolean()), { maxLength: 6 }), conversation, (stored, request) => {
      const byHash = new Map<PrefixHash, StoredEntry[]>();
      let count = 0;
      for (const [messages, endsThread] of stored) {
        for (const [index, prefixHash] of hashChain(messages).entries()) {
          count += 1;
          const isHead = endsThread && index === messages.length - 1;
          const head = isHead ? { threadId: threadIdSchema.parse(`thr_${count}`), epoch: 3 } : null;
          const entry = {
            id: entryIdSchema.parse(`ent_${count}`),
            sessionId: session,
            prefixHash,
            createdAtMs: count,
            head,
          };
          byHash.set(prefixHash, [...(byHash.get(prefixHash) ?? []), entry]);
        }
      }
      const chain = hashChain(request);
      const found = attach(request, chain, (hash) => byHash.get(hash) ?? []);
      const firstUser = request.findIndex(({ role }) => role === "user");
      const longest = chain.findLastIndex((hash, index) => firstUser >= 0 && index >= firstUser && byHash.has(hash));
      if (longest < 0) {
        assert.equal(found.kind, "newSession");
        return;
      }
      assert.ok(found.kind !== "newSession");
      assert.equal(found.matched, longest + 1);
      const hasHead = byHash.get(found.at.prefixHash)?.some(({ head }) => head !== null);
      assert.equal(found.kind, hasHead ? "continue" : "fork");
    }),
    { numRuns: 500 },
  );
});

test("a title has single spaces for whatever white space and control characters were there", () => {
  const characters = fc.constantFrom("a", "b", " ", "  ", "\n", "\t", "\u0000", "\u0085", "\u00a0", "\u2028", "😀");
  fc.assert(
    fc.property(fc.array(characters, { maxLength: 30 }), (pieces) => {
      const text = pieces.join("");
      assert.equal(titleOf([say("user", text)]), text.replace(/[\s\p{Cc}]+/gu, " ").trim());
    }),
    { numRuns: 2_000 },
  );
});

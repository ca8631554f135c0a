/** Conversations become trees: what clients send again is recognised, what differs branches off, and faces read, watch, continue and delete it. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { GhostApiError } from "../../protocol/errors.ts";
import type { GhostClient } from "../../protocol/ghost-client.ts";
import { type SessionId, sessionIdSchema, threadIdSchema } from "../../protocol/ids.ts";
import type { SessionEntry, SessionWatchUpdate } from "../../protocol/session.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import type { Script } from "../fakes/openai-host-script.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { testFolder } from "../support/folder.ts";
import { call, configFor, sse, textOf } from "../support/http.ts";

let host: OpenAiHost;
let daemon: TestDaemon;
let face: GhostClient;
before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
  daemon = await startTestDaemon({ config: configFor(host.baseUrl) });
  face = await daemon.connect();
});
after(async () => {
  face[Symbol.dispose]();
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  assert.deepEqual(host.violations, []);
});

const soon = () => AbortSignal.timeout(20_000);
const unknown = sessionIdSchema.parse("ses_00000000000000000000000000");
const isError = (code: string) => (error: unknown) => error instanceof GhostApiError && error.code === code;

interface Turn {
  readonly role: "system" | "user" | "assistant";
  readonly content: string | readonly { readonly type: "text"; readonly text: string }[];
}
type Said<Content> = Turn & { readonly content: Content };
const system = (content: string): Turn => ({ role: "system", content });
const user = <Content extends Turn["content"]>(content: Content): Said<Content> => ({ role: "user", content });
const assistant = (content: Turn["content"]): Turn => ({ role: "assistant", content });
const parts = (...texts: readonly string[]) => texts.map((text) => ({ type: "text" as const, text }));
let conversations = 0;
/** A first question that no other test asks. */
const question = (text = "question") => user(`${text} ${(conversations += 1)}`);

/** Asks over HTTP as a stateless client does; returns the answer's text. */
async function ask(turns: readonly Turn[], answer: Script | string, more: object = {}): Promise<string> {
  host.playOnce(typeof answer === "string" ? { tokens: answer.split(/(?<= )/) } : answer);
  const body = { model: "up/m", messages: turns, stream: true, ...more };
  return textOf(sse((await call(daemon, "/v1/chat/completions", { body })).text).chunks);
}

const titled = async (first: Turn) => {
  const { sessions } = await face.api.session.list({ limit: 1000 }, soon());
  return sessions.filter(({ title }) => title === first.content);
};
async function only(first: Turn): Promise<SessionId> {
  const sessions = await titled(first);
  assert.equal(sessions.length, 1, JSON.stringify(sessions));
  return sessions[0]?.id ?? unknown;
}
const lines = (entries: readonly SessionEntry[]) => entries.map(({ role, text }) => `${role}: ${text}`);
/** All threads of a session, the one changed last first. */
async function threadsOf(sessionId: SessionId): Promise<readonly (readonly string[])[]> {
  const { threads } = await face.api.session.get({ sessionId }, soon());
  const read = threads.map(({ id }) => face.api.session.get({ sessionId, threadId: id }, soon()));
  return (await Promise.all(read)).map(({ entries }) => lines(entries));
}
const sentToModel = (): unknown => host.requests.findLast(({ method }) => method === "POST")?.body;

async function chat(
  params: { readonly text: string; readonly sessionId?: SessionId; readonly system?: string },
  answer: Script,
) {
  host.playOnce(answer);
  let text = "";
  let sessionId: SessionId | undefined;
  let last = "";
  for await (const update of face.api.chat.send({ ...params, model: "up/m" }, soon())) {
    if (update.kind === "started") sessionId = update.sessionId;
    if (update.kind === "text") text += update.text;
    last = update.kind;
  }
  assert.ok(sessionId !== undefined);
  return { text, sessionId, last };
}

const FORMS: readonly [name: string, form: (text: string) => Turn][] = [
  ["as it came", (text) => assistant(text)],
  ["as one part", (text) => assistant(parts(text))],
  ["in several parts", (text) => assistant(parts(text.slice(0, 2), text.slice(2)))],
];
for (const [name, form] of FORMS) {
  test(`a follow-up that sends the answer again ${name} goes on in the same thread`, async () => {
    const first = question();
    const answer = await ask([first], "one two");
    await ask([first, form(answer), user("and?")], "three");
    const sessionId = await only(first);
    const expected = [`user: ${first.content}`, "assistant: one two", "user: and?", "assistant: three"];
    assert.deepEqual(await threadsOf(sessionId), [expected]);
    const { session, entries } = await face.api.session.get({ sessionId }, soon());
    assert.deepEqual([session.threads, session.messages], [1, 4]);
    for (const [index, entry] of entries.entries()) assert.equal(entry.parent, entries[index - 1]?.id ?? null);
    assert.deepEqual(entries[3]?.answer?.model, "up/m");
  });
}

test("a question in parts is the same as in one text, and developer the same as system", async () => {
  const first = question();
  const answer = await ask([system("be brief"), first], "yes");
  await ask([{ ...system("be brief") }, user(parts(first.content)), assistant(answer), user("sure?")], "very");
  const [thread = [], ...others] = await threadsOf(await only(first));
  assert.deepEqual([thread.length, others], [5, []]);
});

test("a plain answer and its follow-up are one thread as well", async () => {
  const first = question();
  const answer = await (async () => {
    host.playOnce({ tokens: ["plain"] });
    const { text } = await call(daemon, "/v1/chat/completions", { body: { model: "up/m", messages: [first] } });
    const whole: { choices: { message: { content: string } }[] } = JSON.parse(text);
    return whole.choices[0]?.message.content ?? "";
  })();
  await ask([first, assistant(answer), user("more")], "words");
  assert.deepEqual((await threadsOf(await only(first))).length, 1);
});

test("tool calls that come back with their results go on in the same thread", async () => {
  const first = question();
  const toolCalls = [{ id: "call_1", name: "read", arguments: ['{"path": ', '"a.ts"}'] }];
  const tools = [{ type: "function", function: { name: "read", parameters: { type: "object" } } }];
  await ask([first], { tokens: [], toolCalls }, { tools });
  const call_1 = { id: "call_1", type: "function", function: { name: "read", arguments: '{"path":"a.ts"}' } };
  const again: readonly object[] = [
    first,
    { role: "assistant", content: null, tool_calls: [call_1] },
    { role: "tool", tool_call_id: "call_1", content: "the file" },
  ];
  host.playOnce({ tokens: ["read"] });
  await call(daemon, "/v1/chat/completions", { body: { model: "up/m", messages: again, tools, stream: true } });
  const sessionId = await only(first);
  const { entries, threads } = await face.api.session.get({ sessionId }, soon());
  assert.equal(threads.length, 1);
  assert.deepEqual(
    entries.map(({ role, toolCallId }) => [role, toolCallId]),
    [
      ["user", undefined],
      ["assistant", undefined],
      ["tool", "call_1"],
      ["assistant", undefined],
    ],
  );
  assert.equal(entries[1]?.toolCalls[0]?.name, "read");
});

test("asking the same again makes a second thread that shares the question", async () => {
  const first = question();
  await ask([first], "one");
  await ask([first], "two");
  const sessionId = await only(first);
  const asked = `user: ${first.content}`;
  assert.deepEqual(await threadsOf(sessionId), [
    [asked, "assistant: two"],
    [asked, "assistant: one"],
  ]);
  const { session } = await face.api.session.get({ sessionId }, soon());
  assert.deepEqual([session.threads, session.messages], [2, 3]);
});

test("each of two branches can be gone on with", async () => {
  const first = question();
  await ask([first], "one");
  await ask([first], "two");
  await ask([first, assistant("one"), user("after one")], "1");
  await ask([first, assistant("two"), user("after two")], "2");
  const asked = `user: ${first.content}`;
  assert.deepEqual(await threadsOf(await only(first)), [
    [asked, "assistant: two", "user: after two", "assistant: 2"],
    [asked, "assistant: one", "user: after one", "assistant: 1"],
  ]);
});

test("an edited later question branches off where it differs; an edited first question is a session of its own", async () => {
  const first = question();
  const answer = await ask([first], "hello");
  await ask([first, assistant(answer), user("original")], "a");
  await ask([first, assistant(answer), user("edited")], "b");
  const shared = [`user: ${first.content}`, "assistant: hello"];
  assert.deepEqual(await threadsOf(await only(first)), [
    [...shared, "user: edited", "assistant: b"],
    [...shared, "user: original", "assistant: a"],
  ]);
  const other = question("edited");
  await ask([other, assistant(answer), user("original")], "c");
  assert.notEqual(await only(other), await only(first));
});

test("an answer that the client has edited is kept as the client's words, beside the model's own", async () => {
  const first = question();
  await ask([first], "the model's words");
  await ask([first, assistant("the client's words"), user("go on")], "so be it");
  const asked = `user: ${first.content}`;
  assert.deepEqual(await threadsOf(await only(first)), [
    [asked, "assistant: the client's words", "user: go on", "assistant: so be it"],
    [asked, "assistant: the model's words"],
  ]);
});

test("two conversations under one system prompt stay apart", async () => {
  const [left, right] = [question("left"), question("right")];
  await Promise.all([ask([system("the same"), left], "l"), ask([system("the same"), right], "r")]);
  assert.notEqual(await only(left), await only(right));
  for (const turn of [left, right]) assert.equal((await threadsOf(await only(turn))).length, 1);
});

test("a chat that is resumed by its id sends the model all that was said", async () => {
  const { sessionId } = await chat({ text: "first", system: "be kind" }, { tokens: ["hel", "lo"] });
  const second = await chat({ text: "second", sessionId }, { tokens: ["bye"] });
  assert.equal(second.sessionId, sessionId);
  const messages = [system("be kind"), user("first"), assistant("hello"), user("second")];
  assert.deepEqual(Reflect.get(Object(sentToModel()), "messages"), messages);
  assert.deepEqual(await threadsOf(sessionId), [
    ["system: be kind", "user: first", "assistant: hello", "user: second", "assistant: bye"],
  ]);
});

test("a chat goes on with a session that an HTTP client began, and the other way round", async () => {
  const first = question();
  const answer = await ask([first], "from HTTP");
  const sessionId = await only(first);
  const { text } = await chat({ text: "from a face", sessionId }, { tokens: ["indeed"] });
  await ask([first, assistant(answer), user("from a face"), assistant(text), user("and back")], "fine");
  assert.deepEqual(
    (await threadsOf(sessionId)).map((thread) => thread.length),
    [6],
  );
});

test("deleting removes the session with all its threads, and only that", async () => {
  const [first, other] = [question(), question()];
  await ask([first], "one");
  await ask([first], "two");
  await ask([other], "stays");
  const sessionId = await only(first);
  assert.deepEqual(await face.api.session.delete({ sessionId }, soon()), { deletedEntries: 3 });
  assert.deepEqual(await titled(first), []);
  await assert.rejects(face.api.session.get({ sessionId }, soon()), isError("session_not_found"));
  await assert.rejects(face.api.session.delete({ sessionId }, soon()), isError("session_not_found"));
  assert.equal((await threadsOf(await only(other))).length, 1);
  await ask([first, assistant("one"), user("still there?")], "anew");
  assert.notEqual(await only(first), sessionId);
});

test("a session that does not exist is session_not_found for every method", async () => {
  const first = async (stream: AsyncIterable<unknown>) => {
    for await (const _item of stream) return;
  };
  const { api } = face;
  await assert.rejects(api.session.get({ sessionId: unknown }, soon()), isError("session_not_found"));
  await assert.rejects(api.session.delete({ sessionId: unknown }, soon()), isError("session_not_found"));
  await assert.rejects(first(api.session.watch({ sessionId: unknown }, soon())), isError("session_not_found"));
  const before = host.requests.length;
  await assert.rejects(
    first(api.chat.send({ sessionId: unknown, text: "hi", model: "up/m" }, soon())),
    isError("session_not_found"),
  );
  assert.equal(host.requests.length, before, "nothing was asked");
  const { sessionId } = await chat({ text: "hi" }, { tokens: 1 });
  const threadId = threadIdSchema.parse("thr_00000000000000000000000000");
  await assert.rejects(api.session.get({ sessionId, threadId }, soon()), isError("session_not_found"));
});

test("who watches a session sees the answer grow, then its end, and can go on after any revision", async () => {
  const { sessionId } = await chat({ text: "watched" }, { tokens: ["before"] });
  const stop = new AbortController();
  const updates: SessionWatchUpdate[] = [];
  const watching = (async () => {
    for await (const update of face.api.session.watch({ sessionId }, stop.signal)) {
      updates.push(update);
      if (update.entry.answer?.state === "complete" && update.entry.text.startsWith("w0 ")) return;
    }
  })();
  const words = Array.from({ length: 60 }, (_, index) => `w${index} `);
  const whole = words.join("");
  await chat({ text: "grow", sessionId }, { tokens: words, msPerToken: 10 });
  await watching;
  const revisions = updates.map(({ revision }) => revision);
  assert.deepEqual(
    revisions,
    revisions.toSorted((a, b) => a - b),
  );
  assert.equal(new Set(revisions).size, revisions.length);
  const grown = updates
    .filter(({ entry }) => entry.answer !== undefined && entry.parent !== updates[0]?.entry.id)
    .map(({ entry }) => entry);
  const streaming = grown.filter(({ answer }) => answer?.state === "streaming");
  assert.ok(
    streaming.some(({ text }) => text !== "" && text !== whole),
    JSON.stringify(streaming.map(({ text }) => text.length)),
  );
  for (const [index, { text }] of grown.entries())
    assert.ok(whole.startsWith(text) && text.startsWith(grown[index - 1]?.text ?? ""));
  assert.equal(grown.at(-1)?.text, whole);
  // A face that comes back after some revision gets what is newer, as it is now, and nothing else.
  const revision = revisions.at(-1) ?? 0;
  for await (const update of face.api.session.watch({ sessionId, afterRevision: revision - 1 }, soon())) {
    assert.deepEqual(update, updates.at(-1));
    break;
  }
  const ahead = face.api.session.watch({ sessionId, afterRevision: revision + 1000 }, soon());
  await assert.rejects(async () => {
    for await (const _update of ahead);
  }, isError("stream_position_lost"));
});

test("whoever watches a session that is deleted learns it", async () => {
  const { sessionId } = await chat({ text: "short-lived" }, { tokens: 1 });
  const seen: string[] = [];
  const watching = (async () => {
    for await (const { entry } of face.api.session.watch({ sessionId }, soon())) {
      seen.push(entry.role);
      if (seen.length === 2) void face.api.session.delete({ sessionId }, soon());
    }
  })();
  await assert.rejects(watching, isError("session_not_found"));
});

test("an answer that breaks off is failed, with its text and the reason, and a chat can go on after it", async () => {
  const fault = { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" } as const;
  const broken = await chat({ text: "break" }, { tokens: ["a ", "b ", "c "], fault });
  assert.deepEqual([broken.last, broken.text], ["failed", "a b "]);
  const { sessionId } = broken;
  const { entries } = await face.api.session.get({ sessionId }, soon());
  const answer = entries.at(-1);
  assert.deepEqual([answer?.text, answer?.answer?.state], ["a b ", "failed"]);
  assert.match(answer?.answer?.error ?? "", /connection|middle/);
  await chat({ text: "again", sessionId }, { tokens: ["whole"] });
  assert.deepEqual(Reflect.get(Object(sentToModel()), "messages"), [user("break"), assistant("a b "), user("again")]);
});

test("a model that refuses leaves a failed answer without text, and the next question stands where that one stood", async () => {
  const first = question();
  await ask([first], { status: { code: 500, body: "json", message: "out of order" } });
  const sessionId = await only(first);
  const { entries } = await face.api.session.get({ sessionId }, soon());
  assert.deepEqual([entries.length, entries.at(-1)?.text, entries.at(-1)?.answer?.state], [2, "", "failed"]);
  assert.match(entries.at(-1)?.answer?.error ?? "", /out of order/);
  await ask([first], "better");
  assert.equal(await only(first), sessionId);
});

test("an HTTP client that leaves makes its answer cancelled, with what was sent", async () => {
  const first = question();
  host.playOnce({ tokens: 10_000, msPerToken: 5 });
  const leave = new AbortController();
  const before = host.requests.length;
  const reply = call(daemon, "/v1/chat/completions", {
    body: { model: "up/m", messages: [first], stream: true },
    signal: leave.signal,
  });
  await host.until(() => (host.requests.at(before)?.tokensSent ?? 0) > 3, "some of the answer was sent");
  leave.abort();
  await reply.catch(() => {}); // Its own abort.
  const answer = await ended(await only(first));
  assert.equal(answer.answer?.state, "cancelled");
  assert.match(answer.text, /^token0 /);
});

/** The last entry of a session once it does not stream any more. */
async function ended(sessionId: SessionId): Promise<SessionEntry> {
  for await (const { entry } of face.api.session.watch({ sessionId }, soon())) {
    if (entry.answer !== undefined && entry.answer.state !== "streaming") return entry;
  }
  throw new Error("the watch ended before the answer");
}

test("what a killed daemon leaves is interrupted, and the chat goes on from it", async () => {
  using folder = testFolder();
  const first = await startTestDaemon({ folder, config: configFor(host.baseUrl) });
  let sessionId = unknown;
  let shown = "";
  {
    using client = await first.connect();
    host.playOnce({ tokens: 10_000, msPerToken: 5 });
    await assert.rejects(async () => {
      for await (const update of client.api.chat.send({ text: "endless", model: "up/m" }, soon())) {
        if (update.kind === "started") ({ sessionId } = update);
        if (update.kind === "text") shown += update.text;
        if (shown.includes("token9 ")) void first.kill();
      }
    }, isError("daemon_unreachable"));
    await first.exited;
  }
  await using second = await startTestDaemon({ folder, config: configFor(host.baseUrl) });
  using client = await second.connect();
  const { entries } = await client.api.session.get({ sessionId }, soon());
  assert.equal(entries.at(-1)?.answer?.state, "interrupted");
  assert.ok(entries.at(-1)?.text.startsWith(shown));
  host.playOnce({ tokens: ["back"] });
  for await (const _update of client.api.chat.send({ text: "and now?", sessionId, model: "up/m" }, soon()));
  const messages = [user("endless"), assistant(entries.at(-1)?.text ?? ""), user("and now?")];
  assert.deepEqual(Reflect.get(Object(sentToModel()), "messages"), messages);
});

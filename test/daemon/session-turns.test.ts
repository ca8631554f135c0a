/** One question at a time in a session: what comes while an answer is being written waits a moment, or is refused; it never forks. */
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { GhostApiError } from "../../protocol/errors.ts";
import type { GhostClient } from "../../protocol/ghost-client.ts";
import { type SessionId, sessionIdSchema } from "../../protocol/ids.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import type { Script } from "../fakes/openai-host-script.ts";
import { connectRaw, initializeMessage } from "../fakes/raw-rpc.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { call, configFor } from "../support/http.ts";

let host: OpenAiHost;
let daemon: TestDaemon;
let face: GhostClient;
let other: GhostClient;
before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
  daemon = await startTestDaemon({ config: configFor(host.baseUrl) });
  face = await daemon.connect();
  other = await daemon.connect("other");
});
afterEach(() => host.play({}));
after(async () => {
  for (const client of [face, other]) client[Symbol.dispose]();
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  assert.deepEqual(host.violations, []);
});

const soon = () => AbortSignal.timeout(20_000);
const HANG: Script = { tokens: ["half ", "never"], fault: { kind: "hang", afterTokens: 1 } };
const WHOLE = "Hello from the fake host.";
const asked = () => host.requests.filter(({ method }) => method === "POST").length;

/** Asks, and tells the session and the first words as soon as they are there; `done` resolves with the whole text. */
function ask(client: GhostClient, params: { readonly text: string; readonly sessionId?: SessionId | undefined }) {
  const stop = new AbortController();
  const begun = Promise.withResolvers<SessionId>();
  const spoken = Promise.withResolvers<string>();
  const done = (async () => {
    let text = "";
    for await (const update of client.api.chat.send({ ...params, model: "up/m" }, stop.signal)) {
      if (update.kind === "started") begun.resolve(update.sessionId);
      if (update.kind !== "text") continue;
      text += update.text;
      spoken.resolve(text);
    }
    return text;
  })();
  done.catch(begun.reject);
  done.catch(spoken.reject);
  for (const promise of [begun.promise, spoken.promise]) promise.catch(() => {}); // Not every test waits for both.
  return { done, sessionId: begun.promise, spoken: spoken.promise, stop: () => stop.abort() };
}

async function threadsOf(sessionId: SessionId): Promise<readonly (readonly string[])[]> {
  const { threads } = await face.api.session.get({ sessionId }, soon());
  const read = threads.map(({ id }) => face.api.session.get({ sessionId, threadId: id }, soon()));
  return (await Promise.all(read)).map(({ entries }) => entries.map(({ role, text }) => `${role}: ${text}`));
}

const isBusy = (sessionId: SessionId) => (error: unknown) =>
  error instanceof GhostApiError && error.code === "session_busy" && error.details["sessionId"] === sessionId;

test("a question into an answer that goes on is refused, reaches no model, and leaves the answer alone", async () => {
  host.playOnce(HANG);
  const first = ask(face, { text: "first" });
  const sessionId = await first.sessionId;
  await first.spoken;
  const before = asked();
  // Of the very face, and of another one; the session was new when the first question was asked.
  const refused = [face, other].map((client) => ask(client, { text: "too early", sessionId }).done);
  for (const done of refused) await assert.rejects(done, isBusy(sessionId));
  assert.equal(asked(), before);
  assert.deepEqual(await threadsOf(sessionId), [["user: first", "assistant: half "]]);
  first.stop();
  await assert.rejects(first.done, { code: "cancelled" });
});

test("a question that comes shortly before the end of an answer, the first of its session, waits for it", async () => {
  host.playOnce({ tokens: ["not ", "quite ", "done"], msPerToken: 150 });
  const first = ask(face, { text: "first" });
  const sessionId = await first.sessionId;
  await first.spoken;
  host.playOnce({ tokens: ["second"] });
  assert.equal(await ask(other, { text: "and then?", sessionId }).done, "second");
  assert.deepEqual(await threadsOf(sessionId), [
    ["user: first", "assistant: not quite done", "user: and then?", "assistant: second"],
  ]);
});

test("a question right after a cancelled answer waits for its end, and goes on from what had come", async () => {
  host.playOnce(HANG);
  const first = ask(face, { text: "first" });
  const sessionId = await first.sessionId;
  await first.spoken;
  host.playOnce({ tokens: ["second"] });
  first.stop();
  assert.equal(await ask(face, { text: "and then?", sessionId }).done, "second");
  assert.deepEqual(await threadsOf(sessionId), [
    ["user: first", "assistant: half ", "user: and then?", "assistant: second"],
  ]);
});

test("several faces that go on with one session at once are answered one after the other, in one thread", async () => {
  const first = ask(face, { text: "first" });
  await first.done;
  const sessionId = await first.sessionId;
  const answers: number[] = [];
  host.play(({ bodyText }) => {
    answers.push(bodyText.match(/"role"/g)?.length ?? 0);
    return { tokens: ["a ", "b"], msPerToken: 30 };
  });
  const texts = ["one", "two", "three", "four"];
  const asking = texts.map((text, index) => ask(index % 2 === 0 ? face : other, { text, sessionId }).done);
  assert.deepEqual(await Promise.all(asking), ["a b", "a b", "a b", "a b"]);
  assert.deepEqual(answers, [3, 5, 7, 9], "each is asked with all that came before it");
  const [thread = [], ...others] = await threadsOf(sessionId);
  assert.deepEqual(others, []);
  assert.deepEqual(new Set(thread.filter((line) => line.startsWith("user: "))).size, 5);
});

test("who waits and leaves is not asked for any more, and the session is free afterwards", async () => {
  host.playOnce(HANG);
  const first = ask(face, { text: "first" });
  const sessionId = await first.sessionId;
  await first.spoken;
  const second = ask(other, { text: "second", sessionId });
  second.stop();
  await assert.rejects(second.done, { code: "cancelled" });
  first.stop();
  await assert.rejects(first.done, { code: "cancelled" });
  const third = await ask(other, { text: "third", sessionId }).done;
  assert.deepEqual(await threadsOf(sessionId), [
    ["user: first", "assistant: half ", "user: third", `assistant: ${third}`],
  ]);
});

test("a question that fails, or is refused by its model, leaves the session free", async () => {
  const first = ask(face, { text: "first" });
  await first.done;
  const sessionId = await first.sessionId;
  host.playOnce({ status: { code: 400, body: "json", message: "no" } });
  await assert.rejects(ask(face, { text: "second", sessionId }).done);
  assert.ok((await ask(face, { text: "third", sessionId }).done).length > 0);
});

test("an answer that comes over HTTP into the same session counts, and other sessions do not", async () => {
  const first = ask(face, { text: "over both doors" });
  const text = await first.done;
  const sessionId = await first.sessionId;
  host.playOnce(HANG);
  const leave = new AbortController();
  const messages = [
    { role: "user", content: "over both doors" },
    { role: "assistant", content: text },
    { role: "user", content: "by HTTP" },
  ];
  const options = { body: { model: "up/m", messages, stream: true }, signal: leave.signal };
  const reply = call(daemon, "/v1/chat/completions", options);
  for await (const { entry } of face.api.session.watch({ sessionId }, soon())) if (entry.text === "half ") break;
  await assert.rejects(ask(face, { text: "too early", sessionId }).done, isBusy(sessionId));
  assert.ok((await ask(face, { text: "elsewhere" }).done).length > 0);
  leave.abort();
  await reply.catch(() => {}); // Its own abort.
});

test("a face that leaves when its answer has begun, before any of it was read, ends the answer and frees the session", async () => {
  const chat = { text: "first", model: "up/m" };
  const completion = { prefix: "first", model: "up/m", maxTokens: 8 };
  for (const [method, params] of [
    ["ghost/chat/send", chat],
    ["ghost/completion/create", completion],
  ] as const) {
    host.playOnce(HANG);
    using raw = await connectRaw(daemon.socket);
    raw.send(initializeMessage(daemon.faceKey));
    await raw.next();
    // With this credit the daemon says that the answer has begun, and goes no further.
    raw.send({ jsonrpc: "2.0", id: 1, method, params: { ...params, partialResultToken: "t", credit: 1 } });
    const begun = JSON.stringify(await raw.next());
    assert.match(begun, /"started"/, method);
    raw.send({ jsonrpc: "2.0", method: "$/cancelRequest", params: { id: 1 } });
    assert.equal((await raw.next())?.error?.data?.code, "cancelled", method);
    await host.until(() => host.requests.at(-1)?.state === "closed-by-peer", "the upstream connection is closed");
    const sessionId = /"sessionId":"(ses_\w+)"/.exec(begun)?.[1];
    if (sessionId !== undefined)
      assert.equal(await ask(face, { text: "again", sessionId: sessionIdSchema.parse(sessionId) }).done, WHOLE);
    const signal = soon();
    while ((await face.api.daemon.status({}, signal)).openAnswers > 0);
  }
});

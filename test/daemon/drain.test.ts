/**
 * The daemon's end: open answers may finish, nothing new is taken, what does not end is cut with an error that its client sees and the transcript
 * keeps. And SIGHUP, which ends nothing.
 */
import assert from "node:assert/strict";
import { type IncomingMessage, request } from "node:http";
import { writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { GhostApiError } from "../../protocol/errors.ts";
import type { SessionId } from "../../protocol/ids.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { testFolder } from "../support/folder.ts";
import { type ApiReply, ask, call, configFor, errorOf, sse, textOf } from "../support/http.ts";

let host: OpenAiHost;
before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
});
after(() => host[Symbol.asyncDispose]());

const latest = () => host.requests.findLast(({ method }) => method === "POST");
const asked = () => host.requests.filter(({ method }) => method === "POST").length;
const soon = () => AbortSignal.timeout(20_000);

/** A stream that the upstream has begun to answer. */
async function openStream(
  daemon: TestDaemon,
  script: Parameters<OpenAiHost["playOnce"]>[0],
): Promise<{ readonly reply: Promise<ApiReply> }> {
  const count = asked();
  host.playOnce(script);
  const reply = call(daemon, "/v1/chat/completions", { body: ask("up/m", { stream: true }) });
  await host.until(() => asked() > count && (latest()?.tokensSent ?? 0) >= 2, "the answer has begun");
  return { reply };
}

/** A request whose answer nobody reads yet; resolves when its head is there. */
function askSlowly(daemon: TestDaemon, body: object): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${daemon.modelKey}` };
    const outgoing = request(`${daemon.http}/v1/chat/completions`, { method: "POST", headers }, resolve);
    outgoing.once("error", reject);
    outgoing.end(JSON.stringify(body));
  });
}

async function untilDraining(daemon: TestDaemon): Promise<void> {
  const signal = soon();
  while (!daemon.logs().some(({ event }) => event === "daemon.draining")) {
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test("on SIGTERM open streams finish whole, new requests are refused, and the exit code is 0", async () => {
  await using daemon = await startTestDaemon({ config: configFor(host.baseUrl) });
  using client = await daemon.connect();
  const { reply } = await openStream(daemon, { tokens: 60, msPerToken: 25 });
  host.playOnce({ tokens: 60, msPerToken: 25 });
  const chat = (async () => {
    const kinds: string[] = [];
    let text = "";
    for await (const update of client.api.chat.send({ text: "go", model: "up/m" }, soon())) {
      kinds.push(update.kind);
      if (update.kind === "text") text += update.text;
    }
    return { last: kinds.at(-1), text };
  })();
  await host.until(() => host.openRequests === 2 && (latest()?.tokensSent ?? 0) >= 2, "both answers have begun");
  process.kill(daemon.pid, "SIGTERM");
  await untilDraining(daemon);

  const refused = await call(daemon, "/v1/chat/completions", { body: ask("up/m") });
  assert.equal(refused.status, 503);
  assert.equal(errorOf(refused).code, "daemon_stopping");
  assert.ok(Number(refused.headers.get("retry-after")) > 0);
  await assert.rejects(
    client.api.session.list({}, soon()),
    (error) => error instanceof GhostApiError && error.code === "daemon_stopping",
  );
  await assert.rejects(
    daemon.connect(),
    (error) => error instanceof GhostApiError && ["daemon_unreachable", "daemon_stopping"].includes(error.code),
  );

  const whole = sse((await reply).text);
  assert.ok(whole.isDone, "the stream came to its end");
  assert.equal((await reply).isCut, false);
  const { last, text } = await chat;
  assert.equal(last, "finished");
  assert.equal(textOf(whole.chunks).length > 0 && text.length > 0, true);
  assert.deepEqual(await daemon.exited, { code: 0, signal: null });
  assert.deepEqual(host.violations, []);
});

test("a stopping daemon waits for a client that reads slowly, until it has everything", async () => {
  await using daemon = await startTestDaemon({ config: configFor(host.baseUrl) });
  const piece = "z".repeat(100_000);
  host.playOnce({ tokens: Array.from({ length: 300 }, () => piece) });
  const response = await askSlowly(daemon, ask("up/m"));
  // The upstream has finished and the answer is stored; most of it still waits for its client.
  process.kill(daemon.pid, "SIGTERM");
  await untilDraining(daemon);
  let sizeBytes = 0;
  for await (const chunk of response) {
    sizeBytes += Buffer.isBuffer(chunk) ? chunk.length : 0;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.ok(sizeBytes > 300 * piece.length);
  assert.equal(sizeBytes, Number(response.headers["content-length"]));
  assert.deepEqual(await daemon.exited, { code: 0, signal: null });
});

test("what does not end is cut after the drain limit with an error and no [DONE], over both doors, and the transcript says so", async () => {
  using folder = testFolder();
  const config = configFor(host.baseUrl);
  await using daemon = await startTestDaemon({ folder, config });
  using client = await daemon.connect();
  const endless = { tokens: 100_000, msPerToken: 50 } as const;
  const { reply } = await openStream(daemon, endless);
  host.playOnce(endless);
  const plain = call(daemon, "/v1/chat/completions", {
    body: { model: "up/m", messages: [{ role: "user", content: "another question" }] },
  });
  await host.until(() => host.openRequests === 2, "a plain answer is being made");
  host.playOnce(endless);
  let sessionId: SessionId | undefined;
  let shown = "";
  const chat = (async () => {
    for await (const update of client.api.chat.send(
      { text: "go on for ever", model: "up/m" },
      AbortSignal.timeout(60_000),
    )) {
      if (update.kind === "started") sessionId = update.sessionId;
      if (update.kind === "text") shown += update.text;
    }
  })();
  chat.catch(() => {}); // Looked at below.
  await host.until(() => host.openRequests === 3 && shown !== "", "three answers are open");
  host.playOnce({ tokens: Array.from({ length: 400 }, () => "z".repeat(100_000)) });
  const unread = await askSlowly(daemon, {
    ...ask("up/m", { stream: true }),
    messages: [{ role: "user", content: "nobody reads this" }],
  });
  unread.once("error", () => {}); // It is cut while it waits.
  assert.equal((await client.api.daemon.status({}, soon())).openAnswers, 4);
  const startedAt = performance.now();
  process.kill(daemon.pid, "SIGTERM");

  const { text } = await reply;
  assert.ok(performance.now() - startedAt > 8_000, "it had its time first");
  const { chunks, isDone } = sse(text);
  assert.equal(isDone, false);
  assert.deepEqual(Object.keys(chunks.at(-1) ?? {}), ["error"]);
  assert.match(JSON.stringify(chunks.at(-1)), /"code":"daemon_stopping"/);
  const whole = await plain;
  assert.equal(whole.status, 503);
  assert.equal(errorOf(whole).code, "daemon_stopping");
  await assert.rejects(chat, (error) => error instanceof GhostApiError && error.code === "daemon_stopping");
  assert.deepEqual(await daemon.exited, { code: 0, signal: null });
  await host.until(() => host.openRequests === 0, "the upstreams were stopped");
  unread.destroy();

  await using next = await startTestDaemon({ folder, config });
  using again = await next.connect();
  const { sessions } = await again.api.session.list({}, soon());
  assert.equal(sessions.length, 4);
  for (const session of sessions) {
    const { entries } = await again.api.session.get({ sessionId: session.id }, soon());
    const answer = entries.at(-1);
    assert.equal(answer?.role, "assistant");
    assert.equal(answer?.answer?.state, "failed");
    assert.match(answer?.answer?.error ?? "", /shutting down/);
    if (session.id === sessionId) assert.ok(answer?.text.startsWith(shown), "what was shown is kept");
  }
});

test("a second signal does not wait", async () => {
  await using daemon = await startTestDaemon({ config: configFor(host.baseUrl) });
  const { reply } = await openStream(daemon, { tokens: 100_000, msPerToken: 50 });
  process.kill(daemon.pid, "SIGTERM");
  await untilDraining(daemon);
  const startedAt = performance.now();
  process.kill(daemon.pid, "SIGINT");
  assert.deepEqual(await daemon.exited, { code: 1, signal: null });
  assert.ok(performance.now() - startedAt < 5_000);
  const cut = await reply.catch(() => undefined); // Nothing at all may have reached the client by then.
  assert.equal(cut === undefined || !sse(cut.text).isDone, true);
});

test("SIGINT ends the daemon like SIGTERM", async () => {
  await using daemon = await startTestDaemon();
  process.kill(daemon.pid, "SIGINT");
  assert.deepEqual(await daemon.exited, { code: 0, signal: null });
});

test("`daemon.stop` answers how much is open, then stops, and every client is told that its connection is closed", async () => {
  await using daemon = await startTestDaemon({ config: configFor(host.baseUrl) });
  using client = await daemon.connect();
  using onlooker = await daemon.connect("onlooker");
  const watching = (async () => {
    for await (const _ of onlooker.api.approval.watch({}, soon()));
  })();
  watching.catch(() => {}); // Looked at below.
  const { reply } = await openStream(daemon, { tokens: 40, msPerToken: 25 });
  assert.deepEqual(await client.api.daemon.stop({}, soon()), { draining: 1 });
  assert.equal(sse((await reply).text).isDone, true);
  await assert.rejects(watching, (error) => error instanceof GhostApiError && error.code === "daemon_stopping");
  await Promise.all([client.closed, onlooker.closed]);
  await assert.rejects(
    client.api.daemon.status({}, soon()),
    (error) => error instanceof GhostApiError && error.code === "daemon_unreachable",
  );
  assert.deepEqual(await daemon.exited, { code: 0, signal: null });
  assert.equal(daemon.stderr(), "");
});

test("SIGHUP reads warden.toml again; a broken edit keeps the last good rules and is reported", async () => {
  await using daemon = await startTestDaemon({ warden: '[capabilities]\ncmd.exec = "allow"\n' });
  using client = await daemon.connect();
  const policy = async () => {
    const { capabilities, problem } = await client.api.policy.get({}, soon());
    return { verdict: capabilities.find(({ capability }) => capability === "cmd.exec")?.verdict, problem };
  };
  const reload = async (text: string, isSeen: (now: Awaited<ReturnType<typeof policy>>) => boolean) => {
    writeFileSync(daemon.wardenFile, text);
    process.kill(daemon.pid, "SIGHUP");
    const signal = soon();
    for (;;) {
      const now = await policy();
      if (isSeen(now)) return now;
      signal.throwIfAborted();
    }
  };
  assert.deepEqual(await policy(), { verdict: "allow", problem: undefined });
  await reload('[capabilities]\ncmd.exec = "deny"\n', ({ verdict }) => verdict === "deny");
  const broken = await reload('[capabilities]\ncmd.exec = "allow\n', ({ problem }) => problem !== undefined);
  assert.equal(broken.verdict, "deny", "the last good rules hold");
  assert.match(broken.problem ?? "", /warden\.toml:2:/);
  const { findings } = await client.api.daemon.doctor({}, soon());
  const finding = findings.find(({ subject }) => subject === "rules");
  assert.equal(finding?.state, "problem");
  assert.match(finding?.message ?? "", /warden\.toml:2:.*last good rules/);
  assert.deepEqual(await reload('[capabilities]\ncmd.exec = "prompt"\n', ({ verdict }) => verdict === "prompt"), {
    verdict: "prompt",
    problem: undefined,
  });
});

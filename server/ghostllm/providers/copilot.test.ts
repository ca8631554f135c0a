/** GitHub Copilot behind its provider: the official SDK with its real runtime, which asks a fake model server in the place of GitHub's. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { test } from "node:test";
import { chat, eventsOf, never, READ, result, say, call } from "../../../test/support/anthropic.ts";
import { setUpCopilot, TOKEN } from "../../../test/support/copilot.ts";
import { GhostError } from "../../base/errors.ts";
import { AnswerFold } from "../frames/answer-fold.ts";
import type { Message } from "../stream.ts";
import { CopilotReader } from "./copilot-answer.ts";

const failsWith = (code: string) => (error: unknown) => {
  assert.ok(error instanceof GhostError, String(error));
  assert.equal(error.code, code, error.message);
  return true;
};
const textOf = (fold: AnswerFold) => fold.blocks.map((block) => (block.kind === "text" ? block.text : "")).join("");

test("without a token nothing is started", async (context) => {
  const { provider, host } = await setUpCopilot(context, { token: "", executable: "/nonexistent" });
  assert.deepEqual(await provider.models(never), []);
  assert.deepEqual([provider.status()[0]?.state, host.requests.length], ["absent", 0]);
});

test("a runtime that does not start is said, and asked again by the next look", async (context) => {
  const { provider } = await setUpCopilot(context, { executable: "/nonexistent/copilot-runtime" });
  for (let look = 0; look < 2; look += 1) {
    assert.deepEqual(await provider.models(never), []);
    assert.equal(provider.status()[0]?.state, "unreachable");
    assert.match(provider.status()[0]?.problem ?? "", /does not start/);
  }
});

test("an answer: text, counts, its end; and nothing of the question stays in the runtime's folder", async (context) => {
  const { provider, host, folder, model } = await setUpCopilot(context);
  const asked = await model();
  assert.deepEqual(
    [asked.ref, asked.locality, asked.capabilities.tools, asked.contextWindow],
    ["copilot/m", "cloud", true, 128_000],
  );
  host.playOnce({ tokens: ["Grüße ", "🦊"] });
  const messages = [say("system", "Be brief."), say("user", "a question that nobody else asks")];
  const attempt = await provider.chat(chat(messages, { sampling: { temperature: 0.5 } }), asked, never);
  const fold = new AnswerFold().addAll(await eventsOf(attempt));
  assert.deepEqual([textOf(fold), fold.reason, attempt.dropped], ["Grüße 🦊", "stop", ["temperature"]]);
  assert.equal(fold.usage?.completionTokens, 2);
  const body = host.requests.at(-1)?.bodyText ?? "";
  assert.match(body, /"role":"system","content":"Be brief\."/);
  assert.match(body, /a question that nobody else asks/);
  assert.doesNotMatch(body, /"tools"/);
  await provider[Symbol.asyncDispose]();
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const holding = files.filter(({ parentPath, name }) =>
    readFileSync(`${parentPath}/${name}`).includes("a question that nobody else asks"),
  );
  assert.deepEqual(
    holding.map(({ name }) => name),
    [],
  );
});

test("tools are called by the model, and by nobody run; their results come in the next question", async (context) => {
  const { provider, host, model } = await setUpCopilot(context);
  const asked = await model();
  const tools = [READ, { ...READ, name: "list", namespace: "mcp" }] as const;
  host.playOnce({
    tokens: ["Looking."],
    toolCalls: [
      { id: "c1", name: "read", arguments: ['{"path"', ':"a"}'] },
      { id: "c2", name: "mcp__list", arguments: [] },
    ],
  });
  const attempt = await provider.chat(chat("hi", { tools, parallelToolCalls: false }), asked, never);
  const fold = new AnswerFold().addAll(await eventsOf(attempt));
  assert.deepEqual([textOf(fold), fold.reason], ["Looking.", "toolCalls"]);
  assert.deepEqual(attempt.dropped, ["parallel_tool_calls"]);
  assert.deepEqual(
    fold.blocks.flatMap((block) =>
      block.kind === "toolCall" ? [[block.callId, block.namespace, block.name, block.arguments]] : [],
    ),
    [
      ["c1", undefined, "read", '{"path":"a"}'],
      ["c2", "mcp", "list", "{}"],
    ],
  );
  const count = host.requests.length;
  const messages: readonly Message[] = [
    say("user", "hi"),
    { role: "assistant", parts: [call("c1"), call("c2", "list")] },
    result("c1", "A"),
    result("c2", "B"),
  ];
  host.playOnce({ tokens: ["Done."] });
  const last = new AnswerFold().addAll(await eventsOf(await provider.chat(chat(messages, { tools }), asked, never)));
  assert.equal(textOf(last), "Done.");
  assert.equal(host.requests.length, count + 1, "the runtime asked by itself");
  assert.match(host.requests.at(-1)?.bodyText ?? "", /tool_result tool=\\"read\\" id=\\"c1\\">\\nA\\n/);
});

test("an answer that ran out of tokens or was filtered ends so, whatever the runtime asks next", async (context) => {
  const { provider, host, model } = await setUpCopilot(context);
  const asked = await model();
  for (const [finishReason, reason] of [
    ["content_filter", "contentFilter"],
    ["length", "length"],
  ] as const) {
    host.playOnce({ tokens: ["Half"], finishReason });
    const fold = new AnswerFold().addAll(await eventsOf(await provider.chat(chat("hi"), asked, never)));
    assert.deepEqual([textOf(fold), fold.reason], ["Half", reason]);
    // The runtime may have asked the model to go on by then.
    await host.until(() => host.openRequests === 0, "the end of all requests");
  }
});

test("an answer that is cut is broken, and not told twice", async (context) => {
  const { provider, host, model } = await setUpCopilot(context);
  const asked = await model();
  const fault = { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" } as const;
  host.playOnce({ tokens: ["one ", "two ", "three"], fault });
  const fold = new AnswerFold();
  const attempt = await provider.chat(chat("hi"), asked, never);
  await assert.rejects(async () => {
    for await (const frame of attempt.frames) fold.addAll(frame.events());
  }, failsWith("upstream_failed"));
  assert.deepEqual([textOf(fold), fold.reason], ["one two ", undefined]);
});

const statuses: readonly [status: number, code: string][] = [
  [401, "upstream_auth"],
  [402, "upstream_quota"],
  [404, "model_not_found"],
  [429, "upstream_rate_limited"],
  [500, "upstream_failed"],
  [503, "upstream_overloaded"],
  [400, "upstream_rejected"],
];
test("refusals are told at the first, so that another model may answer", async (context) => {
  const { provider, host, model } = await setUpCopilot(context);
  const asked = await model();
  for (const [code, meaning] of statuses) {
    const count = host.requests.length;
    host.playOnce({ status: { code, body: "json", message: `no ${code}` } });
    await assert.rejects(provider.chat(chat("hi"), asked, never), failsWith(meaning));
    assert.equal(host.requests.length, count + 1);
  }
});

test("who leaves stops the model at once, before its first word and in the middle", async (context) => {
  const { provider, host, model } = await setUpCopilot(context);
  const asked = await model();
  host.playOnce({ tokens: ["a"], fault: { kind: "hang-before-headers" } });
  const leaving = new AbortController();
  const waiting = provider.chat(chat("hi"), asked, leaving.signal);
  await host.until(() => host.openRequests === 1, "the request");
  leaving.abort();
  await assert.rejects(waiting);
  await host.until(() => host.openRequests === 0, "the end of the request");
  host.playOnce({ tokens: ["a", "b"], fault: { kind: "hang", afterTokens: 1 } });
  const attempt = await provider.chat(chat("hi"), asked, never);
  for await (const frame of attempt.frames) if (frame.events().length > 0) break;
  await host.until(() => host.openRequests === 0, "the end of the request");
  await assert.rejects(provider.chat(chat("hi"), asked, AbortSignal.abort()));
});

/** The process that runs in this folder. */
function runtimeIn(folder: string): number {
  const found = readdirSync("/proc").find((name) => {
    try {
      return /^\d+$/.test(name) && readlinkSync(`/proc/${name}/cwd`) === folder;
    } catch {
      return false; // It has ended since, or is not ours.
    }
  });
  assert.ok(found !== undefined, "no runtime is there");
  return Number(found);
}

test("a runtime that is killed is noticed, and the next question starts another", async (context) => {
  const { provider, host, model, folder } = await setUpCopilot(context);
  const asked = await model();
  host.playOnce({ tokens: ["a", "b"], fault: { kind: "hang", afterTokens: 1 } });
  const attempt = await provider.chat(chat("hi"), asked, never);
  const pid = runtimeIn(folder);
  const given = readFileSync(`/proc/${pid}/cmdline`, "utf8");
  assert.ok(given.includes("copilot-runtime") && !given.includes(TOKEN), given);
  const environment = readFileSync(`/proc/${pid}/environ`, "utf8")
    .split("\0")
    .map((entry) => entry.split("=")[0]);
  for (const name of environment) assert.match(name ?? "", /^(?:HOME|PATH|LANG|COPILOT_\w+|)$/);
  process.kill(pid, "SIGKILL");
  await assert.rejects(async () => {
    for await (const _frame of attempt.frames);
  }, failsWith("upstream_unreachable"));
  host.playOnce({ tokens: ["again"] });
  const fold = new AnswerFold().addAll(await eventsOf(await provider.chat(chat("hi"), asked, never)));
  assert.equal(textOf(fold), "again");
});

test("what cannot be told is refused or named", async (context) => {
  const { provider, host, model } = await setUpCopilot(context);
  const asked = await model();
  const refused = [
    { tools: [READ], toolChoice: "required" },
    { hasImages: true },
    { output: { stop: [], format: { kind: "json" } } },
  ] as const;
  for (const more of refused)
    await assert.rejects(provider.chat(chat("hi", more), asked, never), failsWith("capability_missing"));
  assert.equal(host.requests.length, 0);
  host.playOnce({ tokens: ["before END", " after"] });
  const output = { stop: ["END"], format: { kind: "text" }, maxTokens: 5 } as const;
  const attempt = await provider.chat(chat("hi", { output, reasoning: { effort: "medium" } }), asked, never);
  assert.equal(textOf(new AnswerFold().addAll(await eventsOf(attempt))), "before ");
  assert.deepEqual(attempt.dropped, ["max_tokens"]);
});

test("the account's quota and rate limits are told apart from its other errors", () => {
  const read = (data: object) => {
    const { end } = new CopilotReader((text) => text).read("session.error", data);
    return end instanceof GhostError ? end.code : end;
  };
  assert.deepEqual(
    [
      { errorType: "quota", errorCode: "quota_exceeded", statusCode: 402 },
      { errorType: "quota", errorCode: "billing_not_configured", statusCode: 429 },
      { errorType: "rate_limit", errorCode: "user_weekly_rate_limited", statusCode: 429 },
      { errorType: "authentication" },
      { errorType: "context_limit" },
      { errorType: "query", message: "odd" },
    ].map(read),
    [
      "upstream_quota",
      "upstream_quota",
      "upstream_rate_limited",
      "upstream_auth",
      "context_too_long",
      "upstream_failed",
    ],
  );
  const reader = new CopilotReader((text) => text);
  assert.deepEqual(reader.read("assistant.message", { content: "whole", toolRequests: [] }), {
    events: [
      { kind: "text", text: "whole" },
      { kind: "finish", reason: "stop" },
    ],
    end: true,
  });
  reader.read("assistant.usage", { finishReason: "new_in_2027" });
  assert.ok(reader.read("assistant.message", { content: "" }).end instanceof GhostError);
  assert.ok(new CopilotReader((text) => text).read("session.idle", {}).end instanceof GhostError);
});

/** The user's own `claude` program behind its provider, in front of a fake of it that is started as the real one is. */
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { type ClaudePlay, fakeClaude } from "../../../test/fakes/claude-play.ts";
import { chat, eventsOf, never, READ, say } from "../../../test/support/anthropic.ts";
import { testFolder } from "../../../test/support/folder.ts";
import { GhostError, OperationalError } from "../../base/errors.ts";
import { createClaudeProgram } from "../../platform/adapters/claude-program.ts";
import { StandingPermit } from "../../platform/permit-mint.ts";
import { systemClock } from "../../platform/system-clock.ts";
import { AnswerFold } from "../frames/answer-fold.ts";
import type { Attempt } from "../stream.ts";
import { createClaudeCodeProvider } from "./claude-code.ts";
import { EventFeed } from "./event-feed.ts";

const failsWith =
  (code: string, message = /./) =>
  (error: unknown) => {
    assert.ok(error instanceof GhostError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
const textOf = (fold: AnswerFold) => fold.blocks.map((block) => (block.kind === "text" ? block.text : "")).join("");

function setUp(context: TestContext, options: { readonly command?: string; readonly models?: readonly string[] } = {}) {
  const parent = testFolder();
  const claude = fakeClaude(parent);
  const folder = parent.join("empty");
  const command = options.command ?? claude.command;
  const permit = new StandingPermit("claude", [
    { capability: "cmd.exec", resource: { kind: "argv", executable: command, args: [], cwd: folder } },
    { capability: "fs.read", resource: { kind: "path", path: folder } },
    { capability: "fs.write", resource: { kind: "path", path: folder } },
  ]);
  const variables: Readonly<Record<string, string>> = {
    HOME: parent.path,
    PATH: "/usr/bin:/bin",
    ANTHROPIC_API_KEY: "sk-ant-api03-secret",
    ANTHROPIC_BASE_URL: "http://127.0.0.1:1",
    OPENAI_API_KEY: "ghost-model-secret",
  };
  const environment = {
    get: (name: string) => variables[name],
    homeDir: parent.path,
    userName: "ada",
    uid: process.getuid?.() ?? -1,
  };
  const program = createClaudeProgram({ permit, command, folder }, { environment, clock: systemClock });
  const config = { command, models: options.models ?? ["default", "opus"] };
  const provider = createClaudeCodeProvider({ config, program, clock: systemClock });
  context.after(async () => {
    await provider[Symbol.asyncDispose]();
    parent[Symbol.dispose]();
  });
  return {
    provider,
    claude,
    folder,
    async model(name = "opus") {
      const found = (await provider.models(never)).find((model) => model.name === name);
      assert.ok(found !== undefined, JSON.stringify(provider.status()));
      return found;
    },
  };
}

async function broken(attempt: Attempt) {
  const fold = new AnswerFold();
  try {
    for await (const frame of attempt.frames) fold.addAll(frame.events());
  } catch (thrown) {
    return { fold, thrown };
  }
  return { fold, thrown: undefined };
}

test("an answer: thinking, text, counts; asked by stdin, without tools, in an empty folder, with nothing of ours", async (context) => {
  const { provider, claude, model, folder } = setUp(context);
  claude.play({ thinking: "Hm.", deltas: ["Grüße ", "🦊"] });
  const messages = [say("system", "Be brief."), say("user", "What is secret?")];
  const more = { reasoning: { effort: "high" }, sampling: { temperature: 1 } } as const;
  const attempt = await provider.chat(chat(messages, more), await model(), never);
  const fold = new AnswerFold().addAll(await eventsOf(attempt));
  assert.deepEqual(fold.blocks, [
    { kind: "reasoning", block: 0, text: "Hm." },
    { kind: "text", text: "Grüße 🦊" },
  ]);
  assert.deepEqual(fold.usage, {
    promptTokens: 201,
    completionTokens: 4,
    cachedTokens: 40,
    cacheWriteTokens: 0,
    reasoningTokens: 2,
  });
  assert.deepEqual([fold.reason, attempt.dropped], ["stop", ["temperature"]]);
  const [asked] = claude.asked();
  assert.ok(asked !== undefined);
  assert.equal(asked.prompt, "<instructions>\nBe brief.\n</instructions>\n\nWhat is secret?");
  assert.doesNotMatch(asked.args.join(" "), /secret|Be brief/);
  assert.deepEqual(asked.args.slice(asked.args.indexOf("--tools"), asked.args.indexOf("--tools") + 2), ["--tools", ""]);
  assert.deepEqual(asked.args.slice(-4), ["--model", "opus", "--effort", "high"]);
  assert.deepEqual([asked.cwd, asked.files], [folder, []]);
  const names = Object.keys(asked.env).filter((name) => !["FAKE_CLAUDE", "PWD", "SHLVL", "_", "OLDPWD"].includes(name));
  assert.deepEqual(names.toSorted(), [
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "DISABLE_AUTOUPDATER",
    "HOME",
    "PATH",
  ]);
});

test("the account's default model is asked for by no name", async (context) => {
  const { provider, claude, model } = setUp(context);
  await eventsOf(await provider.chat(chat("hi"), await model("default"), never));
  assert.ok(!claude.asked()[0]?.args.includes("--model"));
});

test("a program that is not there is said", async (context) => {
  const { provider } = setUp(context, { command: "/nonexistent/claude" });
  assert.deepEqual(await provider.models(never), []);
  assert.deepEqual(
    provider.status().map(({ state, problem }) => [state, problem]),
    [["unreachable", "there is no program `/nonexistent/claude`"]],
  );
});

test("tools, pictures and JSON are refused, and nothing is started", async (context) => {
  const { provider, claude, model } = setUp(context);
  const opus = await model();
  for (const more of [
    { tools: [READ] },
    { hasImages: true },
    { hasFiles: true },
    { output: { stop: [], format: { kind: "json" } } },
  ] as const) {
    await assert.rejects(provider.chat(chat("hi", more), opus, never), failsWith("capability_missing"));
  }
  assert.deepEqual(claude.asked(), []);
});

const failures: readonly [name: string, play: ClaudePlay, code: string][] = [
  ["overload", { retry: { status: 529, error: "overloaded" } }, "upstream_overloaded"],
  ["a rate limit", { retry: { status: 429, error: "rate_limit" } }, "upstream_rate_limited"],
  ["a refused sign-in", { retry: { status: 401, error: "authentication_failed" } }, "upstream_auth"],
  ["a broken line to the API", { retry: { status: null, error: "unknown" } }, "upstream_failed"],
  ["no sign-in", { result: "Invalid API key · Please run /login" }, "upstream_auth"],
  ["a used-up plan", { result: "You've hit your session limit · resets 3pm" }, "upstream_quota"],
  ["a long prompt", { result: "Prompt is too long", status: 400 }, "context_too_long"],
  ["a refused request", { result: "API Error: 400 bad", status: 400 }, "upstream_rejected"],
  ["words on stderr", { stderr: "it is broken" }, "upstream_failed"],
  ["an early end", { deltas: [], after: "die" }, "upstream_failed"],
  ["an answer that is refused before its first word", { deltas: [], stopReason: "refusal" }, "upstream_filtered"],
  ["an end in a word that nobody knows", { deltas: [], stopReason: "new_in_2027" }, "upstream_failed"],
];
for (const [name, play, code] of failures) {
  test(`${name} is told at once`, async (context) => {
    const { provider, claude, model } = setUp(context);
    claude.play(play);
    await assert.rejects(provider.chat(chat("hi"), await model(), never), failsWith(code));
  });
}

test("an answer that broke off is broken: given up, dead, or in an unknown word", async (context) => {
  for (const play of [{ after: "give-up" }, { after: "die" }, { stopReason: "pause_turn" }] as const) {
    const { provider, claude, model } = setUp(context);
    claude.play({ deltas: ["one ", "two"], ...play });
    const { fold, thrown } = await broken(await provider.chat(chat("hi"), await model(), never));
    assert.ok(failsWith("upstream_failed")(thrown));
    assert.equal(textOf(fold), "one two");
  }
});

test("an answer that ran out of tokens ends there, though the program goes on", async (context) => {
  const { provider, claude, model } = setUp(context);
  claude.play({ deltas: ["half"], stopReason: "max_tokens" });
  const fold = new AnswerFold().addAll(await eventsOf(await provider.chat(chat("hi"), await model(), never)));
  assert.deepEqual([textOf(fold), fold.reason], ["half", "length"]);
});

test("stop strings cut the text here", async (context) => {
  const { provider, claude, model } = setUp(context);
  claude.play({ deltas: ["before E", "ND after"] });
  const output = { stop: ["END"], format: { kind: "text" } } as const;
  const fold = new AnswerFold().addAll(
    await eventsOf(await provider.chat(chat("hi", { output }), await model(), never)),
  );
  assert.deepEqual([textOf(fold), fold.reason], ["before ", "stop"]);
});

/** The processes whose folder is this one. */
function runningIn(folder: string): readonly string[] {
  return readdirSync("/proc").filter((name) => {
    try {
      return /^\d+$/.test(name) && readlinkSync(`/proc/${name}/cwd`) === folder;
    } catch {
      return false; // It has ended since.
    }
  });
}

test("who leaves, aborts or is told too much ends the program", async (context) => {
  const { provider, claude, model, folder } = setUp(context);
  const opus = await model();
  claude.play({ deltas: ["a"], after: "hang" });
  const leaving = new AbortController();
  const attempt = await provider.chat(chat("hi"), opus, leaving.signal);
  assert.equal(runningIn(folder).length, 1);
  leaving.abort();
  const { thrown } = await broken(attempt);
  assert.ok(failsWith("cancelled")(thrown));
  const second = await provider.chat(chat("hi"), opus, never);
  for await (const frame of second.frames) if (frame.events().length > 0) break;
  await assert.rejects(provider.chat(chat("hi"), opus, AbortSignal.abort()));
  claude.play({ deltas: ["a"], after: "flood" });
  const { thrown: flooded } = await broken(await provider.chat(chat("hi"), opus, never));
  assert.ok(failsWith("upstream_failed", /a line of more than/)(flooded));
  await provider[Symbol.asyncDispose]();
  assert.deepEqual(runningIn(folder), []);
});

test("more questions than may be open at once go elsewhere", async (context) => {
  const { provider, claude, model } = setUp(context);
  const opus = await model();
  claude.play({ deltas: ["a"], after: "hang" });
  const open = await Promise.all([1, 2, 3, 4].map(() => provider.chat(chat("hi"), opus, never)));
  await assert.rejects(provider.chat(chat("hi"), opus, never), failsWith("upstream_overloaded"));
  for (const { frames } of open) await frames[Symbol.asyncIterator]().return?.();
});

test("a feed hands out what waits as one frame, and what came before a failure first", async () => {
  let left = 0;
  const feed = new EventFeed(() => (left += 1));
  feed.push([{ kind: "text", text: "a" }]);
  feed.push([{ kind: "text", text: "b" }]);
  const source = feed[Symbol.asyncIterator]();
  const first = await source.next();
  assert.equal(first.value?.events().length, 2);
  const waiting = source.next();
  feed.push([{ kind: "text", text: "c" }]);
  assert.deepEqual((await waiting).value?.events(), [{ kind: "text", text: "c" }]);
  feed.push([{ kind: "text", text: "d" }]);
  feed.fail(new OperationalError("upstream_failed", "it failed"));
  feed.push([{ kind: "text", text: "late" }]);
  assert.deepEqual((await source.next()).value?.events(), [{ kind: "text", text: "d" }]);
  await assert.rejects(source.next(), failsWith("upstream_failed"));
  assert.deepEqual([(await source.next()).done, left], [true, 1]);
});

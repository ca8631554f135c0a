/**
 * A fake of the `claude` program in its print mode: it holds its arguments against what the real one takes, reads the prompt from stdin, and writes the
 * lines of `--output-format stream-json --include-partial-messages`.
 * Source of the shapes: Claude Code 2.1.330, run in front of a fake of Anthropic's API; the events inside are those of Anthropic's Messages (types of
 * @anthropic-ai/sdk). What it is to say stands in the file that `FAKE_CLAUDE` names, and what it was asked is written beside it.
 */
import { appendFileSync, readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClaudePlay } from "./claude-play.ts";

const place = process.env["FAKE_CLAUDE"] ?? "";
const play: ClaudePlay = JSON.parse(readFileSync(place, "utf8"));
const args = process.argv.slice(2);
const ids = { session_id: "f41d25c6-b457-4278-be46-bd8e0f918fa1", uuid: "ddc8a03b-c36f-4f79-a7c8-8ba0ee39e6fd" };
const write = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
const event = (inner: object, more: object = {}) =>
  write({ type: "stream_event", event: inner, ...ids, parent_tool_use_id: null, api_message_id: "msg_fake", ...more });

/** The flags that the real one has and we use, and whether a value follows. */
const FLAGS: Readonly<Record<string, boolean>> = {
  "--print": false,
  "--output-format": true,
  "--include-partial-messages": false,
  "--verbose": false,
  "--tools": true,
  "--setting-sources": true,
  "--strict-mcp-config": false,
  "--disable-slash-commands": false,
  "--no-session-persistence": false,
  "--system-prompt": true,
  "--model": true,
  "--effort": true,
};

function readFlags(): ReadonlyMap<string, string> {
  const flags = new Map<string, string>();
  for (let at = 0; at < args.length; at += 1) {
    const name = args[at] ?? "";
    const takesValue = FLAGS[name];
    if (takesValue === undefined) fail(`error: unknown option '${name}'`);
    if (takesValue === true) at += 1;
    flags.set(name, takesValue === true ? (args[at] ?? "") : "");
  }
  return flags;
}

function fail(words: string): never {
  process.stderr.write(`${words}\n`);
  process.exit(1);
}

async function readStdin(): Promise<string> {
  let text = "";
  for await (const chunk of process.stdin.setEncoding("utf8")) text += String(chunk);
  return text;
}

/** What it answers where no answer came: the words stand in a message of its own and in the result. */
function endWith(words: string, status: number | null): void {
  const message = { id: "x", model: "<synthetic>", role: "assistant", content: [{ type: "text", text: words }] };
  write({ type: "assistant", message, parent_tool_use_id: null, ...ids });
  write({ type: "result", subtype: "success", is_error: true, api_error_status: status, result: words, ...ids });
  process.exitCode = 1;
}

const flags = readFlags();
if (flags.get("--output-format") === "stream-json" && !flags.has("--verbose"))
  fail("Error: When using --print, --output-format=stream-json requires --verbose");
const prompt = await readStdin();
const asked = { args, prompt, cwd: process.cwd(), files: readdirSync("."), env: process.env };
appendFileSync(`${place}.asked`, `${JSON.stringify(asked)}\n`);
write({
  type: "system",
  subtype: "init",
  cwd: process.cwd(),
  tools: [],
  mcp_servers: [],
  model: flags.get("--model"),
  ...ids,
});
write({ type: "system", subtype: "status", status: "requesting", ...ids });
if (play.stderr !== undefined) fail(play.stderr);
if (play.result !== undefined) endWith(play.result, play.status ?? null);
else if (play.retry !== undefined) {
  const retry = {
    attempt: 1,
    max_retries: 10,
    retry_delay_ms: 500,
    error_status: play.retry.status,
    error: play.retry.error,
  };
  write({ type: "system", subtype: "api_retry", ...retry, ...ids });
  await sleep(60_000);
} else await answer();

async function answer(): Promise<void> {
  const usage = { input_tokens: 161, cache_creation_input_tokens: 0, cache_read_input_tokens: 40, output_tokens: 1 };
  const message = {
    model: "claude-opus-5-5",
    id: "msg_fake",
    type: "message",
    role: "assistant",
    content: [],
    stop_reason: null,
  };
  event({ type: "message_start", message: { ...message, usage } });
  if (play.thinking !== undefined) {
    event({ type: "content_block_start", index: 0, content_block: { type: "thinking", thinking: "", signature: "" } });
    event({ type: "content_block_delta", index: 0, delta: { type: "thinking_delta", thinking: play.thinking } });
    event({ type: "content_block_delta", index: 0, delta: { type: "signature_delta", signature: "c2ln" } });
    event({ type: "content_block_stop", index: 0 });
    write({ type: "system", subtype: "thinking_tokens", estimated_tokens: 2, estimated_tokens_delta: 2, ...ids });
  }
  event({ type: "content_block_start", index: 1, content_block: { type: "text", text: "", citations: null } });
  for (const text of play.deltas ?? ["Hello."]) {
    event({ type: "content_block_delta", index: 1, delta: { type: "text_delta", text } });
    // One of a subagent's is not of the answer.
    event(
      { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "inner" } },
      { parent_tool_use_id: "toolu_1" },
    );
  }
  if (play.after === "hang") await sleep(60_000);
  // Piece by piece, each taken before the next: with more at once the kernel refuses the write (ENOBUFS), and the program dies of that.
  if (play.after === "flood")
    for (;;) await new Promise<void>((taken) => process.stdout.write("x".repeat(1 << 16), () => taken()));
  if (play.after === "die") process.exit(1);
  if (play.after === "give-up") {
    event({ type: "message_stop" }, { abandoned_blocks: { api_message_id: "msg_fake", from_block_index: 0 } });
    await sleep(60_000);
  }
  event({ type: "content_block_stop", index: 1 });
  const stop_reason = play.stopReason ?? "end_turn";
  const counts = { ...usage, output_tokens: 4, output_tokens_details: { thinking_tokens: 2 } };
  event({ type: "message_delta", delta: { stop_reason, stop_sequence: null }, usage: counts });
  event({ type: "message_stop" });
  if (stop_reason !== "end_turn") {
    // It goes on by itself.
    event({ type: "message_start", message: { ...message, id: "msg_second", usage } });
    event({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "again" } });
    await sleep(60_000);
  }
  write({
    type: "result",
    subtype: "success",
    is_error: false,
    num_turns: 1,
    result: (play.deltas ?? []).join(""),
    ...ids,
  });
}

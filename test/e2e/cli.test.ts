/** Commands of `ghost` against the real daemon, as a script or a pipe sees them. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { z } from "zod";
import { chatUpdate } from "../../protocol/chat.ts";
import { completionUpdate } from "../../protocol/completion.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { runGhost, spawnGhost, spawnProgram } from "../support/cli.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";

let host: OpenAiHost;
let daemon: TestDaemon;
const stack = new AsyncDisposableStack();
before(async () => {
  host = stack.use(
    await startOpenAiHost({ models: ["talker"], script: { tokens: ["Hello", " from", " the", " fake."] } }),
  );
  const config = `[providers.ollama]\ndiscover = false\n[providers.compatible.fake]\nbase_url = "${host.baseUrl}"\n`;
  daemon = stack.use(await startTestDaemon({ config }));
});
after(() => stack.disposeAsync());

const ghost = (args: readonly string[], stdin = "") => runGhost(args, { env: daemon.env, stdin });

test("stdout of a one-shot chat holds the answer and nothing else; who answered, and why, is on stderr", async () => {
  const { code, stdout, stderr } = await ghost(["chat", "-m", "fake/talker", "Say", "hello"]);
  assert.equal(stdout, "Hello from the fake.\n");
  assert.match(stderr, /^fake\/talker · .+\n/);
  assert.match(stderr, /first token after .+ ses_/);
  assert.equal(code, 0);
});

test("text on stdin is added to the prompt, or is the prompt", async () => {
  const sent = async (args: readonly string[], stdin: string) => {
    const { code } = await ghost(["chat", "-m", "fake/talker", ...args], stdin);
    assert.equal(code, 0);
    return host.requests.at(-1)?.bodyText ?? "";
  };
  assert.match(await sent(["Review this"], "diff --git"), /"Review this\\n\\ndiff --git"/);
  assert.match(await sent([], "only this"), /"only this"/);
});

test("with --json every update is one object a line, of the protocol's own shape", async () => {
  const { code, stdout } = await ghost(["chat", "-m", "fake/talker", "--json", "hi"]);
  assert.equal(code, 0);
  const updates = stdout
    .trimEnd()
    .split("\n")
    .map((line) => chatUpdate.parse(JSON.parse(line)));
  assert.equal(updates[0]?.kind, "started");
  assert.equal(updates.at(-1)?.kind, "finished");
  assert.equal(
    updates.flatMap((update) => (update.kind === "text" ? [update.text] : [])).join(""),
    "Hello from the fake.",
  );
});

test("every report is one JSON document with --json, and something to read without", async () => {
  const commands: readonly (readonly [readonly string[], string, RegExp])[] = [
    [["status"], "running", /^daemon +runs since/],
    [["models"], "models", /fake\/talker +machine/],
    [["sessions"], "sessions", /ses_\w+/],
    [["usage"], "models", /fake\/talker +\d/],
    [["policy"], "capabilities", /fs\.write +prompt/],
    [["ledger"], "rows", /./],
    [["settings"], "settings", /http\.port +0 +flag/],
    [["route", "explain", "fake/talker"], "plan", /^fake\/talker: /],
    [["env"], "OPENAI_API_KEY", /^export OPENAI_BASE_URL=/],
    [["doctor"], "findings", /✓ daemon/],
  ];
  for (const [args, field, human] of commands) {
    const asJson = await ghost([...args, "--json"]);
    const document = z.record(z.string(), z.unknown()).parse(JSON.parse(asJson.stdout));
    assert.ok(field in document, `${args.join(" ")} --json has no ${field}`);
    const asText = await ghost(args);
    assert.match(asText.stdout, human);
    assert.ok(!asText.stdout.includes("\u001b"), `${args.join(" ")} sends colours into a pipe`);
    assert.equal(asText.code, asJson.code);
  }
});

test("a session goes on by its id, and can be shown and deleted", async () => {
  const first = await ghost(["chat", "-m", "fake/talker", "first words"]);
  const id = /ses_\w+/.exec(first.stderr)?.[0] ?? "";
  const second = await ghost(["chat", "-m", "fake/talker", "--session", id, "second words"]);
  assert.equal(second.code, 0);
  const body = host.requests.at(-1)?.bodyText ?? "";
  assert.ok(body.includes("first words") && body.includes("Hello from the fake.") && body.includes("second words"));
  const shown = await ghost(["sessions", "show", id]);
  assert.match(shown.stdout, /first words[^]+Hello from the fake\.[^]+second words/);
  assert.equal((await ghost(["sessions", "rm", id])).code, 0);
  const gone = await ghost(["sessions", "show", id, "--json"]);
  assert.equal(gone.code, 1);
  assert.equal(
    z.object({ error: z.object({ code: z.string() }) }).parse(JSON.parse(gone.stdout)).error.code,
    "session_not_found",
  );
  assert.match(gone.stderr, /`ghost sessions` lists them/);
});

test("sessions are listed page by page: each page says how to go on, the last one does not", async () => {
  for (const text of ["page one", "page two", "page three"]) await ghost(["chat", "-m", "fake/talker", text]);
  const listed = z.object({ sessions: z.array(z.object({ id: z.string() })), nextCursor: z.string().optional() });
  const whole = listed.parse(JSON.parse((await ghost(["sessions", "--json"])).stdout));
  assert.ok(whole.sessions.length >= 3 && whole.nextCursor === undefined);
  const seen: string[] = [];
  let args: readonly string[] = ["sessions", "list", "-n", "2"];
  for (let more = true; more; ) {
    const { stdout, stderr } = await ghost(args);
    seen.push(...(stdout.match(/ses_\w+/g) ?? []));
    const next = /^more: ghost (.+)\n$/.exec(stderr)?.[1];
    more = next !== undefined;
    args = next?.split(" ") ?? [];
  }
  assert.deepEqual(
    seen,
    whole.sessions.map(({ id }) => id),
  );
  const bad = await ghost(["sessions", "--cursor", "nonsense"]);
  assert.equal(bad.code, 1);
  assert.match(bad.stderr, /cursor: [^]+Correct `cursor`\./);
});

test("SIGINT during an answer exits with 130, stops the model's server, and keeps what had come", async () => {
  host.playOnce({ tokens: ["The beginning"], fault: { kind: "hang", afterTokens: 1 } });
  const asking = spawnGhost(["chat", "-m", "fake/talker", "count"], { env: daemon.env });
  await asking.waitFor(/The beginning/);
  asking.signal("SIGINT");
  const { code, stdout } = await asking.finished;
  assert.equal(code, 130);
  assert.equal(stdout, "The beginning\n");
  await host.until(() => host.openRequests === 0, "the end of the cancelled request");
  const id = /ses_\w+/.exec((await ghost(["sessions"])).stdout)?.[0] ?? "";
  assert.match((await ghost(["sessions", "show", id])).stdout, /cancelled\)\nThe beginning/);
});

test("an answer that breaks off exits with 1, and what came before the cut is on stdout", async () => {
  host.playOnce({
    tokens: ["one ", "two "],
    fault: { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" },
  });
  const { code, stdout, stderr } = await ghost(["chat", "-m", "fake/talker", "count"]);
  assert.equal(code, 1);
  assert.equal(stdout, "one two \n");
  assert.match(stderr, /ghost: .+\n {2}Send the request again/);
});

test("in a pipe, the answer is byte for byte what the model sent", async () => {
  host.playOnce({ tokens: ["\u001b[31mred\u001b[0m\r\n"] });
  assert.equal((await ghost(["chat", "-m", "fake/talker", "x"])).stdout, "\u001b[31mred\u001b[0m\r\n\n");
});

test("a completion of a real file continues its code, by the embedded model that says what it is", async () => {
  const file = daemon.folder.join("loop.ts");
  writeFileSync(file, "for (let index = 0; index\n");
  const { code, stdout, stderr } = await ghost(["complete", `${file}:1`]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^[^\n]*\n$/);
  assert.match(stderr, /embedded\/tiny-code-fim · [^]*demonstration/);
  const asJson = await ghost(["complete", `${file}:1:5`, "--json", "--max-tokens", "4"]);
  const updates = asJson.stdout
    .trimEnd()
    .split("\n")
    .map((line) => completionUpdate.parse(JSON.parse(line)));
  assert.equal(updates.at(-1)?.kind, "finished");
});

test("the lines of `ghost env` evaluate in a shell and open the model APIs", async () => {
  const { stdout } = await ghost(["env"]);
  const requests = [
    `-H "Authorization: Bearer $OPENAI_API_KEY" "$OPENAI_BASE_URL/models"`,
    `-H "Authorization: Bearer $ANTHROPIC_AUTH_TOKEN" -H "anthropic-version: 2023-06-01" "$ANTHROPIC_BASE_URL/v1/models?limit=1000"`,
    `-H "x-goog-api-key: $GEMINI_API_KEY" "$GOOGLE_GEMINI_BASE_URL/v1beta/models?pageSize=1000"`,
  ];
  for (const request of requests) {
    const { stdout: answer } = await spawnProgram(["sh", "-c", `eval "$1"; exec curl -sS ${request}`, "sh", stdout], {
      env: { PATH: daemon.env["PATH"] ?? "" },
    }).finished;
    assert.match(answer, /"(id|name)":"(models\/)?fake\/talker"/);
  }
  const variables = {
    OPENAI_BASE_URL: `${daemon.http}/v1`,
    OPENAI_API_KEY: daemon.modelKey,
    ANTHROPIC_BASE_URL: daemon.http,
    ANTHROPIC_AUTH_TOKEN: daemon.modelKey,
    GOOGLE_GEMINI_BASE_URL: daemon.http,
    GEMINI_API_KEY: daemon.modelKey,
  };
  assert.deepEqual(JSON.parse((await ghost(["env", "--json"])).stdout), variables);
  assert.equal(
    (await ghost(["env", "--shell", "fish"])).stdout,
    Object.entries(variables)
      .map(([name, value]) => `set -gx ${name} '${value}'\n`)
      .join(""),
  );
});

test("keys in the environment that clients would take instead of ours are unset by the lines of `ghost env`", async () => {
  const others = { ANTHROPIC_API_KEY: "sk-ant-other", GOOGLE_API_KEY: "other" };
  const { stdout } = await runGhost(["env"], { env: { ...daemon.env, ...others } });
  const show = 'eval "$1"; echo "${ANTHROPIC_API_KEY-none} ${GOOGLE_API_KEY-none} $ANTHROPIC_AUTH_TOKEN"';
  const env = { ...others, PATH: daemon.env["PATH"] ?? "" };
  const after = await spawnProgram(["sh", "-c", show, "sh", stdout], { env }).finished;
  assert.equal(after.stdout, `none none ${daemon.modelKey}\n`);
  const inFish = await runGhost(["env", "--shell", "fish"], { env: { ...daemon.env, ...others } });
  assert.match(inFish.stdout, /^set -e ANTHROPIC_API_KEY\nset -e GOOGLE_API_KEY\n$/m);
});

test("a command line that is not understood exits with 2 and says how to go on", async () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [["chta"], /Did you mean chat/],
    [["chat", "--max-tokens", "many", "x"], /--max-tokens[^]+whole number from 1/],
    [["chat", "--session", "nonsense", "x"], /"nonsense" is not the id of a session/],
    [["sessions", "show", "nonsense"], /not the id of a session/],
    [["complete", "/nowhere.ts"], /cannot read \/nowhere\.ts/],
    [["chat"], /there is no prompt/],
    [["models", "surplus"], /too many arguments/],
  ];
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await ghost(args);
    assert.equal(code, 2, args.join(" "));
    assert.match(stderr, message);
    assert.equal(stdout, "");
  }
});

test("every command has a help with examples", async () => {
  const commands = [
    "chat",
    "complete",
    "models",
    "models pull",
    "sessions",
    "sessions list",
    "sessions show",
    "sessions rm",
    "env",
    "start",
  ];
  for (const command of [
    ...commands,
    "stop",
    "status",
    "doctor",
    "logs",
    "usage",
    "route explain",
    "policy",
    "ledger",
    "settings",
  ]) {
    const { code, stdout } = await ghost([...command.split(" "), "--help"]);
    assert.equal(code, 0);
    assert.match(stdout, new RegExp(`Usage: ghost ${command.replace(" ", "( \\[options\\])? ")}[^]+Examples:\n {2}`));
  }
});

test("an unknown model is an error with the catalogue's advice", async () => {
  const { code, stderr } = await ghost(["chat", "-m", "fake/talkre", "x"]);
  assert.equal(code, 1);
  assert.match(stderr, /fake\/talkre[^]+`ghost models` lists the models/);
});

test("a reader that goes away ends the program quietly", async () => {
  const script = `"$@" logs -n 100 --json | head -n 1`;
  const { code, stdout, stderr } = await spawnProgram(
    ["sh", "-c", script, "sh", process.execPath, new URL("../../clients/cli/bin/ghost.mjs", import.meta.url).pathname],
    { env: daemon.env },
  ).finished;
  assert.equal(code, 0);
  assert.equal(stdout.split("\n").length, 2);
  assert.equal(stderr, "");
});

test("the log is readable, in full with --json, and follows what happens", async () => {
  assert.match((await ghost(["logs"])).stdout, /^\d{4}-\d\d-\d\d .+ info +daemon\.ready pid=\d+/m);
  const following = spawnGhost(["logs", "--follow", "--json", "-n", "1"], { env: daemon.env });
  await following.waitFor(/^\{.+\}\n/);
  host.playOnce({ status: { code: 500, body: "json", message: "on purpose" } });
  await ghost(["chat", "-m", "fake/talker", "x"]);
  await following.waitFor(/^\{.+\}\n\{.+\}\n/);
  following.signal("SIGINT");
  assert.equal((await following.finished).code, 130);
});

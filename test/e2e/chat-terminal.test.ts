/** `ghost chat` as a person uses it: a robot at a real terminal, waiting for what becomes visible. */
import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { after, before, test } from "node:test";
import { missingTools } from "../../tools/system-tools.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { GHOST, runGhost } from "../support/cli.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { openTerminal, type Terminal } from "../support/terminal.ts";

const isMissing = missingTools("test", process.env["PATH"] ?? "").some(({ command }) => command === "tmux");
const options = { skip: isMissing && "tmux is not installed" };

let host: OpenAiHost;
let daemon: TestDaemon;
const stack = new AsyncDisposableStack();
before(async () => {
  host = stack.use(await startOpenAiHost({ models: ["talker", "second"], script: { tokens: ["Fine", " answer."] } }));
  const config = `[providers.ollama]\ndiscover = false\n[providers.embedded]\nenabled = false\n[providers.compatible.fake]\nbase_url = "${host.baseUrl}"\n`;
  daemon = stack.use(await startTestDaemon({ config }));
});
after(() => stack.disposeAsync());

async function openChat(...args: readonly string[]): Promise<Terminal> {
  const command = [process.execPath, GHOST, "chat", "-m", "fake/talker", ...args];
  const terminal = await openTerminal({ command, env: { ...daemon.env, NO_COLOR: "1" } });
  await terminal.waitFor(/you>$/);
  return terminal;
}

const lastUserText = () => host.requests.at(-1)?.bodyText ?? "";

test("a conversation: an answer, a second one that knows the first, and Ctrl-D ends it", options, async () => {
  await using terminal = await openChat();
  await terminal.type("good morning");
  await terminal.press("Enter");
  await terminal.waitFor(/Fine answer\.[^]+in all · ses_\w+[^]+you>$/);
  await terminal.type("and now?");
  await terminal.press("Enter");
  await terminal.waitFor(/and now\?[^]+Fine answer\.[^]+you>$/);
  assert.match(lastUserText(), /good morning.+Fine answer\..+and now\?/);
  await terminal.press("C-d");
  assert.equal(await terminal.exitCode(), 0);
  assert.match(await terminal.screen(), /to go on later: ghost chat --session ses_/);
});

test("Ctrl-C cancels the answer and not the program; the next message is answered", options, async () => {
  await using terminal = await openChat();
  host.playOnce({ tokens: ["A long story"], fault: { kind: "hang", afterTokens: 1 } });
  await terminal.type("tell me");
  await terminal.press("Enter");
  await terminal.waitFor(/A long story/);
  await terminal.press("C-c");
  await terminal.waitFor(/cancelled; what arrived is kept\nyou>$/);
  await host.until(() => host.openRequests === 0, "the end of the cancelled request");
  await terminal.type("again");
  await terminal.press("Enter");
  await terminal.waitFor(/again[^]+Fine answer\.[^]+you>$/);
  await terminal.press("C-c");
  await terminal.waitFor(/Ctrl-C again, or Ctrl-D, ends the program\)\nyou>$/);
  await terminal.type("half a line");
  await terminal.press("C-c");
  await terminal.waitFor(/half a line\nyou>$/);
  await terminal.press("C-c");
  await terminal.waitFor(/half a line\nyou>\n\(Ctrl-C again.*\nyou>$/);
  await terminal.press("C-c");
  assert.equal(await terminal.exitCode(), 0);
});

test("a message between two Ctrl-C makes them two, and a SIGINT from elsewhere ends nothing", options, async () => {
  const command = ["sh", "-c", 'echo "pid $$"; exec "$@"', "sh", process.execPath, GHOST, "chat", "-m", "fake/talker"];
  await using terminal = await openTerminal({
    command,
    env: { ...daemon.env, NO_COLOR: "1", PATH: process.env["PATH"] ?? "" },
  });
  const pid = Number(/pid (\d+)/.exec(await terminal.waitFor(/pid \d+\n[^]*you>$/))?.[1]);
  await terminal.press("C-c");
  await terminal.waitFor(/Ctrl-C again, or Ctrl-D, ends the program\)\nyou>$/);
  await terminal.type("still here");
  await terminal.press("Enter");
  await terminal.waitFor(/still here[^]+Fine answer\.[^]+you>$/);
  await terminal.press("C-c");
  await terminal.waitFor(/Fine answer\.[^]+Ctrl-C again, or Ctrl-D, ends the program\)\nyou>$/);
  for (const text of ["once", "twice"]) {
    process.kill(pid, "SIGINT");
    await terminal.type(text);
    await terminal.press("Enter");
    await terminal.waitFor(new RegExp(`you> ${text}\\n[^]*Fine answer\\.[^]+you>$`));
  }
  await terminal.press("C-d");
  assert.equal(await terminal.exitCode(), 0);
});

test("what is typed while an answer streams is kept for the next line", options, async () => {
  await using terminal = await openChat();
  host.playOnce({ tokens: ["Streaming"], fault: { kind: "hang", afterTokens: 1 } });
  await terminal.type("go");
  await terminal.press("Enter");
  await terminal.waitFor(/Streaming/);
  await terminal.type("typed ahead");
  await terminal.press("C-c");
  await terminal.waitFor(/you> typed ahead$/);
  await terminal.press("Enter");
  await terminal.waitFor(/Fine answer\.[^]+you>$/);
  assert.match(lastUserText(), /typed ahead/);
});

test("a pasted text of several lines is one message", options, async () => {
  await using terminal = await openChat();
  const before = host.requests.length;
  await terminal.paste("line one\nline two\n\nline four");
  await terminal.waitFor(/line four$/);
  await terminal.press("Enter");
  await terminal.waitFor(/Fine answer\.[^]+you>$/);
  assert.match(lastUserText(), /line one\\nline two\\n\\nline four/);
  assert.equal(host.requests.length, before + 1);
});

test("control sequences of a model do nothing to the terminal", options, async () => {
  await using terminal = await openChat();
  host.playOnce({ tokens: ["before", "\u001b[2J\u001b[H", "\u001b]0;title\u0007", " after"] });
  await terminal.type("attack");
  await terminal.press("Enter");
  const screen = await terminal.waitFor(/ after\n[^]+you>$/);
  assert.match(screen, /you> attack[^]+before\\x1b\[2J\\x1b\[H\\x1b\]0;title\\x07 after/);
});

test("the slash commands: model, models, sessions, new, resume, help, and an unknown one", options, async () => {
  await using terminal = await openChat();
  const say = async (text: string, expected: RegExp) => {
    await terminal.type(text);
    await terminal.press("Enter");
    return await terminal.waitFor(expected);
  };
  const first = await say("remember this", /Fine answer\.[^]+in all · ses_\w+[^]+you>$/);
  const id = /ses_\w+/.exec(first)?.[0] ?? "";
  await say("/model fake/second", /model: fake\/second \(.+\)\nyou>$/);
  await say("/new", /a new session\nyou>$/);
  await say("hello there", /hello there\nfake\/second · [^]+you>$/);
  assert.ok(!lastUserText().includes("remember this"));
  await say("/model nobody/nothing", /no model[^]+`ghost models`[^]+you>$/);
  await say("/models", /fake\/second +machine[^]+you>$/);
  await say("/sessions", new RegExp(`${id} .+remember this\n[^]*you>$`));
  await say(`/resume ${id}`, new RegExp(`${id}: 2 messages[^]+remember this[^]+you>$`));
  await say("go on", /go on\nFine answer\.[^]+you>$/);
  assert.match(lastUserText(), /remember this.+go on/);
  await say("/help", /\/resume ID[^]+\/exit[^]+you>$/);
  await say("/nothing", /there is no \/nothing; \/help[^]+you>$/);
  await say("/exit", /to go on later/);
  assert.equal(await terminal.exitCode(), 0);
});

test("the history outlives the program, in a file that only its owner reads", options, async () => {
  {
    await using terminal = await openChat();
    await terminal.type("an unforgettable question");
    await terminal.press("Enter");
    await terminal.waitFor(/Fine answer\.[^]+you>$/);
  }
  const file = `${daemon.dataDir}/chat-history`;
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.match(readFileSync(file, "utf8"), /an unforgettable question/);
  await using terminal = await openChat();
  await terminal.press("Up");
  await terminal.waitFor(/you> an unforgettable question$/);
});

test("a failing answer is shown with its advice, and the conversation goes on", options, async () => {
  await using terminal = await openChat();
  host.playOnce({ status: { code: 401, body: "json", message: "bad key" } });
  await terminal.type("fail");
  await terminal.press("Enter");
  await terminal.waitFor(/fake answered 401[^\n]*\n {2}.+`ghost keys set`[^]*you>$/);
  await terminal.type("succeed");
  await terminal.press("Enter");
  await terminal.waitFor(/succeed[^]+Fine answer\.[^]+you>$/);
});

test(
  "a daemon that was killed costs one answer; chat starts another and goes on in the same session",
  options,
  async () => {
    const config = `[http]\nport = 0\n[providers.ollama]\ndiscover = false\n[providers.embedded]\nenabled = false\n[providers.compatible.fake]\nbase_url = "${host.baseUrl}"\n`;
    await using own = await startTestDaemon({ config });
    await using _second = { [Symbol.asyncDispose]: async () => void (await runGhost(["stop"], { env: own.env })) };
    const command = [process.execPath, GHOST, "chat", "-m", "fake/talker"];
    await using terminal = await openTerminal({ command, env: { ...own.env, NO_COLOR: "1" } });
    await terminal.waitFor(/you>$/);
    await terminal.type("before the crash");
    await terminal.press("Enter");
    await terminal.waitFor(/Fine answer\.[^]+you>$/);
    await own.kill();
    await terminal.type("after the crash");
    await terminal.press("Enter");
    await terminal.waitFor(/no daemon runs: starting one[^]+Fine answer\.[^]+you>$/);
    assert.match(lastUserText(), /before the crash.+Fine answer\..+after the crash/);
    await terminal.press("C-d");
    assert.equal(await terminal.exitCode(), 0);
  },
);

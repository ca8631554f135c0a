/**
 * The pages of docs/clients hold what they say: their settings parse, their commands and programs run, against the real daemon with one model behind it.
 * The agents' own programs are run in test/agents; here they only show how they were called.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { parse as parseToml } from "smol-toml";
import { loadConfig } from "../server/platform/config/load.ts";
import { root } from "../tools/source-files.ts";
import { agents } from "./agents/agents.ts";
import { type OpenAiHost, startOpenAiHost } from "./fakes/openai-host.ts";
import { spawnProgram } from "./support/cli.ts";
import { type ClientPage, clientPages, MARK, placePage } from "./support/client-pages.ts";
import { startTestDaemon, type TestDaemon } from "./support/daemon.ts";
import { testFolder } from "./support/folder.ts";

const SAID = "Hello from the model.";
const pages = clientPages();
const agentPages = new Map(agents.map(({ page, program }) => [page, program]));

let host: OpenAiHost;
let daemon: TestDaemon;
let ollama: string;

before(async () => {
  host = await startOpenAiHost({ models: ["m"], script: { tokens: SAID.split(/(?<= )/) } });
  const config = `[http.ollama]
enabled = true
port = 0
[providers.ollama]
discover = false
[providers.embedded]
enabled = false
[providers.compatible.up]
base_url = "${host.baseUrl}"
locality = "machine"
[routing.aliases]
coder = ["up/m"]
small = ["up/m"]
`;
  daemon = await startTestDaemon({ config });
  ollama = `http://127.0.0.1:${String(daemon.logs().find(({ event }) => event === "ollama_http.listening")?.["port"])}`;
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

/** How each kind of settings is read; a block of another kind is none that a page may have. */
const readers: Readonly<Record<string, (text: string, file: string | undefined) => void>> = {
  toml: (text, file) => {
    if (file === "ghost.toml") loadConfig({ text, file, overrides: {} });
    else parseToml(text);
  },
  json: (text) => void JSON.parse(text),
  yaml: (text) => assert.doesNotMatch(text, /\t/),
  sh: (text) => assert.ok(text.length > 0),
  ts: (text) => assert.match(text, /^import /),
  python: (text) => assert.match(text, /^from /),
};

for (const page of pages) {
  test(`${page.name}: its settings can be read`, () => {
    assert.ok(page.blocks.length >= 2, "a page has settings and a test");
    for (const { language, text, file, lead } of page.blocks) {
      const read = readers[language];
      assert.ok(read !== undefined, `nobody checks a block of ${language}`);
      read(text, file);
      if (language === "python") assert.match(lead, /not run by our tests/);
    }
  });

  test(`${page.name}: its commands and programs reach the model`, async () => {
    using folder = testFolder();
    const agent = agentPages.get(page.name);
    const call = 'for word in "$@"; do printf "%s " "$word" >> "$HOME/calls"; done; printf "\\n" >> "$HOME/calls"';
    const shims = agent === undefined ? [] : [{ name: agent, script: call }];
    const placed = placePage(page, folder.path, { doors: { ...daemon, ollama }, shims });
    const env = { PATH: placed.path, HOME: folder.path };
    const { code, stdout, stderr } = await spawnProgram(["sh", "-c", placed.script], { env }).finished;
    assert.equal(code, 0, `${stdout}\n${stderr}`);
    if (agent !== undefined) assertCalled(page, readFileSync(folder.join("calls"), "utf8"));
    else assertAnswered(page, stdout);
    for (const file of placed.files) {
      const written = readFileSync(folder.join(file.slice(2)), "utf8");
      const addresses = [...written.matchAll(/http:\/\/127\.0\.0\.1:\d+/g)].map(([address]) => address);
      const isTold = addresses.length > 0 || placed.script.includes("ghost env");
      assert.ok(isTold, `${file} does not name the daemon's address`);
      for (const address of addresses) assert.equal(address, daemon.http, file);
    }
    assert.deepEqual(host.violations, []);
  });

  test(`${page.name}: its links lead somewhere`, () => {
    const links = [...page.text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(({ 1: path = "" }) => path);
    assert.ok(links.length > 0, "it says where to read on");
    for (const path of links) assert.ok(existsSync(join(root, "docs/clients", path)), path);
  });
}

/** The page's own way to test an agent gives it a task. */
function assertCalled(page: ClientPage, calls: string): void {
  const task = calls.split("\n").filter((line) => line.includes("Run date in the shell"));
  assert.equal(task.length, 1, `${page.name} tries its agent once: ${calls}`);
}

/** Each program of the page prints the model's words, and each `curl` for an answer has it and the model's name. */
function assertAnswered({ name, blocks }: ClientPage, stdout: string): void {
  const programs = stdout.split(MARK).slice(1);
  const count = blocks.filter(({ language }) => language === "ts").length;
  assert.ok(count >= 1, `${name} has a program`);
  assert.equal(programs.length, count);
  for (const output of programs) assert.ok(output.includes(SAID), output);
  const asks = blocks.filter(({ language, text }) => language === "sh" && /curl[^]* -d /.test(text)).length;
  const heads = [...stdout.matchAll(/HTTP\/1\.1 200 OK(?:\r?\n[\w-]+: .*)*?\r?\nx-ghost-model: up\/m\r?\n/g)].length;
  assert.equal(heads, asks, stdout);
}

test("every page is in the index, with how it is tested, and nothing else is", () => {
  const index = readFileSync(join(root, "docs/clients/README.md"), "utf8");
  const rows = [...index.matchAll(/^\|[^|]+\|[^|]+\| \[([\w-]+)\.md\]\(\1\.md\) \| (.+) \|$/gm)];
  assert.deepEqual(
    rows.map(({ 1: name = "" }) => name).toSorted(),
    pages.map(({ name }) => name),
  );
  for (const { 1: name = "", 2: tested = "" } of rows) {
    if (agentPages.has(name)) assert.match(tested, /the program itself: `npm run test:agents`/);
    else {
      assert.match(tested, /^the page's programs, and `test\/[^`]+`$/);
      assert.ok(existsSync(join(root, /`(test\/[^`]+)`/.exec(tested)?.[1] ?? "")), tested);
    }
  }
  assert.ok(agentPages.size >= 6 && pages.length >= 11, "pages are gone");
  for (const name of agentPages.keys())
    assert.ok(
      pages.some((page) => page.name === name),
      `no page ${name}`,
    );
});

test("ollama-tools: what it says is left out is left out, and named", async () => {
  const messages = [{ role: "user", content: "Hello" }];
  const body = JSON.stringify({ model: "coder", messages, keep_alive: "5m", options: { num_ctx: 8192 } });
  const response = await fetch(`${ollama}/api/chat`, { method: "POST", body });
  assert.equal(response.headers.get("x-ghost-dropped"), "options.num_ctx", await response.text());
});

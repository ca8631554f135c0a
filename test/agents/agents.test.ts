/**
 * Four real coding agents, each through its own dialect, finish a task that needs one tool call: the model (a scripted chat server that speaks none of
 * their dialects but one) asks for the agent's shell, the agent runs it and reports, the model says that it is done.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import type { Script } from "../fakes/openai-host-script.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { configFor } from "../support/http.ts";
import { type AgentHome, agentHome } from "./agent-kit.ts";

const MODEL = "up/m";
const COMMAND = "echo ghost-was-here > proof.txt";
const PROMPT = "Create the proof file with your shell tool, then tell me that you are done.";
const SAID = "The proof file is in place.";

let host: OpenAiHost;
let daemon: TestDaemon;

/** Each agent's shell tool, and its arguments. */
const SHELLS: Readonly<Record<string, object>> = {
  exec_command: { cmd: COMMAND },
  shell: { command: ["bash", "-lc", COMMAND] },
  Bash: { command: COMMAND, description: "writes the proof" },
  bash: { command: COMMAND, description: "writes the proof" },
  run_commands: { commands: [COMMAND] },
};

interface ChatBody {
  readonly messages?: readonly { readonly role: string }[];
  readonly tools?: readonly { readonly function?: { readonly name: string } }[];
}

/** Asks once for the shell, then answers. */
function play(body: unknown): Script {
  // oxlint-disable-next-line typescript/consistent-type-assertions -- the fake has checked the body against its schema.
  const { messages = [], tools = [] } = (body ?? {}) as ChatBody;
  const shell = tools.map((tool) => tool.function?.name ?? "").find((name) => name in SHELLS);
  if (shell === undefined) return { tokens: ["A ", "title"] };
  if (messages.some(({ role }) => role === "tool")) return { tokens: SAID.split(/(?<= )/) };
  return {
    tokens: 0,
    toolCalls: [{ id: "call_proof", name: shell, arguments: [JSON.stringify(SHELLS[shell])] }],
  };
}

before(async () => {
  host = await startOpenAiHost({ models: ["m"], script: (request) => play(request.body) });
  daemon = await startTestDaemon({ config: configFor(host.baseUrl) });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

interface Agent {
  readonly name: string;
  readonly run: (home: AgentHome, base: string, key: string) => ReturnType<AgentHome["run"]>;
}

const codexConfig = (base: string, isSocket: boolean) => `model = "${MODEL}"
model_provider = "ghost"
[model_providers.ghost]
name = "ghost"
base_url = "${base}/v1"
env_key = "GHOST_KEY"
wire_api = "responses"
supports_websockets = ${isSocket}
request_max_retries = 1
stream_max_retries = 1
[analytics]
enabled = false
`;

const codex =
  (isSocket: boolean): Agent["run"] =>
  (home, base, key) => {
    home.write(".codex/config.toml", codexConfig(base, isSocket));
    const flags = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--json", PROMPT];
    return home.run("codex", flags, { GHOST_KEY: key });
  };

const agents: readonly Agent[] = [
  { name: "Codex, server-sent events", run: codex(false) },
  { name: "Codex, WebSocket", run: codex(true) },
  {
    name: "Claude Code",
    run: (home, base, key) =>
      home.run("claude", ["-p", PROMPT, "--output-format", "json", "--model", MODEL, "--allowedTools", "Bash"], {
        ANTHROPIC_BASE_URL: base,
        ANTHROPIC_AUTH_TOKEN: key,
        ANTHROPIC_MODEL: MODEL,
        ANTHROPIC_SMALL_FAST_MODEL: MODEL,
        ANTHROPIC_DEFAULT_HAIKU_MODEL: MODEL,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
        DISABLE_AUTOUPDATER: "1",
      }),
  },
  {
    name: "OpenCode",
    run(home, base, key) {
      const models = { [MODEL]: { name: MODEL } };
      const options = { baseURL: `${base}/v1`, apiKey: key };
      const config = {
        autoupdate: false,
        share: "disabled",
        permission: { "*": "allow" },
        model: `ghost/${MODEL}`,
        small_model: `ghost/${MODEL}`,
        provider: { ghost: { npm: "@ai-sdk/openai-compatible", name: "ghost", options, models } },
      };
      home.write(".config/opencode/opencode.json", JSON.stringify(config));
      return home.run("opencode", ["run", "--auto", "-m", `ghost/${MODEL}`, PROMPT], {
        OPENCODE_DISABLE_MODELS_FETCH: "1",
        OPENCODE_DISABLE_AUTOUPDATE: "1",
        OPENCODE_DISABLE_LSP_DOWNLOAD: "1",
      });
    },
  },
  {
    name: "Cline",
    async run(home, base, key) {
      await home.run("cline", ["auth", "-p", "openai-compatible", "-k", key, "-m", MODEL, "-b", `${base}/v1`]);
      return home.run("cline", ["--json", "--auto-approve", "true", "-P", "openai-compatible", "-m", MODEL, PROMPT]);
    },
  },
];

for (const agent of agents) {
  test(`${agent.name} finishes a task with a tool call`, async () => {
    using home = agentHome();
    const { code, output } = await agent.run(home, daemon.http, daemon.modelKey);
    assert.equal(code, 0, output.slice(-4000));
    assert.equal(home.read("proof.txt"), "ghost-was-here\n", output.slice(-4000));
    assert.ok(output.includes(SAID), output.slice(-4000));
    assert.deepEqual(host.violations, []);
  });
}

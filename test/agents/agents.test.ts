/**
 * Real coding agents, each set up and called as its page in docs/clients says, finish a task that needs one tool call: the model (a scripted chat
 * server, whatever the agent's dialect) asks for the agent's shell, the agent runs it and reports, the model says that it is done.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import type { Script } from "../fakes/openai-host-script.ts";
import { placePage, readPage } from "../support/client-pages.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { configFor } from "../support/http.ts";
import { agentHome, agentProgram } from "./agent-kit.ts";
import { agents } from "./agents.ts";

const COMMAND = "echo ghost-was-here > proof.txt";
const SAID = "The proof file is in place.";

let host: OpenAiHost;
let daemon: TestDaemon;

/** Each agent's shell tool, and its arguments. */
const SHELLS: Readonly<Record<string, object>> = {
  exec_command: { cmd: COMMAND },
  shell: { command: ["bash", "-lc", COMMAND] },
  Bash: { command: COMMAND, description: "writes the proof" },
  bash: { command: COMMAND, description: "writes the proof" },
  run_shell_command: { command: COMMAND, description: "writes the proof", is_background: false },
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
  daemon = await startTestDaemon({
    config: configFor(host.baseUrl, '[routing.aliases]\ncoder = ["up/m"]\nsmall = ["up/m"]\n'),
  });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

for (const agent of agents) {
  test(`${agent.name} finishes a task with a tool call`, async () => {
    using home = agentHome();
    const flags = (agent.flags ?? []).join(" ");
    // Called without a task it would wait for one: on the page that is how it is started.
    const script = `[ $# -gt 0 ] || exit 0\nexec "${agentProgram(agent.program)}" "$@" ${flags}`;
    const { path, ...placed } = placePage(readPage(agent.page), home.home, {
      doors: daemon,
      shims: [{ name: agent.program, script }],
      edit: agent.edit,
      only: agent.only,
    });
    const { code, output } = await home.run(placed.script, { ...agent.env, PATH: path });
    assert.equal(code, 0, output.slice(-4000));
    assert.equal(home.read("proof.txt"), "ghost-was-here\n", output.slice(-4000));
    assert.ok(output.includes(SAID), output.slice(-4000));
    assert.deepEqual(host.violations, []);
  });
}

/**
 * One fake (or real) model server of every kind, told in the same words what to answer.
 * What a server is asked is checked by the fake itself, strictly: a field that its API does not have is a violation.
 */
import { setTimeout } from "node:timers/promises";
import { startAnthropicHost } from "../fakes/anthropic-host.ts";
import type { CloudRequest, CloudScript } from "../fakes/cloud-script.ts";
import { joinHosts } from "../fakes/joined-hosts.ts";
import { startGeminiHost } from "../fakes/gemini-host.ts";
import { startOllamaHost } from "../fakes/ollama-host.ts";
import { startOpenAiHost } from "../fakes/openai-host.ts";
import type { Script } from "../fakes/openai-host-script.ts";
import { startResponsesHost } from "../fakes/responses-host.ts";
import type { FakeHost } from "../fakes/scripted-host.ts";
import type { UpstreamName } from "./cells.ts";

export interface ScriptedCall {
  readonly name: string;
  /** JSON text; "" where the server sends none. */
  readonly arguments: string;
}

/** What the server answers to the next request. */
export type Answer =
  | { readonly kind: "text"; readonly deltas: readonly string[] }
  /** Thought about (and signed, where its kind signs), then called. */
  | { readonly kind: "calls"; readonly calls: readonly ScriptedCall[] }
  | { readonly kind: "rate-limited"; readonly retryAfterS: number }
  | { readonly kind: "cut"; readonly deltas: readonly string[]; readonly after: number }
  /** Some words, then silence for as long as anybody waits. */
  | { readonly kind: "hang"; readonly deltas: readonly string[]; readonly after: number };

export interface Upstream extends AsyncDisposable {
  readonly name: UpstreamName;
  /** Its part of ghost.toml. */
  readonly config: string;
  readonly env: Readonly<Record<string, string>>;
  readonly model: string;
  /** What the next requests are answered, one after the other. */
  play(...answers: readonly Answer[]): void;
  /** The body of the last request for an answer, as text. */
  lastBody(): string;
  readonly violations: readonly string[];
  /** Resolves when whoever asked last has left in mid-answer. */
  untilLeft(): Promise<void>;
  /** What its body holds when signed thinking came back with a tool's result; undefined where nothing is signed. */
  readonly seal: RegExp | undefined;
}

const KEY = "sk-test-0123456789abcdef";

export async function startUpstreams(): Promise<readonly Upstream[]> {
  return [
    await compatible(),
    await openAi("OpenAI", { key: "OPENAI_API_KEY", model: "gpt-5.6-sol", basePath: "/v1" }),
    await openAi("Azure", { key: "AZURE_OPENAI_API_KEY", model: "mine", basePath: "/openai/v1" }),
    cloud("xAI", await startResponsesHost({ apiKey: KEY, flavour: "xai", models: ["grok-4.7"] }), {
      section: (url) => `[providers.xai]\nbase_url = "${url}"`,
      model: "xai/grok-4.7",
      env: { XAI_API_KEY: KEY },
      seal: /"encrypted_content":"/,
    }),
    cloud("Anthropic", await startAnthropicHost({ apiKey: KEY, models: ["claude-opus-5-5"] }), {
      section: (url) => `[providers.anthropic]\nbase_url = "${url}/v1"`,
      model: "anthropic/claude-opus-5-5",
      env: { ANTHROPIC_API_KEY: KEY },
      seal: /"signature":"/,
    }),
    cloud("Gemini", await startGeminiHost({ apiKey: KEY, models: ["gemini-3.8-flash"] }), {
      section: (url) => `[providers.gemini]\nbase_url = "${url}/v1beta"`,
      model: "gemini/gemini-3.8-flash",
      env: { GEMINI_API_KEY: KEY },
      seal: /"thoughtSignature":"(?!skip_thought)/,
    }),
    await copilot(),
    await ollama(),
    await embedded(),
  ];
}

/** OpenAI's own API, and Azure's: Responses, and chat completions for those who ask by it without tools. */
async function openAi(
  name: "OpenAI" | "Azure",
  { key, model, basePath }: { readonly key: string; readonly model: string; readonly basePath: string },
): Promise<Upstream> {
  const flavour = name === "Azure" ? "azure" : "openai";
  const responses = await startResponsesHost({ apiKey: KEY, flavour, models: [model] });
  const chat = await startOpenAiHost({ models: [model] });
  const isChat = (path: string) => path.startsWith(`${basePath}/chat/`);
  const joined = await joinHosts((path) => new URL(isChat(path) ? chat.baseUrl : responses.baseUrl).origin, {
    rewrite: (path) => (isChat(path) ? path.replace(basePath, "/v1") : path),
  });
  const kit = cloud(name, responses, {
    section: () =>
      name === "Azure"
        ? `[providers.azure]\nbase_url = "${joined.origin}${basePath}"\n[providers.azure.deployments]\nmine = "gpt-5.6-sol"`
        : `[providers.openai]\nbase_url = "${joined.origin}${basePath}"`,
    model: `${name.toLowerCase()}/${model}`,
    env: { [key]: KEY },
    seal: /"encrypted_content":"/,
  });
  let asked = 0;
  const askedLast = () => (chat.requests.length > asked ? chat : responses);
  return {
    ...kit,
    play(...answers) {
      // Whichever of the two is asked has the next, and the other does not keep it for later.
      const waiting = [...answers];
      const next = (): Answer => waiting.shift() ?? { kind: "text", deltas: ["?"] };
      responses.play(() => cloudScript(next()));
      chat.play((request) => (request.method === "POST" ? chatScript(next()) : {}));
      asked = chat.requests.length;
    },
    lastBody() {
      const host = askedLast();
      return host.requests.findLast(({ method }) => method === "POST")?.bodyText ?? "";
    },
    untilLeft: () => untilLeft(askedLast()),
    get violations() {
      return [...responses.violations, ...chat.violations];
    },
    async [Symbol.asyncDispose]() {
      await joined[Symbol.asyncDispose]();
      await chat[Symbol.asyncDispose]();
      await responses[Symbol.asyncDispose]();
    },
  };
}

async function compatible(): Promise<Upstream> {
  const host = await startOpenAiHost({ models: ["m"] });
  return {
    name: "compatible",
    config: `[providers.compatible.up]\nbase_url = "${host.baseUrl}"`,
    env: {},
    model: "up/m",
    play(...answers) {
      for (const answer of answers) host.playOnce(chatScript(answer));
    },
    lastBody: () => host.requests.findLast(({ method }) => method === "POST")?.bodyText ?? "",
    violations: host.violations,
    untilLeft: () => untilLeft(host),
    seal: undefined,
    [Symbol.asyncDispose]: () => host[Symbol.asyncDispose](),
  };
}

/** The SDK's real runtime, which asks this server in the place of GitHub's. */
async function copilot(): Promise<Upstream> {
  const kit = await compatible();
  const { baseUrl } = /base_url = "(?<baseUrl>[^"]+)"/.exec(kit.config)?.groups ?? {};
  return {
    ...kit,
    name: "Copilot",
    config: "[providers.copilot]\nenabled = true",
    env: { COPILOT_GITHUB_TOKEN: KEY, GHOST_COPILOT_TEST_URL: `${baseUrl}?model=m` },
    model: "copilot/m",
  };
}

function chatScript(answer: Answer): Script {
  switch (answer.kind) {
    case "text":
      return { tokens: answer.deltas };
    case "calls":
      return {
        tokens: 0,
        toolCalls: answer.calls.map((call, index) => ({
          id: `call_${index}`,
          name: call.name,
          arguments: call.arguments === "" ? [] : halves(call.arguments),
        })),
      };
    case "rate-limited":
      return { status: { code: 429, body: "json", retryAfterS: answer.retryAfterS, type: "rate_limit_error" } };
    case "cut":
      return {
        tokens: answer.deltas,
        fault: { kind: "cut", afterTokens: answer.after, where: "between-frames", how: "reset" },
      };
    case "hang":
      return { tokens: answer.deltas, fault: { kind: "hang", afterTokens: answer.after } };
  }
}

interface CloudKit {
  readonly section: (url: string) => string;
  readonly model: string;
  readonly env: Readonly<Record<string, string>>;
  readonly seal: RegExp;
}

function cloud(name: UpstreamName, host: FakeHost<CloudScript, CloudRequest>, kit: CloudKit): Upstream {
  return {
    name,
    config: kit.section(host.baseUrl),
    env: kit.env,
    model: kit.model,
    play(...answers) {
      for (const answer of answers) host.playOnce(cloudScript(answer));
    },
    lastBody: () => host.requests.findLast(({ method }) => method === "POST")?.bodyText ?? "",
    violations: host.violations,
    untilLeft: () => untilLeft(host),
    seal: kit.seal,
    [Symbol.asyncDispose]: () => host[Symbol.asyncDispose](),
  };
}

function cloudScript(answer: Answer): CloudScript {
  switch (answer.kind) {
    case "text":
      return { blocks: [{ kind: "text", deltas: answer.deltas }] };
    case "calls":
      return {
        blocks: [
          { kind: "reasoning", deltas: ["Let me ", "look."] },
          ...answer.calls.map(
            (call) =>
              ({
                kind: "tool-call",
                name: call.name,
                arguments: call.arguments === "" ? [] : halves(call.arguments),
              }) as const,
          ),
        ],
      };
    case "rate-limited":
      return { status: { code: 429, retryAfterS: answer.retryAfterS } };
    case "cut":
      return {
        blocks: [{ kind: "text", deltas: answer.deltas }],
        fault: { kind: "cut", afterTokens: answer.after, where: "between-frames", how: "reset" },
      };
    case "hang":
      return { blocks: [{ kind: "text", deltas: answer.deltas }], fault: { kind: "hang", afterTokens: answer.after } };
  }
}

async function ollama(): Promise<Upstream> {
  let waiting: Answer[] = [];
  const host = await startOllamaHost({
    speed: 1000,
    models: [
      {
        name: "coder",
        capabilities: ["completion", "tools", "vision", "thinking"],
        toolCallIds: true,
        answer: () => ollamaAnswer(waiting.shift()),
      },
    ],
  });
  return {
    name: "Ollama",
    config: `[providers.ollama.hosts.h]\nurl = "${host.url}"`,
    env: {},
    model: "ollama/coder@h",
    play(...answers) {
      waiting = [...answers];
      const [answer] = answers;
      if (answer === undefined) return;
      if (answer.kind === "rate-limited") host.inject({ kind: "status", status: 429, body: '{"error":"slow down"}' });
      if (answer.kind === "cut") host.inject({ kind: "reset", afterTokens: answer.after });
      if (answer.kind === "hang") host.inject({ kind: "hang", afterTokens: answer.after + THOUGHTS });
    },
    lastBody: () => JSON.stringify(host.requests.at(-1) ?? {}),
    violations: host.violations,
    untilLeft: () =>
      host.until("its client to leave", () => host.snapshot().runners.every(({ running }) => running === 0)),
    seal: undefined,
    [Symbol.asyncDispose]: () => host.stop(),
  };
}

/** The model thinks this many tokens before its first word. */
const THOUGHTS = 4;

function ollamaAnswer(answer: Answer | undefined) {
  if (answer === undefined || answer.kind === "rate-limited") return "?";
  if (answer.kind !== "calls") return answer.deltas.join("");
  const toolCalls = answer.calls.map((call) => ({
    name: call.name,
    arguments: JSON.parse(call.arguments === "" ? "{}" : call.arguments),
  }));
  return { thinking: "let me look", toolCalls };
}

/** The real engine with the demonstration weights: it says what it says. */
async function embedded(): Promise<Upstream> {
  return {
    name: "embedded",
    config: "",
    env: {},
    model: "embedded/tiny-code-fim",
    play() {},
    lastBody: () => "",
    violations: [],
    async untilLeft() {},
    seal: undefined,
    async [Symbol.asyncDispose]() {},
  };
}

interface Asked {
  readonly requests: readonly { readonly method: string; readonly state: string }[];
}

async function untilLeft({ requests }: Asked): Promise<void> {
  const deadline = AbortSignal.timeout(10_000);
  while (requests.findLast(({ method }) => method === "POST")?.state !== "closed-by-peer")
    await setTimeout(5, undefined, { signal: deadline });
}

const halves = (text: string): readonly string[] => {
  const middle = Math.floor(text.length / 2);
  return [text.slice(0, middle), text.slice(middle)];
};

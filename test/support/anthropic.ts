/** What the tests of the Anthropic provider share: the provider in front of a fake host, with a key of the real key ring, and requests. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { clientIdSchema, userIdSchema } from "../../protocol/ids.ts";
import type { ModelInfo } from "../../protocol/model.ts";
import { type AnthropicConfig, createAnthropicProvider } from "../../server/ghostllm/providers/anthropic.ts";
import type { Provider } from "../../server/ghostllm/providers/provider.ts";
import type { Attempt, ChatRequest, Frame, Message, Part, StreamEvent } from "../../server/ghostllm/stream.ts";
import { createHttpClient } from "../../server/platform/http-client.ts";
import { StandingPermit } from "../../server/platform/permit-mint.ts";
import { type AnthropicHost, type AnthropicHostOptions, startAnthropicHost } from "../fakes/anthropic-host.ts";
import { testKeys } from "./provider-keys.ts";

export const never = new AbortController().signal;
export const KEY = "sk-ant-api03-0123456789abcdef";

export interface AnthropicSetup {
  readonly provider: Required<Provider>;
  readonly host: AnthropicHost;
  /** As the provider lists it. */
  model(name: string): Promise<ModelInfo>;
  /** The body of the last request. */
  sent(): Readonly<Record<string, unknown>>;
}

interface SetupOptions {
  readonly host?: AnthropicHostOptions;
  readonly config?: Partial<AnthropicConfig>;
  /** In the environment; empty: none. */
  readonly key?: string;
}

export async function setUpAnthropic(context: TestContext, options: SetupOptions = {}): Promise<AnthropicSetup> {
  const host = await startAnthropicHost({ apiKey: KEY, ...options.host });
  const http = createHttpClient();
  const config = { base_url: `${host.baseUrl}/v1`, headers_timeout_s: 30, idle_timeout_s: 30, ...options.config };
  const { origin } = new URL(config.base_url);
  const permit = new StandingPermit("anthropic", [
    { capability: "net.http", resource: { kind: "url", method: "POST", origin, path: "/" } },
  ]);
  const key = options.key ?? KEY;
  const keys = testKeys(context, key === "" ? {} : { ANTHROPIC_API_KEY: key });
  const provider = createAnthropicProvider({ config, locality: "machine", http, permit, keys });
  context.after(async () => {
    await provider[Symbol.asyncDispose]();
    await http[Symbol.asyncDispose]();
    await host[Symbol.asyncDispose]();
    assert.deepEqual(host.violations, []);
  });
  const { countTokens, testKey } = provider;
  assert.ok(countTokens !== undefined && testKey !== undefined);
  return {
    provider: Object.assign(provider, { countTokens, testKey }),
    host,
    async model(name) {
      const found = (await provider.models(never)).find((entry) => entry.name === name);
      assert.ok(found !== undefined, `the host lists no ${name}: ${JSON.stringify(provider.status())}`);
      return found;
    },
    sent() {
      const body = host.requests.at(-1)?.body;
      assert.ok(typeof body === "object" && body !== null);
      return Object.fromEntries(Object.entries(body));
    },
  };
}

export const say = (role: Message["role"], text: string): Message => ({ role, parts: [{ kind: "text", text }] });
export const call = (callId: string, name = "read", more: Partial<Extract<Part, { kind: "toolCall" }>> = {}): Part => ({
  kind: "toolCall",
  callId,
  name,
  arguments: "{}",
  ...more,
});
export const result = (callId: string, text: string): Message => ({
  role: "tool",
  parts: [{ kind: "toolResult", callId, text }],
});
export const READ = { kind: "function", name: "read", description: "Reads.", parameters: { type: "object" } } as const;

export const chat = (messages: readonly Message[] | string, more: Partial<ChatRequest> = {}): ChatRequest => ({
  task: "chat",
  target: "anthropic/x",
  output: { stop: [], format: { kind: "text" } },
  sampling: {},
  lane: "chat",
  actor: { userId: userIdSchema.parse("local"), client: clientIdSchema.parse("test"), via: { kind: "api", id: "1" } },
  stream: true,
  messages: async () => (typeof messages === "string" ? [say("user", messages)] : messages),
  tools: [],
  toolChoice: "auto",
  ...more,
});

export async function framesOf(attempt: Attempt): Promise<readonly Frame[]> {
  const frames: Frame[] = [];
  for await (const frame of attempt.frames) frames.push(frame);
  return frames;
}

export async function eventsOf(attempt: Attempt): Promise<readonly StreamEvent[]> {
  return (await framesOf(attempt)).flatMap((frame) => frame.events());
}

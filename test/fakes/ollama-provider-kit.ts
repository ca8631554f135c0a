/** What the tests of the Ollama provider share: the provider in front of a fake host, requests, and ways to read answers. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { clientIdSchema, userIdSchema } from "../../protocol/ids.ts";
import type { Locality, ModelInfo } from "../../protocol/model.ts";
import { GhostError } from "../../server/base/errors.ts";
import {
  createOllamaProvider,
  type OllamaConfig,
  type OllamaProvider,
} from "../../server/ghostllm/providers/ollama.ts";
import type { Attempt, ChatRequest, CompletionRequest, Frame, StreamEvent } from "../../server/ghostllm/stream.ts";
import { createHttpClient } from "../../server/platform/http-client.ts";
import type { Log, LogFields } from "../../server/platform/log.ts";
import { StandingPermit } from "../../server/platform/permit-mint.ts";
import { systemClock, systemIds } from "../../server/platform/system-clock.ts";
import { type OllamaHost, type OllamaHostOptions, type OllamaModelOptions, startOllamaHost } from "./ollama-host.ts";

export const never = new AbortController().signal;
export const nowhere = "http://127.0.0.1:9";

interface Setup {
  readonly provider: OllamaProvider;
  readonly host: OllamaHost;
  readonly logged: readonly LogFields[];
  /** The model `name` of the host `ws`. */
  model(name: string): Promise<ModelInfo>;
}

interface SetupOptions {
  readonly host?: Partial<OllamaHostOptions>;
  readonly config?: {
    readonly parallel?: number;
    readonly num_ctx?: Record<string, number>;
    readonly default_num_ctx?: number;
    readonly locality?: Locality;
  };
}

export async function setUp(
  context: TestContext,
  models: readonly OllamaModelOptions[],
  options: SetupOptions = {},
): Promise<Setup> {
  const host = await startOllamaHost({ speed: 100, models, ...options.host });
  context.after(async () => {
    await host.stop();
    assert.deepEqual(host.violations, []);
  });
  const config: OllamaConfig = {
    discover: false,
    keep_alive: "10m",
    hosts: { ws: { url: host.url, parallel: 1, num_ctx: {}, ...options.config } },
  };
  const { provider, logged } = provide(context, config, nowhere);
  const model = async (name: string) => {
    const found = (await provider.models(never)).find((entry) => entry.ref === `ollama/${name}@ws`);
    assert.ok(found !== undefined, `the host lists no ${name}`);
    return found;
  };
  return { provider, host, logged, model };
}

export function provide(
  context: TestContext,
  config: OllamaConfig,
  discoveryUrl: string,
): { readonly provider: OllamaProvider; readonly logged: readonly LogFields[] } {
  const http = createHttpClient();
  const logged: LogFields[] = [];
  const keep = (fields: LogFields) => void logged.push(fields);
  const log: Log = { debug: keep, info: keep, warn: keep, error: keep };
  const permitFor = (origin: string) =>
    new StandingPermit("ollama", [
      { capability: "net.http", resource: { kind: "url", method: "POST", origin, path: "/" } },
    ]);
  const provider = createOllamaProvider({
    config,
    http,
    permitFor,
    clock: systemClock,
    ids: systemIds,
    log,
    discoveryUrl,
  });
  context.after(async () => {
    await provider[Symbol.asyncDispose]();
    await http[Symbol.asyncDispose]();
  });
  return { provider, logged };
}

const base = {
  target: "ollama/coder",
  output: { stop: [], format: { kind: "text" } },
  sampling: {},
  lane: "chat",
  actor: { userId: userIdSchema.parse("local"), client: clientIdSchema.parse("test"), via: { kind: "api", id: "1" } },
  stream: true,
} as const;
export const chat = (text = "hi", more: Partial<ChatRequest> = {}): ChatRequest => ({
  ...base,
  task: "chat",
  messages: async () => [{ role: "user", parts: [{ kind: "text", text }] }],
  tools: [],
  toolChoice: "auto",
  ...more,
});
export const completion = (more: Partial<CompletionRequest> = {}): CompletionRequest => ({
  ...base,
  task: "completion",
  lane: "completion",
  prefix: "const a =",
  suffix: "",
  overflow: "error",
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

export function textOf(events: readonly StreamEvent[]): string {
  return events.map((event) => (event.kind === "text" ? event.text : "")).join("");
}

export function failsWith(code: string, message = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof GhostError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}

export const isFree = (host: OllamaHost) =>
  host.snapshot().runners.every((runner) => runner.running === 0 && runner.waiting === 0);

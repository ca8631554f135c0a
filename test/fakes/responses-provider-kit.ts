/** What the tests of the providers that speak Responses share: each in front of a fake of its host. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { ModelInfo } from "../../protocol/model.ts";
import { createAzureProvider } from "../../server/ghostllm/providers/azure.ts";
import type { RelayingProvider } from "../../server/ghostllm/providers/compatible.ts";
import { createOpenAiProvider } from "../../server/ghostllm/providers/openai.ts";
import { createXaiProvider } from "../../server/ghostllm/providers/xai.ts";
import type { Attempt, ChatRequest, Dialect, Part } from "../../server/ghostllm/stream.ts";
import { AnswerFold } from "../../server/ghostllm/frames/answer-fold.ts";
import { createHttpClient } from "../../server/platform/http-client.ts";
import { StandingPermit } from "../../server/platform/permit-mint.ts";
import { testKeys } from "../support/provider-keys.ts";
import { never } from "./ollama-provider-kit.ts";
import { type ResponsesHost, type ResponsesHostOptions, startResponsesHost } from "./responses-host.ts";

export const KEY = "sk-test-0123456789abcdef";
const VARIABLES = { openai: "OPENAI_API_KEY", azure: "AZURE_OPENAI_API_KEY", xai: "XAI_API_KEY" } as const;
const CREATE = { openai: createOpenAiProvider, xai: createXaiProvider } as const;

export interface ResponsesWorld {
  readonly host: ResponsesHost;
  readonly provider: RelayingProvider;
  model(name: string): Promise<ModelInfo>;
  /** The body of the last request, as JSON. */
  lastBody(): Record<string, unknown>;
}

export interface WorldOptions extends ResponsesHostOptions {
  /** The key in the environment; null: none. */
  readonly key?: string | null;
  readonly config?: { readonly models?: readonly string[]; readonly headers_timeout_s?: number };
  /** Where the provider is pointed instead of at the host. */
  readonly baseUrl?: string;
  /** Requests that the host must refuse by a rule. */
  readonly expectsRefusals?: boolean;
}

export async function responsesWorld(context: TestContext, options: WorldOptions = {}): Promise<ResponsesWorld> {
  const flavour = options.flavour ?? "openai";
  const host = await startResponsesHost({ apiKey: KEY, ...options });
  const http = createHttpClient();
  const base_url = options.baseUrl ?? host.baseUrl;
  const { origin } = new URL(base_url);
  const key = options.key === undefined ? KEY : options.key;
  const shared = {
    locality: "cloud",
    http,
    permit: new StandingPermit(flavour, [
      { capability: "net.http", resource: { kind: "url", method: "*", origin, path: "/" } },
    ]),
    keys: testKeys(context, key === null ? {} : { [VARIABLES[flavour]]: key }),
  } as const;
  const config = { base_url, headers_timeout_s: 10, idle_timeout_s: 10, ...options.config };
  const provider =
    flavour === "azure"
      ? createAzureProvider({ ...shared, config: { ...config, deployments: options.deployments ?? {} } })
      : CREATE[flavour]({ ...shared, config });
  context.after(async () => {
    await provider[Symbol.asyncDispose]();
    await http[Symbol.asyncDispose]();
    await host[Symbol.asyncDispose]();
    assert.deepEqual(host.violations, []);
    if (options.expectsRefusals !== true) assert.deepEqual(host.refusals, []);
  });
  return {
    host,
    provider,
    async model(name) {
      const models = await provider.models(never);
      const found = models.find((model) => model.name === name);
      assert.ok(
        found,
        `${name} is not among ${models.map((model) => model.name).join(", ")}; ${provider.status()[0]?.problem}`,
      );
      return found;
    },
    lastBody: () => Object.assign({}, host.requests.at(-1)?.body),
  };
}

export async function foldOf(attempt: Attempt): Promise<AnswerFold> {
  const fold = new AnswerFold();
  for await (const frame of attempt.frames) fold.addAll(frame.events());
  return fold;
}

/** A client's own body, as its dialect's front hands it on. */
export function originOf(dialect: Dialect, body: object): NonNullable<ChatRequest["origin"]> {
  return { dialect, bodyFor: (model) => Buffer.from(JSON.stringify({ ...body, model })) };
}

export const user = (text: string) => ({ role: "user", parts: [{ kind: "text", text }] }) as const;
export const assistant = (...parts: readonly Part[]) => ({ role: "assistant", parts }) as const;

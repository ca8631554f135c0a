/** What the tests of the Gemini provider share: the provider in front of a fake host, with a key of the real key ring. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { ModelInfo } from "../../protocol/model.ts";
import { createGeminiProvider, type GeminiConfig } from "../../server/ghostllm/providers/gemini.ts";
import type { Provider } from "../../server/ghostllm/providers/provider.ts";
import { createHttpClient } from "../../server/platform/http-client.ts";
import { StandingPermit } from "../../server/platform/permit-mint.ts";
import { systemIds } from "../../server/platform/system-clock.ts";
import { type GeminiHost, type GeminiHostOptions, startGeminiHost } from "../fakes/gemini-host.ts";
import type { GenerateBody } from "../fakes/gemini-host-body.ts";
import { generateBody } from "../fakes/gemini-host-body.ts";
import { never } from "./anthropic.ts";
import { testKeys } from "./provider-keys.ts";

export const KEY = "AIza-test-0123456789abcdef";

export interface GeminiSetup {
  readonly provider: Required<Provider>;
  readonly host: GeminiHost;
  /** As the provider lists it. */
  model(name: string): Promise<ModelInfo>;
  /** The bodies of all requests for answers. */
  sent(): readonly GenerateBody[];
}

export interface SetupOptions {
  readonly host?: GeminiHostOptions;
  readonly config?: Partial<GeminiConfig>;
  /** In the environment; empty: none. */
  readonly key?: string;
}

export async function setUpGemini(context: TestContext, options: SetupOptions = {}): Promise<GeminiSetup> {
  const host = await startGeminiHost({ apiKey: KEY, ...options.host });
  const http = createHttpClient();
  const config = { base_url: `${host.baseUrl}/v1beta`, headers_timeout_s: 30, idle_timeout_s: 30, ...options.config };
  const { origin } = new URL(config.base_url);
  const permit = new StandingPermit("gemini", [
    { capability: "net.http", resource: { kind: "url", method: "*", origin, path: "/" } },
  ]);
  const key = options.key ?? KEY;
  const keys = testKeys(context, key === "" ? {} : { GEMINI_API_KEY: key });
  const provider = createGeminiProvider({ config, locality: "machine", http, permit, keys, ids: systemIds });
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
    sent: () =>
      host.requests
        .filter(({ path }) => path.toLowerCase().includes("generatecontent"))
        .map(({ body }) => generateBody.parse(body)),
  };
}

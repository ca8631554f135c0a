/** What the tests of the Copilot provider share: the provider with the real runtime, which asks a fake model server instead of GitHub. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { ModelInfo } from "../../protocol/model.ts";
import { type CopilotConfig, createCopilotProvider } from "../../server/ghostllm/providers/copilot.ts";
import type { Provider } from "../../server/ghostllm/providers/provider.ts";
import { createCopilotRuntime, findCopilotExecutable } from "../../server/platform/adapters/copilot-runtime.ts";
import { StandingPermit } from "../../server/platform/permit-mint.ts";
import { systemClock } from "../../server/platform/system-clock.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { never } from "./anthropic.ts";
import { testFolder } from "./folder.ts";
import { testKeys } from "./provider-keys.ts";

export const TOKEN = "github_pat_test_0123456789";

export interface CopilotSetup {
  readonly provider: Provider;
  readonly host: OpenAiHost;
  /** The runtime's own. */
  readonly folder: string;
  model(): Promise<ModelInfo>;
}

export async function setUpCopilot(
  context: TestContext,
  options: { readonly token?: string; readonly config?: CopilotConfig; readonly executable?: string } = {},
): Promise<CopilotSetup> {
  const host = await startOpenAiHost({ models: ["m"] });
  const parent = testFolder();
  const folder = parent.join("copilot");
  const executable = options.executable ?? findCopilotExecutable();
  assert.ok(executable !== undefined, "the SDK's runtime for this platform is not installed");
  const permit = new StandingPermit("copilot", [
    { capability: "cmd.exec", resource: { kind: "argv", executable, args: [], cwd: folder } },
    { capability: "fs.read", resource: { kind: "path", path: folder } },
    { capability: "fs.write", resource: { kind: "path", path: folder } },
  ]);
  const upstream = { baseUrl: host.baseUrl, model: "m" };
  const place = { permit, executable, folder, upstream };
  const runtime = createCopilotRuntime(place, { clock: systemClock, uid: process.getuid?.() ?? -1 });
  const token = options.token ?? TOKEN;
  const keys = testKeys(context, token === "" ? {} : { COPILOT_GITHUB_TOKEN: token });
  const provider = createCopilotProvider({ config: options.config ?? {}, runtime, keys, clock: systemClock });
  context.after(async () => {
    await provider[Symbol.asyncDispose]();
    await host[Symbol.asyncDispose]();
    parent[Symbol.dispose]();
    assert.deepEqual(host.violations, []);
  });
  return {
    provider,
    host,
    folder,
    async model() {
      const [model] = await provider.models(never);
      assert.ok(model !== undefined, JSON.stringify(provider.status()));
      return model;
    },
  };
}

/** The real keyring of providers for tests, on a store in a folder of its own, and with an environment that holds only what the test says. */
import { mkdirSync } from "node:fs";
import type { TestContext } from "node:test";
import { createProviderKeys, type ProviderKeyring } from "../../server/ghostllm/providers/keys.ts";
import { StandingPermit } from "../../server/platform/permit-mint.ts";
import { openSecretStore } from "../../server/platform/secrets.ts";
import { systemClock, systemIds } from "../../server/platform/system-clock.ts";
import { testFolder } from "./folder.ts";

/** Gone with the test. */
export function testKeys(context: TestContext, variables: Readonly<Record<string, string>>): ProviderKeyring {
  const folder = testFolder();
  const [data, keyFolder] = [folder.join("data"), folder.join("state")];
  mkdirSync(data, { recursive: true });
  const environment = {
    get: (name: string) => variables[name],
    homeDir: folder.path,
    userName: "ada",
    uid: process.getuid?.() ?? -1,
  };
  const grants = [data, keyFolder].flatMap((path) =>
    (["fs.read", "fs.write"] as const).map((capability) => ({ capability, resource: { kind: "path", path } as const })),
  );
  const store = openSecretStore({
    permit: new StandingPermit("keys", grants),
    file: folder.join("data", "provider-keys.json"),
    keyFolder,
    uid: environment.uid,
    nodeExecutable: process.execPath,
    environment,
    clock: systemClock,
    ids: systemIds,
    log: { debug() {}, info() {}, warn() {}, error() {} },
  });
  context.after(async () => {
    await store[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });
  return createProviderKeys({ store, environment, redact: () => {} });
}

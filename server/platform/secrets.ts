/** Where provider keys come from. Only `ghostllm/providers` may import this file (I5; test/architecture.test.ts). */
import type { Environment } from "../base/clock.ts";
import { Secret } from "../base/secret.ts";

/** The key in an environment variable, wrapped so that it cannot be printed. */
export function environmentSecret(environment: Environment, name: string): Secret | undefined {
  const text = environment.get(name);
  return text === undefined ? undefined : new Secret(text);
}

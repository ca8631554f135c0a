/** What the tests of the fake Ollama host share: a host that ends with its test, Ollama's own client, and raw requests. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { Ollama } from "ollama";
import { type OllamaHost, type OllamaHostOptions, startOllamaHost } from "./ollama-host.ts";

export const GIB = 1024 ** 3;

export async function start(
  context: TestContext,
  options: OllamaHostOptions,
): Promise<{ readonly host: OllamaHost; readonly client: Ollama }> {
  const host = await startOllamaHost({ speed: 100, ...options });
  context.after(() => host.stop());
  return { host, client: new Ollama({ host: host.url }) };
}

export function clean(host: OllamaHost): void {
  assert.deepEqual(host.violations, []);
}

export const user = (content: string) => [{ role: "user", content }];

export async function post(
  host: OllamaHost,
  path: string,
  body: unknown,
  signal?: AbortSignal,
): Promise<{ readonly status: number; readonly text: string }> {
  const response = await fetch(host.url + path, {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...(signal === undefined ? {} : { signal }),
  });
  return { status: response.status, text: await response.text() };
}

export function errorOf(answer: { readonly text: string }): string {
  const body: unknown = JSON.parse(answer.text);
  assert.ok(typeof body === "object" && body !== null && "error" in body && typeof body.error === "string");
  return body.error;
}

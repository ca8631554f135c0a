/** The embedded engine as tests use it: the real child process, the real library, the real demonstration weights. */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { clientIdSchema, modelRefSchema, userIdSchema } from "../../protocol/ids.ts";
import type { ModelInfo } from "../../protocol/model.ts";
import type { Usage } from "../../protocol/usage.ts";
import { GhostError } from "../../server/base/errors.ts";
import {
  createEmbeddedProvider,
  type EmbeddedConfig,
  type EmbeddedOptions,
  type EmbeddedProvider,
} from "../../server/ghostllm/providers/embedded.ts";
import type { Attempt, ChatRequest, CompletionRequest, Message, StreamEvent } from "../../server/ghostllm/stream.ts";
import { createHttpClient } from "../../server/platform/http-client.ts";
import type { Log } from "../../server/platform/log.ts";
import { StandingPermit } from "../../server/platform/permit-mint.ts";
import { systemClock, systemIds } from "../../server/platform/system-clock.ts";
import { testFolder } from "./folder.ts";

export const MODELS = fileURLToPath(new URL("../../models", import.meta.url));
export const CODE = "export function add(a: number, b: number): number {\n  return ";
/** About 20 tokens a line: longer than the window. */
export const SOURCE = Array.from(
  { length: 60 },
  (_, n) => `export const value${n} = compute(${n}, "name${n}", options);\n`,
).join("");
export const never = new AbortController().signal;
export const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };
const actor = {
  userId: userIdSchema.parse("local"),
  client: clientIdSchema.parse("test"),
  via: { kind: "face", id: "test" },
} as const;

export interface World extends AsyncDisposable {
  readonly provider: EmbeddedProvider;
  readonly model: ModelInfo;
  /** A folder of models of its own, empty at first. */
  readonly modelsFolder: string;
}

/** Stands for the model of a provider that has none. */
const NO_MODEL: ModelInfo = {
  ref: modelRefSchema.parse("embedded/none"),
  provider: "embedded",
  name: "none",
  locality: "machine",
  capabilities: {
    chat: false,
    complete: false,
    fim: false,
    embeddings: false,
    tools: false,
    vision: false,
    jsonSchema: false,
  },
};

export async function world(
  config: Partial<EmbeddedConfig> = {},
  options: Partial<EmbeddedOptions> = {},
): Promise<World> {
  const folder = testFolder();
  const modelsFolder = folder.join("models");
  mkdirSync(modelsFolder);
  const http = createHttpClient();
  const builtinModelsFolder = options.builtinModelsFolder ?? MODELS;
  const permit = new StandingPermit("embedded engine", [
    {
      capability: "cmd.exec",
      resource: { kind: "argv", executable: options.nodeExecutable ?? process.execPath, args: [], cwd: "/" },
    },
    { capability: "fs.read", resource: { kind: "path", path: builtinModelsFolder } },
    { capability: "fs.read", resource: { kind: "path", path: modelsFolder } },
    { capability: "fs.write", resource: { kind: "path", path: modelsFolder } },
  ]);
  const provider = createEmbeddedProvider({
    config: { enabled: true, threads: 1, idle_unload_minutes: 30, max_queue: 8, models: {}, ...config },
    builtinModelsFolder,
    modelsFolder,
    permits: { engine: permit, files: permit },
    http,
    clock: systemClock,
    ids: systemIds,
    log: silent,
    nodeExecutable: process.execPath,
    ...options,
  });
  const model = (await provider.models(never))[0] ?? NO_MODEL;
  return {
    provider,
    model,
    modelsFolder,
    async [Symbol.asyncDispose]() {
      await provider[Symbol.asyncDispose]();
      await http[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
    },
  };
}

export type Overrides<Request> = Partial<Omit<Request, "output">> & {
  readonly output?: Partial<CompletionRequest["output"]>;
};

export function completion(prefix: string, overrides: Overrides<CompletionRequest> = {}): CompletionRequest {
  const output = { maxTokens: 24, stop: [], format: { kind: "text" } as const, ...overrides.output };
  const base = {
    target: "embedded/tiny-code-fim",
    sampling: { temperature: 0 },
    lane: "completion",
    actor,
    stream: true,
  } as const;
  return { ...base, task: "completion", prefix, suffix: "", overflow: "error", ...overrides, output };
}

export function chat(messages: readonly Message[], overrides: Overrides<ChatRequest> = {}): ChatRequest {
  const output = { maxTokens: 24, stop: [], format: { kind: "text" } as const, ...overrides.output };
  const base = {
    target: "embedded/tiny-code-fim",
    sampling: { temperature: 0 },
    lane: "chat",
    actor,
    stream: true,
  } as const;
  return { ...base, task: "chat", messages: async () => messages, tools: [], toolChoice: "auto", ...overrides, output };
}

export const says = (role: Message["role"], text: string): Message => ({ role, parts: [{ kind: "text", text }] });

export interface Read {
  readonly text: string;
  readonly reason: string | undefined;
  readonly usage: Usage;
  readonly error: string | undefined;
  readonly trimmedCharacters: number;
}

export async function read(attempt: Attempt): Promise<Read> {
  const events: StreamEvent[] = [];
  for await (const frame of attempt.frames) events.push(...frame.events());
  const texts = events.flatMap((event) => (event.kind === "text" ? [event.text] : []));
  const find = <Kind extends StreamEvent["kind"]>(kind: Kind) =>
    events.find((event): event is Extract<StreamEvent, { kind: Kind }> => event.kind === kind);
  return {
    text: texts.join(""),
    reason: find("finish")?.reason,
    usage: find("usage")?.usage ?? {},
    error: find("error")?.error.code,
    trimmedCharacters: attempt.trimmedCharacters,
  };
}

export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await systemClock.sleep(2);
}

export const code = (expected: string, message?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof GhostError, String(error));
  assert.equal(error.code, expected, error.message);
  if (message !== undefined) assert.match(error.message, message);
  return true;
};

export async function completeWith(
  { provider, model }: Pick<World, "provider" | "model">,
  prefix: string = CODE,
  overrides: Overrides<CompletionRequest> = {},
): Promise<Read> {
  return read(await provider.complete(completion(prefix, overrides), model, never));
}

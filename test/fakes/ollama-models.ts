/** The models of the fake Ollama host: their options, their defaults, and how `/api/tags` shows them. */
import { createHash } from "node:crypto";
import { defaultAnswer, type FakeAnswer } from "./ollama-answers.ts";
import type { FakeModel } from "./ollama-scheduler.ts";
import type { Json, WireRequest } from "./ollama-wire.ts";

/** One model of the host; everything but the name has a default that suits most tests. */
export interface OllamaModelOptions {
  readonly name: string;
  readonly sizeBytes?: number;
  readonly kvBytesPerToken?: number;
  readonly family?: string;
  /** `completion | tools | insert | vision | embedding | thinking` */
  readonly capabilities?: readonly string[];
  readonly contextLength?: number;
  readonly modelfileNumCtx?: number;
  readonly loadMs?: number;
  readonly tokensPerSecond?: number;
  readonly promptTokensPerSecond?: number;
  readonly answer?: (request: WireRequest) => string | FakeAnswer;
  /** In a chunk of their own (models with an Ollama template or parser), or in the last line (llama-server's own template). */
  readonly toolStyle?: "chunk" | "final";
  readonly toolCallIds?: boolean;
  readonly embeddingLength?: number;
  /** A cloud model that only looks local. */
  readonly remoteHost?: string;
}

export interface ServedModel extends FakeModel {
  readonly tokensPerSecond: number;
  readonly promptTokensPerSecond: number;
  readonly answer: (request: WireRequest) => string | FakeAnswer;
  readonly toolStyle: "chunk" | "final";
  readonly toolCallIds: boolean;
  readonly embeddingLength: number;
  readonly remoteHost: string | undefined;
  readonly digest: string;
}

const GIB = 1024 ** 3;

export function serve(options: OllamaModelOptions): ServedModel {
  const name = fullName(options.name);
  return {
    name,
    sizeBytes: options.sizeBytes ?? GIB,
    kvBytesPerToken: options.kvBytesPerToken ?? 64 * 1024,
    family: options.family ?? "llama",
    capabilities: options.capabilities ?? ["completion"],
    contextLength: options.contextLength ?? 32_768,
    modelfileNumCtx: options.modelfileNumCtx,
    loadMs: options.loadMs ?? 1000,
    tokensPerSecond: options.tokensPerSecond ?? 100,
    promptTokensPerSecond: options.promptTokensPerSecond ?? 5000,
    answer: options.answer ?? defaultAnswer,
    toolStyle: options.toolStyle ?? "chunk",
    toolCallIds: options.toolCallIds ?? false,
    embeddingLength: options.embeddingLength ?? 8,
    remoteHost: options.remoteHost,
    digest: createHash("sha256").update(name).digest("hex"),
  };
}

/** The name with its tag, as Ollama completes it. */
export function fullName(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1).includes(":") ? name : `${name}:latest`;
}

export function details(model: ServedModel): Json {
  return {
    format: "gguf",
    family: model.family,
    families: [model.family],
    parameter_size: "1B",
    quantization_level: "Q4_K_M",
  };
}

export function describeTag(model: ServedModel): Json {
  return {
    name: model.name,
    model: model.name,
    modified_at: "2026-01-01T00:00:00Z",
    size: model.sizeBytes,
    digest: model.digest,
    details: details(model),
    capabilities: model.capabilities,
    ...(model.remoteHost === undefined ? {} : { remote_model: model.name, remote_host: model.remoteHost }),
  };
}

export function nanoseconds(durationMs: number): number | undefined {
  const value = Math.round(durationMs * 1e6);
  // Go's `omitempty`: a zero is not written at all.
  return value === 0 ? undefined : value;
}

/**
 * The model stream as types: requests in, frames out (docs/architecture.md, "The model stream").
 * Frames carry raw bytes and are parsed only when somebody needs their events, so that a relay between equal dialects never parses.
 */
import type { FinishReason } from "../../protocol/chat.ts";
import type { WireError } from "../../protocol/errors.ts";
import type { ModelRef } from "../../protocol/ids.ts";
import type { Role } from "../../protocol/session.ts";
import type { Usage } from "../../protocol/usage.ts";
import type { Actor } from "../platform/permit.ts";

/** The wire formats that frames can be in. `events` frames carry parsed events and no bytes of any client's dialect. */
export type Dialect =
  | "openai-chat"
  | "openai-completion"
  | "openai-responses"
  | "anthropic-messages"
  | "gemini"
  | "ollama"
  | "events";

/**
 * Something that only its maker can read, and wants back unchanged: a signature over thinking, encrypted reasoning, a thought signature.
 * It goes back to that provider alone; whoever sends to another leaves it out.
 */
export interface Opaque {
  /** The id of the provider that made it. */
  readonly maker: string;
  /** As its provider wrote it down: JSON text whose shape only that provider's file knows. */
  readonly data: string;
}

export type Part =
  | { readonly kind: "text"; readonly text: string }
  /** `url`: `data:` with base64, or http(s). */
  | { readonly kind: "image"; readonly url: string }
  /** A document. `url` as for images. */
  | { readonly kind: "file"; readonly url: string; readonly mediaType: string; readonly name?: string }
  | {
      readonly kind: "toolCall";
      readonly callId: string;
      readonly name: string;
      /** JSON text; of a custom tool `{"input": TEXT}`. Empty means `{}`. */
      readonly arguments: string;
      readonly isCustom?: boolean;
      /** The group of tools that the name belongs to (`mcp` servers of some clients). */
      readonly namespace?: string;
      readonly opaque?: Opaque;
    }
  | {
      readonly kind: "toolResult";
      readonly callId: string;
      readonly text: string;
      readonly isError?: boolean;
      /** URLs of images that the tool gave back. */
      readonly images?: readonly string[];
    }
  /** What the model thought, in its place among the other parts. */
  | { readonly kind: "reasoning"; readonly text: string; readonly opaque?: Opaque };

export interface Message {
  readonly role: Role;
  readonly parts: readonly Part[];
}

export type ToolSpec =
  | {
      readonly kind: "function";
      readonly name: string;
      readonly namespace?: string;
      readonly description: string | undefined;
      /** A JSON schema. */
      readonly parameters: unknown;
      readonly strict?: boolean;
    }
  /** Takes free text instead of JSON. */
  | {
      readonly kind: "custom";
      readonly name: string;
      readonly namespace?: string;
      readonly description: string | undefined;
      /** A grammar for its input, as the client's dialect wrote it. */
      readonly format?: unknown;
    }
  /** Runs on the provider's side (web search, code execution): only upstreams of the same dialect know it. */
  | { readonly kind: "hosted"; readonly name: string; readonly spec: unknown };

export type ToolChoice = "auto" | "none" | "required" | { readonly name: string; readonly namespace?: string };

export type TextFormat =
  | { readonly kind: "text" }
  | { readonly kind: "json" }
  | { readonly kind: "schema"; readonly name: string; readonly schema: unknown; readonly strict?: boolean };

/** As the client wrote it; each provider maps it to what its model takes, or leaves it out and says so (`carriage.ts`). */
export interface Sampling {
  /** 0 to 2. */
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly seed?: number;
  readonly frequencyPenalty?: number;
  readonly presencePenalty?: number;
}

export interface OutputOptions {
  readonly maxTokens?: number;
  readonly stop: readonly string[];
  readonly format: TextFormat;
}

export type ReasoningEffort = "none" | "minimal" | "low" | "medium" | "high" | "xhigh" | "max";
export interface ReasoningOptions {
  readonly effort?: ReasoningEffort;
  /** Anthropic's older form of effort. */
  readonly budgetTokens?: number;
  /** The client wants to see a summary of the thinking. */
  readonly isShown?: boolean;
}

/** What every request to a model has in common. */
interface RequestBase {
  /** `provider/model`, a virtual model or an alias, as the client wrote it. */
  readonly target: string;
  readonly output: OutputOptions;
  readonly sampling: Sampling;
  /** Which queue it may wait in: a completion never waits behind a chat (I13). */
  readonly lane: "completion" | "chat" | "background";
  readonly actor: Actor;
  /** No cloud model may have it, whatever the rules say: whoever asks came by a door without a key. */
  readonly localOnly?: boolean;
  readonly stream: boolean;
  /** The client's own bytes, relayed where the upstream speaks the same dialect. */
  readonly origin?: RequestOrigin;
}

export interface RequestOrigin {
  readonly dialect: Dialect;
  /** The client's headers that its dialect gives a meaning (`anthropic-version`, `anthropic-beta`), relayed with the body. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The client's body with another value for its top-level `model`, and with usage in the stream asked for; everything else byte for byte. */
  bodyFor(modelName: string): Buffer;
}

export interface ChatRequest extends RequestBase {
  readonly task: "chat";
  /** Built on first use: a relay never needs it before the answer is stored. Large ones are built in a worker. */
  messages(): Promise<readonly Message[]>;
  /** The client's body as it came, for the transcript; without one the messages are stored. */
  readonly recordedBody?: { readonly dialect: Dialect; readonly body: Buffer };
  readonly tools: readonly ToolSpec[];
  readonly toolChoice: ToolChoice;
  /** Absent: as the provider does by default, which is yes. */
  readonly parallelToolCalls?: boolean;
  readonly reasoning?: ReasoningOptions;
  /** An image or a file is among the messages: known without building them. */
  readonly hasImages?: boolean;
  readonly hasFiles?: boolean;
  /** Keeps requests of one conversation at one warm cache; never content. */
  readonly cacheKey?: string;
  /** Fields of the client's dialect that have no canonical form, by their name there. Carried by a relay, else `carriage.ts` decides. */
  readonly extras?: Readonly<Record<string, unknown>>;
}

/** Plain continuation, or infill when there is a suffix. */
export interface CompletionRequest extends RequestBase {
  readonly task: "completion";
  readonly prefix: string;
  readonly suffix: string;
  /** `trim`: drop the far ends of prefix and suffix until they fit, instead of refusing. */
  readonly overflow: "error" | "trim";
  /** Fields of the client's dialect without a canonical form; carried by a relay, else `carriage.ts` decides. */
  readonly extras?: Readonly<Record<string, unknown>>;
}

export type ModelRequest = ChatRequest | CompletionRequest;

export interface EmbeddingRequest {
  readonly task: "embedding";
  readonly target: string;
  readonly texts: readonly string[];
  readonly actor: Actor;
  /** As for other requests. */
  readonly localOnly?: boolean;
}

export interface Embeddings {
  readonly model: ModelRef;
  readonly vectors: readonly (readonly number[])[];
  readonly promptTokens: number | undefined;
}

export type StreamEvent =
  | { readonly kind: "text"; readonly text: string }
  /** The model declines, in words. */
  | { readonly kind: "refusal"; readonly text: string }
  | {
      readonly kind: "reasoning";
      readonly text: string;
      /** Tells blocks of thinking apart; absent where the upstream has one only. */
      readonly block?: number;
      /** Ends its block: what the maker wants back with it (`Opaque.data`). */
      readonly opaque?: string;
    }
  | {
      readonly kind: "toolCall";
      /**
       * Tells the calls of an answer apart, in their order: deltas of several may be interleaved. Numbers may have gaps (some upstreams count all
       * blocks), so that writers count anew.
       */
      readonly index: number;
      /** Present in the call's first event. */
      readonly callId?: string;
      readonly name?: string;
      readonly namespace?: string;
      readonly isCustom?: boolean;
      /** The next piece of the arguments' JSON text. */
      readonly arguments: string;
      /** `arguments` is all of it, also of what came before: some upstreams repeat it at the end, others say it only there. */
      readonly isWhole?: boolean;
      /** What the maker wants back with the call. */
      readonly opaque?: string;
    }
  | { readonly kind: "usage"; readonly usage: Usage }
  | { readonly kind: "finish"; readonly reason: FinishReason }
  /** In band, after the first byte: the answer is broken. Nothing follows. */
  | { readonly kind: "error"; readonly error: WireError };

export interface Frame {
  readonly dialect: Dialect;
  /** One or more whole frames of the dialect, as the upstream sent them; empty for `events`. */
  readonly bytes: Buffer;
  /** Parsed on the first call and kept. */
  events(): readonly StreamEvent[];
}

/** One try of one provider. Reading `frames` to its end means success; a broken upstream throws or yields an `error` event. */
export interface Attempt {
  readonly model: ModelRef;
  readonly frames: AsyncIterable<Frame>;
  /** Characters that were left out to make the prompt fit (`overflow: "trim"`). */
  readonly trimmedCharacters: number;
  /** Fields of the request that this model could not be told (`carriage.ts`): the client is told by a header. */
  readonly dropped?: readonly string[];
}

export function eventsFrame(events: readonly StreamEvent[]): Frame {
  return { dialect: "events", bytes: Buffer.alloc(0), events: () => events };
}

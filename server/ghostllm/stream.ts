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
export type Dialect = "openai-chat" | "openai-completion" | "ollama" | "events";

export type Part =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "image"; readonly url: string }
  | { readonly kind: "toolCall"; readonly callId: string; readonly name: string; readonly arguments: string }
  | { readonly kind: "toolResult"; readonly callId: string; readonly text: string };

export interface Message {
  readonly role: Role;
  readonly parts: readonly Part[];
}

export interface ToolSpec {
  readonly name: string;
  readonly description: string | undefined;
  /** A JSON schema. */
  readonly parameters: unknown;
}

export type ToolChoice = "auto" | "none" | "required" | { readonly name: string };

export type TextFormat =
  | { readonly kind: "text" }
  | { readonly kind: "json" }
  | { readonly kind: "schema"; readonly name: string; readonly schema: unknown };

export interface Sampling {
  readonly temperature?: number;
  readonly topP?: number;
  readonly seed?: number;
}

export interface OutputOptions {
  readonly maxTokens?: number;
  readonly stop: readonly string[];
  readonly format: TextFormat;
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
  readonly stream: boolean;
  /** The client's own bytes, relayed where the upstream speaks the same dialect. */
  readonly origin?: RequestOrigin;
}

export interface RequestOrigin {
  readonly dialect: Dialect;
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
}

/** Plain continuation, or infill when there is a suffix. */
export interface CompletionRequest extends RequestBase {
  readonly task: "completion";
  readonly prefix: string;
  readonly suffix: string;
  /** `trim`: drop the far ends of prefix and suffix until they fit, instead of refusing. */
  readonly overflow: "error" | "trim";
}

export type ModelRequest = ChatRequest | CompletionRequest;

export interface EmbeddingRequest {
  readonly task: "embedding";
  readonly target: string;
  readonly texts: readonly string[];
  readonly actor: Actor;
}

export interface Embeddings {
  readonly model: ModelRef;
  readonly vectors: readonly (readonly number[])[];
  readonly promptTokens: number | undefined;
}

export type StreamEvent =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "reasoning"; readonly text: string }
  | {
      readonly kind: "toolCall";
      /** The call's position in the answer: deltas of several calls may be interleaved. */
      readonly index: number;
      /** Present in the call's first event. */
      readonly callId?: string;
      readonly name?: string;
      /** The next piece of the arguments' JSON text. */
      readonly arguments: string;
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
}

export function eventsFrame(events: readonly StreamEvent[]): Frame {
  return { dialect: "events", bytes: Buffer.alloc(0), events: () => events };
}

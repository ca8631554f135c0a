/**
 * The events of Copilot's runtime as those of an answer. Pure.
 * 1. One answer is one call of the model: the runtime's own ways to go on (another try, a nudge after a cut, the results of tools) are not waited for, since
 *    they would say the same again.
 * 2. The answer is whole with `assistant.message`, or where the model's own word for its end says that there is no more.
 */
import type { FinishReason } from "../../../protocol/chat.ts";
import type { CodeOf } from "../../../protocol/errors.ts";
import type { Usage } from "../../../protocol/usage.ts";
import { type GhostError, OperationalError, UserError } from "../../base/errors.ts";
import { present } from "../../base/optional.ts";
import { countAt, isRecord, parseRecord, recordAt, recordsAt, stringAt, textAt } from "../frames/json.ts";
import type { StreamEvent } from "../stream.ts";

type Json = Readonly<Record<string, unknown>>;

export interface Reading {
  readonly events: readonly StreamEvent[];
  /** `true`: the answer is whole. An error: it is broken. */
  readonly end?: true | GhostError;
}

const NOTHING: Reading = { events: [] };

/** Of one answer. */
export class CopilotReader {
  readonly #clean: (text: string) => string;
  readonly #calls = new Map<string, number>();
  #hasText = false;
  #reason: FinishReason | undefined;

  constructor(clean: (text: string) => string) {
    this.#clean = clean;
  }

  read(type: string, data: unknown): Reading {
    if (!isRecord(data)) return NOTHING;
    switch (type) {
      case "assistant.message_delta":
        return { events: this.#text(textAt(data, "deltaContent")) };
      case "assistant.reasoning_delta":
        return { events: [{ kind: "reasoning", text: textAt(data, "deltaContent") }] };
      case "assistant.tool_call_delta":
        return { events: [this.#call(data, textAt(data, "inputDelta"))] };
      case "assistant.usage":
        return this.#usage(data);
      case "assistant.message":
        return this.#message(data);
      case "model.call_failure":
      case "session.error":
        return { events: [], end: failureOf(data, this.#clean) };
      case "session.idle":
      case "session.shutdown":
        return { events: [], end: new OperationalError("upstream_failed", "copilot ended without an answer") };
      default:
        return NOTHING;
    }
  }

  #text(text: string): readonly StreamEvent[] {
    if (text === "") return [];
    this.#hasText = true;
    return [{ kind: "text", text }];
  }

  #call(data: Json, pieces: string): StreamEvent {
    const callId = textAt(data, "toolCallId");
    const known = this.#calls.get(callId);
    const index = known ?? this.#calls.size;
    this.#calls.set(callId, index);
    const name = textAt(data, "toolName") || textAt(data, "name");
    const opening = known === undefined ? { callId, name } : {};
    return { kind: "toolCall", index, ...opening, arguments: pieces };
  }

  #usage(data: Json): Reading {
    const usage: Usage = {
      ...present("promptTokens", countAt(data, "inputTokens")),
      ...present("completionTokens", countAt(data, "outputTokens")),
      ...present("cachedTokens", countAt(data, "cacheReadTokens")),
      ...present("cacheWriteTokens", countAt(data, "cacheWriteTokens")),
      ...present("reasoningTokens", countAt(data, "reasoningTokens")),
    };
    const events: StreamEvent[] = Object.keys(usage).length === 0 ? [] : [{ kind: "usage", usage }];
    const word = stringAt(data, "finishReason");
    this.#reason = word === undefined ? undefined : reasonOf(word);
    if (this.#reason !== "length" && this.#reason !== "contentFilter") return { events };
    // The runtime would ask the model to go on (1).
    return { events: [...events, { kind: "finish", reason: this.#reason }], end: true };
  }

  #message(data: Json): Reading {
    const events: StreamEvent[] = this.#hasText ? [] : [...this.#text(textAt(data, "content"))];
    const requests = recordsAt(data, "toolRequests");
    for (const request of requests) {
      const call = this.#call(request, JSON.stringify(recordAt(request, "arguments")));
      events.push(call.kind === "toolCall" ? { ...call, isWhole: true } : call);
    }
    const reason = requests.length > 0 ? "toolCalls" : (this.#reason ?? "stop");
    if (reason === "unknown") {
      const error = new OperationalError("upstream_failed", "copilot ended its answer with a word that is no end here");
      return { events, end: error };
    }
    return { events: [...events, { kind: "finish", reason }], end: true };
  }
}

function reasonOf(word: string): FinishReason {
  switch (word) {
    case "stop":
    case "end_turn":
    case "stop_sequence":
    case "completed":
      return "stop";
    case "length":
    case "max_tokens":
    case "max_output_tokens":
      return "length";
    case "tool_calls":
    case "tool_use":
      return "toolCalls";
    case "content_filter":
    case "refusal":
      return "contentFilter";
    default:
      return "unknown";
  }
}

type Code = { readonly user: CodeOf<"user"> } | { readonly operational: CodeOf<"operational"> };

/** `{statusCode: 429, errorType: "rate_limit", errorCode: "user_model_rate_limited", message}`; a failed call has `errorMessage`. */
function failureOf(data: Json, clean: (text: string) => string): GhostError {
  const status = countAt(data, "statusCode") ?? 0;
  const kind = textAt(data, "errorType");
  const word = textAt(data, "errorCode");
  const said = textAt(data, "errorMessage") || textAt(data, "message");
  const inner = parseRecord(said);
  const words =
    inner === undefined ? said : textAt(inner, "message") || textAt(recordAt(inner, "error"), "message") || said;
  const message = `copilot${status === 0 ? "" : ` answered ${status}`}: ${clean(words).slice(0, 500) || "it failed"}`;
  const details = {
    provider: "copilot",
    ...(status === 0 ? {} : { status }),
    ...present("reason", (word || kind) === "" ? undefined : word || kind),
  };
  const code = codeOf({ status, kind, word, words });
  if ("user" in code) return new UserError(code.user, message, { details });
  return new OperationalError(code.operational, message, { details });
}

function codeOf(told: {
  readonly status: number;
  readonly kind: string;
  readonly word: string;
  readonly words: string;
}): Code {
  const { status, kind, word, words } = told;
  if (kind === "quota" || /quota|billing|credits?_/i.test(word)) return { user: "upstream_quota" };
  if (kind === "rate_limit" || /rate_limit/.test(word)) return { operational: "upstream_rate_limited" };
  if (kind === "authentication" || kind === "authorization") return { user: "upstream_auth" };
  if (kind === "context_limit" || /context_length|prompt token count .* exceeds/i.test(`${word} ${words}`))
    return { user: "context_too_long" };
  if (/model_not_(?:found|supported|available)/.test(word)) return { user: "model_not_found" };
  switch (status) {
    case 401:
    case 403:
      return { user: "upstream_auth" };
    case 402:
      return { user: "upstream_quota" };
    case 404:
      return { user: "model_not_found" };
    case 408:
    case 504:
      return { operational: "upstream_timeout" };
    case 429:
      return { operational: "upstream_rate_limited" };
    case 503:
    case 529:
      return { operational: "upstream_overloaded" };
    default:
      return status >= 400 && status <= 499 ? { user: "upstream_rejected" } : { operational: "upstream_failed" };
  }
}

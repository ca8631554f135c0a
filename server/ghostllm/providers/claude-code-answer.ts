/**
 * The lines of `claude --output-format stream-json` as an answer's events. Pure.
 * `{"type":"stream_event","event":{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hi"}},"parent_tool_use_id":null,…}`
 * 1. `event` is an event of Anthropic's Messages as it came. The first message is the answer: the program's own ways to go on (another try, a nudge where
 *    the answer ran out of tokens or was refused) are not waited for, since a client would see them as one text with the first.
 * 2. The answer is whole when its message said why it stopped.
 */
import type { CodeOf } from "../../../protocol/errors.ts";
import { type GhostError, OperationalError, UserError } from "../../base/errors.ts";
import { present } from "../../base/optional.ts";
import { decodeAnthropic } from "../frames/anthropic.ts";
import { countAt, isRecord, parseRecord, textAt } from "../frames/json.ts";
import type { StreamEvent } from "../stream.ts";

type Json = Readonly<Record<string, unknown>>;

export interface Reading {
  readonly events: readonly StreamEvent[];
  /** `true`: the answer is whole. An error: it is broken. */
  readonly end?: true | GhostError;
}

const NOTHING: Reading = { events: [] };
const failed = (message: string) => new OperationalError("upstream_failed", `claude-code ${message}`);

/** Of one answer. */
export class ClaudeReader {
  #hasContent = false;

  read(line: string): Reading {
    const data = parseRecord(line);
    if (data === undefined)
      return { events: [], end: failed(`wrote something that is no event: ${line.slice(0, 120)}`) };
    switch (data["type"]) {
      case "stream_event":
        return isRecord(data["event"]) && data["parent_tool_use_id"] === null
          ? this.#readEvent(data["event"])
          : NOTHING;
      case "system":
        return data["subtype"] === "api_retry" ? { events: [], end: failureOf(data) } : NOTHING;
      case "result":
        return { events: [], end: failureOf(data) };
      default:
        return NOTHING;
    }
  }

  /** The program has ended without an answer. */
  exit(words: string): GhostError {
    return failureOf({ result: words.trim() });
  }

  #readEvent(event: Json): Reading {
    // A message that stops without having said why was given up.
    if (event["type"] === "message_stop") return { events: [], end: failed("broke off its answer") };
    const events = decodeAnthropic(Buffer.from(JSON.stringify(event))).map(withoutSeal);
    const finish = events.find(({ kind }) => kind === "finish");
    this.#hasContent ||= events.some(({ kind }) => kind !== "finish" && kind !== "usage");
    if (finish?.kind !== "finish") return { events };
    if (finish.reason === "unknown" || finish.reason === "toolCalls") {
      return { events: [], end: failed("ended its answer with a word that is no end here") };
    }
    if (finish.reason === "contentFilter" && !this.#hasContent)
      return { events: [], end: new UserError("upstream_filtered", "claude-code refuses to answer this") };
    return { events, end: true };
  }
}

/** A seal is of no use here: nothing but text goes back to the program. */
function withoutSeal(event: StreamEvent): StreamEvent {
  if (event.kind !== "reasoning") return event;
  const { opaque: _seal, ...plain } = event;
  return plain;
}

const NOT_SIGNED_IN = /\/login|invalid api key|not logged in|authentication/i;
const PLAN_LIMIT = /(?:usage|session|weekly|hit your|out of extra).{0,20}\blimit|limit reached|credit balance/i;
const TOO_LONG = /prompt is too long/i;

/**
 * `{"subtype":"api_retry","error_status":529,"error":"overloaded"}`, or a result `{"is_error":true,"result":"Invalid API key · Please run /login"}`, or what
 * the program said when it ended.
 */
function failureOf(data: Json): GhostError {
  const status = countAt(data, "error_status") ?? countAt(data, "api_error_status") ?? 0;
  const word = textAt(data, "error");
  const said = textAt(data, "result").slice(0, 300);
  const words = [status === 0 ? "" : `status ${status}`, word, said].filter(Boolean).join(", ");
  const message = words === "" ? "claude-code ended without an answer" : `claude-code: ${words}`;
  const details = {
    provider: "claude-code",
    ...(status === 0 ? {} : { status }),
    ...present("reason", word || undefined),
  };
  const code = codeOf({ status, word, said });
  return "user" in code
    ? new UserError(code.user, message, { details })
    : new OperationalError(code.operational, message, { details });
}

type Code = { readonly user: CodeOf<"user"> } | { readonly operational: CodeOf<"operational"> };

function codeOf(told: { readonly status: number; readonly word: string; readonly said: string }): Code {
  const { status, word, said } = told;
  if (PLAN_LIMIT.test(said) || status === 402 || word === "billing_error") return { user: "upstream_quota" };
  if (TOO_LONG.test(said)) return { user: "context_too_long" };
  if (status === 401 || status === 403 || word === "authentication_failed" || NOT_SIGNED_IN.test(said))
    return { user: "upstream_auth" };
  if (status === 404) return { user: "model_not_found" };
  if (status === 429 || word === "rate_limit") return { operational: "upstream_rate_limited" };
  if (status === 503 || status === 529 || word === "overloaded") return { operational: "upstream_overloaded" };
  return status >= 400 && status <= 499 ? { user: "upstream_rejected" } : { operational: "upstream_failed" };
}

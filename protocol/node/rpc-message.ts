/**
 * JSON-RPC 2.0 messages, checked before anything looks inside: https://www.jsonrpc.org/specification
 * LSP has no batches, and its ids are strings or integers.
 */
import { FrameError } from "./frame-decoder.ts";

export type RpcId = number | string;
type RpcParams = object | undefined;

export type RpcMessage =
  | {
      readonly kind: "request";
      readonly jsonrpc: "2.0";
      readonly id: RpcId;
      readonly method: string;
      readonly params?: RpcParams;
    }
  | { readonly kind: "notification"; readonly jsonrpc: "2.0"; readonly method: string; readonly params?: RpcParams }
  | {
      readonly kind: "response";
      readonly jsonrpc: "2.0";
      readonly id: RpcId | null;
      readonly result?: unknown;
      readonly error?: RpcResponseError;
    };

interface RpcResponseError {
  readonly code: number;
  readonly message: string;
  readonly data?: unknown;
}

/** Longer names and ids belong to no client; without a bound they would be kept in tables and logs. */
const MAX_NAME_CHARACTERS = 256;

/** `bytes` must be JSON in UTF-8. @throws FrameError `invalid_json` */
export function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    const reason = cause instanceof SyntaxError ? "is not valid JSON" : "is not valid UTF-8";
    throw new FrameError("invalid_json", `a message ${reason}`);
  }
}

/** @throws FrameError `protocol_violation` */
export function parseMessage(value: unknown): RpcMessage {
  if (Array.isArray(value)) throw malformed("a batch was sent; messages are sent one by one");
  if (typeof value !== "object" || value === null) throw malformed("a message is not a JSON object");
  if (!("jsonrpc" in value) || value.jsonrpc !== "2.0") throw malformed('a message has no "jsonrpc": "2.0"');
  const id = "id" in value ? parseId(value.id) : undefined;
  const violation = (message: string) => new FrameError("protocol_violation", message, id);
  if (!("method" in value)) return parseResponse(value, id);
  if (typeof value.method !== "string" || value.method.length === 0 || value.method.length > MAX_NAME_CHARACTERS) {
    throw violation(`"method" is not a string of 1 to ${MAX_NAME_CHARACTERS} characters`);
  }
  const params = "params" in value && value.params !== null ? value.params : undefined;
  if (params !== undefined && typeof params !== "object") throw violation('"params" is neither an object nor an array');
  const call = { jsonrpc: "2.0", method: value.method, ...(isObject(params) ? { params } : {}) } as const;
  if (id === undefined) return { kind: "notification", ...call };
  if (id === null) throw violation("a request has the id null");
  return { kind: "request", id, ...call };
}

function parseResponse(value: object, id: RpcId | null | undefined): RpcMessage {
  if (id === undefined) throw malformed("a message has neither a method nor an id");
  if ("error" in value && value.error !== undefined) {
    const { error } = value;
    if (!isObject(error) || !("code" in error) || typeof error.code !== "number" || !("message" in error)) {
      throw malformed("an error reply has no code and message");
    }
    const data = "data" in error ? { data: error.data } : {};
    return {
      kind: "response",
      jsonrpc: "2.0",
      id,
      error: { code: error.code, message: String(error.message), ...data },
    };
  }
  if (!("result" in value)) throw malformed("a reply has neither a result nor an error");
  return { kind: "response", jsonrpc: "2.0", id, result: value.result };
}

function parseId(id: unknown): RpcId | null {
  if (id === null || Number.isSafeInteger(id)) return id === null ? null : Number(id);
  if (typeof id === "string" && id.length <= MAX_NAME_CHARACTERS) return id;
  throw malformed("an id is neither a string of reasonable length nor an integer");
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function malformed(message: string): FrameError {
  return new FrameError("protocol_violation", message);
}

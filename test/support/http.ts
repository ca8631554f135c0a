/** Small HTTP helpers for tests of the daemon's front: real sockets, whole texts. */
import type { TestDaemon } from "./daemon.ts";

export interface ApiReply {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The body as JSON; undefined where it is not. */
  readonly json: unknown;
  /** Reading the body failed after the head had come: the connection was cut. */
  readonly isCut: boolean;
}

/** A configuration with one compatible server called `up`, and no search for Ollama. */
export function configFor(baseUrl: string, more = ""): string {
  return `[providers.ollama]\ndiscover = false\n[providers.compatible.up]\nbase_url = "${baseUrl}"\nlocality = "machine"\nheaders_timeout_s = 30\nidle_timeout_s = 30\n${more}`;
}

export interface CallOptions {
  readonly body?: unknown;
  readonly rawBody?: string | Uint8Array<ArrayBuffer>;
  readonly key?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
  readonly method?: string;
  readonly signal?: AbortSignal;
}

/** Calls the daemon with the model key (or `key`; null: none) and reads the whole answer, also of a connection that is cut. */
export async function call(
  daemon: Pick<TestDaemon, "http" | "modelKey">,
  path: string,
  options: CallOptions = {},
): Promise<ApiReply> {
  const body = options.rawBody ?? (options.body === undefined ? null : JSON.stringify(options.body));
  const key = options.key === undefined ? daemon.modelKey : options.key;
  const response = await fetch(daemon.http + path, {
    method: options.method ?? (body === null ? "GET" : "POST"),
    headers: {
      "content-type": "application/json",
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
      ...options.headers,
    },
    body,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const { text, isCut } = await readAll(response);
  return { status: response.status, headers: response.headers, text, json: parse(text), isCut };
}

async function readAll(response: Response): Promise<{ readonly text: string; readonly isCut: boolean }> {
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const chunk of response.body ?? []) text += decoder.decode(chunk, { stream: true });
    return { text: text + decoder.decode(), isCut: false };
  } catch {
    return { text, isCut: true };
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The JSON chunks of an SSE text, and whether `[DONE]` came. */
export function sse(text: string): { readonly chunks: readonly Record<string, unknown>[]; readonly isDone: boolean } {
  const data = text.split(/\r?\n\r?\n/).flatMap((frame) => {
    const lines = frame.split(/\r?\n/).filter((line) => line.startsWith("data:"));
    return lines.length === 0 ? [] : [lines.map((line) => line.slice(5).trim()).join("\n")];
  });
  const chunks = data.flatMap((entry): Record<string, unknown>[] => (entry === "[DONE]" ? [] : [JSON.parse(entry)]));
  return { chunks, isDone: data.includes("[DONE]") };
}

/** The text that the content deltas of a chat stream add up to. */
export function textOf(chunks: readonly Record<string, unknown>[]): string {
  return chunks
    .map((chunk) => JSON.stringify(chunk["choices"] ?? []))
    .map((choices) => {
      const parsed: { delta?: { content?: string | null }; text?: string }[] = JSON.parse(choices);
      return parsed.map((choice) => choice.delta?.content ?? choice.text ?? "").join("");
    })
    .join("");
}

/** The `error` object of a body. */
export function errorOf(reply: ApiReply): {
  readonly message: string;
  readonly code: string;
  readonly param: string | null;
  readonly type: string;
} {
  const { json } = reply;
  if (typeof json !== "object" || json === null || !("error" in json))
    throw new Error(`no error in ${reply.status} ${reply.text.slice(0, 300)}`);
  const { error } = json;
  if (typeof error !== "object" || error === null) throw new Error("the error is not an object");
  const field = (name: string): string => String(Reflect.get(error, name) ?? "");
  return {
    message: field("message"),
    code: field("code"),
    type: field("type"),
    param: Reflect.get(error, "param") === null ? null : field("param"),
  };
}

export const ask = (model: string, more: object = {}) => ({
  model,
  messages: [{ role: "user", content: "hello" }],
  ...more,
});

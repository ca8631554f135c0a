/**
 * The fake Ollama host's edge: what a request body may hold, and how Go's decoder would refuse it.
 * Fields and options that Ollama knows but this fake does not model are refused with 501, and recorded, so that no test leans on them.
 */

/** Ends a request with a status and Ollama's error body. */
export class Refusal extends Error {
  readonly status: number;
  /** True for what the fake does not model: the caller records it as a violation. */
  readonly unmodelled: boolean;
  constructor(status: number, message: string, unmodelled = false) {
    super(message);
    this.status = status;
    this.unmodelled = unmodelled;
  }
}

export type Json = Readonly<Record<string, unknown>>;

export interface FakeToolCall {
  readonly name: string;
  readonly arguments: Json;
}

interface WireMessage {
  readonly role: string;
  readonly content: string;
  readonly images: number;
  readonly toolCalls: readonly FakeToolCall[];
  readonly toolName: string | undefined;
  readonly toolCallId: string | undefined;
}

/** One decoded request, of any of the three model routes. */
export interface WireRequest {
  readonly route: "chat" | "generate" | "embed";
  readonly model: string;
  readonly messages: readonly WireMessage[];
  readonly prompt: string;
  readonly suffix: string;
  readonly system: string;
  readonly raw: boolean;
  readonly images: number;
  readonly input: readonly string[];
  readonly dimensions: number | undefined;
  readonly tools: readonly Json[];
  readonly format: "json" | Json | undefined;
  readonly options: Options;
  readonly stream: boolean;
  /** Milliseconds; Infinity keeps it for ever, undefined leaves it as it is. */
  readonly keepAliveMs: number | undefined;
  readonly think: boolean | undefined;
  readonly truncate: boolean;
  readonly shift: boolean | undefined;
  /** The body as it came. */
  readonly body: Json;
}

interface Options {
  readonly numCtx: number | undefined;
  readonly numPredict: number | undefined;
  readonly stop: readonly string[];
  /** The options besides `num_ctx` whose change reloads the model. */
  readonly reloading: Json;
  readonly unknown: readonly string[];
}

const COMMON = ["model", "options", "keep_alive"];
const FIELDS: Readonly<Record<WireRequest["route"], readonly string[]>> = {
  chat: [...COMMON, "messages", "tools", "format", "stream", "think", "truncate", "shift"],
  generate: [
    ...COMMON,
    "prompt",
    "suffix",
    "system",
    "raw",
    "images",
    "format",
    "stream",
    "think",
    "truncate",
    "shift",
  ],
  embed: [...COMMON, "input", "truncate", "dimensions"],
};
const RELOADING = ["num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"];
const INTEGERS = ["num_ctx", "num_predict", "num_keep", "seed", "top_k", "repeat_last_n", ...RELOADING].filter(
  (name) => name !== "use_mmap",
);
const FLOATS = [
  "temperature",
  "top_p",
  "min_p",
  "typical_p",
  "repeat_penalty",
  "presence_penalty",
  "frequency_penalty",
];

export function parseRequest(route: WireRequest["route"], bytes: Buffer): WireRequest {
  const body = parseObject(bytes);
  for (const key of Object.keys(body)) {
    if (!FIELDS[route].includes(key))
      throw new Refusal(501, `the fake Ollama host does not model "${key}" on ${route}`, true);
  }
  const model = text(body, "model");
  if (model === "") throw new Refusal(400, "model is required");
  const format = body["format"];
  if (format !== undefined && format !== "json" && !isObject(format)) {
    throw new Refusal(400, `invalid format: ${JSON.stringify(format)}; expected "json" or a valid JSON Schema object`);
  }
  return {
    route,
    model,
    messages: list(body, "messages").map(parseMessage),
    prompt: text(body, "prompt"),
    suffix: text(body, "suffix"),
    system: text(body, "system"),
    raw: flag(body, "raw") ?? false,
    images: list(body, "images").length,
    input: parseInput(body["input"]),
    dimensions: integer(body, "dimensions"),
    tools: list(body, "tools").map((tool) => object(tool, "tools")),
    format,
    options: parseOptions(body["options"]),
    stream: flag(body, "stream") ?? true,
    keepAliveMs: parseKeepAlive(body["keep_alive"]),
    think: flag(body, "think"),
    truncate: flag(body, "truncate") ?? true,
    shift: flag(body, "shift"),
    body,
  };
}

/** Number: seconds. String: a Go duration. Negative: for ever. `10`, `"1m30s"`, `-1`; a bare `"10"` is refused. */
function parseKeepAlive(value: unknown): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "number") return value < 0 ? Number.POSITIVE_INFINITY : value * 1000;
  if (typeof value !== "string") throw new Refusal(400, `json: cannot unmarshal ${goType(value)} into keep_alive`);
  const durationMs = parseGoDuration(value);
  return durationMs < 0 ? Number.POSITIVE_INFINITY : durationMs;
}

const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** https://pkg.go.dev/time#ParseDuration */
function parseGoDuration(value: string): number {
  const unsigned = value.replace(/^[+-]/, "");
  if (unsigned === "0") return 0;
  if (/^\d*\.?\d+$/.test(unsigned)) throw new Refusal(400, `time: missing unit in duration ${JSON.stringify(value)}`);
  if (!/^(?:\d*\.?\d+(?:ns|us|µs|ms|s|m|h))+$/.test(unsigned)) {
    throw new Refusal(400, `time: invalid duration ${JSON.stringify(value)}`);
  }
  let sum = 0;
  for (const [, amount, unit] of unsigned.matchAll(/(\d*\.?\d+)(ns|us|µs|ms|s|m|h)/g)) {
    sum += Number(amount) * (UNIT_MS[unit ?? ""] ?? 0);
  }
  return value.startsWith("-") ? -sum : sum;
}

function parseOptions(value: unknown): Options {
  const options = value === undefined || value === null ? {} : object(value, "options");
  const unknown: string[] = [];
  for (const [name, option] of Object.entries(options)) {
    if (INTEGERS.includes(name)) {
      // Options are decoded later than the body, so a wrong type is a 500 and not a 400.
      if (typeof option !== "number") throw new Refusal(500, `option "${name}" must be of type integer`);
    } else if (FLOATS.includes(name)) {
      if (typeof option !== "number") throw new Refusal(500, `option "${name}" must be of type float32`);
    } else if (name === "stop") {
      if (!Array.isArray(option)) throw new Refusal(500, 'option "stop" must be of type array');
      if (option.some((entry) => typeof entry !== "string"))
        throw new Refusal(500, 'option "stop" must be of an array of strings');
    } else if (name === "use_mmap") {
      if (typeof option !== "boolean") throw new Refusal(500, 'option "use_mmap" must be of type boolean');
    } else unknown.push(name);
  }
  const { num_ctx: numCtx, num_predict: numPredict, stop } = options;
  return {
    numCtx: typeof numCtx === "number" ? Math.trunc(numCtx) : undefined,
    numPredict: typeof numPredict === "number" ? Math.trunc(numPredict) : undefined,
    stop: Array.isArray(stop) ? stop.filter((entry) => typeof entry === "string") : [],
    reloading: Object.fromEntries(RELOADING.filter((name) => name in options).map((name) => [name, options[name]])),
    unknown,
  };
}

function parseMessage(value: unknown): WireMessage {
  const message = object(value, "messages");
  const { content } = message;
  if (content !== undefined && typeof content !== "string") {
    throw new Refusal(
      400,
      `json: cannot unmarshal ${goType(content)} into Go struct field ChatRequest.messages.content of type string`,
    );
  }
  const role = text(message, "role");
  if (!["system", "user", "assistant", "tool"].includes(role)) {
    throw new Refusal(501, `the fake Ollama host does not model the role ${JSON.stringify(role)}`, true);
  }
  return {
    role,
    content: content ?? "",
    images: list(message, "images").map(parseImage).length,
    toolCalls: list(message, "tool_calls").map(parseToolCall),
    toolName: message["tool_name"] === undefined ? undefined : text(message, "tool_name"),
    toolCallId: message["tool_call_id"] === undefined ? undefined : text(message, "tool_call_id"),
  };
}

function parseImage(value: unknown): string {
  if (typeof value !== "string" || !/^[A-Za-z0-9+/]+={0,2}$/.test(value)) {
    throw new Refusal(400, "illegal base64 data at input byte 0");
  }
  return value;
}

function parseToolCall(value: unknown): FakeToolCall {
  const call = object(object(value, "tool_calls")["function"], "tool_calls.function");
  const { arguments: args } = call;
  if (!isObject(args)) {
    throw new Refusal(
      400,
      `json: cannot unmarshal ${goType(args)} into Go struct field ChatRequest.messages.tool_calls.function.arguments`,
    );
  }
  return { name: text(call, "name"), arguments: args };
}

function parseInput(value: unknown): readonly string[] {
  if (value === undefined || value === null || value === "") return [];
  if (typeof value === "string") return [value];
  if (!Array.isArray(value)) throw new Refusal(400, "invalid input type");
  return value.map((entry: unknown) => {
    if (typeof entry !== "string") throw new Refusal(400, "invalid input type");
    return entry;
  });
}

export function parseObject(bytes: Buffer): Json {
  if (bytes.length === 0) throw new Refusal(400, "missing request body");
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch {
    throw new Refusal(400, "invalid character in request body");
  }
  return object(value, "body");
}

function object(value: unknown, name: string): Json {
  if (!isObject(value))
    throw new Refusal(400, `json: cannot unmarshal ${goType(value)} into Go struct field ${name} of type object`);
  return value;
}

export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function text(body: Json, field: string): string {
  const value = body[field];
  if (value === undefined || value === null) return "";
  if (typeof value !== "string")
    throw new Refusal(400, `json: cannot unmarshal ${goType(value)} into Go struct field ${field} of type string`);
  return value;
}

function flag(body: Json, field: string): boolean | undefined {
  const value = body[field];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "boolean")
    throw new Refusal(400, `json: cannot unmarshal ${goType(value)} into Go struct field ${field} of type bool`);
  return value;
}

function integer(body: Json, field: string): number | undefined {
  const value = body[field];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "number")
    throw new Refusal(400, `json: cannot unmarshal ${goType(value)} into Go struct field ${field} of type int`);
  return value;
}

function list(body: Json, field: string): readonly unknown[] {
  const value = body[field];
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value))
    throw new Refusal(400, `json: cannot unmarshal ${goType(value)} into Go struct field ${field} of type []`);
  return value;
}

function goType(value: unknown): string {
  if (Array.isArray(value)) return "array";
  return typeof value === "boolean" ? "bool" : typeof value;
}

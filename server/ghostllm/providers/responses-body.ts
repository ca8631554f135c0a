/**
 * Canonical requests as bodies of OpenAI's Responses. Pure.
 * 1. Nothing is kept by the provider (`store: false`): its reasoning comes encrypted, and goes back unchanged and in its place.
 * 2. Reasoning of another maker, or without what it led to, is left out: the server refuses both.
 * 3. What the model cannot be told is named in `dropped`.
 */
import { createHash } from "node:crypto";
import { present } from "../../base/optional.ts";
import { carry } from "../carriage.ts";
import type { ChatRequest, TextFormat, ToolSpec } from "../stream.ts";
import { OPENAI_NAMES, type WireTools, wireTools } from "../tool-names.ts";
import { effortFor, type ResponsesFamily } from "./responses-family.ts";
import { inputItems, isPlainName } from "./responses-input.ts";

/** Which model is asked, and how its server differs from OpenAI's. */
export interface ResponsesTarget {
  /** The name that goes into the body. */
  readonly name: string;
  readonly ref: string;
  readonly family: ResponsesFamily;
  /** The provider's id: only its own reasoning goes back to it. */
  readonly maker: string;
  /** Fields of clients' dialects that it takes under the same name. */
  readonly extras: ReadonlySet<string>;
  /** Pads its deltas unless it is told not to. */
  readonly isPadding: boolean;
}

/** What is left out at a second try, since the server has refused it. */
export interface Omissions {
  readonly seals: boolean;
  readonly summary: boolean;
  /** The wish to get new reasoning back encrypted. */
  readonly include: boolean;
}

export interface ResponsesDraft {
  readonly body: Buffer;
  readonly tools: WireTools;
  readonly dropped: readonly string[];
}

/** OpenAI refuses less. */
const MIN_OUTPUT_TOKENS = 16;
/** OpenAI refuses a longer `prompt_cache_key`. */
const MAX_CACHE_KEY_LENGTH = 64;
/** Fields that say what happens anyway. */
const SAID_ANYWAY: readonly string[] = ["store"];

/** The body of `POST /responses`. @throws UserError `capability_missing` as `carry` does */
export async function responsesBody(
  request: ChatRequest,
  target: ResponsesTarget,
  omit: Omissions,
): Promise<ResponsesDraft> {
  const { family } = target;
  const asked = await question(request, target, omit);
  const { output, sampling, stream } = request;
  const takesSampling =
    family.sampling === "always" || (family.sampling === "without-reasoning" && asked.effort === "none");
  const body = {
    ...asked.fields,
    store: false,
    stream,
    ...(stream && target.isPadding ? { stream_options: { include_obfuscation: false } } : {}),
    ...(family.isReasoning && !omit.include ? { include: ["reasoning.encrypted_content"] } : {}),
    ...(output.maxTokens === undefined ? {} : { max_output_tokens: Math.max(MIN_OUTPUT_TOKENS, output.maxTokens) }),
    ...(takesSampling ? present("temperature", sampling.temperature) : {}),
    ...(takesSampling ? present("top_p", sampling.topP) : {}),
    ...present("prompt_cache_key", cacheKey(request.cacheKey)),
    ...passedExtras(request, target),
  };
  const dropped = lost(request, target, { takesSampling, hasEffort: asked.effort !== undefined });
  return { body: Buffer.from(JSON.stringify(body)), tools: asked.tools, dropped };
}

/** The body of `POST /responses/input_tokens`: what of a request counts as its prompt. */
export async function inputTokensBody(request: ChatRequest, target: ResponsesTarget): Promise<Buffer> {
  const { fields } = await question(request, target, { seals: false, summary: true, include: true });
  return Buffer.from(JSON.stringify(fields));
}

async function question(request: ChatRequest, target: ResponsesTarget, omit: Omissions) {
  const { family, maker, name } = target;
  const isNative = (tool: ToolSpec) =>
    tool.kind === "custom" && family.customTools && tool.namespace === undefined && isPlainName(tool.name);
  const natives = request.tools.filter(isNative);
  const { toolChoice } = request;
  const tools = wireTools({ tools: request.tools.filter((tool) => !isNative(tool)), toolChoice }, OPENAI_NAMES);
  const input = inputItems(await request.messages(), {
    maker: omit.seals || !family.isReasoning ? undefined : maker,
    takesCustom: family.customTools,
    instructionRole: family.instructionRole,
    wireName: tools.wireName,
  });
  const effort = effortFor(request.reasoning, family);
  const isShown = request.reasoning?.isShown === true && family.isReasoning && !omit.summary;
  const reasoning = { ...present("effort", effort), ...(isShown ? { summary: "auto" } : {}) };
  const format = textFormat(request.output.format);
  const text = { ...present("format", format), ...verbosity(request, target) };
  const fields = {
    model: name,
    input,
    ...toolFields(request, tools, natives),
    ...(Object.keys(text).length === 0 ? {} : { text }),
    ...(Object.keys(reasoning).length === 0 ? {} : { reasoning }),
  };
  return { fields, tools, effort };
}

function toolFields(request: ChatRequest, tools: WireTools, natives: readonly ToolSpec[]): object {
  if (tools.functions.length + natives.length === 0) return {};
  const { choice } = tools;
  const isNative = typeof choice === "object" && natives.some(({ name }) => name === choice.name);
  return {
    tools: [
      // Where it is not said, Responses would hold the model to the schema, and refuse schemas that are not made for it.
      ...tools.functions.map(({ strict, ...tool }) => ({ type: "function", ...tool, strict: strict ?? false })),
      ...natives.map((tool) => ({
        type: "custom",
        name: tool.name,
        ...(tool.kind === "custom"
          ? { description: tool.description, ...present("format", grammarOf(tool.format)) }
          : {}),
      })),
    ],
    tool_choice: typeof choice === "string" ? choice : { type: isNative ? "custom" : "function", name: choice.name },
    ...present("parallel_tool_calls", request.parallelToolCalls),
  };
}

/** Chat completions nest what Responses has flat: `{"type":"grammar","grammar":{"syntax","definition"}}`. */
function grammarOf(format: unknown): unknown {
  if (typeof format !== "object" || format === null || !("grammar" in format)) return format;
  const { grammar } = format;
  return typeof grammar === "object" && grammar !== null ? { type: "grammar", ...grammar } : format;
}

function textFormat(format: TextFormat): object | undefined {
  switch (format.kind) {
    case "text":
      return undefined;
    case "json":
      return { type: "json_object" };
    case "schema": {
      const { schema, strict } = format;
      const name = isPlainName(format.name) ? format.name : "answer";
      return { type: "json_schema", name, schema, strict: strict ?? false };
    }
  }
}

function cacheKey(key: string | undefined): string | undefined {
  if (key === undefined || key.length <= MAX_CACHE_KEY_LENGTH) return key;
  return createHash("sha256").update(key).digest("base64url");
}

/** What chat completions call `verbosity` and Responses has in `text`. */
const VERBOSITY = ["verbosity", "text.verbosity"] as const;

function verbosity(request: ChatRequest, { extras }: ResponsesTarget): object {
  const value = VERBOSITY.map((name) => (extras.has(name) ? request.extras?.[name] : undefined));
  return present(
    "verbosity",
    value.find((each) => each !== undefined),
  );
}

function passedExtras(request: ChatRequest, { extras }: ResponsesTarget): object {
  const isText = (name: string) => VERBOSITY.some((each) => each === name);
  const entries = Object.entries(request.extras ?? {});
  return Object.fromEntries(entries.filter(([name]) => extras.has(name) && !isText(name)));
}

function lost(
  { origin: _translated, ...request }: ChatRequest,
  target: ResponsesTarget,
  { takesSampling, hasEffort }: { readonly takesSampling: boolean; readonly hasEffort: boolean },
): readonly string[] {
  const { reasoning, sampling, extras = {} } = request;
  const isWished = reasoning?.effort !== undefined || reasoning?.budgetTokens !== undefined;
  return [
    ...carry(request, "openai-responses", target.ref).filter(
      (name) => !target.extras.has(name) && !(SAID_ANYWAY.includes(name) && extras[name] === false),
    ),
    ...(takesSampling || sampling.temperature === undefined ? [] : ["temperature"]),
    ...(takesSampling || sampling.topP === undefined ? [] : ["top_p"]),
    ...(isWished && !hasEffort ? ["reasoning"] : []),
  ];
}

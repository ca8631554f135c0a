/**
 * The rules by which the Responses API refuses a well-formed body: each takes the request and says what is wrong with it, in the API's words.
 * Sources: the public API reference and guides, the SDK's types, error texts quoted in public issues. The first rule that is broken answers.
 */
import type { ApiTool, InputItem, ResponsesBody } from "./responses-host-body.ts";
import type { ResponsesMemory } from "./responses-host-memory.ts";
import { reasonsAt, type ResponsesFacts, type ResponsesFlavour } from "./responses-host-models.ts";

export interface RuleProblem {
  readonly message: string;
  readonly param: string | null;
  readonly code: string | null;
  /** Else 400. */
  readonly status?: number;
}

export interface ResponsesCase {
  readonly body: ResponsesBody;
  readonly model: string;
  readonly facts: ResponsesFacts;
  readonly flavour: ResponsesFlavour;
  readonly memory: ResponsesMemory;
  /** What the request brings, references looked up; and in front of it what its previous response remembers. */
  readonly items: readonly InputItem[];
  readonly earlier: readonly InputItem[];
}

type Rule = (request: ResponsesCase) => RuleProblem | undefined;

const TOOL_NAME = /^[a-zA-Z0-9_-]{1,64}$/;
const MIN_OUTPUT_TOKENS = 16;
const MAX_KEY_LENGTH = 64;
const MAX_METADATA = 16;
const ID_STARTS = { message: "msg", reasoning: "rs", function_call: "fc", custom_tool_call: "ctc" } as const;

export function brokenResponsesRule(request: ResponsesCase): RuleProblem | undefined {
  for (const rule of rules) {
    const problem = rule(request);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

const rules: readonly Rule[] = [
  presence,
  limits,
  sampling,
  effort,
  caching,
  tools,
  schemas,
  toolChoice,
  references,
  contents,
  ids,
  reasoning,
  callsAndOutputs,
];

/** The items of `input`, a text being one message of the user. */
export function itemsOf(body: ResponsesBody): readonly InputItem[] {
  if (body.input === undefined) return [];
  return typeof body.input === "string" ? [{ role: "user", content: body.input }] : body.input;
}

function presence({ body }: ResponsesCase): RuleProblem | undefined {
  if (body.input === undefined && (body.previous_response_id ?? undefined) === undefined) {
    const fields = "'input' or 'previous_response_id' or 'prompt' or 'conversation_id'";
    return problem(`One of ${fields} must be provided.`, null, "missing_required_parameter");
  }
  if (body.stream_options && body.stream !== true) {
    return problem("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options");
  }
  return undefined;
}

function limits({ body, flavour }: ResponsesCase): RuleProblem | undefined {
  const most = body.max_output_tokens ?? undefined;
  const least = flavour === "xai" ? 1 : MIN_OUTPUT_TOKENS;
  if (most !== undefined && most < least) {
    const message = `Invalid 'max_output_tokens': integer below minimum value. Expected a value >= ${least}, but got ${most} instead.`;
    return problem(message, "max_output_tokens", "integer_below_min_value");
  }
  const pairs = Object.keys(body.metadata ?? {}).length;
  if (pairs > MAX_METADATA) {
    const message = `Invalid 'metadata': too many properties. Expected an object with at most ${MAX_METADATA} properties, but got an object with ${pairs} properties instead.`;
    return problem(message, "metadata", "object_above_max_properties");
  }
  return undefined;
}

function sampling({ body, facts }: ResponsesCase): RuleProblem | undefined {
  const name = (["temperature", "top_p", "top_logprobs"] as const).find((each) => (body[each] ?? null) !== null);
  const isTaken =
    facts.sampling === "always" ||
    (facts.sampling === "without-reasoning" && !reasonsAt(facts, body.reasoning?.effort ?? "medium"));
  if (name === undefined || isTaken) return undefined;
  return problem(`Unsupported parameter: '${name}' is not supported with this model.`, name);
}

function effort({ body, facts, model }: ResponsesCase): RuleProblem | undefined {
  const asked = body.reasoning?.effort ?? undefined;
  if (asked === undefined || facts.efforts.includes(asked)) return undefined;
  const param = "reasoning.effort";
  if (facts.efforts.length === 0) {
    return problem(`Unsupported parameter: '${param}' is not supported with this model.`, param);
  }
  const supported = facts.efforts.map((each) => `'${each}'`).join(", ");
  const message = `Unsupported value: '${asked}' is not supported with the '${model}' model. Supported values are: ${supported}.`;
  return problem(message, param, "unsupported_value");
}

function caching({ body, facts }: ResponsesCase): RuleProblem | undefined {
  const key = body.prompt_cache_key ?? "";
  if (key.length > MAX_KEY_LENGTH) return tooLong("prompt_cache_key", key);
  if ((body.prompt_cache_retention ?? undefined) !== undefined && !facts.takesCacheRetention) {
    const param = "prompt_cache_retention";
    return problem(`Unsupported parameter: '${param}' is not supported with this model.`, param);
  }
  return undefined;
}

function tools({ body }: ResponsesCase): RuleProblem | undefined {
  for (const [index, tool] of (body.tools ?? []).entries()) {
    const inside: readonly ApiTool[] = tool.type === "namespace" ? [tool, ...tool.tools] : [tool];
    for (const each of inside) {
      const name = "name" in each ? each.name : undefined;
      if (typeof name !== "string" || TOOL_NAME.test(name)) continue;
      const param = `tools[${index}].name`;
      if (name.length > MAX_KEY_LENGTH) return tooLong(param, name);
      const message = `Invalid '${param}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.`;
      return problem(message, param, "invalid_value");
    }
  }
  return undefined;
}

/** A strict schema lists every property as required and closes every object. */
function schemas({ body }: ResponsesCase): RuleProblem | undefined {
  for (const [index, tool] of (body.tools ?? []).entries()) {
    if (tool.type !== "function" || tool.strict !== true) continue;
    const wrong = strictProblem(tool.parameters);
    if (wrong === undefined) continue;
    const message = `Invalid schema for function '${tool.name}': ${wrong}`;
    return problem(message, `tools[${index}].parameters`, "invalid_function_parameters");
  }
  const format = body.text?.format;
  if (format?.type !== "json_schema" || format.strict === false) return undefined;
  const wrong = strictProblem(format.schema);
  const message = `Invalid schema for response_format '${format.name}': ${wrong}`;
  return wrong === undefined ? undefined : problem(message, "text.format.schema", "invalid_json_schema");
}

function strictProblem(schema: unknown): string | undefined {
  if (typeof schema !== "object" || schema === null) return undefined;
  const isObject = "type" in schema && schema.type === "object";
  if (isObject && !("additionalProperties" in schema && schema.additionalProperties === false)) {
    return "In context=(), 'additionalProperties' is required to be supplied and to be false.";
  }
  const properties = "properties" in schema && typeof schema.properties === "object" ? (schema.properties ?? {}) : {};
  const required: readonly unknown[] = "required" in schema && Array.isArray(schema.required) ? schema.required : [];
  const missing = Object.keys(properties).find((name) => !required.includes(name));
  if (missing !== undefined) {
    return `In context=(), 'required' is required to be supplied and to be an array including every key in properties. Missing '${missing}'.`;
  }
  const inner = [...Object.values(properties), "items" in schema ? schema.items : undefined];
  return inner.map((each) => strictProblem(each)).find((each) => each !== undefined);
}

function toolChoice({ body }: ResponsesCase): RuleProblem | undefined {
  const choice = body.tool_choice;
  if (choice === undefined || choice === "auto" || choice === "none") return undefined;
  const known = (body.tools ?? []).flatMap((tool) => (tool.type === "namespace" ? tool.tools : [tool]));
  if (choice === "required") {
    return known.length > 0
      ? undefined
      : problem("Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice");
  }
  if (choice.type === "allowed_tools") return undefined;
  const isThere = known.some((tool) => tool.type === choice.type && "name" in tool && tool.name === choice.name);
  return isThere ? undefined : problem(`Tool choice '${choice.type}' not found in 'tools' parameter.`, "tool_choice");
}

function references({ body, memory }: ResponsesCase): RuleProblem | undefined {
  const previous = body.previous_response_id ?? undefined;
  if (previous !== undefined && memory.find(previous) === undefined) {
    const message = `Previous response with id '${previous}' not found.`;
    return problem(message, "previous_response_id", "previous_response_not_found");
  }
  for (const item of itemsOf(body)) {
    if (item.type !== "item_reference" || memory.findItem(item.id) !== undefined) continue;
    return { ...problem(`Item with id '${item.id}' not found.`, "input"), status: 404 };
  }
  return undefined;
}

/** What an assistant said is output, what others said is input. */
function contents({ body }: ResponsesCase): RuleProblem | undefined {
  for (const [index, item] of itemsOf(body).entries()) {
    if (!("role" in item) || typeof item.content === "string") continue;
    for (const [at, part] of item.content.entries()) {
      const isOutput = part.type === "output_text" || part.type === "refusal";
      if (isOutput === (item.role === "assistant")) continue;
      const supported =
        item.role === "assistant" ? "'output_text' and 'refusal'" : "'input_text', 'input_image', and 'input_file'";
      const message = `Invalid value: '${part.type}'. Supported values are: ${supported}.`;
      return problem(message, `input[${index}].content[${at}]`, "invalid_value");
    }
  }
  return undefined;
}

function ids({ body, flavour }: ResponsesCase): RuleProblem | undefined {
  if (flavour === "xai") return undefined;
  for (const [index, item] of itemsOf(body).entries()) {
    const id = item.id ?? undefined;
    const kind = item.type ?? "message";
    if (id === undefined || !(kind in ID_STARTS)) continue;
    const start = Object.entries(ID_STARTS).find(([name]) => name === kind)?.[1] ?? "";
    if (id.length > MAX_KEY_LENGTH) return tooLong(`input[${index}].id`, id);
    if (id.startsWith(start)) continue;
    const message = `Invalid 'input[${index}].id': '${id}'. Expected an ID that begins with '${start}'.`;
    return problem(message, `input[${index}].id`, "invalid_value");
  }
  return undefined;
}

/** Reasoning comes back as it was given out, and before what it led to. */
function reasoning({ body, memory, flavour, items }: ResponsesCase): RuleProblem | undefined {
  for (const item of itemsOf(body)) {
    if (item.type !== "reasoning") continue;
    const encrypted = item.encrypted_content ?? undefined;
    if (encrypted === undefined) {
      if (item.id !== undefined && memory.findItem(item.id) !== undefined) continue;
      const message = `Item with id '${item.id ?? ""}' not found. Items are not persisted when \`store\` is set to false. Try again with \`store\` set to true, or remove this item from your input.`;
      return { ...problem(message, "input"), status: 404 };
    }
    const owner = memory.ownerOf(encrypted);
    if (owner === undefined) {
      const message = `The encrypted content ${encrypted.slice(0, 8)}... could not be verified. Reason: Encrypted content could not be decrypted or parsed.`;
      return problem(message, null, "invalid_encrypted_content");
    }
    if (item.id !== undefined && item.id !== owner) {
      const message = `The encrypted content for item ${item.id} could not be verified. Reason: Encrypted content item_id did not match the target item id.`;
      return problem(message, null, "invalid_encrypted_content");
    }
  }
  if (flavour === "xai") return undefined;
  for (const [index, item] of items.entries()) {
    if (item.type !== "reasoning") continue;
    const next = items.slice(index + 1).find(({ type }) => type !== "reasoning");
    if (next !== undefined && isOfModel(next)) continue;
    const message = `Item '${item.id ?? ""}' of type 'reasoning' was provided without its required following item.`;
    return problem(message, "input");
  }
  return undefined;
}

export function isOfModel(item: InputItem): boolean {
  if ("role" in item) return item.role === "assistant";
  return item.type === "function_call" || item.type === "custom_tool_call" || item.type === "reasoning";
}

/** Every output has its call before it, here or in the previous response; every call its output. */
function callsAndOutputs({ items, earlier }: ResponsesCase): RuleProblem | undefined {
  const waiting = new Map<string, "function" | "custom">();
  for (const item of [...earlier, ...items]) {
    switch (item.type) {
      case "function_call":
        waiting.set(item.call_id, "function");
        break;
      case "custom_tool_call":
        waiting.set(item.call_id, "custom");
        break;
      case "function_call_output":
      case "custom_tool_call_output": {
        const kind = item.type === "function_call_output" ? "function" : "custom";
        if (waiting.get(item.call_id) !== kind) {
          const words = kind === "function" ? "function call" : "custom tool call";
          return problem(`No tool call found for ${words} output with call_id ${item.call_id}.`, "input");
        }
        waiting.delete(item.call_id);
        break;
      }
      default:
    }
  }
  const [open] = waiting.keys();
  return open === undefined ? undefined : problem(`No tool output found for function call ${open}.`, "input");
}

function tooLong(param: string, text: string): RuleProblem {
  const message = `Invalid '${param}': string too long. Expected a string with maximum length ${MAX_KEY_LENGTH}, but got a string with length ${text.length} instead.`;
  return problem(message, param, "string_above_max_length");
}

function problem(message: string, param: string | null, code: string | null = null): RuleProblem {
  return { message, param, code };
}

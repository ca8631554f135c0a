/**
 * Tools, their choice and schemas of Gemini's requests, made canonical. Pure.
 * Formats: https://ai.google.dev/api/caching#Tool, https://ai.google.dev/api/caching#Schema
 */
import { z } from "zod";
import { isRecord } from "../../../ghostllm/frames/json.ts";
import type { ToolChoice, ToolSpec } from "../../../ghostllm/stream.ts";

/** Google's JSON has every field under two names: `inlineData` and `inline_data`. The keys of one object, as the first. */
function camelKeys(value: unknown): unknown {
  if (!isRecord(value) || !Object.keys(value).some((key) => key.includes("_"))) return value;
  const entries = Object.entries(value).map(
    ([key, member]) =>
      [key.replace(/(?!^)_([a-z])/g, (_match, letter: string) => letter.toUpperCase()), member] as const,
  );
  return Object.fromEntries(entries);
}

/** An object whose fields may come under either name. */
export function protoMessage<Shape extends z.ZodRawShape>(shape: Shape) {
  return z.preprocess(camelKeys, z.looseObject(shape));
}

const declaration = protoMessage({
  name: z.string().min(1).max(256),
  description: z.string().nullish(),
  parameters: z.looseObject({}).nullish(),
  parametersJsonSchema: z.unknown().optional(),
  response: z.unknown().optional(),
  responseJsonSchema: z.unknown().optional(),
});
export const toolSchema = protoMessage({ functionDeclarations: z.array(declaration).nullish() });
export const toolConfigSchema = protoMessage({
  functionCallingConfig: protoMessage({
    mode: z.enum(["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"]).nullish(),
    allowedFunctionNames: z.array(z.string()).nullish(),
  }).nullish(),
});
type Tool = z.infer<typeof toolSchema>;
type ToolConfig = z.infer<typeof toolConfigSchema> | null | undefined;

export interface ToolFacts {
  readonly tools: readonly ToolSpec[];
  readonly choice: ToolChoice;
  /** By name, what of them has no canonical form. */
  readonly extras: Readonly<Record<string, unknown>>;
}

/** Where only some functions may be called, only those are offered. */
export function readTools(declared: readonly Tool[], config: ToolConfig): ToolFacts {
  const { functionCallingConfig: calling, ...more } = config ?? {};
  const { mode, allowedFunctionNames } = calling ?? {};
  const allowed = allowedFunctionNames ?? [];
  const isAllowed = (name: string) => allowed.length === 0 || allowed.includes(name);
  const tools = declared.flatMap(toTools).filter((tool) => tool.kind === "hosted" || isAllowed(tool.name));
  const [first] = allowed;
  const isOne = mode === "ANY" && first !== undefined && allowed.length === 1;
  const functions = declared.flatMap(({ functionDeclarations }) => functionDeclarations ?? []);
  const describesResults = functions.some(
    ({ response, responseJsonSchema: schema }) => (response ?? schema ?? undefined) !== undefined,
  );
  return {
    tools,
    choice: isOne ? { name: first } : mode === "NONE" ? "none" : mode === "ANY" ? "required" : "auto",
    extras: {
      ...(mode === "VALIDATED" ? { "functionCallingConfig.mode VALIDATED": true } : {}),
      ...(describesResults ? { "functionDeclarations.response": true } : {}),
      ...Object.fromEntries(Object.entries(more).map(([key, value]) => [`toolConfig.${key}`, value])),
    },
  };
}

/** Each key of an entry beside the functions is one of Google's own tools. */
function toTools({ functionDeclarations, ...hosted }: Tool): readonly ToolSpec[] {
  return [
    ...(functionDeclarations ?? []).map(
      ({ name, description, parameters, parametersJsonSchema }): ToolSpec => ({
        kind: "function",
        name,
        description: description ?? undefined,
        parameters: parametersJsonSchema ?? (isRecord(parameters) ? toJsonSchema(parameters) : undefined),
      }),
    ),
    ...Object.entries(hosted).flatMap(([name, spec]): readonly ToolSpec[] =>
      spec === null || spec === undefined ? [] : [{ kind: "hosted", name, spec: { [name]: spec } }],
    ),
  ];
}

/** Deeper than any schema that a person writes. */
const MAX_DEPTH = 64;
/** Formats of numbers, and of lists of words: they say nothing to anybody else. */
const OWN_FORMATS: ReadonlySet<unknown> = new Set(["enum", "int32", "int64", "float", "double"]);
/** 64-bit numbers, which Google's JSON writes as text. */
const COUNTS: ReadonlySet<string> = new Set([
  "minItems",
  "maxItems",
  "minLength",
  "maxLength",
  "minProperties",
  "maxProperties",
]);

/** A `Schema` of OpenAPI's kind as JSON schema: `{"type":"STRING","nullable":true}` → `{"type":["string","null"]}`. */
export function toJsonSchema(schema: unknown, depth = 0): object {
  if (!isRecord(schema) || depth > MAX_DEPTH) return {};
  const source = camelKeys(schema);
  if (!isRecord(source)) return {};
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(source)) Object.assign(result, member(key, value, depth));
  if (source["nullable"] === true) allowNull(result);
  return orderProperties(result, source["propertyOrdering"]);
}

function member(key: string, value: unknown, depth: number): object {
  const inner = (entry: unknown) => toJsonSchema(entry, depth + 1);
  switch (key) {
    case "type":
      return typeof value === "string" && value !== "TYPE_UNSPECIFIED" ? { type: value.toLowerCase() } : {};
    case "nullable":
    case "propertyOrdering":
      return {};
    case "format":
      return OWN_FORMATS.has(value) ? {} : { format: value };
    case "example":
      return { examples: [value] };
    case "items":
      return { items: inner(value) };
    case "additionalProperties":
      return { [key]: typeof value === "boolean" ? value : inner(value) };
    case "anyOf":
    case "oneOf":
    case "allOf":
    case "prefixItems":
      return Array.isArray(value) ? { [key]: value.map(inner) } : {};
    case "properties":
    case "$defs":
    case "defs": {
      const name = key === "defs" ? "$defs" : key;
      if (!isRecord(value)) return {};
      return { [name]: Object.fromEntries(Object.entries(value).map(([own, entry]) => [own, inner(entry)])) };
    }
    case "ref":
      return { $ref: value };
    default:
      return { [key]: COUNTS.has(key) && typeof value === "string" ? Number(value) : value };
  }
}

function allowNull(schema: Record<string, unknown>): void {
  if (typeof schema["type"] === "string") schema["type"] = [schema["type"], "null"];
  else if (Array.isArray(schema["anyOf"])) schema["anyOf"] = [...schema["anyOf"], { type: "null" }];
  const values: unknown = schema["enum"];
  if (Array.isArray(values) && !values.includes(null)) schema["enum"] = [...values, null];
}

/** Models write properties in the order in which the schema has them. */
function orderProperties(schema: Record<string, unknown>, order: unknown): object {
  const { properties } = schema;
  if (!isRecord(properties) || !Array.isArray(order)) return schema;
  const names = [...new Set([...order.filter((name) => typeof name === "string"), ...Object.keys(properties)])];
  const ordered = names.flatMap((name) => (name in properties ? [[name, properties[name]] as const] : []));
  return { ...schema, properties: Object.fromEntries(ordered) };
}

/** The schema of an answer, from either of its two fields. */
export function answerSchema(own: unknown, json: unknown): object | undefined {
  if (isRecord(json)) return json;
  return isRecord(own) ? toJsonSchema(own) : undefined;
}

/**
 * JSON schemas for Anthropic's `output_config.format`, which knows a part of the language: what it refuses goes into descriptions, where the model reads
 * it. Pure. https://platform.claude.com/docs/en/build-with-claude/structured-outputs
 */
import { isRecord } from "../frames/json.ts";

type Json = Readonly<Record<string, unknown>>;

/** Taken as they are. */
const PLAIN = ["$ref", "type", "enum", "const", "title", "default", "required"] as const;
const FORMATS: ReadonlySet<unknown> = new Set([
  "date-time",
  "time",
  "date",
  "duration",
  "email",
  "hostname",
  "uri",
  "ipv4",
  "ipv6",
  "uuid",
]);
/** Deeper than any schema a person writes; a circle in a program's object would have no end. */
const MAX_DEPTH = 64;

/** The schema in that part of the language; undefined where it cannot say the same: objects with members of any name. */
export function toOutputSchema(schema: unknown): object | undefined {
  return isRecord(schema) && schema["type"] === "object" ? reduce(schema, 0) : undefined;
}

function reduce(schema: Json, depth: number): object | undefined {
  if (depth > MAX_DEPTH || isOpenObject(schema)) return undefined;
  const reduced: Record<string, unknown> = {};
  const told: string[] = typeof schema["description"] === "string" ? [schema["description"]] : [];
  for (const [key, value] of Object.entries(schema)) {
    if (key === "description" || key === "$schema" || key === "additionalProperties") continue;
    const part = reduceMember(key, value, depth);
    if (part === "impossible") return undefined;
    if (part === undefined) told.push(`${key}: ${JSON.stringify(value)}`);
    else reduced[part.key] = part.value;
  }
  if (hasProperties(schema)) reduced["additionalProperties"] = false;
  if (told.length > 0) reduced["description"] = told.join("\n");
  return reduced;
}

type Member = { readonly key: string; readonly value: unknown } | "impossible" | undefined;

/** Undefined for what must be told in words. */
function reduceMember(key: string, value: unknown, depth: number): Member {
  const plain = PLAIN.find((name) => name === key);
  if (plain !== undefined) return { key, value };
  switch (key) {
    case "format":
      return FORMATS.has(value) ? { key, value } : undefined;
    case "minItems":
      return value === 0 || value === 1 ? { key, value } : undefined;
    case "items":
      return isRecord(value) ? possible(key, reduce(value, depth + 1)) : undefined;
    case "anyOf":
    case "oneOf":
    case "allOf": {
      if (!Array.isArray(value)) return undefined;
      const all = value.map((entry) => (isRecord(entry) ? reduce(entry, depth + 1) : undefined));
      return possible(key === "oneOf" ? "anyOf" : key, all.includes(undefined) ? undefined : all);
    }
    case "properties":
    case "$defs":
    case "definitions": {
      if (!isRecord(value)) return undefined;
      const all = Object.entries(value).map(
        ([name, entry]) => [name, isRecord(entry) ? reduce(entry, depth + 1) : undefined] as const,
      );
      return possible(key, all.some(([, entry]) => entry === undefined) ? undefined : Object.fromEntries(all));
    }
    default:
      return undefined;
  }
}

function possible(key: string, value: unknown): Member {
  return value === undefined ? "impossible" : { key, value };
}

const hasProperties = (schema: Json) => schema["type"] === "object" || isRecord(schema["properties"]);

/** Its members may have any name: here all names must be given. */
function isOpenObject(schema: Json): boolean {
  const { type, properties, additionalProperties, patternProperties } = schema;
  if (type !== "object" && properties === undefined) return false;
  const isNamed = isRecord(properties) && Object.keys(properties).length > 0;
  if (isRecord(additionalProperties) || patternProperties !== undefined) return true;
  return !isNamed && additionalProperties !== false;
}

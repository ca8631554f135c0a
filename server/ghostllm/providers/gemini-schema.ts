/**
 * JSON schemas in the part of the language that Gemini knows (https://ai.google.dev/gemini-api/docs/structured-output): what it does not know goes into
 * descriptions, where the model reads it. Pure.
 * 1. Nothing that restricts is lost in silence: it is kept, said in another way, or told in words.
 * 2. Its work is bounded by depth; what lies deeper may be anything.
 */
import { isRecord } from "../frames/json.ts";

type Json = Readonly<Record<string, unknown>>;

/** Taken as they are. */
const PLAIN: ReadonlySet<string> = new Set([
  "$id",
  "$anchor",
  "type",
  "title",
  "required",
  "minItems",
  "maxItems",
  "minimum",
  "maximum",
  "propertyOrdering",
]);
/** Says nothing that an answer could break. */
const SILENT: ReadonlySet<string> = new Set(["$schema", "$comment", "description", "strict", "nullable"]);
const FORMATS: ReadonlySet<unknown> = new Set(["date-time", "date", "time"]);
/** Deeper than any schema that a person writes. */
const MAX_DEPTH = 48;

export function toGeminiSchema(schema: unknown): object {
  return reduce(schema, 0);
}

/** A function's parameters: always an object; undefined for none, which need no schema. */
export function toParameters(schema: unknown): object | undefined {
  if (!isRecord(schema)) return undefined;
  const { properties } = schema;
  const isEmpty = !isRecord(properties) || Object.keys(properties).length === 0;
  const says = Object.keys(schema).some((key) => !EMPTY_KEYS.has(key));
  if (isEmpty && !says) return undefined;
  return reduce(schema["type"] === "object" ? schema : { ...schema, type: "object" }, 0);
}

const EMPTY_KEYS: ReadonlySet<string> = new Set([
  ...SILENT,
  "type",
  "properties",
  "required",
  "additionalProperties",
  "title",
]);

function reduce(schema: unknown, depth: number): object {
  if (!isRecord(schema) || depth > MAX_DEPTH) return {};
  if (typeof schema["$ref"] === "string") return reduceReference(schema["$ref"], schema);
  const reduced: Record<string, unknown> = {};
  const flat = flatten(schema);
  const told: string[] = typeof flat["description"] === "string" ? [flat["description"]] : [];
  for (const [key, value] of Object.entries(flat)) {
    if (SILENT.has(key)) continue;
    const part = reduceMember(key, value, depth);
    if (part === undefined) told.push(`${key}: ${JSON.stringify(value)}`);
    else Object.assign(reduced, part);
  }
  if (isRecord(reduced["properties"]) && reduced["type"] === undefined) reduced["type"] = "object";
  if (schema["nullable"] === true && typeof reduced["type"] === "string") reduced["type"] = [reduced["type"], "null"];
  if (told.length > 0) reduced["description"] = told.join("\n");
  return reduced;
}

/** Nothing may stand beside a reference: its description goes around it. */
function reduceReference(reference: string, { description }: Json): object {
  const plain = { $ref: reference.replace(/^#\/definitions\//, "#/$defs/") };
  return typeof description === "string" ? { description, anyOf: [plain] } : plain;
}

/** What is to be sent; undefined for what must be told in words. */
function reduceMember(key: string, value: unknown, depth: number): object | undefined {
  if (PLAIN.has(key)) return { [key]: value };
  switch (key) {
    case "format":
      return FORMATS.has(value) ? { format: value } : undefined;
    case "enum":
      return Array.isArray(value) && value.every(isSimple) ? { enum: value } : undefined;
    case "const":
      return isSimple(value) ? { enum: [value] } : undefined;
    case "items":
      return Array.isArray(value) ? { prefixItems: value.map((entry) => reduce(entry, depth + 1)) } : at(key, value);
    case "additionalProperties":
      return typeof value === "boolean" ? { [key]: value } : at(key, value);
    case "prefixItems":
    case "anyOf":
    case "oneOf":
      return Array.isArray(value)
        ? { [key === "oneOf" ? "anyOf" : key]: value.map((entry) => reduce(entry, depth + 1)) }
        : undefined;
    case "properties":
    case "$defs":
    case "definitions": {
      if (!isRecord(value)) return undefined;
      const all = Object.entries(value).map(([name, entry]) => [name, reduce(entry, depth + 1)] as const);
      return { [key === "definitions" ? "$defs" : key]: Object.fromEntries(all) };
    }
    default:
      return undefined;
  }
  function at(name: string, entry: unknown): object | undefined {
    return isRecord(entry) ? { [name]: reduce(entry, depth + 1) } : undefined;
  }
}

const isSimple = (value: unknown) => typeof value === "string" || typeof value === "number";

/** The parts of `allOf` together, where they do not contradict each other; an open bound of whole numbers as a closed one. */
function flatten(schema: Json): Json {
  let flat: Record<string, unknown> = { ...schema };
  const { allOf } = schema;
  if (Array.isArray(allOf)) {
    const merged = mergeAll(schema, allOf);
    if (merged !== undefined) flat = merged;
  }
  const isWhole = flat["type"] === "integer";
  const { exclusiveMinimum: above, exclusiveMaximum: below } = flat;
  if (isWhole && Number.isInteger(above) && flat["minimum"] === undefined) {
    flat["minimum"] = Number(above) + 1;
    delete flat["exclusiveMinimum"];
  }
  if (isWhole && Number.isInteger(below) && flat["maximum"] === undefined) {
    flat["maximum"] = Number(below) - 1;
    delete flat["exclusiveMaximum"];
  }
  return flat;
}

function mergeAll(schema: Json, parts: readonly unknown[]): Record<string, unknown> | undefined {
  const { allOf: _parts, ...own } = schema;
  const merged: Record<string, unknown> = { ...own };
  for (const part of parts) {
    if (!isRecord(part) || "$ref" in part || "allOf" in part) return undefined;
    for (const [key, value] of Object.entries(part)) {
      const known = merged[key];
      if (known === undefined || JSON.stringify(known) === JSON.stringify(value)) merged[key] = value;
      else if (typeof known === "string" && typeof value === "string" && key === "description") {
        merged[key] = `${known}\n${value}`;
      } else if (key === "required" && Array.isArray(known) && Array.isArray(value)) {
        merged[key] = [...new Set([...known, ...value])];
      } else if (key === "properties" && isRecord(known) && isRecord(value) && areApart(known, value)) {
        merged[key] = { ...known, ...value };
      } else return undefined;
    }
  }
  return merged;
}

const areApart = (one: Json, other: Json) => Object.keys(other).every((name) => !(name in one));

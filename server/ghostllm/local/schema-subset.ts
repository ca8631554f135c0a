/**
 * JSON Schema, reduced to what a grammar can hold an answer to. Pure.
 * A keyword that only describes is dropped; one that would not be obeyed is refused by name, so that nobody trusts an answer that was never held to it.
 * `{"anyOf":[{"type":"string"},{"type":"null"}]}` becomes `{"oneOf":[{"type":"string"},{"type":"null"}]}`.
 */
import { z } from "zod";
import { UserError } from "../../base/errors.ts";

type Schema = Readonly<Record<string, unknown>>;

const objectSchema = z.record(z.string(), z.unknown());
const arraySchema = z.array(z.unknown());

const DESCRIPTIONS = new Set([
  "title",
  "description",
  "default",
  "examples",
  "deprecated",
  "readOnly",
  "writeOnly",
  "$schema",
  "$id",
  "$comment",
]);
const SCALARS = new Set(["string", "number", "integer", "boolean", "null"]);
const FORMATS = new Set(["date", "time", "date-time"]);
/** Every level becomes rules of its own; schemas of real clients have fewer than ten. */
const MAX_DEPTH = 32;
/** Compiling a grammar takes time on the engine's own loop; schemas of real clients have some kilobytes. */
const MAX_CHARACTERS = 64 * 1024;

/** @throws UserError `capability_missing` naming the keyword and its place; `invalid_params` for what is no schema. */
export function reduceSchema(schema: unknown): Schema {
  const size = JSON.stringify(schema)?.length ?? 0;
  if (size > MAX_CHARACTERS) {
    throw new UserError(
      "invalid_params",
      `the schema has ${size} characters; the embedded engine takes ${MAX_CHARACTERS}`,
    );
  }
  return reduce(schema, "schema", 0);
}

function reduce(given: unknown, path: string, depth: number): Schema {
  if (depth > MAX_DEPTH) throw unsupported("nesting", path);
  if (given === true) return anyValue();
  const parsed = objectSchema.safeParse(given);
  if (!parsed.success)
    throw new UserError("invalid_params", `${path} is not a JSON schema`, { details: { field: path } });
  const source = new Map(Object.entries(parsed.data).filter(([key]) => !DESCRIPTIONS.has(key)));
  const definitions = takeDefinitions(source, path, depth);
  const body = reduceBody(source, path, depth);
  const [left] = source.keys();
  if (left !== undefined) throw unsupported(left, path);
  return definitions === undefined ? body : { ...body, $defs: definitions };
}

/** Reads what it understands out of `source`; what stays in it is not supported. */
function reduceBody(source: Map<string, unknown>, path: string, depth: number): Schema {
  const reference = take(source, "$ref");
  if (typeof reference === "string") return { $ref: localReference(reference, path) };
  const constant = source.has("const") ? [take(source, "const")] : take(source, "enum");
  if (constant !== undefined) {
    source.delete("type");
    const values = arraySchema.parse(constant);
    if (values.some((value) => typeof value === "object" && value !== null)) throw unsupported("enum of objects", path);
    return { enum: values };
  }
  const alternatives = take(source, "anyOf") ?? take(source, "oneOf") ?? single(take(source, "allOf"), path);
  if (alternatives !== undefined) {
    const items = arraySchema.parse(alternatives);
    source.delete("type");
    return { oneOf: items.map((item, index) => reduce(item, `${path}.anyOf.${index}`, depth + 1)) };
  }
  const type =
    take(source, "type") ?? (source.has("properties") ? "object" : source.has("items") ? "array" : undefined);
  if (Array.isArray(type)) {
    const shared = Object.fromEntries(source);
    source.clear();
    return { oneOf: type.map((one) => reduce({ type: one, ...keywordsOf(one, shared) }, path, depth + 1)) };
  }
  if (type === "object") return reduceObject(source, path, depth);
  if (type === "array") return reduceArray(source, path, depth);
  if (typeof type === "string" && SCALARS.has(type)) return reduceScalar(source, type);
  if (type === undefined) return anyValue();
  throw new UserError("invalid_params", `${path}.type is ${JSON.stringify(type)}`, {
    details: { field: `${path}.type` },
  });
}

/** Anything else than a definition of the same schema would silently allow everything. */
function localReference(reference: string, path: string): string {
  const name = /^#\/(?:\$defs|definitions)\/([^/]+)$/.exec(reference)?.[1];
  if (name === undefined) throw unsupported(`$ref: ${reference}`, path);
  return `#/$defs/${name}`;
}

function reduceObject(source: Map<string, unknown>, path: string, depth: number): Schema {
  const properties = objectSchema.parse(take(source, "properties") ?? {});
  const required = arraySchema.parse(take(source, "required") ?? []);
  const missing = required.find((key) => typeof key === "string" && !Object.hasOwn(properties, key));
  if (missing !== undefined)
    throw unsupported(`required: ${JSON.stringify(missing)} without a property of that name`, path);
  const additional = take(source, "additionalProperties");
  return {
    type: "object",
    properties: Object.fromEntries(
      Object.entries(properties).map(([key, value]) => [key, reduce(value, `${path}.properties.${key}`, depth + 1)]),
    ),
    // Allowed is not wanted: an open object with named properties gets just those.
    ...(typeof additional === "object" && additional !== null
      ? { additionalProperties: reduce(additional, `${path}.additionalProperties`, depth + 1) }
      : { additionalProperties: additional !== false && Object.keys(properties).length === 0 }),
    ...takeAll(source, ["minProperties", "maxProperties"]),
  };
}

function reduceArray(source: Map<string, unknown>, path: string, depth: number): Schema {
  const items = take(source, "items");
  const prefix = take(source, "prefixItems");
  return {
    type: "array",
    ...(items === undefined || items === false ? {} : { items: reduce(items, `${path}.items`, depth + 1) }),
    ...(prefix === undefined
      ? {}
      : {
          prefixItems: arraySchema
            .parse(prefix)
            .map((item, index) => reduce(item, `${path}.prefixItems.${index}`, depth + 1)),
        }),
    ...takeAll(source, ["minItems", "maxItems"]),
  };
}

function reduceScalar(source: Map<string, unknown>, type: string): Schema {
  if (type === "string") {
    const format = take(source, "format");
    // By the standard a format only describes; these three can be held to.
    const held = typeof format === "string" && FORMATS.has(format) ? { format } : {};
    return { type, ...held, ...takeAll(source, ["minLength", "maxLength"]) };
  }
  // Schema generators write the limits of safe integers into every integer; the grammar's 16 digits are near enough.
  for (const [key, limit] of [
    ["minimum", Number.MIN_SAFE_INTEGER],
    ["maximum", Number.MAX_SAFE_INTEGER],
  ] as const) {
    if (source.get(key) === limit) source.delete(key);
  }
  return { type };
}

function takeDefinitions(source: Map<string, unknown>, path: string, depth: number): Schema | undefined {
  const given = take(source, "$defs") ?? take(source, "definitions");
  if (given === undefined) return undefined;
  return Object.fromEntries(
    Object.entries(objectSchema.parse(given)).map(([key, value]) => [
      key,
      reduce(value, `${path}.$defs.${key}`, depth + 1),
    ]),
  );
}

/** An `allOf` of one schema is that schema; of more, no grammar can say it. */
function single(allOf: unknown, path: string): unknown {
  if (allOf === undefined) return undefined;
  if (Array.isArray(allOf) && allOf.length === 1) return allOf;
  throw unsupported("allOf", path);
}

const KEYWORDS: Readonly<Record<string, readonly string[]>> = {
  string: ["minLength", "maxLength", "format", "pattern"],
  object: [
    "properties",
    "required",
    "additionalProperties",
    "minProperties",
    "maxProperties",
    "patternProperties",
    "propertyNames",
  ],
  array: ["items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"],
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
  integer: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
};

/** Of a schema with several types, the keywords that concern one of them, and those that concern none we know. */
function keywordsOf(type: unknown, shared: Schema): Schema {
  const own = KEYWORDS[String(type)] ?? [];
  const foreign = new Set(
    Object.values(KEYWORDS)
      .flat()
      .filter((keyword) => !own.includes(keyword)),
  );
  return Object.fromEntries(Object.entries(shared).filter(([keyword]) => !foreign.has(keyword)));
}

function anyValue(): Schema {
  return {
    oneOf: [...SCALARS]
      .map((type): Schema => ({ type }))
      .concat({ type: "array" }, { type: "object", additionalProperties: true }),
  };
}

function take(source: Map<string, unknown>, key: string): unknown {
  const value = source.get(key);
  source.delete(key);
  return value;
}

function takeAll(source: Map<string, unknown>, keys: readonly string[]): Schema {
  return Object.fromEntries(keys.flatMap((key) => (source.has(key) ? [[key, take(source, key)]] : [])));
}

function unsupported(what: string, path: string): UserError {
  return new UserError("capability_missing", `the embedded engine cannot hold an answer to \`${what}\` (at ${path})`, {
    details: { field: path },
  });
}

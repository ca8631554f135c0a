/**
 * JSON Schema, reduced to what a grammar can hold an answer to. Pure.
 * A keyword that only describes is dropped; one that would not be obeyed is refused by name, so that nobody trusts an answer that was never held to it.
 * `{"anyOf":[{"type":"string"},{"type":"null"}]}` becomes `{"oneOf":[{"type":"string"},{"type":"null"}]}`.
 * 1. Its work and its result are bounded by constants, whatever the schema says: it runs on the daemon's loop.
 * 2. What is malformed is the caller's fault and named as such, never an exception of the parser.
 */
import { z } from "zod";
import { UserError } from "../../base/errors.ts";

type Schema = Readonly<Record<string, unknown>>;

const requiredSchema = z.array(z.string());
const typesSchema = z.array(z.string()).min(1);
const countSchema = z.int().nonnegative();

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
/** Levels of JSON: each level of a schema takes two (`properties` and a name), and examples lie deeper. What recurses after us keeps its stack. */
const MAX_JSON_DEPTH = 4 * MAX_DEPTH;
/** Compiling a grammar takes time on the engine's own loop; schemas of real clients have some kilobytes. */
const MAX_CHARACTERS = 64 * 1024;
/** Schemas and values of enums in the result. Each costs microseconds here and becomes a rule of the grammar there; real clients' have some hundreds. */
const MAX_SCHEMAS = 1000;
/** Where the schema stands in a request; `schema` in the messages. */
const FIELD = "response_format.json_schema.schema";
const ROOT = "schema";

/** What one reduction knows besides the schema at hand. */
interface Reduction {
  /** What `#/$defs/…` can mean: the root's definitions. */
  readonly definitions: ReadonlySet<string>;
  schemasLeft: number;
}

/** @throws UserError `capability_missing` naming the keyword and its place; `invalid_params` for what is no schema, and for too much of one. */
export function reduceSchema(schema: unknown): Schema {
  checkSize(schema);
  const given = isObject(schema) ? (schema["$defs"] ?? schema["definitions"]) : undefined;
  const definitions = parseObject(given ?? {}, `${ROOT}.$defs`);
  const reduction: Reduction = { definitions: new Set(Object.keys(definitions)), schemasLeft: MAX_SCHEMAS };
  const body = reduce(schema, ROOT, 0, reduction);
  if (reduction.definitions.size === 0) return body;
  return {
    ...body,
    $defs: reduceEach(definitions, `${ROOT}.$defs`, 1, reduction),
  };
}

/** Looks at every value without recursion, and stops at the first bound (I1). */
function checkSize(schema: unknown): void {
  let characters = 0;
  const left: { readonly value: unknown; readonly depth: number }[] = [{ value: schema, depth: 0 }];
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const { value, depth } = next;
    if (depth > MAX_JSON_DEPTH) throw invalid(`the schema is nested deeper than ${MAX_JSON_DEPTH} levels`, ROOT);
    characters += typeof value === "string" ? value.length + 2 : 1;
    const isContainer = typeof value === "object" && value !== null;
    const keys = isContainer && !Array.isArray(value) ? Object.keys(value) : [];
    for (const key of keys) characters += key.length + 3;
    const children: readonly unknown[] = Array.isArray(value) ? value : isContainer ? Object.values(value) : [];
    if (characters + children.length > MAX_CHARACTERS)
      throw invalid(`the schema has more than ${MAX_CHARACTERS} characters`, ROOT);
    for (const child of children) {
      if (typeof child === "object" || typeof child === "string") left.push({ value: child, depth: depth + 1 });
      else characters += 1;
    }
  }
}

function reduce(given: unknown, path: string, depth: number, reduction: Reduction): Schema {
  if (depth > MAX_DEPTH) throw invalid(`the schema is nested deeper than ${MAX_DEPTH} schemas`, path);
  spend(reduction, 1);
  if (given === true) return anyValue(reduction);
  if (!isObject(given)) throw invalid(`${path} is not a JSON schema`, path);
  const source = new Map(Object.entries(given).filter(([key]) => !DESCRIPTIONS.has(key)));
  // The root's are taken there; no reference that we allow means those of another schema.
  if (!source.delete("$defs")) source.delete("definitions");
  const body = reduceBody(source, path, depth, reduction);
  const [left] = source.keys();
  if (left !== undefined) throw unsupported(left, path);
  return body;
}

function reduceEach(schemas: Schema, path: string, depth: number, reduction: Reduction): Schema {
  return Object.fromEntries(
    Object.entries(schemas).map(([key, value]) => [key, reduce(value, `${path}.${key}`, depth, reduction)]),
  );
}

function spend(reduction: Reduction, schemas: number): void {
  reduction.schemasLeft -= schemas;
  if (reduction.schemasLeft < 0)
    throw invalid(
      `the schema becomes more than ${MAX_SCHEMAS} schemas and values; the embedded engine takes no more`,
      ROOT,
    );
}

/** Reads what it understands out of `source`; what stays in it is not supported. */
function reduceBody(source: Map<string, unknown>, path: string, depth: number, reduction: Reduction): Schema {
  if (source.has("$ref")) return { $ref: localReference(take(source, "$ref"), path, reduction) };
  const constant = source.has("const") ? [take(source, "const")] : take(source, "enum");
  if (constant !== undefined) {
    source.delete("type");
    const values = parseList(constant, `${path}.enum`);
    if (values.some((value) => typeof value === "object" && value !== null)) throw unsupported("enum of objects", path);
    spend(reduction, values.length);
    return { enum: values };
  }
  const [keyword = "anyOf"] = ["anyOf", "oneOf", "allOf"].filter((name) => source.has(name));
  const alternatives = keyword === "allOf" ? single(take(source, keyword), path) : take(source, keyword);
  if (alternatives !== undefined) {
    const items = parseList(alternatives, `${path}.${keyword}`);
    source.delete("type");
    return { oneOf: items.map((item, index) => reduce(item, `${path}.${keyword}.${index}`, depth + 1, reduction)) };
  }
  const type =
    take(source, "type") ?? (source.has("properties") ? "object" : source.has("items") ? "array" : undefined);
  if (Array.isArray(type)) {
    const shared = Object.fromEntries(source);
    source.clear();
    return {
      oneOf: parseTypes(type, path).map((one) =>
        reduce({ type: one, ...keywordsOf(one, shared) }, path, depth + 1, reduction),
      ),
    };
  }
  if (type === "object") return reduceObject(source, path, depth, reduction);
  if (type === "array") return reduceArray(source, path, depth, reduction);
  if (typeof type === "string" && SCALARS.has(type)) return reduceScalar(source, type, path);
  if (type === undefined) return anyValue(reduction);
  throw invalid(`${path}.type is ${JSON.stringify(type)}`, `${path}.type`);
}

/** Anything else than a definition that is there would silently allow everything. */
function localReference(reference: unknown, path: string, { definitions }: Reduction): string {
  const field = `${path}.$ref`;
  if (typeof reference !== "string") throw invalid(`${field} is not a text`, field);
  const name = /^#\/(?:\$defs|definitions)\/([^/]+)$/.exec(reference)?.[1];
  if (name === undefined) throw unsupported(`$ref: ${reference}`, path);
  if (!definitions.has(name))
    throw invalid(`${field} is ${JSON.stringify(reference)}, which the schema does not define`, field);
  return `#/$defs/${name}`;
}

function reduceObject(source: Map<string, unknown>, path: string, depth: number, reduction: Reduction): Schema {
  const properties = parseObject(take(source, "properties") ?? {}, `${path}.properties`);
  const required = requiredSchema.safeParse(take(source, "required") ?? []);
  if (!required.success) throw invalid(`${path}.required is not a list of names`, `${path}.required`);
  const missing = required.data.find((key) => !Object.hasOwn(properties, key));
  if (missing !== undefined)
    throw unsupported(`required: ${JSON.stringify(missing)} without a property of that name`, path);
  const additional = take(source, "additionalProperties");
  return {
    type: "object",
    properties: reduceEach(properties, `${path}.properties`, depth + 1, reduction),
    // Allowed is not wanted: an open object with named properties gets just those.
    additionalProperties:
      additional === undefined || typeof additional === "boolean"
        ? additional !== false && Object.keys(properties).length === 0
        : reduce(additional, `${path}.additionalProperties`, depth + 1, reduction),
    ...takeCounts(source, ["minProperties", "maxProperties"], path),
  };
}

function reduceArray(source: Map<string, unknown>, path: string, depth: number, reduction: Reduction): Schema {
  const items = take(source, "items");
  const prefix = take(source, "prefixItems");
  return {
    type: "array",
    ...(items === undefined || items === false ? {} : { items: reduce(items, `${path}.items`, depth + 1, reduction) }),
    ...(prefix === undefined
      ? {}
      : {
          prefixItems: parseList(prefix, `${path}.prefixItems`).map((item, index) =>
            reduce(item, `${path}.prefixItems.${index}`, depth + 1, reduction),
          ),
        }),
    ...takeCounts(source, ["minItems", "maxItems"], path),
  };
}

function reduceScalar(source: Map<string, unknown>, type: string, path: string): Schema {
  if (type === "string") {
    const format = take(source, "format");
    // By the standard a format only describes; these three can be held to.
    const held = typeof format === "string" && FORMATS.has(format) ? { format } : {};
    return { type, ...held, ...takeCounts(source, ["minLength", "maxLength"], path) };
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

/** By hand: a library's parser would copy everything at every level (I1). */
function isObject(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseObject(value: unknown, path: string): Schema {
  if (!isObject(value)) throw invalid(`${path} is not an object`, path);
  return value;
}

function parseList(value: unknown, path: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length === 0) throw invalid(`${path} is not a list with something in it`, path);
  return value;
}

/** Each type once: whoever says `object` eight times at every level would have each level copied eightfold. */
function parseTypes(types: readonly unknown[], path: string): readonly string[] {
  const parsed = typesSchema.safeParse(types);
  if (!parsed.success) throw invalid(`${path}.type is not a list of types`, `${path}.type`);
  return [...new Set(parsed.data)];
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

const TYPED_KEYWORDS = new Set(Object.values(KEYWORDS).flat());

/** Of a schema with several types, the keywords that concern one of them, and those that concern none we know. */
function keywordsOf(type: string, shared: Schema): Schema {
  const own = KEYWORDS[type] ?? [];
  return Object.fromEntries(
    Object.entries(shared).filter(([keyword]) => own.includes(keyword) || !TYPED_KEYWORDS.has(keyword)),
  );
}

function anyValue(reduction: Reduction): Schema {
  spend(reduction, SCALARS.size + 2);
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

function takeCounts(source: Map<string, unknown>, keys: readonly string[], path: string): Schema {
  return Object.fromEntries(
    keys.flatMap((key) => {
      if (!source.has(key)) return [];
      const count = countSchema.safeParse(take(source, key));
      if (!count.success) throw invalid(`${path}.${key} is not a count`, `${path}.${key}`);
      return [[key, count.data]];
    }),
  );
}

/** `schema.properties.a` → the same place in the request. */
function fieldOf(path: string): string {
  return `${FIELD}${path.slice(ROOT.length)}`;
}

function invalid(message: string, path: string): UserError {
  return new UserError("invalid_params", message, { details: { field: fieldOf(path) } });
}

function unsupported(what: string, path: string): UserError {
  return new UserError("capability_missing", `the embedded engine cannot hold an answer to \`${what}\` (at ${path})`, {
    details: { field: fieldOf(path) },
  });
}

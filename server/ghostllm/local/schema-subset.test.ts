import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { z } from "zod";
import { UserError } from "../../base/errors.ts";
import { reduceSchema } from "./schema-subset.ts";

test("what only describes is dropped, what can be held is kept", () => {
  const schema = {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Answer",
    type: "object",
    description: "d",
    properties: {
      kind: { enum: ["a", "b"], type: "string" },
      name: { anyOf: [{ type: "string", maxLength: 5 }, { type: "null" }] },
      at: { type: "string", format: "date-time" },
      mail: { type: "string", format: "email" },
      list: { type: "array", items: { $ref: "#/definitions/item" }, maxItems: 3 },
      many: { type: ["string", "null"], minLength: 1 },
      count: { type: "integer", minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER },
    },
    required: ["kind"],
    additionalProperties: false,
    definitions: { item: { const: 1 } },
  };
  assert.deepEqual(reduceSchema(schema), {
    type: "object",
    properties: {
      kind: { enum: ["a", "b"] },
      name: { oneOf: [{ type: "string", maxLength: 5 }, { type: "null" }] },
      at: { type: "string", format: "date-time" },
      mail: { type: "string" },
      list: { type: "array", items: { $ref: "#/$defs/item" }, maxItems: 3 },
      many: { oneOf: [{ type: "string", minLength: 1 }, { type: "null" }] },
      count: { type: "integer" },
    },
    additionalProperties: false,
    $defs: { item: { enum: [1] } },
  });
});

test("schemas of zod pass", () => {
  const schema = z.toJSONSchema(
    z.object({ name: z.string(), age: z.int(), tags: z.array(z.string()).max(2), more: z.boolean().optional() }),
  );
  assert.equal(reduceSchema(schema)["type"], "object");
});

const refused: readonly (readonly [schema: unknown, code: string, says: RegExp])[] = [
  [{ type: "string", pattern: "a+" }, "capability_missing", /`pattern` \(at schema\)/],
  [
    { type: "object", properties: { a: { type: "number", minimum: 3 } } },
    "capability_missing",
    /`minimum` \(at schema\.properties\.a\)/,
  ],
  [{ allOf: [{ type: "string" }, { minLength: 2 }] }, "capability_missing", /allOf/],
  [{ type: "object", required: ["b"] }, "capability_missing", /required: "b"/],
  [{ $ref: "https://example.com/schema.json" }, "capability_missing", /\$ref: https/],
  [{ type: "strange" }, "invalid_params", /schema\.type is "strange"/],
  ["string", "invalid_params", /schema is not a JSON schema/],
  [{ type: "string", const: "x".repeat(70_000) }, "invalid_params", /characters/],
  [nested(20_000), "invalid_params", /nested deeper/],
  [nested(60), "invalid_params", /nested deeper/],
  [manyObjects(15, ["object", ["object"]]), "invalid_params", /type is not a list of types/],
  [
    { type: "array", prefixItems: Array.from({ length: 3000 }, () => ({ type: "null" })) },
    "invalid_params",
    /1000 schemas/,
  ],
  [{ type: "array", prefixItems: Array.from({ length: 1000 }, () => ({})) }, "invalid_params", /1000 schemas/],
  [{ enum: Array.from({ length: 1001 }, (_, value) => value) }, "invalid_params", /1000 schemas and values/],
  [{ $ref: "#/$defs/nope" }, "invalid_params", /"#\/\$defs\/nope", which the schema does not define/],
  [{ $ref: "#/$defs/constructor", $defs: {} }, "invalid_params", /does not define/],
  [
    { type: "object", properties: { a: { $defs: { inner: {} }, $ref: "#/$defs/inner" } } },
    "invalid_params",
    /properties\.a\.\$ref is .*inner/,
  ],
  [{ $ref: 5 }, "invalid_params", /\$ref is not a text/],
  [{ enum: 5 }, "invalid_params", /schema\.enum is not a list/],
  [{ enum: [] }, "invalid_params", /schema\.enum is not a list with something in it/],
  [{ oneOf: {} }, "invalid_params", /schema\.oneOf is not a list/],
  [{ type: "object", properties: [] }, "invalid_params", /schema\.properties is not an object/],
  [{ type: "object", properties: {}, required: "a" }, "invalid_params", /schema\.required is not a list of names/],
  [{ type: "object", additionalProperties: 5 }, "invalid_params", /additionalProperties is not a JSON schema/],
  [{ type: "array", prefixItems: 5 }, "invalid_params", /prefixItems is not a list/],
  [{ type: "array", minItems: "2" }, "invalid_params", /schema\.minItems is not a count/],
  [{ $defs: 5, type: "null" }, "invalid_params", /schema\.\$defs is not an object/],
];
for (const [schema, code, says] of refused) {
  test(`refused: ${code}, ${says.source}`, () => {
    assert.throws(
      () => reduceSchema(schema),
      (error: unknown) => {
        assert.ok(error instanceof UserError, String(error));
        assert.equal(error.code, code, error.message);
        assert.match(error.message, says);
        assert.match(String(error.details["field"]), /^response_format\.json_schema\.schema/);
        return true;
      },
    );
  });
}

test("a type that is named many times is one type, and costs as much as one", () => {
  const of = (depth: number, types: readonly unknown[]) => reduceSchema(manyObjects(depth, types));
  assert.deepEqual(of(3, ["object", "object", "null"]), of(3, ["object", "null"]));
  // Copied eightfold at each of fifteen levels, this would never come to an end.
  assert.ok(JSON.stringify(of(15, Array(8).fill("object"))).length < 4000);
});

test("the field of an error is the place in the request", () => {
  assert.throws(
    () => reduceSchema({ type: "object", properties: { a: { enum: 5 } } }),
    (error: unknown) =>
      error instanceof UserError && error.details["field"] === "response_format.json_schema.schema.properties.a.enum",
  );
});

test("what a schema defines can be meant, also by itself", () => {
  const list = { type: "object", properties: { next: { anyOf: [{ $ref: "#/$defs/list" }, { type: "null" }] } } };
  assert.deepEqual(reduceSchema({ $ref: "#/$defs/list", $defs: { list } }), {
    $ref: "#/$defs/list",
    $defs: {
      list: {
        type: "object",
        properties: { next: { oneOf: [{ $ref: "#/$defs/list" }, { type: "null" }] } },
        additionalProperties: false,
      },
    },
  });
});

test("no JSON makes the reduction throw anything but a typed refusal", () => {
  const keyword = fc.constantFrom(
    "type",
    "properties",
    "items",
    "enum",
    "anyOf",
    "$ref",
    "$defs",
    "required",
    "minItems",
  );
  const word = fc.constantFrom("object", "array", "string", "#/$defs/a", "a");
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 6 },
      word,
      fc.constantFrom(null, true, false, 5),
      fc.array(tie("value"), { maxLength: 3 }),
      fc.dictionary(fc.oneof(keyword, word), tie("value"), { maxKeys: 4 }),
    ),
  }));
  let reduced = 0;
  fc.assert(
    fc.property(value, (schema) => {
      try {
        reduceSchema(schema);
        reduced += 1;
      } catch (error) {
        assert.ok(error instanceof UserError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
  assert.ok(reduced > 0);
});

/** Arrays in arrays. */
function nested(levels: number): unknown {
  let schema: unknown = { type: "string" };
  for (let level = 0; level < levels; level += 1) schema = { items: schema };
  return schema;
}

/** Each level an object of the given types with the next level in it. */
function manyObjects(levels: number, types: readonly unknown[]): unknown {
  let schema: unknown = { type: "string" };
  for (let level = 0; level < levels; level += 1) schema = { type: types, properties: { a: schema } };
  return schema;
}

import assert from "node:assert/strict";
import { test } from "node:test";
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
];
for (const [schema, code, says] of refused) {
  test(`refused: ${JSON.stringify(schema).slice(0, 60)}`, () => {
    assert.throws(
      () => reduceSchema(schema),
      (error: unknown) => error instanceof UserError && error.code === code && says.test(error.message),
    );
  });
}

/** Schemas as Gemini takes them: what it does not know is said in another way or told in words, never lost. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { toGeminiSchema, toParameters } from "./gemini-schema.ts";

const check = (schema: unknown, expected: object) => assert.deepEqual(toGeminiSchema(schema), expected);

const cases: readonly [name: string, schema: object, expected: object][] = [
  [
    "what it knows stays as it is",
    { type: "object", properties: { a: { type: ["string", "null"], enum: ["x", "y"] } }, required: ["a"] },
    { type: "object", properties: { a: { type: ["string", "null"], enum: ["x", "y"] } }, required: ["a"] },
  ],
  ["a constant is one choice", { type: "string", const: "a" }, { type: "string", enum: ["a"] }],
  ["a constant of another kind is told", { const: true }, { description: "const: true" }],
  [
    "alternatives",
    { oneOf: [{ type: "string" }, { type: "number" }] },
    { anyOf: [{ type: "string" }, { type: "number" }] },
  ],
  [
    "rules that it does not know stand in the description",
    { type: "string", description: "A word.", pattern: "^a", minLength: 2, format: "email", not: { const: "x" } },
    { type: "string", description: 'A word.\npattern: "^a"\nminLength: 2\nformat: "email"\nnot: {"const":"x"}' },
  ],
  ["a format that it knows", { type: "string", format: "date" }, { type: "string", format: "date" }],
  [
    "open bounds of whole numbers",
    { type: "integer", exclusiveMinimum: 0, exclusiveMaximum: 10 },
    { type: "integer", minimum: 1, maximum: 9 },
  ],
  [
    "open bounds of other numbers are told",
    { type: "number", exclusiveMinimum: 0 },
    { type: "number", description: "exclusiveMinimum: 0" },
  ],
  [
    "the parts of allOf together",
    {
      type: "object",
      allOf: [
        { properties: { a: { type: "string" } }, required: ["a"] },
        { properties: { b: { type: "integer" } }, required: ["b"], description: "Both." },
      ],
    },
    {
      type: "object",
      properties: { a: { type: "string" }, b: { type: "integer" } },
      required: ["a", "b"],
      description: "Both.",
    },
  ],
  [
    "parts that contradict each other are told",
    { allOf: [{ minimum: 1 }, { minimum: 2 }] },
    { description: 'allOf: [{"minimum":1},{"minimum":2}]' },
  ],
  [
    "definitions and references",
    { properties: { a: { $ref: "#/definitions/A", description: "It." } }, definitions: { A: { type: "string" } } },
    {
      type: "object",
      properties: { a: { description: "It.", anyOf: [{ $ref: "#/$defs/A" }] } },
      $defs: { A: { type: "string" } },
    },
  ],
  ["nullable", { type: "string", nullable: true }, { type: ["string", "null"] }],
  ["tuples", { items: [{ type: "string" }, { const: 1 }] }, { prefixItems: [{ type: "string" }, { enum: [1] }] }],
  [
    "members of any name",
    { type: "object", additionalProperties: { type: "string", pattern: "a" } },
    { type: "object", additionalProperties: { type: "string", description: 'pattern: "a"' } },
  ],
  ["anything", { type: "array", items: true, $schema: "x" }, { type: "array", description: "items: true" }],
];
for (const [name, schema, expected] of cases) test(name, () => check(schema, expected));

test("a schema without an end is cut, and a strange one is anything", () => {
  const circle: Record<string, unknown> = { type: "object" };
  circle["properties"] = { again: circle };
  assert.ok(JSON.stringify(toGeminiSchema(circle)).length < 10_000);
  check("string", {});
  check(true, {});
});

test("a function without parameters has no schema, and all others have one of an object", () => {
  const empty = { type: "object", properties: {}, additionalProperties: false, $schema: "x" };
  assert.deepEqual([toParameters(empty), toParameters(undefined), toParameters({})], [undefined, undefined, undefined]);
  const alternatives = { anyOf: [{ required: ["a"] }, { required: ["b"] }] };
  assert.deepEqual(toParameters(alternatives), { ...alternatives, type: "object" });
  assert.deepEqual(toParameters({ type: "object", additionalProperties: true, minProperties: 1 }), {
    type: "object",
    additionalProperties: true,
    description: "minProperties: 1",
  });
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { toOutputSchema } from "./anthropic-schema.ts";

const text = { type: "string" };
const object = (properties: object, more: object = {}) => ({ type: "object", properties, ...more });
const closed = (properties: object, more: object = {}) => object(properties, { ...more, additionalProperties: false });

const cases: readonly (readonly [what: string, schema: unknown, expected: unknown])[] = [
  [
    "what it knows stays",
    object({ a: text }, { required: ["a"], title: "T" }),
    closed({ a: text }, { required: ["a"], title: "T" }),
  ],
  ["objects are closed, at every depth", object({ a: object({ b: text }) }), closed({ a: closed({ b: text }) })],
  [
    "bounds are told in words, behind what was said",
    object({ a: { type: "integer", minimum: 1, description: "How many." } }),
    closed({ a: { type: "integer", description: "How many.\nminimum: 1" } }),
  ],
  [
    "formats and lengths as far as it knows them",
    object({
      a: { ...text, format: "date" },
      b: { ...text, format: "odd" },
      c: { type: "array", items: text, minItems: 1, maxItems: 9 },
    }),
    closed({
      a: { ...text, format: "date" },
      b: { ...text, description: 'format: "odd"' },
      c: { type: "array", items: text, minItems: 1, description: "maxItems: 9" },
    }),
  ],
  [
    "alternatives and definitions",
    object({ a: { oneOf: [text, { $ref: "#/$defs/x" }] } }, { $defs: { x: object({ y: text }) }, $schema: "s" }),
    closed({ a: { anyOf: [text, { $ref: "#/$defs/x" }] } }, { $defs: { x: closed({ y: text }) } }),
  ],
  ["an object without members", object({}, { additionalProperties: false }), closed({})],
  ["members of any name cannot be said", object({ a: { type: "object" } }), undefined],
  ["nor members by pattern", object({ a: object({ b: text }, { patternProperties: { "^x": text } }) }), undefined],
  [
    "nor maps in an alternative",
    object({ a: { anyOf: [text, { type: "object", additionalProperties: text }] } }),
    undefined,
  ],
  ["nor maps in a list or a definition", object({ a: { type: "array", items: { type: "object" } } }), undefined],
  ["what is no object is no answer", { type: "array", items: text }, undefined],
  ["nor is what is no schema", "text", undefined],
];
for (const [what, schema, expected] of cases) {
  test(what, () => assert.deepEqual(toOutputSchema(schema), expected));
}

test("a circle in a program's object ends", () => {
  const circle: Record<string, unknown> = { type: "object" };
  circle["properties"] = { a: circle };
  assert.equal(toOutputSchema(circle), undefined);
});

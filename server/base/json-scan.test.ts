import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { arrayElements, findMembers, jsonExcess, setMembers, topLevelMembers } from "./json-scan.ts";

const set = (json: string, values: Record<string, string>) => setMembers(Buffer.from(json), values).toString("utf8");

const cases: readonly [name: string, json: string, values: Record<string, string>, expected: string][] = [
  [
    "replaces a value and nothing else",
    '{"a":1,"model":"x/y","b":[1,{"model":"z"}]}',
    { model: '"y"' },
    '{"a":1,"model":"y","b":[1,{"model":"z"}]}',
  ],
  ["adds what is absent", '{"a":1}', { s: "true" }, '{"a":1,"s":true}'],
  ["adds to an empty object", " {} ", { s: "true" }, ' {"s":true} '],
  [
    "keeps numbers, spaces and order as they were",
    '{ "seed" : 12345678901234567890 ,\n"model":\t"a" }',
    { model: '"b"' },
    '{ "seed" : 12345678901234567890 ,\n"model":\t"b" }',
  ],
  [
    "is not fooled by quotes and braces in strings",
    '{"x":"\\"}{model\\\\","model":"a"}',
    { model: '"b"' },
    '{"x":"\\"}{model\\\\","model":"b"}',
  ],
  ["knows escaped keys", '{"mod\\u0065l":"a"}', { model: '"b"' }, '{"mod\\u0065l":"b"}'],
  ["replaces a key that stands twice in both places", '{"m":1,"m":2}', { m: "3" }, '{"m":3,"m":3}'],
];
for (const [name, json, values, expected] of cases) test(name, () => assert.equal(set(json, values), expected));

test("agrees with a full parse on any object", () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string(), fc.jsonValue()),
      fc.constantFrom(undefined, 2),
      fc.string(),
      (object, indent, key) => {
        const text = JSON.stringify(object, undefined, indent);
        const replaced: unknown = JSON.parse(set(text, { [key]: '{"new":[1]}' }));
        const expected = Object.fromEntries([
          ...Object.entries(JSON.parse(text)).filter(([name]) => name !== key),
          [key, { new: [1] }],
        ]);
        assert.deepEqual(Object.fromEntries(Object.entries(replaced ?? {})), expected);
        assert.equal(topLevelMembers(Buffer.from(text)).length, Object.keys(object).length);
      },
    ),
  );
});

test("names of Object's prototype are keys like any other", () => {
  const json = '{"constructor":1,"toString":2,"__proto__":{},"model":"a"}';
  assert.equal(set(json, { model: '"b"' }), json.replace('"a"', '"b"'));
});

test("places found before give the same result", () => {
  const json = Buffer.from('{"a":[1,{"model":2}],"model":"x"}');
  const values = { model: '"y"', stream_options: "{}" };
  assert.deepEqual(setMembers(json, values, findMembers(json, Object.keys(values))), setMembers(json, values));
});

test("depth and values are counted outside of strings, also in broken text", () => {
  const limits = { maxDepth: 3, maxValues: 5 };
  const excess = (text: string) => jsonExcess(Buffer.from(text), limits);
  assert.equal(excess('{"a":[[1]]}'), undefined);
  assert.equal(excess('{"a":[[[1]]]}'), "depth");
  assert.equal(excess("[[[["), "depth");
  assert.equal(excess('{"a":"[[[[,,,,,,\\"[["}'), undefined);
  assert.equal(excess("[1,2,3,4,5,6,7]"), "values");
  assert.equal(excess("[{},{},{}]"), "values");
});

test("an array's elements are found at any spacing, and what is broken ends them", () => {
  const elements = (text: string) => arrayElements(Buffer.from(text)).map(String);
  assert.deepEqual(elements("[]"), []);
  assert.deepEqual(elements(' [ 1 , "a,]" ,{"b":[2,3]}, [4] ,null ] '), ["1", '"a,]"', '{"b":[2,3]}', "[4]", "null"]);
  assert.deepEqual(elements('[1,"open'), ["1", '"open']);
  fc.assert(
    fc.property(fc.array(fc.jsonValue()), fc.nat(2), (values, spaces) => {
      const text = JSON.stringify(values, null, spaces);
      assert.deepEqual(
        elements(text).map((element) => JSON.parse(element)),
        JSON.parse(text),
      );
    }),
  );
});

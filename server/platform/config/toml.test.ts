import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { stringify } from "smol-toml";
import { UserError } from "../../base/errors.ts";
import { formatPath, isTable, parseToml, type TomlPath } from "./toml.ts";

const text = [
  /*  1 */ '# a comment with [brackets] and "quotes"',
  /*  2 */ "top = 1",
  /*  3 */ "[providers.ollama.hosts.ws4090]",
  /*  4 */ '  url = "http://127.0.0.1:11434" # [not.a.table]',
  /*  5 */ '  num_ctx = { "a.b" = 1, plain = { deep.er = 2 } }',
  /*  6 */ "dotted . key = true",
  /*  7 */ 'long = """',
  /*  8 */ "[neither.this]",
  /*  9 */ 'fake = 1 \\""" still inside""""',
  /* 10 */ "list = [ 'x', # comment ]",
  /* 11 */ "  { inner = 1 },",
  /* 12 */ "]",
  /* 13 */ "[[servers]]",
  /* 14 */ 'name = "first"',
  /* 15 */ "[[servers]]",
  /* 16 */ 'name = "second"',
  /* 17 */ "[servers.more]",
  /* 18 */ "x = 1979-05-27 07:32:00",
  /* 19 */ '["quoted \\u00e9".\'it"s\']',
  /* 20 */ "z = -0.5",
].join("\n");

test("every way to write a key is found at its line and column", () => {
  const document = parseToml(text, "x.toml");
  const cases: readonly [TomlPath, key: string, value: string][] = [
    [["top"], "2:1", "2:7"],
    [["providers"], "3:2", "3:1"],
    [["providers", "ollama", "hosts", "ws4090"], "3:25", "3:1"],
    [["providers", "ollama", "hosts", "ws4090", "url"], "4:3", "4:9"],
    [["providers", "ollama", "hosts", "ws4090", "num_ctx", "a.b"], "5:15", "5:23"],
    [["providers", "ollama", "hosts", "ws4090", "num_ctx", "plain", "deep", "er"], "5:41", "5:46"],
    [["providers", "ollama", "hosts", "ws4090", "dotted", "key"], "6:10", "6:16"],
    [["providers", "ollama", "hosts", "ws4090", "long"], "7:1", "7:8"],
    [["providers", "ollama", "hosts", "ws4090", "list", 0], "10:10", "10:10"],
    [["providers", "ollama", "hosts", "ws4090", "list", 1, "inner"], "11:5", "11:13"],
    [["servers", 0, "name"], "14:1", "14:8"],
    [["servers", 1, "name"], "16:1", "16:8"],
    [["servers", 1, "more", "x"], "18:1", "18:5"],
    [["quoted é", 'it"s', "z"], "20:1", "20:5"],
    // What is not written has the place of the nearest parent that is.
    [["providers", "ollama", "hosts", "ws4090", "vram_gib"], "3:25", "3:25"],
    [["absent"], "1:1", "1:1"],
  ];
  const show = ({ line, column }: { line: number; column: number }) => `${line}:${column}`;
  for (const [path, key, value] of cases) {
    assert.deepEqual([show(document.keyPlace(path)), show(document.valuePlace(path))], [key, value], formatPath(path));
  }
});

test("whatever a TOML writer writes, each value is found where it stands", () => {
  const key = fc
    .string({ minLength: 1, maxLength: 6 })
    .filter((name) => name !== "__proto__" && name !== "constructor");
  const leaf = fc.oneof(fc.integer({ min: 100, max: 1e6 }), fc.string({ maxLength: 8 }), fc.boolean());
  const { table } = fc.letrec((tie) => ({
    table: fc.dictionary(
      key,
      fc.oneof({ maxDepth: 3, withCrossShrink: true }, leaf, tie("table"), fc.array(leaf, { maxLength: 3 })),
      { maxKeys: 4 },
    ),
  }));
  let examined = 0;
  fc.assert(
    fc.property(table, (value) => {
      const written = stringify(value);
      const document = parseToml(written, "x.toml");
      const lines = written.split("\n");
      for (const [path, found] of numbersIn(document.root, [])) {
        const { line, column } = document.valuePlace(path);
        assert.equal((lines[line - 1] ?? "").slice(column - 1, column - 1 + found.length), found, formatPath(path));
        examined += 1;
      }
    }),
    { numRuns: 300 },
  );
  assert.ok(examined > 50, `examined ${examined} values`);
});

function* numbersIn(value: unknown, path: TomlPath): Generator<readonly [TomlPath, string]> {
  if (typeof value === "number") yield [path, String(value)];
  else if (Array.isArray(value)) for (const [index, item] of value.entries()) yield* numbersIn(item, [...path, index]);
  else if (isTable(value)) for (const [key, below] of Object.entries(value)) yield* numbersIn(below, [...path, key]);
}

test("broken TOML names file, line and column and never quotes the file", () => {
  const cases: readonly [text: string, place: string][] = [
    ["[http\nport = 1", "ghost.toml:1:"],
    ['[http]\nport = 1\nname = "sk-secret', "ghost.toml:3:"],
    ["[http]\nport = 1\nport = 2", "ghost.toml:3:1"],
    ["a = sk-secret", "ghost.toml:1:"],
    ["a = 1 b = 2", "ghost.toml:1:"],
    ["[a]\n[a]", "ghost.toml:2:"],
    ["constructor = 1", "ghost.toml:1:1"],
    ["x = " + "[".repeat(5000), "ghost.toml:1:"],
  ];
  for (const [broken, place] of cases) {
    assert.throws(
      () => parseToml(broken, "ghost.toml"),
      (error) => {
        assert.ok(error instanceof UserError);
        assert.equal(error.code, "config_syntax");
        assert.ok(error.message.startsWith(place), error.message);
        assert.ok(!error.message.includes("secret"), error.message);
        assert.ok(!error.message.includes("\n"), error.message);
        assert.equal(error.details["file"], "ghost.toml");
        return true;
      },
      broken.slice(0, 40),
    );
  }
});

test("any text is either parsed and scanned to its end, or refused as config_syntax", () => {
  const piece = fc.oneof(
    fc.constantFrom(
      "[",
      "]",
      "[[",
      "]]",
      "=",
      ".",
      '"',
      "'",
      '"""',
      "'''",
      "{",
      "}",
      ",",
      "\n",
      "#",
      " ",
      "\\",
      "a",
      "1",
      "a = 1\n",
    ),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      try {
        parseToml(pieces.join(""), "x");
      } catch (error) {
        assert.ok(error instanceof UserError && error.code === "config_syntax", String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../base/errors.ts";
import { parseRuleFile } from "./rule-file.ts";

const parse = (text: string | undefined) => parseRuleFile(text, "warden.toml");

test("the user's own file is read as it is", () => {
  const { rules, scoped } = parse(`# warden.toml: the user's own words, kept as they are
[capabilities]
fs.write = "prompt"
cmd.exec = "deny"
net.http = "allow"
[scopes]
"repo:ghostctl".fs.write = "allow"
`);
  assert.deepEqual(rules, [
    { capability: "fs.write", verdict: "prompt", line: 3 },
    { capability: "cmd.exec", verdict: "deny", line: 4 },
    { capability: "net.http", verdict: "allow", line: 5 },
  ]);
  assert.deepEqual(scoped, [{ scope: "repo:ghostctl", capability: "fs.write", verdict: "allow", line: 7 }]);
});

test("dotted, quoted, nested and inline names mean the same", () => {
  const expected = [
    { capability: "fs.write", verdict: "deny" },
    { capability: "fs.read", verdict: "allow" },
  ];
  const texts = [
    '[capabilities]\nfs.write = "deny"\nfs.read = "allow"',
    '[capabilities]\n"fs.write" = "deny"\n"fs.read" = "allow"',
    '[capabilities.fs]\nwrite = "deny"\nread = "allow"',
    'capabilities = { fs = { write = "deny", read = "allow" } }',
    'capabilities.fs.write = "deny"\ncapabilities."fs.read" = "allow"',
  ];
  for (const text of texts) {
    assert.deepEqual(
      parse(text).rules.map(({ capability, verdict }) => ({ capability, verdict })),
      expected,
      text,
    );
  }
});

test("a file that is empty or does not exist has no rules", () => {
  for (const text of [undefined, "", "# nothing\n", "[capabilities]\n[scopes]\n"]) {
    assert.deepEqual(parse(text), { file: "warden.toml", rules: [], scoped: [] });
  }
});

const WRONG: readonly (readonly [text: string, message: string])[] = [
  ["[capabilites]", "warden.toml:1:2: there is no section capabilites. Did you mean `capabilities`?"],
  ['fs.write = "deny"', "warden.toml:1:1: there is no section fs. Capabilities stand below [capabilities]."],
  ['[capabilities]\nfs.wirte = "deny"', 'warden.toml:2:4: there is no capability "fs.wirte". Did you mean `fs.write`?'],
  [
    '[capabilities]\n"cmd.exce" = "deny"',
    'warden.toml:2:1: there is no capability "cmd.exce". Did you mean `cmd.exec`?',
  ],
  [
    '[capabilities]\nfs = "deny"',
    'warden.toml:2:1: there is no capability "fs". Did you mean `fs.read` or `fs.write`?',
  ],
  ['[capabilities]\nexec = "deny"', 'warden.toml:2:1: there is no capability "exec". Did you mean `cmd.exec`?'],
  [
    '[capabilities]\nfs.write = "alow"',
    'warden.toml:2:12: fs.write: expected "allow", "prompt" or "deny", found another string. Did you mean `allow`?',
  ],
  ["[capabilities]\nfs.write = true", 'warden.toml:2:12: fs.write: expected "allow", "prompt" or "deny", found true'],
  [
    '[capabilities]\nfs.write = ["deny"]',
    'warden.toml:2:12: fs.write: expected "allow", "prompt" or "deny", found a list',
  ],
  [
    '[capabilities]\nfs.write = "deny"\n"fs.write" = "allow"',
    "warden.toml:3:1: fs.write already has a verdict, on line 2",
  ],
  ['capabilities = "deny"', "warden.toml:1:16: capabilities: expected a table, found another string"],
  ["scopes = 1", "warden.toml:1:10: scopes: expected a table, found the number 1"],
  [
    '[scopes]\nfs.write = "deny"',
    'warden.toml:2:1: scopes.fs: a scope is written "kind:name", for example "repo:ghostctl"',
  ],
  [
    '[scopes]\n"repo:x".fs.wirte = "deny"',
    'warden.toml:2:13: there is no capability "fs.wirte". Did you mean `fs.write`?',
  ],
  ['[scopes]\n"repo:x" = "deny"', 'warden.toml:2:12: scopes."repo:x": expected a table, found another string'],
];

test("a wrong rule is named with line, column and the nearest known name", () => {
  for (const [text, message] of WRONG) {
    assert.throws(
      () => parse(text),
      (error) => {
        assert.ok(error instanceof UserError);
        assert.equal(error.code, "config_invalid");
        assert.equal(error.message, message);
        return true;
      },
      text,
    );
  }
  assert.throws(() => parse("[capabilities\n"), { code: "config_syntax", message: /^warden\.toml:1:/ });
});

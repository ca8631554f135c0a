import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { capabilitySchema, verdictSchema } from "../../protocol/policy.ts";
import { renderConfigurationManual } from "../platform/config/manual.ts";
import { THIS_MACHINE } from "../platform/permit.ts";
import { CAPABILITY_DEFAULTS } from "./defaults.ts";
import { compilePolicy, decisionFor, describeRule, evaluate } from "./evaluate.ts";
import { parseRuleFile } from "./rule-file.ts";

const compile = (text: string) => compilePolicy(parseRuleFile(text, "warden.toml"));

test("a rule of the user wins over the default and is named with its line", () => {
  const policy = compile('[capabilities]\nnet.http = "allow"\ncmd.exec = "deny"');
  const effect = {
    capability: "net.http",
    resource: { kind: "url", method: "GET", origin: "http://a", path: "/" },
    host: THIS_MACHINE,
  } as const;
  const { verdict, rule } = evaluate(policy, effect);
  assert.equal(verdict, "allow");
  assert.equal(describeRule(rule), 'net.http = "allow" (warden.toml line 2)');
  assert.equal(describeRule(decisionFor(policy, "cmd.exec").rule), 'cmd.exec = "deny" (warden.toml line 3)');
  assert.equal(describeRule(decisionFor(policy, "fs.write").rule), 'fs.write = "prompt" (default)');
});

test("by default nothing that changes something is allowed without a question, and nothing is denied", () => {
  const policy = compile("");
  for (const capability of capabilitySchema.options) {
    const { verdict, rule } = decisionFor(policy, capability);
    assert.equal(rule.source, "default");
    assert.notEqual(verdict, "deny", capability);
    if (CAPABILITY_DEFAULTS[capability].changes) assert.equal(verdict, "prompt", capability);
  }
  assert.equal(decisionFor(policy, "llm.cloud").verdict, "allow");
  assert.equal(decisionFor(policy, "host.read").verdict, "allow");
  assert.equal(decisionFor(policy, "chain.read").verdict, "allow");
});

test("the manual names all capabilities and the defaults as they are", () => {
  const manual = renderConfigurationManual();
  const allowed = capabilitySchema.options.filter((capability) => CAPABILITY_DEFAULTS[capability].verdict === "allow");
  const names = allowed.map((capability) => `\`${capability}\``);
  assert.ok(manual.includes(`${names.slice(0, -1).join(", ")} and ${names.at(-1) ?? ""} are allowed`), names.join());
  for (const capability of capabilitySchema.options) assert.ok(manual.includes(`\`${capability}\``), capability);
});

test("a looser scope is not used and a stricter one holds everywhere, and both are said", () => {
  const policy = compile(
    [
      "[capabilities]",
      'fs.write = "prompt"',
      "[scopes]",
      '"repo:a".fs.write = "allow"',
      '"repo:b".llm.cloud = "deny"',
      '"repo:c".fs.write = "prompt"',
    ].join("\n"),
  );
  assert.equal(decisionFor(policy, "fs.write").verdict, "prompt");
  assert.deepEqual(decisionFor(policy, "llm.cloud"), {
    verdict: "deny",
    rule: { capability: "llm.cloud", verdict: "deny", source: "user", line: 5 },
  });
  assert.deepEqual(policy.warnings, [
    'warden.toml:4: scopes are not told apart by this version yet: fs.write = "allow" of "repo:a" is not used; "prompt" holds',
    'warden.toml:5: scopes are not told apart by this version yet: llm.cloud = "deny" of "repo:b" is stricter and holds everywhere',
  ]);
});

test("scopes only ever tighten, whatever they say and in whatever order", () => {
  const verdict = fc.constantFrom(...verdictSchema.options);
  const capability = fc.constantFrom(...capabilitySchema.options);
  const strictness = (value: string) => ["allow", "prompt", "deny"].indexOf(value);
  fc.assert(
    fc.property(
      fc.dictionary(capability, verdict),
      fc.array(fc.tuple(capability, verdict), { maxLength: 8 }),
      (own, scoped) => {
        const rules = Object.entries(own).map(([name, value]) => `"${name}" = "${value}"`);
        const scopes = scoped.map(([name, value], index) => `"repo:r${index}"."${name}" = "${value}"`);
        const base = compile(["[capabilities]", ...rules].join("\n"));
        const whole = compile(["[capabilities]", ...rules, "[scopes]", ...scopes].join("\n"));
        for (const name of capabilitySchema.options) {
          const strictest = Math.max(
            strictness(decisionFor(base, name).verdict),
            ...scoped.filter(([scopedName]) => scopedName === name).map(([, value]) => strictness(value)),
          );
          assert.equal(strictness(decisionFor(whole, name).verdict), strictest, name);
        }
      },
    ),
  );
});

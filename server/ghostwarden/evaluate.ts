/**
 * From rules to a verdict. Pure, and a look-up at the time of asking: compiled once for each version of warden.toml.
 * 1. A capability's own line in `[capabilities]` wins over the shipped default.
 * 2. This version does not know in which scope an effect happens, so it takes the safe side: of the scoped verdicts, one that is stricter than the
 *    capability's holds everywhere; a looser one is not used. Both are said in a warning.
 */
import { type Capability, capabilitySchema, type Verdict } from "../../protocol/policy.ts";
import { assert } from "../base/assert.ts";
import type { EffectRequest } from "../platform/permit.ts";
import { CAPABILITY_DEFAULTS } from "./defaults.ts";
import type { RuleFile } from "./rule-file.ts";

/** Which rule decided. */
export interface RuleRef {
  readonly capability: Capability;
  readonly verdict: Verdict;
  readonly source: "user" | "default";
  /** The line of warden.toml, for a rule of the user's. */
  readonly line?: number;
}

export interface Decision {
  readonly verdict: Verdict;
  readonly rule: RuleRef;
}

export interface Policy {
  /** One for every capability. */
  readonly decisions: ReadonlyMap<Capability, Decision>;
  /** What the user should know about the file, one sentence each. */
  readonly warnings: readonly string[];
}

export type Defaults = Readonly<Record<Capability, { readonly verdict: Verdict }>>;

const STRICTNESS: Readonly<Record<Verdict, number>> = { allow: 0, prompt: 1, deny: 2 };

export function compilePolicy(ruleFile: RuleFile, defaults: Defaults = CAPABILITY_DEFAULTS): Policy {
  const warnings: string[] = [];
  const decide = (capability: Capability): Decision => {
    const own = ruleFile.rules.find((rule) => rule.capability === capability);
    let rule: RuleRef =
      own === undefined
        ? { capability, verdict: defaults[capability].verdict, source: "default" }
        : { capability, verdict: own.verdict, source: "user", line: own.line };
    for (const scoped of ruleFile.scoped) {
      if (scoped.capability !== capability || scoped.verdict === rule.verdict) continue;
      const subject = `${ruleFile.file}:${scoped.line}: scopes are not told apart by this version yet: ${capability} = "${scoped.verdict}" of "${scoped.scope}"`;
      if (STRICTNESS[scoped.verdict] > STRICTNESS[rule.verdict]) {
        warnings.push(`${subject} is stricter and holds everywhere`);
        rule = { capability, verdict: scoped.verdict, source: "user", line: scoped.line };
      } else {
        warnings.push(`${subject} is not used; "${rule.verdict}" holds`);
      }
    }
    return { verdict: rule.verdict, rule };
  };
  return {
    decisions: new Map(capabilitySchema.options.map((capability) => [capability, decide(capability)])),
    warnings,
  };
}

export function evaluate(policy: Policy, effect: EffectRequest): Decision {
  return decisionFor(policy, effect.capability);
}

export function decisionFor(policy: Policy, capability: Capability): Decision {
  const decision = policy.decisions.get(capability);
  assert(decision !== undefined, `no decision was compiled for ${capability}`);
  return decision;
}

/** `fs.write = "deny" (warden.toml line 3)`, `net.http = "prompt" (default)`. */
export function describeRule(rule: RuleRef): string {
  const where = rule.source === "user" ? `warden.toml line ${rule.line ?? "?"}` : "default";
  return `${rule.capability} = "${rule.verdict}" (${where})`;
}

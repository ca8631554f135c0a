/** Why a plan was refused, and how that is said. Pure. */
import type { ClientId } from "../../protocol/ids.ts";
import { assert } from "../base/assert.ts";
import { type GhostError, OperationalError, UserError } from "../base/errors.ts";
import type { EffectRequest } from "../platform/permit.ts";
import type { Answer } from "./consent.ts";
import { CAPABILITY_DEFAULTS } from "./defaults.ts";
import { describeForPeople } from "./describe.ts";
import { type Decision, describeRule, type RuleRef } from "./evaluate.ts";

/** One question shows every effect of its plan; nobody reads more lines than these. */
export const MAX_PLAN_EFFECTS = 256;
/** An effect is shown in full or not at all: behind a longer line a person would not see what they consent to. */
const MAX_SHOWN_EFFECT_CHARACTERS = 4000;

export type Refusal =
  /** By a rule, or by a person: `by` is the face that said no. */
  | { readonly kind: "denied"; readonly rule: RuleRef; readonly reason: string; readonly by?: ClientId }
  /** Nobody answered in time. */
  | { readonly kind: "expired"; readonly rule: RuleRef; readonly reason: string }
  /** The actor's signal was aborted first. */
  | { readonly kind: "withdrawn"; readonly reason: string };

export interface Judged {
  readonly effect: EffectRequest;
  readonly decision: Decision;
}

export const WITHDRAWN = "the request was withdrawn before it was decided";

/** A refusal as the error that faces and APIs show: `denied`, `consent_expired` or `cancelled`. */
export function toError(refusal: Refusal): GhostError {
  switch (refusal.kind) {
    case "denied":
      return new UserError("denied", refusal.reason, { details: { rule: describeRule(refusal.rule) } });
    case "expired":
      return new UserError("consent_expired", refusal.reason, { details: { rule: describeRule(refusal.rule) } });
    case "withdrawn":
      return new OperationalError("cancelled", refusal.reason);
  }
}

/** The first effect that a rule denies, if any. */
export function denialOf(judged: readonly Judged[]): Refusal | undefined {
  const denied = judged.find(({ decision }) => decision.verdict === "deny");
  if (denied === undefined) return undefined;
  const { rule } = denied.decision;
  return {
    kind: "denied",
    rule,
    reason: `GhostWarden denies ${shorten(describeForPeople(denied.effect))}: ${describeRule(rule)}`,
  };
}

/** A plan that is too large to be shown is not asked about. */
export function unshowable(judged: readonly Judged[]): Refusal | undefined {
  const asking = judged.find(({ decision }) => decision.verdict === "prompt");
  if (asking === undefined && judged.length <= MAX_PLAN_EFFECTS) return undefined;
  const { rule } = (asking ?? judged[0])?.decision ?? {};
  assert(rule !== undefined, "a plan has effects");
  if (judged.length > MAX_PLAN_EFFECTS) {
    return {
      kind: "denied",
      rule,
      reason: `the plan has ${judged.length} effects, and at most ${MAX_PLAN_EFFECTS} are decided at once`,
    };
  }
  const long = judged.find(({ effect }) => describeForPeople(effect).length > MAX_SHOWN_EFFECT_CHARACTERS);
  if (long === undefined) return undefined;
  return {
    kind: "denied",
    rule,
    reason: `${shorten(describeForPeople(long.effect))} is too long to be shown in a question`,
  };
}

/** A question's ending as a refusal; undefined for a yes. */
export function refusalOf(answer: Answer, asking: Judged): Refusal | undefined {
  const { rule } = asking.decision;
  const what = shorten(describeForPeople(asking.effect));
  switch (answer.kind) {
    case "allow_once":
      return undefined;
    case "reject_once":
      return { kind: "denied", rule, reason: `you said no to ${what}`, by: answer.by };
    case "expired":
      return { kind: "expired", rule, reason: `nobody answered in time whether ${what} is all right` };
    case "withdrawn":
      return { kind: "withdrawn", reason: WITHDRAWN };
    case "unattended": {
      const advice = `attach one (\`ghost chat\`, an editor) and try again, or set ${rule.capability} = "allow" in warden.toml`;
      const because = CAPABILITY_DEFAULTS[rule.capability].because;
      const reason = `GhostWarden asks before ${what} (${because}), and no face is attached to answer: ${advice}`;
      return { kind: "denied", rule, reason };
    }
    case "overloaded":
      return {
        kind: "denied",
        rule,
        reason: `GhostWarden asks before ${what}, and too many questions are open: answer those first`,
      };
  }
}

const shorten = (text: string) => (text.length > 200 ? `${text.slice(0, 200)}…` : text);

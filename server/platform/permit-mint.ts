/**
 * The classes behind `permit.ts`. Only `ghostwarden/` may import this file (test/architecture.test.ts): whoever cannot construct a permit cannot act.
 * 1. A `Permit` covers one effect and is spent once; a `StandingPermit` covers a fixed set of resources and counts.
 * 2. The mark is a private field: the compiler takes nothing else for a permit, and an object made from the prototype throws when it is spent.
 * 3. What a permit covers is fixed when it is made: changing the request afterwards changes nothing.
 * 4. A standing permit covers this machine only, and only paths in normal form: `/data/../etc` is not below `/data`.
 */
import { BugError } from "../base/errors.ts";
import type { EffectOutcome, EffectRequest, Resource, SpentEffect, StandingGrant } from "./permit.ts";
import { describeEffect, effectKey, THIS_MACHINE } from "./permit.ts";

/** What becomes of a permit: its effect's outcome, or `unused` when it is given back. */
export type PermitReport = EffectOutcome | { readonly kind: "unused" };

export class Permit {
  readonly #key: string;
  readonly #description: string;
  readonly #report: (outcome: PermitReport) => void;
  #spent = false;

  constructor(effect: EffectRequest, report: (outcome: PermitReport) => void) {
    this.#key = effectKey(effect);
    this.#description = describeEffect(effect);
    this.#report = report;
  }

  /**
   * Turns the permit into the right to do exactly `actual`, once. Platform effects call it right before they act.
   * @throws BugError `internal` when it was spent before or covers something else.
   */
  spend(actual: EffectRequest): SpentEffect {
    if (effectKey(actual) !== this.#key) {
      throw new BugError("internal", `a permit for "${this.#description}" was used for "${describeEffect(actual)}"`);
    }
    if (this.#spent) throw new BugError("internal", `the permit for "${this.#description}" was used twice`);
    this.#spent = true;
    let reported = false;
    return {
      settle: (outcome) => {
        if (reported) return;
        reported = true;
        this.#report(outcome);
      },
    };
  }

  /** Gives an unspent permit back: it can no longer be spent, and the ledger says that nothing was done. */
  revoke(): void {
    if (this.#spent) return;
    this.#spent = true;
    this.#report({ kind: "unused" });
  }
}

/** The permits of one plan. Disposing it gives back those that were not spent. */
export class PermitSet implements Disposable {
  readonly #waiting = new Map<string, Permit[]>();
  readonly #all: readonly Permit[];

  constructor(permits: readonly { readonly effect: EffectRequest; readonly permit: Permit }[]) {
    this.#all = permits.map(({ permit }) => permit);
    for (const { effect, permit } of permits) {
      const key = effectKey(effect);
      const same = this.#waiting.get(key) ?? [];
      same.push(permit);
      this.#waiting.set(key, same);
    }
  }

  /** @throws BugError `internal` for an effect that the plan did not list, or listed fewer times. */
  take(effect: EffectRequest): Permit {
    const permit = this.#waiting.get(effectKey(effect))?.shift();
    if (permit === undefined) {
      throw new BugError("internal", `"${describeEffect(effect)}" was not part of the plan that was authorized`);
    }
    return permit;
  }

  [Symbol.dispose](): void {
    this.#waiting.clear();
    for (const permit of this.#all) permit.revoke();
  }
}

export class StandingPermit {
  readonly name: string;
  readonly #grants: readonly StandingGrant[];
  #uses = 0;

  /** @throws BugError `internal` for a grant whose path is not absolute and normal. */
  constructor(name: string, grants: readonly StandingGrant[]) {
    this.name = name;
    this.#grants = structuredClone(grants);
    for (const { resource } of grants) {
      if (resource.kind === "path" && !isNormalPath(resource.path)) {
        throw new BugError(
          "internal",
          `the standing permit "${name}" names the path "${resource.path}", which is not absolute and normal`,
        );
      }
    }
  }

  get uses(): number {
    return this.#uses;
  }

  /** @throws BugError `internal` when no grant covers `actual`. */
  spend(actual: EffectRequest): SpentEffect {
    const covered =
      actual.host === THIS_MACHINE &&
      this.#grants.some((grant) => grant.capability === actual.capability && covers(grant.resource, actual.resource));
    if (!covered) {
      throw new BugError("internal", `the standing permit "${this.name}" does not cover "${describeEffect(actual)}"`);
    }
    this.#uses += 1;
    return { settle: () => {} };
  }
}

/** A standing grant covers a folder with all below it, an origin with all its paths, an executable with any arguments. */
function covers(grant: Resource, actual: Resource): boolean {
  if (grant.kind === "path" && actual.kind === "path") {
    if (!isNormalPath(actual.path)) return false;
    return actual.path === grant.path || actual.path.startsWith(grant.path === "/" ? "/" : `${grant.path}/`);
  }
  if (grant.kind === "url" && actual.kind === "url") return grant.origin === actual.origin;
  if (grant.kind === "argv" && actual.kind === "argv") return grant.executable === actual.executable;
  if (grant.kind === "listener" && actual.kind === "listener") return grant.address === actual.address;
  return false;
}

/** Absolute, without `.`, `..`, empty parts, a slash at the end or a zero byte, so that a prefix means "below". */
function isNormalPath(path: string): boolean {
  if (path === "/") return true;
  if (!path.startsWith("/") || path.includes("\0")) return false;
  return path
    .slice(1)
    .split("/")
    .every((part) => part !== "" && part !== "." && part !== "..");
}

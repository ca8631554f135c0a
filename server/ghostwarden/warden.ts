/**
 * GhostWarden: nothing of ours acts without its permit (I4).
 *
 * 1. A plan is decided as a whole: one decision, then a single-use permit for each try of each effect, or none at all. Deny wins over prompt,
 *    prompt over allow.
 * 2. What was judged is what was shown and what the permit covers: the effects are copied before anything else happens.
 * 3. The ledger's rows are written before a permit exists; when they cannot be, there is no permit.
 * 4. Rules may change while a question is open: a rule that denies by then wins over the answer.
 * 5. A broken edit of warden.toml changes nothing: the last good rules stay in force, and `policy()` says what is wrong.
 */
import type { z } from "zod";
import type { approvalRespondParams, ApprovalRespondResult, ApprovalWatchUpdate } from "../../protocol/approval.ts";
import type { ClientId, UserId } from "../../protocol/ids.ts";
import type { LedgerRow, ledgerListParams } from "../../protocol/ledger.ts";
import { capabilitySchema, type policyGetResult } from "../../protocol/policy.ts";
import { assert } from "../base/assert.ts";
import type { Clock, Ids } from "../base/clock.ts";
import { UserError } from "../base/errors.ts";
import type { Database } from "../platform/database.ts";
import type { Log } from "../platform/log.ts";
import type { Actor, EffectRequest, StandingGrant } from "../platform/permit.ts";
import { Permit, type PermitReport, PermitSet, StandingPermit } from "../platform/permit-mint.ts";
import { ConsentDesk } from "./consent.ts";
import { CAPABILITY_DEFAULTS } from "./defaults.ts";
import { describeForPeople } from "./describe.ts";
import { compilePolicy, type Decision, decisionFor, describeRule, evaluate, type Policy } from "./evaluate.ts";
import { Ledger, type LedgerEntry } from "./ledger.ts";
import { denialOf, type Judged, MAX_PLAN_EFFECTS, type Refusal, refusalOf, unshowable, WITHDRAWN } from "./refusal.ts";
import { parseRuleFile } from "./rule-file.ts";

export { ledgerMigrations } from "./ledger.ts";
export { toError } from "./refusal.ts";

/** What an actor wants to do, decided as a whole. */
export interface Plan {
  /** In the order in which they will happen; 1 to 256. */
  readonly effects: readonly EffectRequest[];
  /**
   * How often each may be tried, where it may break off and go on: 1 where absent. Each try has its permit; all tries of an effect are one row of the
   * ledger, which holds the outcome of the last.
   */
  readonly tries?: number;
  /** For the person who is asked: what will happen, in the actor's words. */
  readonly preview?: string;
  /** Of everything that the preview rests on; the ledger keeps it. */
  readonly digest?: string;
}

export type PlanResult = { readonly kind: "granted"; readonly permits: PermitSet } | Refusal;
export type EffectResult = { readonly kind: "granted"; readonly permit: Permit } | Refusal;

export type ReloadResult =
  | { readonly kind: "loaded"; readonly warnings: readonly string[] }
  | { readonly kind: "problem"; readonly problem: string };

export interface Warden extends AsyncDisposable {
  /** What the user should know about their warden.toml though nothing is wrong with it, one sentence each. */
  readonly warnings: readonly string[];

  /**
   * Decides a plan; asks the user's faces where a rule says `prompt`, and then waits for at most two minutes.
   * Dispose the permits when the plan is over: those that were not used are then recorded as unused.
   * @param why the actor's reason, shown to whoever is asked.
   * @throws OperationalError `storage_full` | `overloaded` when the ledger cannot be written; nothing is granted then.
   */
  authorizePlan(plan: Plan, actor: Actor, why: string, signal: AbortSignal): Promise<PlanResult>;

  /** The same for one effect. */
  authorize(effect: EffectRequest, actor: Actor, why: string, signal: AbortSignal): Promise<EffectResult>;

  /** What the rules say, at once: no question, no ledger row, no permit. Costs a look-up. */
  judge(effect: EffectRequest, actor: Actor): Decision;

  policy(): z.infer<typeof policyGetResult>;

  readonly approvals: {
    /** Open questions of the user first, then every change. The caller counts as a face from the call on, until it leaves or aborts. */
    watch(userId: UserId, signal: AbortSignal): AsyncIterable<ApprovalWatchUpdate>;
    /** @throws UserError `approval_not_found` */
    respond(
      params: z.infer<typeof approvalRespondParams>,
      by: { readonly userId: UserId; readonly client: ClientId },
    ): ApprovalRespondResult;
  };

  readonly ledger: {
    /** The user's rows, the latest first. */
    list(userId: UserId, params: z.output<typeof ledgerListParams>): Promise<readonly LedgerRow[]>;
  };

  /** Takes a new text of warden.toml (undefined: the file is gone, the defaults hold), or keeps the last good rules and says why. */
  reload(text: string | undefined): ReloadResult;
}

/**
 * A permit for a fixed set of our own resources: data folder, sockets, listeners, origins of providers. For `compose.ts` only, at start:
 * never as the outcome of a question.
 * @throws BugError `internal` for a path that is not absolute and normal.
 */
export function bootPermit(name: string, grants: readonly StandingGrant[]): StandingPermit {
  return new StandingPermit(name, grants);
}

/**
 * @param options.rules the text of warden.toml; undefined where there is none.
 * @throws UserError `config_syntax` | `config_invalid`: at the start there are no last good rules, so the daemon must not guess.
 */
export function createWarden(options: {
  readonly rules: string | undefined;
  readonly wardenFile: string;
  readonly database: Database;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: Log;
}): Warden {
  return new LocalWarden(options, compilePolicy(parseRuleFile(options.rules, options.wardenFile)));
}

class LocalWarden implements Warden {
  readonly #wardenFile: string;
  readonly #log: Log;
  readonly #desk: ConsentDesk;
  readonly #ledger: Ledger;
  #policy: Policy;
  #problem: string | undefined;

  constructor(options: Parameters<typeof createWarden>[0], policy: Policy) {
    this.#wardenFile = options.wardenFile;
    this.#log = options.log;
    this.#desk = new ConsentDesk(options);
    this.#ledger = new Ledger(options);
    this.#policy = policy;
  }

  readonly approvals: Warden["approvals"] = {
    watch: (userId, signal) => this.#desk.watch(userId, signal),
    respond: (params, by) => this.#desk.respond(params, by),
  };
  readonly ledger: Warden["ledger"] = { list: (userId, params) => this.#ledger.list(userId, params) };

  get warnings(): readonly string[] {
    return this.#policy.warnings;
  }

  judge(effect: EffectRequest, _actor: Actor): Decision {
    return evaluate(this.#policy, effect);
  }

  policy(): z.infer<typeof policyGetResult> {
    const capabilities = capabilitySchema.options.map((capability) => {
      const { verdict, rule } = decisionFor(this.#policy, capability);
      return { capability, verdict, source: rule.source, ...(rule.line === undefined ? {} : { line: rule.line }) };
    });
    return {
      capabilities,
      file: this.#wardenFile,
      ...(this.#problem === undefined ? {} : { problem: this.#problem }),
    };
  }

  reload(text: string | undefined): ReloadResult {
    try {
      this.#policy = compilePolicy(parseRuleFile(text, this.#wardenFile));
      this.#problem = undefined;
      this.#log.info({ event: "warden.reloaded", warnings: this.#policy.warnings });
      return { kind: "loaded", warnings: this.#policy.warnings };
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      this.#problem = error.message;
      this.#log.warn({ event: "warden.reloadFailed", problem: error.message });
      return { kind: "problem", problem: error.message };
    }
  }

  async authorize(effect: EffectRequest, actor: Actor, why: string, signal: AbortSignal): Promise<EffectResult> {
    const copy = structuredClone(effect);
    const result = await this.authorizePlan({ effects: [copy] }, actor, why, signal);
    return result.kind === "granted" ? { kind: "granted", permit: result.permits.take(copy) } : result;
  }

  async authorizePlan(plan: Plan, actor: Actor, why: string, signal: AbortSignal): Promise<PlanResult> {
    assert(plan.effects.length > 0, "a plan without effects needs no permit");
    const effects = structuredClone(plan.effects);
    const { digest, tries = 1 } = plan;
    const judged = this.#judgeAll(effects);
    const denial = denialOf(judged) ?? unshowable(judged);
    if (denial !== undefined) return this.#refuse(judged, actor, denial);
    const asking = judged.find(({ decision }) => decision.verdict === "prompt");
    if (asking === undefined) return this.#grant({ judged, actor, signal, digest, tries, by: undefined });

    const answer = await this.#desk.ask(
      {
        userId: actor.userId,
        actor: describeActor(actor),
        reason: plan.preview === undefined ? why : `${why}\n${plan.preview}`,
        effects: countEqual(effects.map(describeForPeople), tries),
      },
      signal,
    );
    const refusal = refusalOf(answer, asking);
    if (refusal !== undefined) return this.#refuse(judged, actor, refusal);
    // Rules may have changed while the question was open (4).
    const denied = denialOf(this.#judgeAll(effects));
    if (denied !== undefined) return this.#refuse(judged, actor, denied);
    return this.#grant({ judged, actor, signal, digest, tries, by: "by" in answer ? answer.by : undefined });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#desk[Symbol.dispose]();
    await this.#ledger.flush();
  }

  #judgeAll(effects: readonly EffectRequest[]): readonly Judged[] {
    return effects.map((effect) => ({ effect, decision: evaluate(this.#policy, effect) }));
  }

  async #grant(input: {
    readonly judged: readonly Judged[];
    readonly actor: Actor;
    readonly signal: AbortSignal;
    readonly digest: string | undefined;
    readonly tries: number;
    /** The face that said yes; undefined where no question was needed. */
    readonly by: ClientId | undefined;
  }): Promise<PlanResult> {
    const { judged, actor, signal, digest, tries, by } = input;
    const entries = judged.map(({ effect, decision }): LedgerEntry => {
      const asked = by !== undefined && decision.verdict === "prompt";
      return {
        ...describeEntry(effect, actor),
        decision: asked ? "approved" : "allowed",
        decidedBy: asked ? `client ${by}` : describeRule(decision.rule),
        outcome: "unknown",
        ...(digest === undefined ? {} : { detail: `plan ${digest}` }),
      };
    });
    const effectIds = await this.#ledger.record(entries, { durable: judged.some(isChange) });
    if (signal.aborted) {
      for (const effectId of effectIds) this.#ledger.settle(effectId, "none", "withdrawn before it began");
      return { kind: "withdrawn", reason: WITHDRAWN };
    }
    const permits = judged.flatMap(({ effect }, index) => {
      const report = afterAll(tries, (last, used) => this.#settle(effectIds[index] ?? "", last, used));
      return Array.from({ length: tries }, () => ({ effect, permit: new Permit(effect, report) }));
    });
    return { kind: "granted", permits: new PermitSet(permits) };
  }

  #settle(effectId: string, report: PermitReport, used: number): void {
    if (report.kind === "unused") this.#ledger.settle(effectId, "none", "not used");
    else {
      const detail = report.kind === "failed" ? report.detail : used > 1 ? `at the try number ${used}` : undefined;
      this.#ledger.settle(effectId, report.kind, detail);
    }
  }

  async #refuse(judged: readonly Judged[], actor: Actor, refusal: Refusal): Promise<Refusal> {
    const decidedBy =
      refusal.kind === "withdrawn"
        ? "the actor"
        : refusal.kind === "denied" && refusal.by !== undefined
          ? `client ${refusal.by}`
          : describeRule(refusal.rule);
    // A refused plan is told once per kind of effect: nothing of it happens, however often it was meant to.
    const distinct = new Map(judged.map((one) => [describeForPeople(one.effect), one]));
    const entries = [...distinct.values()].slice(0, MAX_PLAN_EFFECTS).map(
      ({ effect }): LedgerEntry => ({
        ...describeEntry(effect, actor),
        decision: refusal.kind,
        decidedBy,
        outcome: "none",
        detail: refusal.reason,
      }),
    );
    this.#log.info({
      event: "warden.refused",
      kind: refusal.kind,
      decidedBy,
      effects: entries.length,
      client: actor.client,
    });
    try {
      await this.#ledger.record(entries, { durable: judged.some(isChange) });
    } catch (error) {
      // A no stays a no, also when it cannot be recorded.
      this.#log.error({ event: "ledger.refusalLost", error });
    }
    return refusal;
  }
}

const isChange = ({ effect }: Judged): boolean => CAPABILITY_DEFAULTS[effect.capability].changes;

/** Waits until each of `tries` permits is used or given back; then tells how the last one that was used ended, and how many were. */
function afterAll(tries: number, tell: (last: PermitReport, used: number) => void): (report: PermitReport) => void {
  let left = tries;
  let used = 0;
  let last: PermitReport = { kind: "unused" };
  return (report) => {
    left -= 1;
    if (report.kind !== "unused") {
      used += 1;
      last = report;
    }
    if (left === 0) tell(last, used);
  };
}

/** Equal effects stand once, with their number. */
function countEqual(lines: readonly string[], tries: number): readonly string[] {
  const counts = new Map<string, number>();
  for (const line of lines) counts.set(line, (counts.get(line) ?? 0) + tries);
  return Array.from(counts, ([line, count]) => (count === 1 ? line : `${line} (up to ${count} times)`));
}

function describeEntry(
  effect: EffectRequest,
  actor: Actor,
): Pick<LedgerEntry, "userId" | "actor" | "capability" | "resource"> {
  const text = describeForPeople(effect);
  return {
    userId: actor.userId,
    actor: describeActor(actor),
    capability: effect.capability,
    resource: text.slice(effect.capability.length + 1),
  };
}

function describeActor(actor: Actor): string {
  return `${actor.client} (${actor.via.kind} ${actor.via.id})`;
}

/**
 * Which models may answer a request, in which order, and why. Pure: facts in, decision out; no clock, no I/O. Equal facts get the same object, so that
 * what is made of a decision can be kept with it.
 * 1. Hard constraints reject (capability, context window, `llm.cloud`, locality); a score orders what is left.
 * 2. An explicit name means that model on whatever host has it, and nothing else.
 */
import type { ModelInfo } from "../../../protocol/model.ts";
import type { RouteCandidate, RouteDecision, RouteTask } from "../../../protocol/route.ts";
import { UserError, OperationalError } from "../../base/errors.ts";
import { suggestion } from "../../base/text.ts";

export const VIRTUAL_MODELS = ["ghost/auto", "ghost/code", "ghost/fast", "ghost/local", "ghost/reason"] as const;
type VirtualModel = (typeof VIRTUAL_MODELS)[number];

export interface RouteNeeds {
  readonly fim: boolean;
  readonly tools: boolean;
  readonly jsonSchema: boolean;
  readonly vision: boolean;
  /** No cloud model, whatever the rules say. */
  readonly local: boolean;
}

export const NO_NEEDS: RouteNeeds = { fim: false, tools: false, jsonSchema: false, vision: false, local: false };

export interface RouteFacts {
  readonly target: string;
  readonly task: RouteTask;
  readonly needs: RouteNeeds;
  readonly models: readonly ModelInfo[];
  /** The user's own names: patterns, tried in order. */
  readonly aliases: Readonly<Record<string, readonly string[]>>;
  /** The user's preferences by intent; `code` also serves `ghost/code`. */
  readonly intents: Readonly<Record<string, readonly string[]>>;
  /** Why this cloud model must not get the text, or undefined when it may. */
  readonly cloudDenied: (model: ModelInfo) => string | undefined;
}

/** How many models are tried before giving up: every failed try costs the user its waiting time. */
const MAX_PLAN = 5;

const NEEDED: Record<RouteTask, (model: ModelInfo) => boolean> = {
  chat: (model) => model.capabilities.chat,
  completion: (model) => model.capabilities.complete || model.capabilities.fim,
  embedding: (model) => model.capabilities.embeddings,
};

/**
 * @throws UserError `model_not_found` for a name that nothing has (with suggestions), `capability_missing` when the named model cannot,
 * `denied` when a rule keeps the text from it; OperationalError `no_model_available` when a virtual name finds no model.
 */
export function decide(facts: RouteFacts): RouteDecision {
  const { models, aliases, intents, target, task, needs } = facts;
  const known = decided.get(models) ?? new Map<string, Decided>();
  const key = `${task} ${needs.fim} ${needs.tools} ${needs.jsonSchema} ${needs.vision} ${needs.local} ${target}`;
  const same = known.get(key);
  if (same?.aliases === aliases && same.intents === intents) return same.decision;
  let isByRule = false;
  const cloudDenied = (model: ModelInfo) => {
    isByRule = true;
    return facts.cloudDenied(model);
  };
  const decision = decideAnew({ ...facts, cloudDenied });
  // What a rule says may be otherwise the next time. Targets that are kept name something that is there: there is an end to them.
  if (!isByRule) decided.set(models, known.set(key, { decision, aliases, intents }));
  return decision;
}

type Decided = Pick<RouteFacts, "aliases" | "intents"> & { readonly decision: RouteDecision };
/** By the list of models that they were made for, and gone with it. */
const decided = new WeakMap<RouteFacts["models"], Map<string, Decided>>();

function decideAnew(facts: RouteFacts): RouteDecision {
  const selection = select(facts);
  const candidates = selection.models.map((model, position) => judge(facts, selection, model, position));
  const open = candidates.filter((candidate) => candidate.rejectedBecause === undefined);
  open.sort((a, b) => total(b) - total(a));
  const plan = open.slice(0, MAX_PLAN).map(({ model }) => model);
  const first = plan[0];
  if (first === undefined) throw nothingLeft(facts, selection, candidates);
  const rejected = candidates.filter((candidate) => candidate.rejectedBecause !== undefined);
  return {
    target: facts.target,
    task: facts.task,
    plan,
    candidates: [...open, ...rejected],
    reason: `${selection.reason}: ${first}`,
  };
}

interface Selection {
  readonly kind: "explicit" | "alias" | "virtual";
  readonly virtual?: VirtualModel;
  /** In the order of preference where the user gave one. */
  readonly models: readonly ModelInfo[];
  readonly isOrdered: boolean;
  readonly reason: string;
}

function select(facts: RouteFacts): Selection {
  const { target, models } = facts;
  const alias = Object.hasOwn(facts.aliases, target) ? facts.aliases[target] : undefined;
  if (alias !== undefined) {
    return {
      kind: "alias",
      models: byPatterns(alias, models),
      isOrdered: true,
      reason: `your alias "${target}", first that can answer`,
    };
  }
  const virtual = VIRTUAL_MODELS.find((name) => name === target);
  if (virtual !== undefined) return selectVirtual(virtual, facts);
  const exact = models.filter(
    (model) => model.ref === target || (model.host !== undefined && model.ref === `${target}@${model.host}`),
  );
  if (exact.length > 0) return { kind: "explicit", models: exact, isOrdered: true, reason: "the model you named" };
  const byName = models.filter((model) => model.name === target);
  if (byName.length > 0)
    return { kind: "explicit", models: byName, isOrdered: true, reason: `the only kind of model called "${target}"` };
  const known = [...models.map(({ ref }) => ref), ...VIRTUAL_MODELS, ...Object.keys(facts.aliases)];
  throw new UserError("model_not_found", `no model is called "${target}".${suggestion(target, known)}`, {
    details: { model: target },
  });
}

function selectVirtual(virtual: VirtualModel, facts: RouteFacts): Selection {
  const wished = virtual === "ghost/code" ? facts.intents["code"] : undefined;
  if (wished !== undefined) {
    const listed = byPatterns(wished, facts.models);
    const others = facts.models.filter((model) => !listed.includes(model));
    return {
      kind: "virtual",
      virtual,
      models: [...listed, ...others],
      isOrdered: true,
      reason: "your list for code, first that can answer",
    };
  }
  const reasons: Record<VirtualModel, string> = {
    "ghost/auto": "local before cloud, larger before smaller",
    "ghost/code": "local before cloud, larger before smaller",
    "ghost/fast": "nearest and smallest first",
    "ghost/local": "on this machine or network only",
    "ghost/reason": "largest first",
  };
  return { kind: "virtual", virtual, models: facts.models, isOrdered: false, reason: reasons[virtual] };
}

function judge(facts: RouteFacts, selection: Selection, model: ModelInfo, position: number): RouteCandidate {
  const rejectedBecause = rejection(facts, selection, model);
  if (rejectedBecause !== undefined) return { model: model.ref, locality: model.locality, score: {}, rejectedBecause };
  return { model: model.ref, locality: model.locality, score: score(facts, selection, model, position) };
}

function rejection(facts: RouteFacts, selection: Selection, model: ModelInfo): string | undefined {
  const { needs, task } = facts;
  // Asked for by name, it gets the chance to say what is wrong with it.
  if (model.unusable === true && selection.kind !== "explicit") return "cannot be used";
  if (!NEEDED[task](model))
    return `cannot do ${task === "completion" ? "completions" : task === "chat" ? "chat" : "embeddings"}`;
  if (needs.fim && !model.capabilities.fim) return "cannot fill in before a suffix";
  if (needs.tools && !model.capabilities.tools) return "cannot call tools";
  if (needs.vision && !model.capabilities.vision) return "cannot see images";
  if (needs.jsonSchema && !model.capabilities.jsonSchema) return "cannot keep to a JSON schema";
  if (needs.local && model.locality === "cloud") return "is in the cloud, and only local models are asked this way";
  if (selection.virtual === "ghost/local" && model.locality === "cloud") return "is not local";
  return model.locality === "cloud" ? facts.cloudDenied(model) : undefined;
}

/** The parts of a score. Larger is better; their sum orders the candidates. */
function score(
  facts: RouteFacts,
  selection: Selection,
  model: ModelInfo,
  position: number,
): Readonly<Record<string, number>> {
  // What only demonstrates comes after everything real, wherever it stands in a list of wishes.
  const demonstration = model.demonstration === true && selection.kind !== "explicit" ? { demonstration: -1000 } : {};
  if (selection.isOrdered) return { order: -position, ...demonstration };
  const near = { machine: 2, lan: 1, cloud: 0 }[model.locality];
  const size = Math.log2(1 + (model.sizeBytes ?? 0) / 1e9);
  const prefersSmall = selection.virtual === "ghost/fast" || facts.task === "completion";
  const infill = facts.task === "completion" && model.capabilities.fim ? { infill: 1 } : {};
  if (selection.virtual === "ghost/reason") return { locality: -10 * near, size, ...demonstration };
  return { locality: 10 * near, size: prefersSmall ? -size : size, ...infill, ...demonstration };
}

function total(candidate: RouteCandidate): number {
  return Object.values(candidate.score).reduce((sum, part) => sum + part, 0);
}

function nothingLeft(facts: RouteFacts, selection: Selection, candidates: readonly RouteCandidate[]): Error {
  const details = { model: facts.target };
  const why = candidates
    .map((candidate) => `${candidate.model} ${candidate.rejectedBecause ?? ""}`)
    .slice(0, 5)
    .join("; ");
  const denied = candidates.some(
    (candidate) =>
      candidate.locality === "cloud" &&
      facts.models.some((model) => model.ref === candidate.model && facts.cloudDenied(model) !== undefined),
  );
  if (selection.kind === "explicit" && denied) return new UserError("denied", why, { details });
  if (selection.kind === "explicit") return new UserError("capability_missing", why, { details });
  const message =
    candidates.length === 0
      ? `"${facts.target}" finds no model`
      : `"${facts.target}" finds no model that can take this: ${why}`;
  return new OperationalError("no_model_available", message, { details });
}

/** The models that match the patterns, in the patterns' order. `*` stands for any text; a name without host matches on every host. */
function byPatterns(patterns: readonly string[], models: readonly ModelInfo[]): readonly ModelInfo[] {
  const found = new Set<ModelInfo>();
  for (const pattern of patterns) {
    const expression = new RegExp(`^${pattern.split("*").map(RegExp.escape).join(".*")}(@[^@]*)?$`);
    for (const model of models) if (expression.test(model.ref)) found.add(model);
  }
  return [...found];
}

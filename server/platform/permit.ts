/**
 * Permits: no effect without consent, as a type error (I4). Every effect in platform/ takes one as its first parameter and spends it on exactly
 * what it does; GhostWarden alone makes them (`permit-mint.ts`).
 */
import type { ClientId, UserId } from "../../protocol/ids.ts";
import type { Capability } from "../../protocol/policy.ts";
import type { Permit, StandingPermit } from "./permit-mint.ts";

export type { Permit, PermitSet, StandingPermit } from "./permit-mint.ts";

/** What an effect touches: parsed, never a raw string. */
export type Resource =
  | { readonly kind: "path"; readonly path: string }
  | { readonly kind: "argv"; readonly executable: string; readonly args: readonly string[]; readonly cwd: string }
  | { readonly kind: "url"; readonly method: string; readonly origin: string; readonly path: string }
  | { readonly kind: "listener"; readonly address: string }
  | { readonly kind: "model"; readonly model: string };

export interface EffectRequest {
  readonly capability: Capability;
  readonly resource: Resource;
  /** This machine, or one of `[jarvis.hosts]`. */
  readonly host: HostId;
}
export type HostId = "this-machine" | `lab:${string}`;
export const THIS_MACHINE: HostId = "this-machine";

/** Who wants to act. Every row that is stored about it carries the user (I15). */
export interface Actor {
  readonly userId: UserId;
  readonly client: ClientId;
  readonly via: { readonly kind: "session" | "face" | "api" | "boot"; readonly id: string };
}

export type EffectOutcome = { readonly kind: "done" } | { readonly kind: "failed"; readonly detail: string };

/** An effect that is under way. `settle` writes its outcome to the ledger; without it the row stays "unknown". */
export interface SpentEffect {
  settle(outcome: EffectOutcome): void;
}

/** One line of a standing permit: `resource` names a folder, an origin, an executable or a listener address. */
export interface StandingGrant {
  readonly capability: Capability;
  readonly resource: Resource;
}

export type AnyPermit = Permit | StandingPermit;

/** A string that is equal exactly for equal effects. */
export function effectKey(effect: EffectRequest): string {
  const { resource } = effect;
  const parts: readonly string[] =
    resource.kind === "path"
      ? [resource.path]
      : resource.kind === "argv"
        ? [resource.executable, resource.cwd, ...resource.args]
        : resource.kind === "url"
          ? [resource.method, resource.origin, resource.path]
          : resource.kind === "listener"
            ? [resource.address]
            : [resource.model];
  return JSON.stringify([effect.host, effect.capability, resource.kind, ...parts]);
}

/** One line for people: `net.http GET https://example.com/file`. */
export function describeEffect(effect: EffectRequest): string {
  const on = effect.host === THIS_MACHINE ? "" : ` on ${effect.host}`;
  return `${effect.capability} ${describeResource(effect.resource)}${on}`;
}

export function describeResource(resource: Resource): string {
  switch (resource.kind) {
    case "path":
      return resource.path;
    case "argv":
      return [resource.executable, ...resource.args].map((word) => JSON.stringify(word)).join(" ");
    case "url":
      return `${resource.method} ${resource.origin}${resource.path}`;
    case "listener":
      return resource.address;
    case "model":
      return resource.model;
  }
}

/** Runs `act` under a permit and settles its outcome, whatever happens. */
export async function underPermit<Result>(
  permit: AnyPermit,
  effect: EffectRequest,
  act: () => Promise<Result>,
): Promise<Result> {
  const spent = permit.spend(effect);
  try {
    const result = await act();
    spent.settle({ kind: "done" });
    return result;
  } catch (error) {
    spent.settle({ kind: "failed", detail: error instanceof Error ? error.message : String(error) });
    throw error;
  }
}

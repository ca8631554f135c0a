/**
 * What GhostWarden says about each capability where the user's warden.toml is silent.
 * The line: what only looks is allowed, what changes something or reaches out is asked. docs/security.md explains the table.
 */
import type { Capability, Verdict } from "../../protocol/policy.ts";

interface CapabilityDefault {
  readonly verdict: Verdict;
  /** Its effects change something: their ledger rows must survive a power loss before they start. */
  readonly changes: boolean;
  /** Why this verdict. */
  readonly because: string;
}

export const CAPABILITY_DEFAULTS: Readonly<Record<Capability, CapabilityDefault>> = {
  "fs.read": {
    verdict: "prompt",
    changes: false,
    because: "no workspace is known yet, and outside one a file may be private",
  },
  "fs.write": { verdict: "prompt", changes: true, because: "it changes files" },
  "cmd.exec": { verdict: "prompt", changes: true, because: "a command can do anything that you can" },
  "task.run": { verdict: "prompt", changes: true, because: "a task is a command" },
  "host.read": { verdict: "allow", changes: false, because: "it runs only read commands that the tools declare" },
  "net.http": {
    verdict: "prompt",
    changes: true,
    because: "a request can carry data away or change something elsewhere",
  },
  "llm.cloud": {
    verdict: "allow",
    changes: false,
    because: "you gave the key of this provider, or its address, yourself",
  },
  "secret.read": { verdict: "prompt", changes: false, because: "a secret leaves its place" },
  "pkg.change": { verdict: "prompt", changes: true, because: "it changes the system" },
  "snapshot.change": { verdict: "prompt", changes: true, because: "it changes the system" },
  "container.change": { verdict: "prompt", changes: true, because: "it changes running services" },
  "vm.change": { verdict: "prompt", changes: true, because: "it changes running machines" },
  "dns.change": { verdict: "prompt", changes: true, because: "it changes the network" },
  "vpn.change": { verdict: "prompt", changes: true, because: "it changes the network" },
  "chain.read": { verdict: "allow", changes: false, because: "it reads public data" },
  "flow.run": { verdict: "prompt", changes: true, because: "a flow acts in your name" },
};

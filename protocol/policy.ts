/** What GhostWarden may allow. */
import { z } from "zod";

export const capabilitySchema = z.enum([
  "fs.read",
  "fs.write",
  "cmd.exec",
  "task.run",
  "host.read",
  "net.http",
  "llm.cloud",
  "secret.read",
  "pkg.change",
  "snapshot.change",
  "container.change",
  "vm.change",
  "dns.change",
  "vpn.change",
  "chain.read",
  "flow.run",
]);
/** One kind of effect, as rules name it. */
export type Capability = z.infer<typeof capabilitySchema>;

export const verdictSchema = z.enum(["allow", "prompt", "deny"]);
export type Verdict = z.infer<typeof verdictSchema>;

export const policyGetResult = z.object({
  capabilities: z.array(
    z.object({
      capability: capabilitySchema,
      verdict: verdictSchema,
      /** Where the verdict comes from. */
      source: z.enum(["user", "default"]),
      /** The line of warden.toml, where the user wrote it. */
      line: z.int().optional(),
    }),
  ),
  /** The user's file, whether it exists or not. */
  file: z.string(),
  /** What is wrong with it, if anything; the last good rules stay in force. */
  problem: z.string().optional(),
});

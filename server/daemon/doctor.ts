/** `ghost doctor`: what is missing, in plain words, with the command that mends it. Pure: facts in, findings out. */
import type { DoctorFinding } from "../../protocol/daemon.ts";
import type { ModelInfo, ProviderStatus } from "../../protocol/model.ts";
import { formatBytes } from "../base/text.ts";

export interface DoctorFacts {
  readonly version: string;
  readonly nodeVersion: string;
  readonly http: string;
  readonly configFile: string;
  readonly configExists: boolean;
  readonly configWarnings: readonly string[];
  readonly wardenFile: string;
  readonly wardenProblem: string | undefined;
  readonly wardenWarnings: readonly string[];
  readonly providers: readonly ProviderStatus[];
  readonly models: readonly ModelInfo[];
  /** What happened to the database at this start, where it was not simply opened. */
  readonly databaseNote: string | undefined;
  readonly freeDiskBytes: number;
  readonly isRoot: boolean;
}

/** Below this, a busy day of sessions and logs may fill the disk. */
const LOW_DISK_BYTES = 1024 ** 3;

export function examine(facts: DoctorFacts): readonly DoctorFinding[] {
  return [
    {
      subject: "daemon",
      state: "ok",
      message: `version ${facts.version} on Node ${facts.nodeVersion}, at ${facts.http}`,
    },
    ...(facts.isRoot
      ? [{ subject: "user", state: "warning", message: "the daemon runs as root; run it as your own user" } as const]
      : []),
    ...configFindings(facts),
    ...storageFindings(facts),
    ...facts.providers.map(providerFinding),
    ...modelFindings(facts),
  ];
}

function configFindings(facts: DoctorFacts): readonly DoctorFinding[] {
  const findings: DoctorFinding[] = [
    {
      subject: "settings",
      state: "ok",
      message: facts.configExists
        ? `read from ${facts.configFile}`
        : `no ${facts.configFile}: everything has its default`,
    },
    ...facts.configWarnings.map((message): DoctorFinding => ({ subject: "settings", state: "warning", message })),
  ];
  if (facts.wardenProblem !== undefined) {
    findings.push({
      subject: "rules",
      state: "problem",
      message: `${facts.wardenProblem}; the last good rules stay in force`,
      remedy: `$EDITOR ${facts.wardenFile}`,
    });
  }
  return [
    ...findings,
    ...facts.wardenWarnings.map((message): DoctorFinding => ({ subject: "rules", state: "warning", message })),
  ];
}

function storageFindings(facts: DoctorFacts): readonly DoctorFinding[] {
  const disk: DoctorFinding =
    facts.freeDiskBytes < LOW_DISK_BYTES
      ? {
          subject: "disk",
          state: "warning",
          message: `only ${formatBytes(facts.freeDiskBytes)} are free in the data folder`,
          remedy: "df -h",
        }
      : { subject: "disk", state: "ok", message: `${formatBytes(facts.freeDiskBytes)} free` };
  if (facts.databaseNote === undefined) return [disk, { subject: "database", state: "ok", message: "opened" }];
  return [disk, { subject: "database", state: "warning", message: facts.databaseNote }];
}

function providerFinding(provider: ProviderStatus): DoctorFinding {
  const subject = `${provider.id} (${provider.address})`;
  if (provider.state === "ok" || provider.state === "idle") {
    if (provider.problem !== undefined) return { subject, state: "warning", message: provider.problem };
    return {
      subject,
      state: "ok",
      message: `${provider.models} model${provider.models === 1 ? "" : "s"}, ${provider.locality}`,
    };
  }
  if (provider.state === "absent") {
    const message =
      provider.kind === "ollama" ? "not running (optional)" : `no key (optional): ghost keys set ${provider.id}`;
    return { subject, state: "ok", message };
  }
  const remedy =
    provider.kind === "ollama"
      ? "ollama serve"
      : provider.state === "refused"
        ? `ghost keys test ${provider.id}`
        : `curl -sS ${provider.address}`;
  return { subject, state: "problem", message: provider.problem ?? provider.state, remedy };
}

function modelFindings(facts: DoctorFacts): readonly DoctorFinding[] {
  const real = facts.models.filter((model) => model.demonstration !== true);
  if (real.length > 0)
    return [{ subject: "models", state: "ok", message: `${real.length} besides the demonstration weights` }];
  return [
    {
      subject: "models",
      state: "warning",
      message:
        "only demonstration weights are here: they continue code-shaped lines and cannot chat. Start Ollama, connect a server in ghost.toml, or download weights",
      remedy: "ghost models pull hf:Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    },
  ];
}

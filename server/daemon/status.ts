/** What the daemon says about itself: status, metrics, and the facts for the doctor. */
import type { DaemonStatus, DoctorFinding } from "../../protocol/daemon.ts";
import type { Clock, Environment } from "../base/clock.ts";
import type { Brain } from "../ghostllm/brain.ts";
import type { Weights } from "../ghostllm/open-brain.ts";
import type { Warden } from "../ghostwarden/warden.ts";
import type { LoadedConfig } from "../platform/config/load.ts";
import type { GhostPaths } from "../platform/config/paths.ts";
import { freeBytes } from "../platform/filesystem.ts";
import type { StandingPermit } from "../platform/permit.ts";
import type { OpenReport } from "../platform/sqlite.ts";
import { examine } from "./doctor.ts";
import type { Metric } from "./http/health.ts";

interface StatusOptions {
  readonly version: string;
  readonly startedAtMs: number;
  readonly paths: GhostPaths;
  readonly permit: StandingPermit;
  readonly loaded: LoadedConfig;
  readonly configExists: boolean;
  readonly keyFiles: { readonly modelKeyFile: string };
  readonly databaseReport: OpenReport;
  readonly brain: Brain;
  readonly warden: Warden;
  readonly weights: Weights;
  readonly clock: Clock;
  readonly environment: Environment;
  readonly http: () => string;
  readonly clients: () => number;
}

export interface StatusReporter {
  readonly status: () => DaemonStatus;
  readonly metrics: () => readonly Metric[];
  readonly doctor: (signal: AbortSignal) => Promise<readonly DoctorFinding[]>;
}

export function createStatus(options: StatusOptions): StatusReporter {
  const { brain, paths } = options;
  const status = (): DaemonStatus => ({
    version: options.version,
    pid: process.pid,
    startedAtMs: options.startedAtMs,
    http: options.http(),
    socket: paths.socket,
    dataDir: paths.dataDir,
    configFile: paths.configFile,
    clients: options.clients(),
    openAnswers: brain.openAnswers,
    rssBytes: process.memoryUsage.rss(),
    engine: options.weights.engineState(),
    modelKeyFile: options.keyFiles.modelKeyFile,
  });
  return {
    status,
    metrics: () => toMetrics(status(), options.clock, brain.answersTotal),
    doctor: (signal) => doctor(options, signal),
  };
}

async function doctor(options: StatusOptions, signal: AbortSignal): Promise<readonly DoctorFinding[]> {
  const { paths, warden, databaseReport, loaded, environment } = options;
  const { models, providers } = await options.brain.catalogue({ refresh: true }, signal);
  return examine({
    version: options.version,
    nodeVersion: process.version,
    http: options.http(),
    configFile: paths.configFile,
    configExists: options.configExists,
    configWarnings: loaded.warnings,
    wardenFile: paths.wardenFile,
    wardenProblem: warden.policy().problem,
    wardenWarnings: warden.warnings,
    providers,
    models,
    databaseNote:
      databaseReport.kind === "restarted"
        ? `it was damaged (${databaseReport.reason}); the old file is kept as ${databaseReport.keptAside}, and a new one was started`
        : undefined,
    freeDiskBytes: await freeBytes(options.permit, paths.dataDir),
    isRoot: environment.uid === 0,
  });
}

function toMetrics(status: DaemonStatus, clock: Clock, answers: Brain["answersTotal"]): readonly Metric[] {
  return [
    {
      name: "ghost_up_seconds",
      kind: "gauge",
      help: "Seconds since the daemon started.",
      value: (clock.now() - status.startedAtMs) / 1000,
    },
    { name: "ghost_clients", kind: "gauge", help: "Faces attached to the socket.", value: status.clients },
    { name: "ghost_answers_open", kind: "gauge", help: "Answers that are being streamed.", value: status.openAnswers },
    { name: "ghost_answers_total", kind: "counter", help: "Answers begun.", value: answers.begun },
    {
      name: "ghost_answers_failed_total",
      kind: "counter",
      help: "Answers that broke off or never began.",
      value: answers.failed,
    },
    {
      name: "ghost_resident_memory_bytes",
      kind: "gauge",
      help: "Resident memory of the daemon.",
      value: status.rssBytes,
    },
  ];
}

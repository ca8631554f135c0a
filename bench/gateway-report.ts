/** The gateway benchmark's results as tables for people and figures for machines. */
import { type Figure, figure, type Report } from "./figures.ts";
import {
  added,
  CANCEL_STATES,
  CONNECTIONS,
  type measureCancel,
  type measureChunkCpu,
  type measureLatency,
  type measureOpenStreams,
  type measurePause,
  type measureThroughput,
  middle,
  OPEN_STREAMS,
  ratio,
} from "./gateway-phases.ts";
import { percentile } from "./statistics.ts";
import { formatNumber, type Table } from "./table.ts";
import type { TargetName } from "./targets.ts";

type Outcome<Measure extends (...args: never[]) => Promise<unknown>> = Awaited<ReturnType<Measure>> | undefined;

/** What each phase found; undefined for one that was left out. */
export interface GatewayResults {
  readonly latency: readonly ({ readonly label: string } & NonNullable<Outcome<typeof measureLatency>>)[] | undefined;
  readonly throughput: Outcome<typeof measureThroughput>;
  readonly firstToken: Outcome<typeof measureLatency>;
  readonly chunkCpu: Outcome<typeof measureChunkCpu>;
  readonly openStreams: Outcome<typeof measureOpenStreams>;
  readonly cancel: Outcome<typeof measureCancel>;
  readonly pause: Outcome<typeof measurePause>;
}

interface ReportInput {
  readonly names: readonly TargetName[];
  readonly results: GatewayResults;
  /** The memory of the ghostd that served all phases but those of memory, when they were over. */
  readonly rssAtEndBytes: number | undefined;
  readonly machine: string;
  readonly problems: readonly string[];
}

const MIB = 1024 * 1024;
const MB = 1e6;
/** The budgets of the design, in the unit of each figure. */
const LATENCY_BUDGET_MS: Readonly<Record<string, number>> = { "270b": 0.8, "8kb": 1, "78kb": 3 };
const BUDGET = {
  latencyP99Ms: 6,
  throughputRatio: 0.2,
  cpuUsPerRequest: 400,
  cpuUsPerChunk: 120,
  firstTokenMs: 1,
  rssMb: 150,
  kbPerStream: 75,
  tokensLost: 0,
  transitMs: 1.5,
  cancelMs: 10,
  pausedTakenMb: 12,
  /** 16 MB for buffers, and 4 MB for what is kept of an answer so that another model can go on with it. */
  pausedGrowthMb: 20,
} as const;

/**
 * Measured earlier, with another client, on a 2-core Debian 12 with Node 20: for comparison of sizes, not of digits. In the order of the
 * columns below. Sources: the projects' own releases, run from npm.
 */
const REFERENCES = {
  requests: [
    ["earlier: nginx 1.22 (1 worker)", "0.07", "–", "–", "–", "0.55", "49"],
    ["earlier: plain Node + undici", "0.42", "2.2", "–", "–", "0.55", "100"],
    ["earlier: Portkey 1.15.2", "1.15", "8.0", "–", "–", "0.05", "1,632"],
    ["earlier: claude-code-router 2.0.0", "2.71", "13.2", "–", "–", "0.07", "1,144"],
  ],
  streams: [
    ["earlier: plain Node + undici", "0.24", "0.68", "76", "86 → 116", "31", "0", "0.12"],
    ["earlier: Portkey 1.15.2", "28.7", "32.4", "196", "213 → 346", "137", "0", "2.20"],
    ["earlier: claude-code-router 2.0.0", "1.77", "6.6", "168", "173 → 246", "75", "0", "1.90"],
  ],
  leaving: [
    ["earlier: nginx 1.22", "–", "0.4", "–", "8.4", "0"],
    ["earlier: plain Node + undici", "–", "1.1", "–", "10.1", "3"],
    ["earlier: Portkey 1.15.2", "–", "never", "–", "8.9", "80"],
    ["earlier: claude-code-router 2.0.0", "–", "never", "–", "71.7", "75"],
  ],
} as const;

export function buildReport(input: ReportInput): Report {
  const { latency, throughput, firstToken, chunkCpu, openStreams, cancel, pause } = input.results;
  const tables = [
    ...((latency ?? throughput) ? [requestTable(input)] : []),
    ...((firstToken ?? chunkCpu ?? openStreams) ? [streamTable(input)] : []),
    ...((cancel ?? pause) ? [leavingTable(input)] : []),
  ];
  const figures = input.names.includes("ghostd") ? ghostdFigures(input) : {};
  return { figures, tables, problems: [...input.problems, ...lostTokens(input.results)] };
}

function ghostdFigures({ results, rssAtEndBytes }: ReportInput): Readonly<Record<string, Figure>> {
  const atEnd = figure(rssAtEndBytes === undefined ? null : rssAtEndBytes / MIB, { unit: "MB" });
  return {
    ...requestFigures(results),
    ...streamFigures(results),
    ...leavingFigures(results),
    rss_after_all_load_mb: atEnd,
  };
}

function requestFigures({ latency, throughput }: GatewayResults): Readonly<Record<string, Figure>> {
  const figures: Record<string, Figure> = {};
  for (const { label, p50, p99 } of latency ?? []) {
    const budget = LATENCY_BUDGET_MS[label];
    figures[`added_latency_p50_ms_${label}`] = figure(added(p50, "ghostd"), {
      unit: "ms",
      ...(budget === undefined ? {} : { budget }),
    });
    const tail = label === "270b" ? { budget: BUDGET.latencyP99Ms } : {};
    figures[`added_latency_p99_ms_${label}`] = figure(added(p99, "ghostd"), { unit: "ms", ...tail });
  }
  if (throughput !== undefined) {
    const least = { unit: "of direct", budget: BUDGET.throughputRatio, sense: "at-least" } as const;
    figures["throughput_ratio"] = figure(ratio(throughput.perSecond, "ghostd"), least);
    figures["throughput_ratio_to_plain"] = figure(
      middle(throughput.perSecond, "ghostd") / middle(throughput.perSecond, "plain"),
      { unit: "of plain" },
    );
    figures["requests_per_second"] = figure(middle(throughput.perSecond, "ghostd"), { unit: "1/s" });
    const cpu = { unit: "µs", budget: BUDGET.cpuUsPerRequest };
    figures["cpu_us_per_request"] = figure(middle(throughput.cpuUs, "ghostd"), cpu);
  }
  return figures;
}

function streamFigures({ firstToken, chunkCpu, openStreams }: GatewayResults): Readonly<Record<string, Figure>> {
  const figures: Record<string, Figure> = {};
  if (firstToken !== undefined) {
    const budget = BUDGET.firstTokenMs;
    figures["first_token_added_p50_ms"] = figure(added(firstToken.p50, "ghostd"), { unit: "ms", budget });
    figures["first_token_added_p99_ms"] = figure(added(firstToken.p99, "ghostd"), { unit: "ms" });
  }
  if (chunkCpu !== undefined) {
    const budget = BUDGET.cpuUsPerChunk;
    figures["cpu_us_per_chunk"] = figure(middle(chunkCpu.cpuUs, "ghostd"), { unit: "µs", budget });
  }
  const open = openStreams?.get("ghostd");
  if (open !== undefined) {
    const perStream = (open.peakBytes - open.beforeBytes) / OPEN_STREAMS / 1024;
    figures["rss_1000_streams_mb"] = figure(open.peakBytes / MIB, { unit: "MB", budget: BUDGET.rssMb });
    figures["rss_kb_per_stream"] = figure(perStream, { unit: "KB", budget: BUDGET.kbPerStream });
    figures["chunk_transit_p50_ms"] = figure(open.transitP50Ms, { unit: "ms", budget: BUDGET.transitMs });
    figures["chunk_transit_p99_ms"] = figure(open.transitP99Ms, { unit: "ms" });
    figures["tokens_lost"] = figure(open.lost + (chunkCpu?.lost ?? 0), { unit: "tokens", budget: BUDGET.tokensLost });
  }
  return figures;
}

function leavingFigures({ cancel, pause }: GatewayResults): Readonly<Record<string, Figure>> {
  const figures: Record<string, Figure> = {};
  const cancelled = cancel?.get("ghostd");
  for (const state of cancelled === undefined ? [] : CANCEL_STATES) {
    const { ms = [], never = 0 } = cancelled?.[state] ?? {};
    const name = `cancel_${state.replaceAll("-", "_")}`;
    // One that the upstream never saw is no figure, but a miss.
    figures[`${name}_p50_ms`] = figure(never > 0 ? null : percentile(ms, 0.5), { unit: "ms", budget: BUDGET.cancelMs });
    figures[`${name}_p99_ms`] = figure(never > 0 ? null : percentile(ms, 0.99), { unit: "ms" });
  }
  const paused = pause?.get("ghostd");
  if (paused !== undefined) {
    figures["paused_client_taken_mb"] = figure(paused.takenBytes / MB, { unit: "MB", budget: BUDGET.pausedTakenMb });
    const growth = { unit: "MB", budget: BUDGET.pausedGrowthMb };
    figures["paused_client_rss_growth_mb"] = figure(paused.growthBytes / MB, growth);
  }
  return figures;
}

function requestTable({ names, results, machine }: ReportInput): Table {
  const { latency, throughput } = results;
  const rows = names.map((name) => {
    const sizes = latency ?? [];
    const small = sizes[0];
    const perSecond = throughput === undefined ? null : middle(throughput.perSecond, name);
    return [
      name,
      small === undefined ? "–" : formatNumber(added(small.p50, name)),
      small === undefined ? "–" : formatNumber(added(small.p99, name)),
      ...[1, 2].map((index) => {
        const size = sizes[index];
        return size === undefined ? "–" : formatNumber(added(size.p50, name));
      }),
      throughput === undefined ? "–" : formatNumber(ratio(throughput.perSecond, name)),
      throughput === undefined || name === "direct" ? "–" : formatNumber(middle(throughput.cpuUs, name)),
      formatNumber(perSecond),
      throughput === undefined ? "–" : formatNumber(middle(throughput.p50, name)),
      throughput === undefined ? "–" : formatNumber(middle(throughput.p99, name)),
    ];
  });
  return {
    title: "Whole answers, 16 tokens",
    columns: [
      "target",
      "added ms p50, 270 B",
      "p99",
      "p50, 8 kB",
      "p50, 78 kB",
      `rps at ${CONNECTIONS} / direct`,
      "CPU µs/request",
      "rps",
      "ms p50",
      "ms p99",
    ],
    rows: [...rows, ...REFERENCES.requests],
    notes: [
      `${machine}. Client, upstream and target share the cores. Medians over the rounds; "added" is the difference to direct in the same round.`,
      'Lines that begin with "earlier" were measured on another 2-core machine with another client.',
    ],
  };
}

function streamTable({ names, results }: ReportInput): Table {
  const { firstToken, chunkCpu, openStreams } = results;
  const rows = names.map((name) => {
    const open = openStreams?.get(name);
    const isMeasured = open !== undefined && name !== "direct";
    return [
      name,
      firstToken === undefined ? "–" : formatNumber(added(firstToken.p50, name)),
      firstToken === undefined ? "–" : formatNumber(added(firstToken.p99, name)),
      chunkCpu === undefined ? "–" : formatNumber(middle(chunkCpu.cpuUs, name)),
      isMeasured ? `${Math.round(open.beforeBytes / MIB)} → ${Math.round(open.peakBytes / MIB)}` : "–",
      isMeasured ? formatNumber((open.peakBytes - open.beforeBytes) / OPEN_STREAMS / 1024) : "–",
      open === undefined ? "–" : String(open.lost),
      formatNumber(open?.transitP50Ms ?? null),
      formatNumber(open?.transitP99Ms ?? null),
      formatNumber(open?.firstTokenP50Ms ?? null),
    ];
  });
  return {
    title: "Streams",
    columns: [
      "target",
      "first token, added ms p50",
      "p99",
      "CPU µs/chunk",
      `RSS MB at ${OPEN_STREAMS} streams`,
      "KB/stream",
      "lost",
      "transit ms p50",
      "p99",
      "first token ms p50",
    ],
    rows: [...rows, ...REFERENCES.streams],
    notes: [
      `CPU per chunk: 100 streams of 50 tokens a second. ${OPEN_STREAMS} streams: a token every 250 ms; the last four columns are of that run.`,
    ],
  };
}

function leavingTable({ names, results }: ReportInput): Table {
  const { cancel, pause } = results;
  const rows = names.map((name) => {
    const cancelled = cancel?.get(name);
    const paused = pause?.get(name);
    return [
      name,
      ...CANCEL_STATES.map((state) => {
        if (cancelled === undefined) return "–";
        const { ms, never } = cancelled[state];
        if (never > 0) return `never (${never} of ${never + ms.length})`;
        return `${formatNumber(percentile(ms, 0.5))} / ${formatNumber(percentile(ms, 0.99))}`;
      }),
      paused === undefined ? "–" : formatNumber(paused.takenBytes / MB),
      paused === undefined ? "–" : formatNumber(paused.growthBytes / MB),
    ];
  });
  return {
    title: "Clients that leave, and one that stops reading",
    columns: [
      "target",
      "before first byte, ms p50 / p99",
      "mid-stream",
      "not streamed",
      "MB taken while paused",
      "RSS growth MB",
    ],
    rows: [...rows, ...REFERENCES.leaving],
    notes: [
      "From the client's closing its connection to the upstream's seeing it. Paused: 2.5 s at the beginning of a 72 MiB answer.",
    ],
  };
}

function lostTokens({ openStreams, chunkCpu }: GatewayResults): readonly string[] {
  const lost = [...(openStreams ?? [])]
    .filter(([, result]) => result.lost > 0)
    .map(([name, result]) => `${name} lost ${result.lost} tokens`);
  return (chunkCpu?.lost ?? 0) > 0 ? [...lost, `${chunkCpu?.lost} tokens were lost in the CPU measurement`] : lost;
}

/** What the dialects benchmark found out, as tables and figures. Pure. */
import { CLIENT_DIALECTS, type ClientDialect } from "./dialect-request.ts";
import { UPSTREAM_KINDS, type UpstreamKind } from "./dialect-upstream.ts";
import { type Figure, figure, type Report } from "./figures.ts";
import { median } from "./statistics.ts";
import { formatNumber, type Table } from "./table.ts";
import type { TranslationCost } from "./translation.ts";

export type PairName = `${ClientDialect} → ${UpstreamKind}`;

/** One value of each round. */
export interface PairRounds {
  readonly smallUs: readonly number[];
  readonly agentUs: readonly number[];
  readonly chunkUs: readonly number[];
  /** More than the floor just before it. */
  readonly addedSmallUs: readonly number[];
  readonly addedAgentUs: readonly number[];
  readonly addedChunkUs: readonly number[];
  /** Beyond a direct connection, as the next. */
  readonly firstTokenMs: readonly number[];
  readonly transitMs: readonly number[];
  readonly alone: readonly number[];
}

export interface DialectResults {
  readonly pairs: ReadonlyMap<PairName, PairRounds>;
  /** Deltas that did not come, came twice or in another order. */
  readonly lost: number;
}

/** What translation may add to the floor; the rest are the gateway's own budgets. */
const BUDGET = { requestUs: 400, chunkUs: 60, firstTokenMs: 2, transitMs: 1, alone: 0.9 } as const;

type Row = { readonly [Key in keyof PairRounds]: number } & { readonly name: PairName };

export function reportDialects(input: {
  readonly translation: readonly TranslationCost[];
  readonly results: DialectResults;
  readonly floor: PairName;
  readonly machine: string;
  readonly problems: readonly string[];
}): Report {
  const { results, floor } = input;
  const rows = [...results.pairs].map(([name, rounds]) => rowOf(name, rounds));
  const lost = results.lost === 0 ? [] : [`${results.lost} deltas were lost, doubled or out of order`];
  return {
    figures: { ...translationFigures(input.translation), ...figuresOf(rows, floor, results.lost) },
    tables: [...translationTables(input.translation), tableOf(rows, floor, input.machine)],
    details: {
      translation: input.translation,
      pairs: Object.fromEntries(rows.map(({ name, ...values }) => [name, values])),
    },
    problems: [...input.problems, ...lost],
  };
}

type Cost = "smallUs" | "agentUs" | "chunkUs";

function translationFigures(costs: readonly TranslationCost[]): Readonly<Record<string, Figure>> {
  const most = (key: Cost, budget: number) =>
    figure(Math.max(...costs.map((cost) => cost[key])), { unit: "µs", budget });
  return {
    translation_alone_small_cpu_us: most("smallUs", BUDGET.requestUs),
    translation_alone_agent_cpu_us: most("agentUs", BUDGET.requestUs),
    translation_alone_chunk_cpu_us: most("chunkUs", BUDGET.chunkUs),
  };
}

function translationTables(costs: readonly TranslationCost[]): readonly Table[] {
  const kinds: readonly (readonly [Cost, string])[] = [
    ["smallUs", "of a small request, more than its relay"],
    ["agentUs", "of an agent's 50 kB, more than their relay"],
    ["chunkUs", "of a chunk"],
  ];
  return kinds.map(([key, what]) => ({
    title: `Translation alone ${what}, CPU µs`,
    columns: ["client → upstream", ...UPSTREAM_KINDS],
    rows: CLIENT_DIALECTS.map((client) => [
      client,
      ...UPSTREAM_KINDS.map((upstream) =>
        formatNumber(costs.find((cost) => cost.client === client && cost.upstream === upstream)?.[key] ?? null),
      ),
    ]),
  }));
}

function rowOf(name: PairName, rounds: PairRounds): Row {
  return {
    name,
    smallUs: median(rounds.smallUs),
    agentUs: median(rounds.agentUs),
    chunkUs: median(rounds.chunkUs),
    addedSmallUs: median(rounds.addedSmallUs),
    addedAgentUs: median(rounds.addedAgentUs),
    addedChunkUs: median(rounds.addedChunkUs),
    firstTokenMs: median(rounds.firstTokenMs),
    transitMs: median(rounds.transitMs),
    alone: median(rounds.alone),
  };
}

function figuresOf(rows: readonly Row[], floor: PairName, lost: number): Readonly<Record<string, Figure>> {
  const base = rows.find(({ name }) => name === floor);
  const most = (key: keyof PairRounds) => Math.max(...rows.map((row) => row[key]));
  const { requestUs, chunkUs, firstTokenMs, transitMs, alone } = BUDGET;
  return {
    floor_small_cpu_us: figure(base?.smallUs ?? null, { unit: "µs" }),
    floor_agent_cpu_us: figure(base?.agentUs ?? null, { unit: "µs" }),
    floor_chunk_cpu_us: figure(base?.chunkUs ?? null, { unit: "µs" }),
    worst_added_small_cpu_us: figure(most("addedSmallUs"), { unit: "µs", budget: requestUs }),
    worst_added_agent_cpu_us: figure(most("addedAgentUs"), { unit: "µs", budget: requestUs }),
    worst_added_chunk_cpu_us: figure(most("addedChunkUs"), { unit: "µs", budget: chunkUs }),
    worst_first_token_added_ms: figure(most("firstTokenMs"), { unit: "ms", budget: firstTokenMs }),
    worst_chunk_way_added_ms: figure(most("transitMs"), { unit: "ms", budget: transitMs }),
    least_share_of_deltas_alone: figure(Math.min(...rows.map((row) => row.alone)), {
      unit: "of all",
      budget: alone,
      sense: "at-least",
    }),
    lost_deltas: figure(lost, { unit: "deltas", budget: 0 }),
  };
}

function tableOf(rows: readonly Row[], floor: PairName, machine: string): Table {
  const both = (all: number, added: number, name: PairName) =>
    name === floor ? formatNumber(all) : `${formatNumber(all)} (${signed(added)})`;
  return {
    title: "What each pair costs (and more than the floor)",
    columns: [
      "client → upstream",
      "CPU µs/request, small",
      "agent's 50 kB",
      "CPU µs/chunk",
      "first token, added ms",
      "chunk's way, added ms",
      "alone",
    ],
    rows: rows.map((row) => [
      row.name,
      both(row.smallUs, row.addedSmallUs, row.name),
      both(row.agentUs, row.addedAgentUs, row.name),
      both(row.chunkUs, row.addedChunkUs, row.name),
      formatNumber(row.firstTokenMs),
      formatNumber(row.transitMs),
      formatNumber(row.alone),
    ]),
    notes: [
      `${floor} is the floor: a relay. "alone": the share of deltas that came to the client by themselves, in the turn in which the upstream sent them.`,
      `${machine}.`,
    ],
  };
}

function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${formatNumber(Math.abs(value))}`;
}

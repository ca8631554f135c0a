/** What a benchmark found out: figures with their budgets, and whatever was wrong while they were measured. */
import { formatNumber, renderTable, type Table } from "./table.ts";

export interface Figure {
  readonly value: number | null;
  readonly unit: string;
  /** Null where there is none: the figure is only shown. */
  readonly budget: number | null;
  readonly ok: boolean;
}

export interface FigureOptions {
  readonly unit: string;
  readonly budget?: number;
  /** Whether the budget is the most that is allowed (the default) or the least. */
  readonly sense?: "at-most" | "at-least";
}

/** What a benchmark hands to `bench/main.ts`. */
export interface Report {
  readonly figures: Readonly<Record<string, Figure>>;
  readonly tables: readonly Table[];
  /** What stands in the tables, for programs. */
  readonly details?: object;
  /** Errors, lost tokens: what makes the figures worthless. A missed budget is none. */
  readonly problems: readonly string[];
}

/** A value that could not be measured is null, and misses its budget. */
export function figure(value: number | null, options: FigureOptions): Figure {
  const known = value === null || Number.isNaN(value) ? null : Math.round(value * 1000) / 1000;
  const { budget } = options;
  const isKept =
    known !== null && (budget === undefined || (options.sense === "at-least" ? known >= budget : known <= budget));
  return {
    value: known,
    unit: options.unit,
    budget: budget ?? null,
    ok: isKept || (known === null && budget === undefined),
  };
}

/** The figures as a table: every budget with its verdict. */
export function budgetTable(figures: Readonly<Record<string, Figure>>): Table {
  const rows = Object.entries(figures).map(([name, { value, unit, budget, ok }]) => [
    name,
    formatNumber(value),
    unit,
    budget === null ? "" : formatNumber(budget),
    budget === null ? "" : ok ? "kept" : "MISSED",
  ]);
  return { title: "Budgets", columns: ["figure", "value", "unit", "budget", "verdict"], rows };
}

export function printReport(name: string, report: Report, asJson: boolean): void {
  const hasFigures = Object.keys(report.figures).length > 0;
  const tables = hasFigures ? [...report.tables, budgetTable(report.figures)] : report.tables;
  for (const table of tables) console.log(`\n${renderTable(table)}`);
  for (const problem of report.problems) console.log(`\nPROBLEM: ${problem}`);
  if (asJson) console.log(JSON.stringify({ bench: name, figures: report.figures, details: report.details }));
}

/** Tables for people: the first column to the left, numbers to the right. */

export interface Table {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Lines below the table. */
  readonly notes?: readonly string[];
}

export function renderTable(table: Table): string {
  const widths = table.columns.map((column, index) =>
    Math.max(column.length, ...table.rows.map((row) => (row[index] ?? "").length)),
  );
  const line = (cells: readonly string[]) =>
    `| ${widths.map((width, index) => pad(cells[index] ?? "", { width, left: index === 0 })).join(" | ")} |`;
  const rule = `|${widths.map((width, index) => (index === 0 ? "-".repeat(width + 2) : `${"-".repeat(width + 1)}:`)).join("|")}|`;
  return [`### ${table.title}`, "", line(table.columns), rule, ...table.rows.map(line), ...notes(table)].join("\n");
}

/** `1234.5` → `1,235`, `12.345` → `12.3`, `1.234` → `1.23`; `–` for what is not known. */
export function formatNumber(value: number | null): string {
  if (value === null || Number.isNaN(value)) return "–";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function pad(text: string, how: { readonly width: number; readonly left: boolean }): string {
  return how.left ? text.padEnd(how.width) : text.padStart(how.width);
}

function notes(table: Table): readonly string[] {
  return table.notes === undefined ? [] : ["", ...table.notes];
}

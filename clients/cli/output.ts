/**
 * What a command writes.
 * 1. stdout holds the result and nothing else: text for people, or JSON with `--json` (one document, or one object a line for streams).
 * 2. Everything about the result (who answers, progress, warnings, errors) goes to stderr.
 * 3. Colours only where the stream is a terminal and NO_COLOR is unset; text from elsewhere reaches a terminal escaped (terminal-text.ts).
 */
import { styleText } from "node:util";
import { type ErrorCode, GhostApiError } from "../../protocol/errors.ts";
import { asCalled } from "./invocation.ts";
import { escapeJson, escapeLine, escapeText } from "./terminal-text.ts";

export type Format = Parameters<typeof styleText>[0];

/** Wide enough for a table where nobody says how wide the terminal is. */
const DEFAULT_COLUMNS = 100;
/** A cell that is shortened further says nothing. */
const MIN_FLEXIBLE_COLUMNS = 12;

export interface Output {
  readonly json: boolean;
  /** Whether a person looks at stdout. */
  readonly isTerminal: boolean;
  readonly columns: number;
  /** One line of the result; the text must be safe already. */
  line(text?: string): void;
  /** A piece of a model's answer: escaped on a terminal, byte for byte elsewhere. */
  answer(text: string): void;
  /** The whole result as JSON. */
  document(value: unknown): void;
  /** One item of a streamed result as JSON. */
  item(value: unknown): void;
  /** One line about the result, on stderr; dimmed unless a format is given. The text must be safe already. */
  note(text: string, format?: Format): void;
  /** Part of a line, on stderr, as it is. */
  raw(text: string): void;
  /** Colours a piece of a line of stdout. */
  paint(format: Format, text: string): string;
  /** Tells people, and programs with `--json`. */
  failure(error: GhostApiError): void;
  /** An error as JSON alone, where people have been told already. */
  error(error: GhostApiError): void;
}

export function createOutput(json: boolean): Output {
  const { stdout, stderr } = process;
  const paintNote = (format: Format, text: string) => styleText(format, text, { stream: stderr });
  const write = (value: unknown, indent?: number) => {
    const text = JSON.stringify(value, null, indent);
    stdout.write(`${stdout.isTTY ? escapeJson(text) : text}\n`);
  };
  const writeError = ({ code, message, details, advice, retryAfterMs }: GhostApiError) =>
    write({ error: { code, message, details, advice, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) } });
  return {
    json,
    isTerminal: stdout.isTTY,
    columns: stdout.columns ?? DEFAULT_COLUMNS,
    line: (text = "") => void stdout.write(`${text}\n`),
    answer: (text) => void stdout.write(stdout.isTTY ? escapeText(text) : text),
    document: (value) => write(value, 2),
    item: (value) => write(value),
    note: (text, format = "dim") => void stderr.write(`${paintNote(format, text)}\n`),
    raw: (text) => void stderr.write(text),
    paint: (format, text) => styleText(format, text, { stream: stdout }),
    failure(error) {
      if (json) writeError(error);
      stderr.write(`${paintNote("red", "ghost:")} ${escapeLine(asCalled(error.message))}\n  ${adviceFor(error)}\n`);
    },
    error: writeError,
  };
}

/** What to do next, for people: the catalogue's advice with what it points at in `details`, safe for a terminal. */
export function adviceFor({ code, details, advice }: GhostApiError): string {
  const { field, rule } = details;
  if (code === "invalid_params" && typeof field === "string" && field !== "")
    return `Correct \`${escapeLine(field)}\`.`;
  if (code === "invalid_params") return "Correct what the message names.";
  if (code === "denied" && typeof rule === "string") {
    return `The rule is ${escapeLine(rule)}. Change warden.toml if you want to allow it.`;
  }
  return asCalled(advice);
}

/** An error of the catalogue that this side found. */
export function failure(
  code: ErrorCode,
  message: string,
  details: Readonly<Record<string, string | number>> = {},
): GhostApiError {
  return new GhostApiError({ code, message, details });
}

export function isCancelled(error: unknown): boolean {
  return error instanceof GhostApiError && error.code === "cancelled";
}

export interface Column<Row> {
  readonly title: string;
  readonly text: (row: Row) => string;
  readonly align?: "right";
  /** Shortened where the terminal is too narrow, the widest of them first. */
  readonly flexible?: boolean;
  readonly format?: (row: Row) => Format;
}

/** Prints rows under dimmed titles. Cells are escaped, and shortened to fit a terminal. */
export function table<Row>(output: Output, rows: readonly Row[], columns: readonly Column<Row>[]): void {
  const cells = rows.map((row) => columns.map((column) => escapeLine(column.text(row))));
  const widths = columns.map((column, index) =>
    Math.max(column.title.length, ...cells.map((row) => row[index]?.length ?? 0)),
  );
  if (output.isTerminal) {
    const total = widths.reduce((sum, width) => sum + width + 2, -2);
    let excess = Math.max(0, total - output.columns);
    const flexible = columns.flatMap((column, index) => (column.flexible === true ? [index] : []));
    for (const index of flexible.toSorted((a, b) => (widths[b] ?? 0) - (widths[a] ?? 0))) {
      const width = widths[index] ?? 0;
      const fitted = Math.min(width, Math.max(MIN_FLEXIBLE_COLUMNS, width - excess));
      widths[index] = fitted;
      excess -= width - fitted;
    }
  }
  const pad = (text: string, index: number) => {
    const width = widths[index] ?? 0;
    const fitted = text.length > width ? `${text.slice(0, width - 1)}…` : text;
    return columns[index]?.align === "right" ? fitted.padStart(width) : fitted.padEnd(width);
  };
  output.line(
    output.paint(
      "dim",
      columns
        .map((column, index) => pad(column.title, index))
        .join("  ")
        .trimEnd(),
    ),
  );
  rows.forEach((row, rowIndex) => {
    const line = columns.map((column, index) => {
      const text = pad(cells[rowIndex]?.[index] ?? "", index);
      const format = column.format?.(row);
      return format === undefined ? text : output.paint(format, text);
    });
    output.line(line.join("  ").trimEnd());
  });
}

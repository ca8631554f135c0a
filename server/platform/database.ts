/** What the rest of the server sees of SQLite (`sqlite.ts` implements it). */
import type { z } from "zod";

export type SqlValue = string | number | null | Buffer;
export interface Statement {
  readonly sql: string;
  readonly values: readonly SqlValue[];
}

export interface Database extends AsyncDisposable {
  readonly file: string;
  /** Rows parsed by `row`. Reads see everything that was committed before the call. */
  read<Row>(row: z.ZodType<Row>, sql: string, values: readonly SqlValue[]): Promise<readonly Row[]>;
  /**
   * Runs the statements in order inside one transaction, grouped with other callers' (group commit); resolves once committed so that it survives a
   * killed process (WAL, synchronous=NORMAL). A failing statement rolls back this caller's statements only.
   * @throws OperationalError `storage_full`, `overloaded` when the queue is full.
   */
  write(statements: readonly Statement[]): Promise<void>;
  /** The same, but resolves only once the commit also survives a power loss (synchronous=FULL). */
  writeDurable(statements: readonly Statement[]): Promise<void>;
}

/**
 * `npm run bench -- NAME [--json] […]`: runs one benchmark and prints its tables; with `--json` the last line is
 * `{"bench":NAME,"figures":{…}}`. A missed budget is reported; only what makes figures worthless (errors, lost tokens) is a failure.
 */
import { printReport, type Report } from "./figures.ts";

const BENCHMARKS: Readonly<Record<string, () => Promise<{ measure(args: readonly string[]): Promise<Report> }>>> = {
  dialects: () => import("./dialects.ts"),
  gateway: () => import("./gateway.ts"),
  start: () => import("./start.ts"),
};

/** Leaving by `exit` lets the child processes be killed (processes.ts); a signal's own way would not. */
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

const [name = "", ...rest] = process.argv.slice(2);
const load = Object.hasOwn(BENCHMARKS, name) ? BENCHMARKS[name] : undefined;
if (load === undefined) {
  process.stderr.write(`Usage: npm run bench -- <${Object.keys(BENCHMARKS).join(" | ")}> [--json] [--quick]\n`);
  process.exitCode = 2;
} else {
  const { measure } = await load();
  const report = await measure(rest.filter((argument) => argument !== "--json"));
  printReport(name, report, rest.includes("--json"));
  if (report.problems.length > 0) process.exitCode = 1;
}

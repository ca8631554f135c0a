/** `ghost doctor`: what is missing, in plain words, with the command that mends it. Works without a daemon too. */
import type { Command } from "commander";
import type { DoctorFinding } from "../../../protocol/daemon.ts";
import { GhostApiError } from "../../../protocol/errors.ts";
import type { CliContext, Runner } from "../context.ts";
import { tryConnect } from "../daemon-process.ts";
import { examineWithoutDaemon } from "../local-checks.ts";
import { asCalled } from "../invocation.ts";
import { examples } from "../options.ts";
import { escapeLine, wrap } from "../terminal-text.ts";

const MARKS = { ok: "✓", warning: "!", problem: "✗" } as const;
const FORMATS = { ok: "green", warning: "yellow", problem: "red" } as const;

export function registerDoctor(program: Command, run: Runner): void {
  program
    .command("doctor")
    .description("say what is missing and the command that mends it (exit code 1 when there is a problem)")
    .addHelpText("after", examples("ghost doctor", "ghost doctor --json"))
    .action(run((context) => doctor(context)));
}

async function doctor(context: CliContext): Promise<number> {
  const { output } = context;
  const findings = await collectFindings(context);
  const hasProblem = findings.some((finding) => finding.state === "problem");
  if (output.json) output.document({ ok: !hasProblem, findings });
  else for (const finding of findings) printFinding(context, finding);
  return hasProblem ? 1 : 0;
}

async function collectFindings(context: CliContext): Promise<readonly DoctorFinding[]> {
  const { locations, signal } = context;
  try {
    using client = await tryConnect(locations);
    if (client !== undefined) return (await client.api.daemon.doctor({}, signal)).findings;
  } catch (error) {
    if (!(error instanceof GhostApiError) || error.code === "cancelled") throw error;
    const refused: DoctorFinding = {
      subject: "daemon",
      state: "problem",
      message: error.message,
      remedy: error.advice,
    };
    return [refused, ...(await examineWithoutDaemon(locations))];
  }
  const absent: DoctorFinding = {
    subject: "daemon",
    state: "problem",
    message: `no daemon answers at ${locations.socket}`,
    remedy: "ghost start",
  };
  return [absent, ...(await examineWithoutDaemon(locations))];
}

function printFinding({ output }: CliContext, finding: DoctorFinding): void {
  const subject = escapeLine(finding.subject);
  const [first = "", ...rest] = wrap(
    `${subject}: ${escapeLine(asCalled(finding.message))}`,
    Math.max(40, output.columns - 4),
  );
  output.line(`${output.paint(FORMATS[finding.state], MARKS[finding.state])} ${first}`);
  for (const line of rest) output.line(`  ${line}`);
  // One line, however long: it is there to be copied.
  if (finding.remedy !== undefined)
    output.line(`  ${output.paint("bold", `→ ${escapeLine(asCalled(finding.remedy))}`)}`);
}

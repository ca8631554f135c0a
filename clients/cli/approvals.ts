/**
 * GhostWarden's questions on the terminal. Only an explicit key counts as an answer: everything else, and a program that is not on a terminal,
 * abstains. Another face may answer first; then that is shown.
 */
import type { Approval, ApprovalOutcome } from "../../protocol/approval.ts";
import { GhostApiError } from "../../protocol/errors.ts";
import type { GhostApi } from "../../protocol/ghost-api.ts";
import { isCancelled, type Output } from "./output.ts";
import type { TerminalInput } from "./terminal-input.ts";
import { escapeLine, formatDuration } from "./terminal-text.ts";

/** More open questions than a person answers at once; later ones are left to other faces. */
const MAX_WAITING = 32;

interface Asker {
  readonly api: GhostApi;
  readonly output: Output;
  readonly input: TerminalInput;
  readonly signal: AbortSignal;
}

interface Waiting {
  readonly approval: Approval;
  readonly settled: AbortController;
}

/** Asks until disposed. Errors end the asking and nothing else: the work that needs consent reports them itself. */
export function askOnTerminal(options: Omit<Asker, "signal">): AsyncDisposable {
  const stop = new AbortController();
  const done = watch({ ...options, signal: stop.signal }).catch((error: unknown) => {
    if (!isCancelled(error) && !(error instanceof GhostApiError && error.code === "daemon_unreachable")) throw error;
  });
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await done;
    },
  };
}

async function watch(asker: Asker): Promise<void> {
  const waiting = new Map<string, Waiting>();
  let last = Promise.resolve();
  for await (const update of asker.api.approval.watch({}, asker.signal)) {
    if (update.kind === "settled") {
      const found = waiting.get(update.id);
      waiting.delete(update.id);
      if (found === undefined) continue;
      found.settled.abort();
      asker.output.note(`(${describeSettled(update.outcome, update.by)})`);
    } else if (waiting.size < MAX_WAITING) {
      const entry = { approval: update.approval, settled: new AbortController() };
      waiting.set(update.approval.id, entry);
      // One question after the other.
      last = last.then(() => ask(asker, entry, waiting));
    }
  }
  await last;
}

async function ask(asker: Asker, entry: Waiting, waiting: Map<string, Waiting>): Promise<void> {
  const { approval, settled } = entry;
  const { api, input, output, signal } = asker;
  const either = AbortSignal.any([signal, settled.signal]);
  const key = await input.askKey(() => printQuestion(output, approval), ["a", "d"], either);
  if (key === undefined) return;
  waiting.delete(approval.id);
  const outcome: ApprovalOutcome = key === "a" ? "allow_once" : "reject_once";
  try {
    const result = await api.approval.respond({ id: approval.id, outcome }, signal);
    if (result.kind === "accepted")
      output.note(outcome === "allow_once" ? "allowed once" : `denied (${escapeLine(approval.reason)})`);
    else if (result.kind === "expired") output.note("too late: the question has expired, which counts as no", "yellow");
    else output.note(describeSettled(result.outcome, result.by));
  } catch (error) {
    if (!(error instanceof GhostApiError)) throw error;
    output.note(escapeLine(error.message), "yellow");
  }
}

function printQuestion(output: Output, approval: Approval): void {
  const remainingMs = Math.max(0, approval.expiresAtMs - Date.now());
  output.note(`GhostWarden asks: ${escapeLine(approval.actor)} wants to act`, ["bold", "yellow"]);
  output.note(`  why: ${escapeLine(approval.reason)}`, "yellow");
  for (const effect of approval.effects) output.note(`  · ${escapeLine(effect)}`, "yellow");
  output.note(
    `  [a]llow once / [d]eny   (Esc leaves it to others; no answer within ${formatDuration(remainingMs)} counts as no)`,
    "bold",
  );
}

function describeSettled(outcome: string, by: string | undefined): string {
  const who = by === undefined ? "" : ` by ${escapeLine(by)}`;
  switch (outcome) {
    case "allow_once":
      return `allowed${who}`;
    case "reject_once":
      return `denied${who}`;
    case "expired":
      return "nobody answered in time, which counts as no";
    default:
      return "the question was withdrawn";
  }
}

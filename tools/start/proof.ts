/**
 * The proof of `npm start`: a real completion of a real file of this repository, through the whole stack.
 * The text before the cursor is dimmed and the model's is not, so that one sees what is whose.
 */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { CompletionUpdate } from "../../protocol/completion.ts";
import { GhostApiError } from "../../protocol/errors.ts";
import type { GhostApi } from "../../protocol/ghost-api.ts";
import type { Output } from "../../clients/cli/output.ts";
import { escapeLine, escapeText, formatDuration, wrap } from "../../clients/cli/terminal-text.ts";

/** Real code whose continuation even a very small model can guess. */
const FILE = "server/base/text.ts";
/** The cursor stands behind this text. */
const BEFORE_CURSOR = "    for (let column = 1; column";
const SHOWN_LINES = 5;
const WIDTH = 78;
const CODE_WIDTH = 72;

export async function showProof(output: Output, api: GhostApi, signal: AbortSignal): Promise<void> {
  const text = await readFile(fileURLToPath(new URL(`../../${FILE}`, import.meta.url)), "utf8");
  const found = text.indexOf(BEFORE_CURSOR);
  const cursor = found === -1 ? text.length : found + BEFORE_CURSOR.length;
  const before = text.slice(0, cursor).split("\n");
  output.line(output.paint("bold", "A completion") + ` at ${FILE}:${before.length}`);
  const { engine } = await api.daemon.status({}, signal);
  const remark = engine.state === "ready" ? "" : " (with the engine's start)";
  const startedAt = performance.now();
  const updates = api.completion.create({ prefix: text.slice(0, cursor), suffix: text.slice(cursor) }, signal);
  for await (const update of updates) {
    if (update.kind === "started") showStart(output, update, before);
    if (update.kind === "text") process.stdout.write(output.paint(["bold", "green"], escapeText(update.text)));
    if (update.kind === "failed") throw new GhostApiError(update.error);
    if (update.kind === "finished")
      showEnd(output, update, `${formatDuration(performance.now() - startedAt)}${remark}`);
  }
}

function showStart(
  output: Output,
  started: Extract<CompletionUpdate, { kind: "started" }>,
  before: readonly string[],
): void {
  const reason = `${escapeLine(started.model)} answers: ${escapeLine(started.decision.reason)}`;
  for (const line of wrap(reason, WIDTH)) output.line(`  ${line}`);
  if (started.note !== undefined) {
    for (const line of wrap(escapeLine(started.note), WIDTH)) output.line(output.paint("yellow", `  ${line}`));
  }
  output.line();
  const shown = before.slice(-SHOWN_LINES);
  const first = before.length - shown.length + 1;
  const numbered = shown.map((line, index) => `${String(first + index).padStart(4)} │ ${shorten(line)}`).join("\n");
  process.stdout.write(output.paint("dim", numbered));
}

/** Keeps a line within the terminal. */
function shorten(line: string): string {
  return line.length > CODE_WIDTH ? `${line.slice(0, CODE_WIDTH - 1)}…` : line;
}

function showEnd(output: Output, end: Extract<CompletionUpdate, { kind: "finished" }>, total: string): void {
  const tokens = end.usage.completionTokens === undefined ? "" : `${end.usage.completionTokens} tokens, `;
  output.line();
  output.line();
  output.line(`  ${tokens}the first after ${formatDuration(end.firstTokenMs)}, all after ${total}`);
}

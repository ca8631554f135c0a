/** The progress of a download, on stderr: a bar with rate and remaining time on a terminal, a line now and then elsewhere. */
import type { ModelPullUpdate } from "../../protocol/model.ts";
import type { Output } from "./output.ts";
import { escapeLine, formatBytes, formatDuration } from "./terminal-text.ts";

/** The rate is that of the last seconds: a download that slows down shows it. */
const RATE_WINDOW_MS = 5000;
/** More often than this no eye sees. */
const REDRAW_MS = 100;
const LINE_EVERY_MS = 10_000;
const BAR_CELLS = 24;

export interface PullProgress {
  show(update: ModelPullUpdate): void;
  /** Leaves the line of the bar. */
  end(): void;
}

interface Sample {
  readonly atMs: number;
  readonly bytes: number;
}

type ProgressUpdate = Extract<ModelPullUpdate, { kind: "progress" }>;

export function createPullProgress(output: Output): PullProgress {
  const isTerminal = process.stderr.isTTY;
  let samples: Sample[] = [];
  let shownAtMs = Number.NEGATIVE_INFINITY;
  let isBarShown = false;
  let pending: NodeJS.Timeout | undefined;
  const end = () => {
    clearTimeout(pending);
    if (isBarShown) output.raw("\n");
    isBarShown = false;
  };
  const say = (text: string) => {
    end();
    output.note(text);
  };
  const draw = (update: ProgressUpdate) => {
    shownAtMs = performance.now();
    const text = describeProgress(update.receivedBytes, update.totalBytes, rate(samples));
    if (!isTerminal) return output.note(text);
    output.raw(`\r\u001b[K${text}`);
    isBarShown = true;
  };
  const showProgress = (update: ProgressUpdate) => {
    const nowMs = performance.now();
    const bytes = update.receivedBytes;
    if (samples.length === 0 && update.resumedFromBytes > 0) say(`resuming at ${formatBytes(update.resumedFromBytes)}`);
    samples = [...samples.filter(({ atMs }) => nowMs - atMs <= RATE_WINDOW_MS), { atMs: nowMs, bytes }];
    clearTimeout(pending);
    const dueMs = shownAtMs + (isTerminal ? REDRAW_MS : LINE_EVERY_MS) - nowMs;
    if (dueMs <= 0 || bytes === update.totalBytes) draw(update);
    // The last update before a silence is shown too.
    else pending = setTimeout(() => draw(update), dueMs);
  };
  return {
    end,
    show(update) {
      switch (update.kind) {
        case "progress":
          return showProgress(update);
        case "checking":
          return say("checking the file");
        case "retrying":
          samples = [];
          return say(
            `${escapeLine(update.reason)}; trying again in ${formatDuration(update.inMs)} (attempt ${update.attempt})`,
          );
        case "done":
          return end();
      }
    },
  };
}

function rate(samples: readonly Sample[]): number | undefined {
  const first = samples[0];
  const last = samples.at(-1);
  if (first === undefined || last === undefined || last.atMs - first.atMs < REDRAW_MS) return undefined;
  return ((last.bytes - first.bytes) / (last.atMs - first.atMs)) * 1000;
}

/** `[████████░░░░] 45 %  1.2 GiB of 2.6 GiB  12.3 MiB/s  2 min 3 s left` */
export function describeProgress(
  received: number,
  total: number | undefined,
  bytesPerSecond: number | undefined,
): string {
  const speed = bytesPerSecond === undefined ? [] : [`${formatBytes(bytesPerSecond)}/s`];
  if (total === undefined || total === 0) return [`${formatBytes(received)}`, ...speed].join("  ");
  const share = Math.min(1, received / total);
  const full = Math.floor(share * BAR_CELLS);
  const bar = `[${"█".repeat(full)}${"░".repeat(BAR_CELLS - full)}]`;
  const remaining =
    bytesPerSecond === undefined || bytesPerSecond <= 0 || share === 1
      ? []
      : [`${formatDuration(((total - received) / bytesPerSecond) * 1000)} left`];
  const percent = `${Math.floor(share * 100)} %`.padStart(5);
  return [`${bar} ${percent}`, `${formatBytes(received)} of ${formatBytes(total)}`, ...speed, ...remaining].join("  ");
}

/**
 * `npm run bench -- start`: how long ghostd takes to be ready, what it holds when idle, how fast a second face attaches, and what the
 * embedded engine's first token costs cold and warm. Bare Node, started in turns with it, is the floor.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpus } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { GhostApi } from "../protocol/ghost-api.ts";
import { connectSocket } from "../protocol/node/socket-transport.ts";
import { type Figure, figure, type Report } from "./figures.ts";
import { rssBytes } from "./proc.ts";
import { median, percentile, range } from "./statistics.ts";
import { formatNumber, type Table } from "./table.ts";
import { type Ghostd, startGhostd } from "./targets.ts";

const BUDGET = { readyMs: 1000, idleRssMb: 120, attachMs: 50 } as const;
const IDLE_AFTER_MS = 5000;
const MIB = 1024 * 1024;

interface EngineTimes {
  readonly coldMs: number;
  readonly warmMs: readonly number[];
}

export async function measure(args: readonly string[]): Promise<Report> {
  const { values } = parseArgs({ args: [...args], options: { quick: { type: "boolean", default: false } } });
  const runs = values.quick ? 4 : 10;
  const nodeMs: number[] = [];
  const readyMs: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    nodeMs.push(await timeBareNode());
    await using daemon = await startGhostd("");
    readyMs.push(daemon.process.startMs);
  }
  await using daemon = await startGhostd("");
  await sleep(IDLE_AFTER_MS);
  const idleRssMb = rssBytes(daemon.process.pid) / MIB;
  const attachMs = await timeAttach(daemon, runs);
  const engine = await timeEngine(daemon, runs);
  const figures: Readonly<Record<string, Figure>> = {
    ready_p50_ms: figure(median(readyMs), { unit: "ms", budget: BUDGET.readyMs }),
    ready_max_ms: figure(range(readyMs).high, { unit: "ms" }),
    bare_node_p50_ms: figure(median(nodeMs), { unit: "ms" }),
    idle_rss_mb: figure(idleRssMb, { unit: "MB", budget: BUDGET.idleRssMb }),
    second_client_attach_p50_ms: figure(median(attachMs), { unit: "ms", budget: BUDGET.attachMs }),
    second_client_attach_max_ms: figure(range(attachMs).high, { unit: "ms" }),
    engine_cold_first_token_ms: figure(engine.coldMs, { unit: "ms" }),
    engine_warm_first_token_p50_ms: figure(median(engine.warmMs), { unit: "ms" }),
    engine_warm_first_token_p95_ms: figure(percentile(engine.warmMs, 0.95), { unit: "ms" }),
  };
  return {
    figures,
    tables: [startTable({ nodeMs, readyMs, attachMs, engine, idleRssMb, version: daemon.version })],
    problems: [],
  };
}

/** From spawn to exit of a Node that does nothing. */
async function timeBareNode(): Promise<number> {
  const startedAt = performance.now();
  const child = spawn(process.execPath, ["-e", "0"], { stdio: "ignore" });
  await once(child, "exit");
  return performance.now() - startedAt;
}

/** From connecting to the answer to `initialize`, while another face is attached. */
async function timeAttach(daemon: Ghostd, runs: number): Promise<readonly number[]> {
  using _first = await connectSocket(daemon.socket, { key: daemon.faceKey, clientName: "bench-first" });
  const times: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    const startedAt = performance.now();
    using _second = await connectSocket(daemon.socket, { key: daemon.faceKey, clientName: "bench-second" });
    times.push(performance.now() - startedAt);
  }
  return times;
}

async function timeEngine(daemon: Ghostd, runs: number): Promise<EngineTimes> {
  using client = await connectSocket(daemon.socket, { key: daemon.faceKey, clientName: "bench" });
  const coldMs = await timeFirstToken(client.api, 0);
  const warmMs: number[] = [];
  for (let run = 1; run <= runs * 2; run += 1) warmMs.push(await timeFirstToken(client.api, run));
  return { coldMs, warmMs };
}

async function timeFirstToken(api: GhostApi, run: number): Promise<number> {
  // Each prompt begins differently: nothing of the previous one can be reused.
  const prefix = `// example ${run}\nexport function add${run}(left: number, right: number): number {\n  return `;
  const startedAt = performance.now();
  let firstMs: number | undefined;
  for await (const update of api.completion.create({ prefix, suffix: "\n}\n" }, AbortSignal.timeout(60_000))) {
    if (update.kind === "text") firstMs ??= performance.now() - startedAt;
    if (update.kind === "failed") throw new Error(`the completion failed: ${update.error.message}`);
  }
  if (firstMs === undefined) throw new Error(`the completion of ${JSON.stringify(prefix)} was empty`);
  return firstMs;
}

function startTable(input: {
  readonly nodeMs: readonly number[];
  readonly readyMs: readonly number[];
  readonly attachMs: readonly number[];
  readonly engine: EngineTimes;
  readonly idleRssMb: number;
  readonly version: string;
}): Table {
  const row = (name: string, values: readonly number[]) => {
    const { low, high } = range(values);
    return [name, ...[median(values), low, high].map(formatNumber), String(values.length)];
  };
  return {
    title: "Start",
    columns: ["what", "median", "least", "most", "runs"],
    rows: [
      row("bare node -e 0, ms", input.nodeMs),
      row("ghostd to its ready line, ms", input.readyMs),
      row(`RSS ${IDLE_AFTER_MS / 1000} s after, MB`, [input.idleRssMb]),
      row("second face attaches, ms", input.attachMs),
      row("embedded engine, first token, cold, ms", [input.engine.coldMs]),
      row("embedded engine, first token, warm, ms", input.engine.warmMs),
    ],
    notes: [
      `ghostd ${input.version}, Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}.`,
      "Named references: Copilot's language server is ready in 1–3 s and holds 330 MB; n8n 24 s and 830 MB.",
    ],
  };
}

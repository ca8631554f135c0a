/**
 * What the gateway benchmark measures, phase by phase.
 * 1. Targets take turns within each round, and the order turns from round to round, so that a busy moment of the machine hits them alike.
 * 2. "Added" is the difference to the direct connection of the same round; the figure is the median over the rounds.
 */
import type { CancelResult, CancelState, StreamsResult } from "./load-commands.ts";
import type { LoadDriver } from "./load-driver.ts";
import { cpuTimeUs, watchMemory } from "./proc.ts";
import { median } from "./statistics.ts";
import { startTarget, type Target, type TargetName, type Upstream } from "./targets.ts";

/** How long and how often everything is measured. */
export interface Effort {
  readonly rounds: number;
  readonly requestsPerRound: number;
  readonly saturateMs: number;
  readonly streamsPerRound: number;
  readonly chunkStreamTokens: number;
  readonly openStreamTokens: number;
  readonly cancelTries: number;
}

export const FULL_EFFORT: Effort = {
  rounds: 5,
  requestsPerRound: 400,
  saturateMs: 3000,
  streamsPerRound: 150,
  chunkStreamTokens: 200,
  openStreamTokens: 40,
  cancelTries: 30,
};
export const QUICK_EFFORT: Effort = {
  rounds: 3,
  requestsPerRound: 150,
  saturateMs: 1500,
  streamsPerRound: 60,
  chunkStreamTokens: 100,
  openStreamTokens: 12,
  cancelTries: 8,
};

export interface Bench {
  readonly load: LoadDriver;
  readonly upstream: Upstream;
  readonly targets: readonly Target[];
  readonly effort: Effort;
  /** Tells the user what is going on. */
  progress(what: string): void;
}

/** Measures of one target, one of each round. */
export type Rounds = ReadonlyMap<TargetName, readonly number[]>;

export const SMALL_PROMPT_BYTES = 270;
export const CONNECTIONS = 64;
export const OPEN_STREAMS = 1000;
const OPEN_STREAM_MS_PER_TOKEN = 250;
const CHUNK_STREAMS = 100;
const CHUNK_MS_PER_TOKEN = 20;
/** Streams are opened over this time, as clients come, not all in one turn. */
const RAMP_MS = 1000;
const FIRST_TOKEN_MODEL = "t4e2";
const ANSWER_MODEL = "t16";
const BIG_MODEL = "big72";
const PAUSE_MS = 2500;
const WARM_UP_REQUESTS = 400;
const WARM_UP_STREAMS = 40;
/** Fresh processes whose memory is measured serve this many requests before. */
const FEW_REQUESTS = 100;

/** All models that the phases ask the upstream for. */
export function modelsFor(effort: Effort): readonly string[] {
  return [ANSWER_MODEL, FIRST_TOKEN_MODEL, chunkModel(effort), openModel(effort), "wait", "t1000e20", BIG_MODEL];
}

const chunkModel = (effort: Effort) => `t${effort.chunkStreamTokens}e${CHUNK_MS_PER_TOKEN}`;
const openModel = (effort: Effort) => `t${effort.openStreamTokens}e${OPEN_STREAM_MS_PER_TOKEN}`;

/** Lets every target compile its hot paths before anything is measured. */
export async function warmUp(load: LoadDriver, target: Target): Promise<void> {
  const common = { target: target.address, promptBytes: SMALL_PROMPT_BYTES } as const;
  await load.run({ kind: "saturate", ...common, model: ANSWER_MODEL, connections: 8, durationMs: 1000 });
  await serveSome(load, target, WARM_UP_REQUESTS);
}

/** Requests and streams one at a time: loads what is loaded lazily, and leaves the heap as small as it is in use. */
async function serveSome(load: LoadDriver, target: Target, count: number): Promise<void> {
  const sequence = { kind: "sequence", target: target.address, promptBytes: SMALL_PROMPT_BYTES } as const;
  await load.run({ ...sequence, model: ANSWER_MODEL, stream: false, count });
  await load.run({ ...sequence, model: FIRST_TOKEN_MODEL, stream: true, count: WARM_UP_STREAMS });
}

/** Times of requests that are sent one at a time: p50 and p99 of each round. */
export async function measureLatency(
  bench: Bench,
  what: { readonly promptBytes: number; readonly stream: boolean },
): Promise<{ readonly p50: Rounds; readonly p99: Rounds }> {
  const p50 = emptyRounds(bench);
  const p99 = emptyRounds(bench);
  const { requestsPerRound, streamsPerRound } = bench.effort;
  const count = what.stream ? streamsPerRound : requestsPerRound;
  const model = what.stream ? FIRST_TOKEN_MODEL : ANSWER_MODEL;
  await inTurns(bench, async (target) => {
    const result = await bench.load.run({ kind: "sequence", target: target.address, model, count, ...what });
    p50.get(target.name)?.push(result.p50Ms);
    p99.get(target.name)?.push(result.p99Ms);
  });
  return { p50, p99 };
}

export interface Throughput {
  readonly perSecond: Rounds;
  readonly p50: Rounds;
  readonly p99: Rounds;
  /** CPU time of the target's process for each request; empty for the direct connection. */
  readonly cpuUs: Rounds;
}

export async function measureThroughput(bench: Bench): Promise<Throughput> {
  const result = {
    perSecond: emptyRounds(bench),
    p50: emptyRounds(bench),
    p99: emptyRounds(bench),
    cpuUs: emptyRounds(bench),
  };
  const common = {
    kind: "saturate",
    model: ANSWER_MODEL,
    promptBytes: SMALL_PROMPT_BYTES,
    connections: CONNECTIONS,
  } as const;
  await inTurns(bench, async (target) => {
    await bench.load.run({ ...common, target: target.address, durationMs: bench.effort.saturateMs / 5 });
    const before = target.pid === undefined ? 0 : cpuTimeUs(target.pid);
    const load = await bench.load.run({ ...common, target: target.address, durationMs: bench.effort.saturateMs });
    result.perSecond.get(target.name)?.push((load.requests / load.elapsedMs) * 1000);
    result.p50.get(target.name)?.push(load.p50Ms);
    result.p99.get(target.name)?.push(load.p99Ms);
    if (target.pid !== undefined) result.cpuUs.get(target.name)?.push((cpuTimeUs(target.pid) - before) / load.requests);
  });
  return result;
}

/** CPU time for each streamed chunk, with 100 streams of 50 tokens a second. */
export async function measureChunkCpu(bench: Bench): Promise<{ readonly cpuUs: Rounds; readonly lost: number }> {
  const cpuUs = emptyRounds(bench);
  let lost = 0;
  const { chunkStreamTokens: tokens } = bench.effort;
  const shape = {
    kind: "streams",
    model: chunkModel(bench.effort),
    streams: CHUNK_STREAMS,
    tokens,
    rampMs: RAMP_MS,
  } as const;
  await inTurns({ ...bench, effort: { ...bench.effort, rounds: Math.min(3, bench.effort.rounds) } }, async (target) => {
    if (target.pid === undefined) return;
    const before = cpuTimeUs(target.pid);
    const result = await bench.load.run({ ...shape, target: target.address });
    cpuUs.get(target.name)?.push((cpuTimeUs(target.pid) - before) / result.chunks);
    lost += result.lost;
  });
  return { cpuUs, lost };
}

export interface OpenStreams extends StreamsResult {
  readonly beforeBytes: number;
  readonly peakBytes: number;
}

/** Memory with 1,000 open streams, in fresh processes that have served a little; once each. */
export async function measureOpenStreams(bench: Bench): Promise<ReadonlyMap<TargetName, OpenStreams>> {
  const results = new Map<TargetName, OpenStreams>();
  const { openStreamTokens: tokens } = bench.effort;
  const shape = {
    kind: "streams",
    model: openModel(bench.effort),
    streams: OPEN_STREAMS,
    tokens,
    rampMs: RAMP_MS,
  } as const;
  for (const { name } of bench.targets) {
    bench.progress(name);
    await using target = await startTarget(name, bench.upstream);
    await serveSome(bench.load, target, FEW_REQUESTS);
    const work = () => bench.load.run({ ...shape, target: target.address });
    const { result, beforeBytes, peakBytes } = await watchTarget(target, work);
    results.set(name, { ...result, beforeBytes, peakBytes });
  }
  return results;
}

export const CANCEL_STATES = ["before-first-byte", "mid-stream", "non-stream"] as const;

/** How long it takes until the upstream sees that the client has gone, in each state. */
export async function measureCancel(
  bench: Bench,
): Promise<ReadonlyMap<TargetName, Readonly<Record<CancelState, CancelResult>>>> {
  const results = new Map<TargetName, Record<CancelState, CancelResult>>();
  const upstreamPort = bench.upstream.port;
  for (const target of bench.targets) {
    bench.progress(target.name);
    const run = (state: CancelState) =>
      bench.load.run({ kind: "cancel", target: target.address, upstreamPort, state, tries: bench.effort.cancelTries });
    results.set(target.name, {
      "before-first-byte": await run("before-first-byte"),
      "mid-stream": await run("mid-stream"),
      "non-stream": await run("non-stream"),
    });
  }
  return results;
}

export interface Pause {
  readonly takenBytes: number;
  readonly growthBytes: number;
}

/** What a client that stops reading a 72 MiB answer costs, in fresh processes that have served a little; once each. */
export async function measurePause(bench: Bench): Promise<ReadonlyMap<TargetName, Pause>> {
  const results = new Map<TargetName, Pause>();
  for (const { name } of bench.targets) {
    bench.progress(name);
    await using target = await startTarget(name, bench.upstream);
    await serveSome(bench.load, target, FEW_REQUESTS);
    const command = { kind: "pause", upstreamPort: bench.upstream.port, model: BIG_MODEL, pauseMs: PAUSE_MS } as const;
    const { result, beforeBytes, peakBytes } = await watchTarget(target, () =>
      bench.load.run({ ...command, target: target.address }),
    );
    results.set(name, { takenBytes: result.takenBytes, growthBytes: peakBytes - beforeBytes });
  }
  return results;
}

/** The median over the rounds of the difference to the direct connection (2). */
export function added(rounds: Rounds, name: TargetName): number {
  return median(paired(rounds, name).map(([value, direct]) => value - direct));
}

/** The median over the rounds of the ratio to the direct connection (2). */
export function ratio(rounds: Rounds, name: TargetName): number {
  return median(paired(rounds, name).map(([value, direct]) => value / direct));
}

export function middle(rounds: Rounds, name: TargetName): number {
  return median(rounds.get(name) ?? []);
}

function paired(rounds: Rounds, name: TargetName): readonly (readonly [number, number])[] {
  const direct = rounds.get("direct") ?? [];
  return (rounds.get(name) ?? []).map((value, round) => [value, direct[round] ?? Number.NaN] as const);
}

function emptyRounds(bench: Bench): ReadonlyMap<TargetName, number[]> {
  return new Map(bench.targets.map((target) => [target.name, []]));
}

async function inTurns(bench: Bench, measure: (target: Target) => Promise<void>): Promise<void> {
  const { targets, effort } = bench;
  for (let round = 0; round < effort.rounds; round += 1) {
    bench.progress(`round ${round + 1} of ${effort.rounds}`);
    const first = round % targets.length;
    for (const target of [...targets.slice(first), ...targets.slice(0, first)]) await measure(target);
  }
}

async function watchTarget<Result>(target: Target, work: () => Promise<Result>) {
  if (target.pid === undefined) return { result: await work(), beforeBytes: Number.NaN, peakBytes: Number.NaN };
  return watchMemory(target.pid, work);
}

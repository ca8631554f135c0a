/**
 * `npm run bench -- dialects`: what it costs to answer a client of each dialect from each kind of upstream. `--quick` takes a third of the time, and
 * `--brief` only shows that everything works; `--clients chat,messages` and `--upstreams gemini` take a part.
 * 1. The floor is chat completions from a compatible server: a relay, in the same process, with the same content, measured anew before the pairs of each
 *    client. "Added" is what a pair costs more than the floor just before it.
 * 2. Clients and their pairs take turns within each round, in another order each round; a figure is the median over the rounds.
 * 3. CPU is that of ghostd's process, threads included, until it is idle again: what is stored after the answer belongs to the request.
 * 4. Before all that, translation alone is measured in this process (`translation.ts`): what is left of "added" is sockets, storage, garbage and noise.
 * 5. First token and way through are compared with a direct connection to the upstream in the same round.
 */
import { cpus, loadavg } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { z } from "zod";
import type { TargetAddress } from "./chat-request.ts";
import { CLIENT_DIALECTS, type ClientDialect, type RequestSize } from "./dialect-request.ts";
import { type DialectResults, type PairName, type PairRounds, reportDialects } from "./dialects-report.ts";
import { MODEL_NAMES, UPSTREAM_KINDS, type UpstreamKind } from "./dialect-upstream.ts";
import type { Report } from "./figures.ts";
import type { SequenceResult } from "./load-commands.ts";
import { type LoadDriver, startLoadDriver } from "./load-driver.ts";
import { cpuTimeUs } from "./proc.ts";
import { startNode } from "./processes.ts";
import { type Ghostd, startGhostd } from "./targets.ts";
import { measureTranslation, type TranslationEffort } from "./translation.ts";

interface Effort {
  readonly rounds: number;
  /** Counted, not timed: what V8 does beside the requests weighs the same on a busy machine and an idle one. */
  readonly requests: Readonly<Record<RequestSize, number>>;
  readonly sequences: number;
  readonly translation: TranslationEffort;
  readonly streams: number;
  /** Of each stream whose chunks are counted: many, so that the cost of its request is next to nothing beside them. */
  readonly tokens: number;
}
const EFFORTS = {
  full: {
    translation: { runs: 12, requests: 60, chunks: 5_000 },
    rounds: 5,
    requests: { small: 600, agent: 250 },
    sequences: 25,
    streams: 40,
    tokens: 150,
  },
  quick: {
    translation: { runs: 8, requests: 40, chunks: 3_000 },
    rounds: 3,
    requests: { small: 300, agent: 120 },
    sequences: 10,
    streams: 25,
    tokens: 100,
  },
  brief: {
    translation: { runs: 1, requests: 2, chunks: 20 },
    rounds: 1,
    requests: { small: 5, agent: 5 },
    sequences: 2,
    streams: 2,
    tokens: 5,
  },
} as const satisfies Readonly<Record<string, Effort>>;

/** One delta: nearly all of such an answer is the request's own cost. */
const REQUEST_PLAN = "t1";
const chunkPlan = ({ tokens }: Effort) => `t${tokens}e10`;
/** Far enough apart that none has a reason to wait for the next. */
const TURN_PLAN = "t8e5";
const CONNECTIONS = 8;
/** Nothing takes so long; a daemon that hangs is not waited for. */
const SATURATE_LIMIT_MS = 30_000;
const PROMPT_BYTES = 270;
const RAMP_MS = 100;
/** A process that uses less than a tick of CPU within this time is idle (3). */
const IDLE_MS = 80;
const IDLE_TICK_US = 10_000;
const IDLE_LIMIT_MS = 5_000;
const KEY = "sk-bench-0123456789abcdef";

interface Pair {
  readonly name: PairName;
  readonly client: ClientDialect;
  readonly upstream: UpstreamKind;
  readonly target: TargetAddress;
}

const modelOf = (upstream: UpstreamKind, plan: string) => `${MODEL_NAMES[upstream]}-${plan}`;
const FLOOR: PairName = "chat → compatible";

export async function measure(args: readonly string[]): Promise<Report> {
  const options = {
    quick: { type: "boolean", default: false },
    brief: { type: "boolean", default: false },
    clients: { type: "string" },
    upstreams: { type: "string" },
  } as const;
  const { values } = parseArgs({ args: [...args], options });
  const effort: Effort = EFFORTS[values.brief ? "brief" : values.quick ? "quick" : "full"];
  const load1 = loadavg()[0] ?? 0;
  process.stderr.write("translation alone\n");
  const translation = await measureTranslation(effort.translation);
  await using cleanUp = new AsyncDisposableStack();
  const host = cleanUp.use(await startHost([REQUEST_PLAN, TURN_PLAN, chunkPlan(effort)]));
  const daemon = cleanUp.use(await startGhostd(configFor(host.origin), keysOf()));
  const load = cleanUp.use(await startLoadDriver());
  const pairs = pairsOf(daemon, await ollamaPort(daemon)).filter(
    ({ name, client, upstream }) =>
      name === FLOOR || (isChosen(values.clients, client) && isChosen(values.upstreams, upstream)),
  );
  const direct: TargetAddress = { port: host.directPort, modelPrefix: "" };
  const results = await measurePairs({ load, pid: daemon.process.pid, pairs, direct, effort });
  const cpu = `${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}`;
  const machine = `${cpu}, Node ${process.version}, load before the run ${load1.toFixed(1)}`;
  return reportDialects({ translation, results, floor: FLOOR, machine, problems: load.problems });
}

const isChosen = (list: string | undefined, name: string) => list === undefined || list.split(",").includes(name);

interface Host extends AsyncDisposable {
  readonly origin: string;
  readonly directPort: number;
}

async function startHost(plans: readonly string[]): Promise<Host> {
  const script = fileURLToPath(new URL("./dialect-host.ts", import.meta.url));
  const started = await startNode({ args: [script, "--plans", plans.join(",")] });
  const { origin, directPort } = z.object({ origin: z.string(), directPort: z.number() }).parse(started.ready);
  return { origin, directPort, [Symbol.asyncDispose]: () => started[Symbol.asyncDispose]() };
}

function configFor(origin: string): string {
  return [
    "[http.ollama]\nenabled = true\nport = 0",
    "[providers.ollama]\ndiscover = false",
    `[providers.compatible.compatible]\nbase_url = "${origin}/compatible/v1"`,
    `[providers.openai]\nbase_url = "${origin}/openai/v1"`,
    `[providers.anthropic]\nbase_url = "${origin}/anthropic/v1"`,
    `[providers.gemini]\nbase_url = "${origin}/gemini/v1beta"`,
    `[providers.ollama.hosts.bench]\nurl = "${origin}/ollama"\nparallel = 1000`,
  ].join("\n");
}

const keysOf = () => ({ OPENAI_API_KEY: KEY, ANTHROPIC_API_KEY: KEY, GEMINI_API_KEY: KEY });

/** The keyless front's port is chosen by the system and stands in the log. */
async function ollamaPort(daemon: Ghostd): Promise<number> {
  const line = (await daemon.log()).split("\n").find((text) => text.includes('"ollama_http.listening"'));
  return z.object({ port: z.number() }).parse(JSON.parse(line ?? "{}")).port;
}

function pairsOf(daemon: Ghostd, keylessPort: number): readonly Pair[] {
  return CLIENT_DIALECTS.flatMap((client) =>
    UPSTREAM_KINDS.map((upstream): Pair => {
      const door = client === "ollama" ? { port: keylessPort } : { port: daemon.port, key: daemon.modelKey };
      const suffix = upstream === "ollama" ? { modelSuffix: "@bench" } : {};
      const target = { ...door, modelPrefix: `${upstream}/`, ...suffix };
      return { name: `${client} → ${upstream}`, client, upstream, target };
    }),
  );
}

interface Run {
  readonly load: LoadDriver;
  readonly pid: number;
  readonly pairs: readonly Pair[];
  readonly direct: TargetAddress;
  readonly effort: Effort;
}

async function measurePairs(run: Run): Promise<DialectResults> {
  const { pairs, effort } = run;
  for (const pair of pairs) {
    process.stderr.write(`warming up: ${pair.name}\n`);
    for (const size of ["small", "agent"] as const) await saturate(run, pair, size);
    await streams(run, pair, Math.ceil(effort.streams / 4));
  }
  const measured = new Map(pairs.map(({ name }) => [name, emptyRounds()]));
  const floor = pairs.find(({ name }) => name === FLOOR);
  let lost = 0;
  for (let round = 0; round < effort.rounds; round += 1) {
    process.stderr.write(`round ${round + 1} of ${effort.rounds}\n`);
    for (const client of turned(CLIENT_DIALECTS, round)) {
      const own = pairs.filter((pair) => pair.client === client && pair !== floor);
      if (floor === undefined || own.length === 0) continue;
      const direct = await oneByOne(run, { target: run.direct, dialect: "chat", upstream: "compatible" });
      const below = await measurePair(run, floor, direct);
      lost += below.lost;
      add(measured.get(FLOOR), below, below);
      for (const pair of turned(own, round)) {
        const result = await measurePair(run, pair, direct);
        lost += result.lost;
        add(measured.get(pair.name), result, below);
      }
    }
  }
  return { pairs: measured, lost };
}

const turned = <Item>(items: readonly Item[], by: number): readonly Item[] =>
  items.map((item, at) => items[(at + by) % items.length] ?? item);

async function measurePair(run: Run, pair: Pair, direct: SequenceResult) {
  const smallUs = await cpuPerRequest(run, pair, "small");
  const agentUs = await cpuPerRequest(run, pair, "agent");
  const { cpuUs: chunkUs, lost } = await cpuPerChunk(run, pair);
  const turns = await oneByOne(run, { target: pair.target, dialect: pair.client, upstream: pair.upstream });
  const firstTokenMs = turns.p50Ms - direct.p50Ms;
  const transitMs = turns.transitP50Ms - direct.transitP50Ms;
  return { smallUs, agentUs, chunkUs, lost, firstTokenMs, transitMs, alone: turns.aloneShare };
}

type Measured = Awaited<ReturnType<typeof measurePair>>;

function add(into: Growing | undefined, result: Measured, floor: Measured): void {
  into?.smallUs.push(result.smallUs);
  into?.agentUs.push(result.agentUs);
  into?.chunkUs.push(result.chunkUs);
  into?.addedSmallUs.push(result.smallUs - floor.smallUs);
  into?.addedAgentUs.push(result.agentUs - floor.agentUs);
  into?.addedChunkUs.push(result.chunkUs - floor.chunkUs);
  into?.firstTokenMs.push(result.firstTokenMs);
  into?.transitMs.push(result.transitMs);
  into?.alone.push(result.alone);
}

type Growing = { -readonly [Key in keyof PairRounds]: number[] };

function emptyRounds(): Growing {
  const added = { addedSmallUs: [], addedAgentUs: [], addedChunkUs: [] };
  return { smallUs: [], agentUs: [], chunkUs: [], ...added, firstTokenMs: [], transitMs: [], alone: [] };
}

async function saturate(run: Run, { client, upstream, target }: Pair, size: RequestSize): Promise<number> {
  const asking = { target, model: modelOf(upstream, REQUEST_PLAN), dialect: client, size, promptBytes: PROMPT_BYTES };
  const how = { stream: true, connections: CONNECTIONS, durationMs: SATURATE_LIMIT_MS } as const;
  const requests = run.effort.requests[size];
  return (await run.load.run({ kind: "saturate", ...asking, ...how, requests })).requests;
}

function streams({ load, effort }: Run, { client, upstream, target }: Pair, count: number) {
  const asking = { target, model: modelOf(upstream, chunkPlan(effort)), dialect: client };
  const { tokens } = effort;
  return load.run({ kind: "streams", ...asking, streams: count, tokens, rampMs: RAMP_MS });
}

function oneByOne(
  { load, effort }: Run,
  of: { readonly target: TargetAddress; readonly dialect: ClientDialect; readonly upstream: UpstreamKind },
) {
  const { target, dialect, upstream } = of;
  const asking = { target, dialect, model: modelOf(upstream, TURN_PLAN), promptBytes: PROMPT_BYTES };
  return load.run({ kind: "sequence", ...asking, stream: true, count: effort.sequences });
}

async function cpuPerRequest(run: Run, pair: Pair, size: RequestSize): Promise<number> {
  await untilIdle(run.pid);
  const before = cpuTimeUs(run.pid);
  const requests = await saturate(run, pair, size);
  await untilIdle(run.pid);
  return (cpuTimeUs(run.pid) - before) / requests;
}

async function cpuPerChunk(run: Run, pair: Pair): Promise<{ readonly cpuUs: number; readonly lost: number }> {
  await untilIdle(run.pid);
  const before = cpuTimeUs(run.pid);
  const { chunks, lost } = await streams(run, pair, run.effort.streams);
  await untilIdle(run.pid);
  return { cpuUs: (cpuTimeUs(run.pid) - before) / chunks, lost };
}

/** (3) */
async function untilIdle(pid: number): Promise<void> {
  const deadline = performance.now() + IDLE_LIMIT_MS;
  for (let used = cpuTimeUs(pid); performance.now() < deadline; ) {
    await sleep(IDLE_MS);
    const now = cpuTimeUs(pid);
    if (now - used <= IDLE_TICK_US) return;
    used = now;
  }
}

/**
 * `npm run bench -- gateway`: what ghostd costs between a client and an OpenAI-compatible server, beside a direct connection and plain
 * proxies in the same run. `--quick` takes a quarter of the time; `--targets direct,plain` and `--only latency,cancel` take a part.
 */
import { cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";
import type { Report } from "./figures.ts";
import { buildReport } from "./gateway-report.ts";
import {
  type Bench,
  FULL_EFFORT,
  measureCancel,
  measureChunkCpu,
  measureLatency,
  measureOpenStreams,
  measurePause,
  measureThroughput,
  modelsFor,
  QUICK_EFFORT,
  SMALL_PROMPT_BYTES,
  warmUp,
} from "./gateway-phases.ts";
import { startLoadDriver } from "./load-driver.ts";
import { rssBytes } from "./proc.ts";
import { hasDaemon, startTarget, startUpstream, TARGET_NAMES, type Target, type TargetName } from "./targets.ts";

const PROMPT_SIZES = [
  { label: "270b", bytes: SMALL_PROMPT_BYTES },
  { label: "8kb", bytes: 8_000 },
  { label: "78kb", bytes: 78_000 },
] as const;

const PHASES = ["latency", "throughput", "first-token", "chunk-cpu", "open-streams", "cancel", "pause"] as const;
type Phase = (typeof PHASES)[number];

export async function measure(args: readonly string[]): Promise<Report> {
  const options = {
    quick: { type: "boolean", default: false },
    targets: { type: "string" },
    only: { type: "string" },
  } as const;
  const { values } = parseArgs({ args: [...args], options });
  const names = chosen(values.targets, TARGET_NAMES);
  const phases = new Set<Phase>(chosen(values.only, PHASES));
  if (names.includes("ghostd") && !hasDaemon())
    throw new Error("there is no daemon to measure: leave it out with --targets");
  const effort = values.quick ? QUICK_EFFORT : FULL_EFFORT;

  // Taken before this benchmark adds its own: on a machine that is busy with something else the figures are worth little.
  const foreignLoad = loadavg()[0] ?? 0;
  await using cleanUp = new AsyncDisposableStack();
  const upstream = cleanUp.use(await startUpstream(modelsFor(effort)));
  const load = cleanUp.use(await startLoadDriver());
  const targets: Target[] = [];
  for (const name of withDirect(names)) targets.push(cleanUp.use(await startTarget(name, upstream)));
  let phase = "warming up";
  const progress = (what: string) => process.stderr.write(`${phase}: ${what}\n`);
  const bench: Bench = { load, upstream, targets, effort, progress };
  for (const target of targets) {
    progress(target.name);
    await warmUp(load, target);
  }
  const during = async <Result>(name: Phase, work: () => Promise<Result>): Promise<Result | undefined> => {
    phase = name;
    return phases.has(name) ? work() : undefined;
  };
  const latency = await during("latency", async () => {
    const results = [];
    for (const size of PROMPT_SIZES) {
      results.push({ ...size, ...(await measureLatency(bench, { promptBytes: size.bytes, stream: false })) });
    }
    return results;
  });
  const results = {
    latency,
    throughput: await during("throughput", () => measureThroughput(bench)),
    firstToken: await during("first-token", () =>
      measureLatency(bench, { promptBytes: SMALL_PROMPT_BYTES, stream: true }),
    ),
    chunkCpu: await during("chunk-cpu", () => measureChunkCpu(bench)),
    openStreams: await during("open-streams", () => measureOpenStreams(bench)),
    cancel: await during("cancel", () => measureCancel(bench)),
    pause: await during("pause", () => measurePause(bench)),
  };
  const state: { readonly violations: readonly string[] } = JSON.parse(
    await (await fetch(`http://127.0.0.1:${upstream.port}/bench/state`)).text(),
  );
  const daemon = targets.find((target) => target.name === "ghostd");
  const rssAtEndBytes = daemon?.pid === undefined ? undefined : rssBytes(daemon.pid);
  const cpu = `${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}`;
  const machine = `${cpu}, Node ${process.version}, load before the run ${foreignLoad.toFixed(1)}`;
  const problems = [
    ...load.problems,
    ...state.violations.map((what) => `the upstream was asked what it does not model: ${what}`),
  ];
  return buildReport({ names: targets.map((target) => target.name), results, rssAtEndBytes, machine, problems });
}

function withDirect(names: readonly TargetName[]): readonly TargetName[] {
  return ["direct", ...names.filter((name) => name !== "direct")];
}

function chosen<Name extends string>(list: string | undefined, known: readonly Name[]): readonly Name[] {
  if (list === undefined) return known;
  const asked = list.split(",");
  const unknown = asked.find((name) => !known.some((other) => other === name));
  if (unknown !== undefined) throw new Error(`${unknown} is none of ${known.join(", ")}`);
  return known.filter((name) => asked.includes(name));
}

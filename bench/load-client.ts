/**
 * The load client: a process of its own, so that its work is not the benchmark's. Reads one command a line, answers one line each.
 * Times are taken here; what the upstream saw it asks the upstream.
 */
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { type FastHostState, monotonicUs } from "../test/fakes/openai-host-fast.ts";
import { DeltaReader, RequestMaker } from "./chat-request.ts";
import type { ClientDialect } from "./dialect-request.ts";
import { HttpConnection } from "./http-connection.ts";
import {
  CANCEL_AFTER_TOKENS,
  CANCEL_LIMIT_MS,
  CANCEL_MODEL,
  type CancelCommand,
  type CancelResult,
  type LoadCommand,
  type LoadReply,
  type PauseCommand,
  type PauseResult,
  type SaturateCommand,
  type SaturateResult,
  type SequenceCommand,
  type SequenceResult,
  type StreamsCommand,
  type StreamsResult,
  WAITING_MODEL,
} from "./load-commands.ts";
import { percentile } from "./statistics.ts";

/** The prompt of requests whose size does not matter. */
const SMALL_PROMPT_BYTES = 270;
/** How often the upstream is asked; more often and the asking would be in the figures. */
const ASK_EVERY_MS = 3;
/** No answer of a benchmark takes longer than this. */
const ANSWER_LIMIT_MS = 60_000;

/** The failures of the command that runs. */
class Failures {
  count = 0;
  first: string | undefined;
  add(what: string): void {
    this.count += 1;
    this.first ??= what;
  }
}

interface Exchange {
  readonly totalMs: number;
  readonly firstTokenMs: number;
  readonly transitsMs: readonly number[];
  /** Deltas that came by themselves. */
  readonly alone: number;
}

/** Sends one request and reads the answer to its end; undefined where it failed. */
function exchange(
  connection: HttpConnection,
  how: {
    readonly request: Buffer;
    readonly stream: boolean;
    readonly failures: Failures;
    readonly dialect: ClientDialect | undefined;
  },
): Promise<Exchange | undefined> {
  const { failures } = how;
  return new Promise((resolve) => {
    const startedAt = performance.now();
    let firstTokenMs = Number.NaN;
    let status = 0;
    let failed = "";
    const transitsMs: number[] = [];
    const reader = new DeltaReader((sentAtUs) => {
      if (Number.isNaN(firstTokenMs)) firstTokenMs = performance.now() - startedAt;
      transitsMs.push((monotonicUs() - sentAtUs) / 1000);
    }, how.dialect);
    connection.send(how.request, {
      onHead: (code) => {
        status = code;
      },
      onBody: (chunk) => {
        if (status !== 200) failed += chunk.toString().slice(0, 500);
        else if (how.stream) reader.read(chunk);
      },
      onEnd: () => {
        if (status !== 200 || reader.error !== undefined) {
          failures.add(`status ${status} ${reader.error ?? failed}`);
          resolve(undefined);
        } else if (how.stream && (!reader.isDone || reader.misplaced > 0)) {
          failures.add(`a stream of ${reader.count} deltas, ${reader.misplaced} misplaced, without its end`);
          resolve(undefined);
        } else {
          resolve({ totalMs: performance.now() - startedAt, firstTokenMs, transitsMs, alone: reader.alone });
        }
      },
      onError: (error) => {
        failures.add(error.message);
        resolve(undefined);
      },
    });
  });
}

async function runSequence(command: SequenceCommand, failures: Failures): Promise<SequenceResult> {
  const requests = new RequestMaker(command.target, command);
  const connection = new HttpConnection(command.target.port);
  const { stream, dialect } = command;
  const times: number[] = [];
  const transits: number[] = [];
  let alone = 0;
  for (let index = 0; index < command.count && failures.count === 0; index += 1) {
    const answer = await exchange(connection, { request: requests.make(), stream, failures, dialect });
    if (answer === undefined) continue;
    times.push(stream ? answer.firstTokenMs : answer.totalMs);
    transits.push(...answer.transitsMs);
    alone += answer.alone;
  }
  connection.destroy();
  if (times.some(Number.isNaN)) failures.add("a stream without a single delta");
  return {
    p50Ms: percentile(times, 0.5),
    p99Ms: percentile(times, 0.99),
    transitP50Ms: percentile(transits, 0.5),
    aloneShare: alone / transits.length,
  };
}

async function runSaturate(command: SaturateCommand, failures: Failures): Promise<SaturateResult> {
  const { stream = false, dialect } = command;
  const requests = new RequestMaker(command.target, { ...command, stream });
  const times: number[] = [];
  const startedAt = performance.now();
  const deadline = startedAt + command.durationMs;
  let left = command.requests ?? Number.POSITIVE_INFINITY;
  const keepBusy = async () => {
    const connection = new HttpConnection(command.target.port);
    while (performance.now() < deadline && left > 0) {
      left -= 1;
      const answer = await exchange(connection, { request: requests.make(), stream, failures, dialect });
      if (answer === undefined) break;
      times.push(answer.totalMs);
    }
    connection.destroy();
  };
  await Promise.all(Array.from({ length: command.connections }, keepBusy));
  const elapsedMs = performance.now() - startedAt;
  return { requests: times.length, elapsedMs, p50Ms: percentile(times, 0.5), p99Ms: percentile(times, 0.99) };
}

async function runStreams(command: StreamsCommand, failures: Failures): Promise<StreamsResult> {
  const requests = new RequestMaker(command.target, { ...command, promptBytes: SMALL_PROMPT_BYTES, stream: true });
  const firstTokens: number[] = [];
  const transits: number[] = [];
  let lost = 0;
  const readOne = async (_: unknown, index: number) => {
    await sleep((index / command.streams) * command.rampMs);
    const reader = await readStream(new HttpConnection(command.target.port), requests.make(), {
      failures,
      firstTokens,
      transits,
      dialect: command.dialect,
    });
    lost += Math.max(Math.abs(command.tokens - reader.count), reader.misplaced);
    if (!reader.isDone) failures.add(`a stream ended after ${reader.count} deltas, without its end`);
  };
  await Promise.all(Array.from({ length: command.streams }, readOne));
  return {
    chunks: transits.length,
    lost,
    firstTokenP50Ms: percentile(firstTokens, 0.5),
    transitP50Ms: percentile(transits, 0.5),
    transitP99Ms: percentile(transits, 0.99),
  };
}

function readStream(
  connection: HttpConnection,
  request: Buffer,
  out: {
    readonly failures: Failures;
    readonly firstTokens: number[];
    readonly transits: number[];
    readonly dialect: ClientDialect | undefined;
  },
): Promise<DeltaReader> {
  return new Promise((resolve) => {
    const startedUs = monotonicUs();
    const reader = new DeltaReader((sentAtUs) => {
      const nowUs = monotonicUs();
      out.transits.push((nowUs - sentAtUs) / 1000);
      if (reader.count === 1) out.firstTokens.push((nowUs - startedUs) / 1000);
    }, out.dialect);
    const end = () => {
      clearTimeout(timer);
      connection.destroy();
      if (reader.error !== undefined) out.failures.add(reader.error);
      resolve(reader);
    };
    const fail = (error: Error) => {
      out.failures.add(error.message);
      end();
    };
    const timer = setTimeout(() => fail(new Error(`no end within ${ANSWER_LIMIT_MS} ms`)), ANSWER_LIMIT_MS);
    connection.send(request, {
      onHead: (status) => {
        if (status !== 200) out.failures.add(`status ${status}`);
      },
      onBody: (chunk) => reader.read(chunk),
      onEnd: end,
      onError: fail,
    });
  });
}

async function runCancel(command: CancelCommand, failures: Failures): Promise<CancelResult> {
  const upstream = new HttpConnection(command.upstreamPort);
  const isMidStream = command.state === "mid-stream";
  const requests = new RequestMaker(command.target, {
    model: isMidStream ? CANCEL_MODEL : WAITING_MODEL,
    promptBytes: SMALL_PROMPT_BYTES,
    stream: command.state !== "non-stream",
  });
  const ms: number[] = [];
  let never = 0;
  for (let index = 0; index < command.tries && failures.count === 0; index += 1) {
    await askState(upstream); // Empties what it remembers of earlier ones.
    const connection = new HttpConnection(command.target.port);
    const reader = new DeltaReader(() => {});
    connection.send(requests.make(), {
      onBody: (chunk) => reader.read(chunk),
      onEnd: () => failures.add("an answer that should have waited came to its end"),
      onError: (error) => failures.add(error.message),
    });
    const isThere = (state: FastHostState) => state.open > 0 && (!isMidStream || reader.count >= CANCEL_AFTER_TOKENS);
    if ((await askUntil(upstream, isThere, ANSWER_LIMIT_MS)) === undefined)
      failures.add("the request never came upstream");
    const leftAtUs = monotonicUs();
    connection.destroy();
    const seen = await askUntil(upstream, (state) => state.brokenOff.length > 0, CANCEL_LIMIT_MS);
    const atUs = seen?.brokenOff[0]?.atUs;
    if (atUs === undefined) never += 1;
    else ms.push((atUs - leftAtUs) / 1000);
  }
  upstream.destroy();
  return { ms, never };
}

async function runPause(command: PauseCommand, failures: Failures): Promise<PauseResult> {
  const requests = new RequestMaker(command.target, { ...command, promptBytes: SMALL_PROMPT_BYTES, stream: true });
  const connection = new HttpConnection(command.target.port);
  connection.send(requests.make(), {
    onHead: (status) => {
      if (status !== 200) failures.add(`status ${status}`);
      connection.socket.pause();
    },
    onBody: () => {},
    onEnd: () => failures.add("the big answer ended although nobody read it"),
    onError: (error) => failures.add(error.message),
  });
  await sleep(command.pauseMs);
  const upstream = new HttpConnection(command.upstreamPort);
  const { bigBytesTaken } = await askState(upstream);
  upstream.destroy();
  connection.destroy();
  return { takenBytes: bigBytesTaken };
}

async function askUntil(
  upstream: HttpConnection,
  condition: (state: FastHostState) => boolean,
  limitMs: number,
): Promise<FastHostState | undefined> {
  const deadline = performance.now() + limitMs;
  while (performance.now() < deadline) {
    const state = await askState(upstream);
    if (condition(state)) return state;
    await sleep(ASK_EVERY_MS);
  }
  return undefined;
}

function askState(upstream: HttpConnection): Promise<FastHostState> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    upstream.send(Buffer.from("GET /bench/state HTTP/1.1\r\nhost: bench\r\n\r\n"), {
      onBody: (chunk) => chunks.push(chunk),
      onEnd: () => resolve(JSON.parse(Buffer.concat(chunks).toString())),
      onError: reject,
    });
  });
}

function run(command: LoadCommand, failures: Failures): Promise<unknown> {
  switch (command.kind) {
    case "sequence":
      return runSequence(command, failures);
    case "saturate":
      return runSaturate(command, failures);
    case "streams":
      return runStreams(command, failures);
    case "cancel":
      return runCancel(command, failures);
    case "pause":
      return runPause(command, failures);
  }
}

process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  const failures = new Failures();
  const command: LoadCommand = JSON.parse(line);
  const result = await run(command, failures);
  const reply: LoadReply<unknown> = {
    result,
    errors: failures.count,
    ...(failures.first === undefined ? {} : { firstError: failures.first }),
  };
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}

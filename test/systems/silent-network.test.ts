/** An upstream whose network drops every packet: the limits hold, a cancel works meanwhile, and other models are not held up. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { ask, call, errorOf, sse, textOf } from "../support/http.ts";

const UPSTREAM = fileURLToPath(new URL("./silent-upstream.ts", import.meta.url));
/** A network of two addresses out of 10.0.0.0/8 that nobody is likely to have. */
const [HERE, THERE] = ["10.213.77.1", "10.213.77.2"] as const;
const LIMIT_S = 3;

interface Network extends AsyncDisposable {
  readonly port: number;
  /** Resolves when the upstream has read as many requests in all. */
  asked(count: number): Promise<void>;
  /** From now on every packet in either direction is lost; open connections stay open. */
  silence(): void;
}

function ip(...args: string[]): void {
  const { status, stderr } = spawnSync("ip", args, { encoding: "utf8" });
  assert.equal(status, 0, `ip ${args.join(" ")}: ${stderr}`);
}

/** A network namespace with an upstream in it, reached over a pair of virtual Ethernet devices. */
async function upstreamElsewhere(): Promise<Network> {
  const name = `gs${process.pid}`;
  const device = `${name}h`;
  let child: ChildProcess | undefined;
  const remove = () => {
    child?.kill("SIGKILL");
    // The devices end with the namespace.
    spawnSync("ip", ["netns", "del", name]);
    spawnSync("ip", ["link", "del", device]);
  };
  process.once("exit", remove);
  try {
    ip("netns", "add", name);
    ip("link", "add", device, "type", "veth", "peer", "name", "there", "netns", name);
    ip("addr", "add", `${HERE}/30`, "dev", device);
    ip("link", "set", device, "up");
    ip("-n", name, "addr", "add", `${THERE}/30`, "dev", "there");
    ip("-n", name, "link", "set", "there", "up");
    const upstream = spawn("ip", ["netns", "exec", name, process.execPath, UPSTREAM, THERE], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    child = upstream;
    const lines = createInterface({ input: upstream.stdout });
    const [port] = await once(lines, "line");
    let seen = 0;
    const changes = new EventEmitter();
    lines.on("line", () => {
      seen += 1;
      changes.emit("change");
    });
    return {
      port: Number(port),
      async asked(count) {
        const signal = AbortSignal.timeout(10_000);
        while (seen < count) await once(changes, "change", { signal });
      },
      silence: () => ip("-n", name, "link", "set", "there", "down"),
      async [Symbol.asyncDispose]() {
        const ended = once(upstream, "exit");
        remove();
        await ended;
        process.off("exit", remove);
      },
    };
  } catch (error) {
    remove();
    throw error;
  }
}

async function start(network: Network): Promise<TestDaemon> {
  return startTestDaemon({
    config: `[providers.ollama]\ndiscover = false\n[providers.compatible.far]\nbase_url = "http://${THERE}:${network.port}/v1"\nlocality = "lan"\nmodels = ["m"]\nheaders_timeout_s = ${LIMIT_S}\nidle_timeout_s = ${LIMIT_S}\n`,
  });
}

async function othersWork(daemon: TestDaemon): Promise<void> {
  const reply = await call(daemon, "/v1/completions", {
    body: { model: "embedded/tiny-code-fim", prompt: "const a = ", max_tokens: 4 },
  });
  assert.equal(reply.status, 200, reply.text);
}

/** The text of a stream up to where it was cut. */
async function readCut(response: Response): Promise<string> {
  let text = "";
  try {
    for await (const chunk of (response.body ?? new ReadableStream()).pipeThrough(new TextDecoderStream()))
      text += chunk;
  } catch {
    // It is cut behind its last frame.
  }
  return text;
}

async function openAnswers(daemon: TestDaemon): Promise<number> {
  using client = await daemon.connect();
  return (await client.api.daemon.status({}, AbortSignal.timeout(10_000))).openAnswers;
}

test("when a network goes silent, waiting requests time out with typed errors, a cancel works meanwhile, and other models answer", async () => {
  await using network = await upstreamElsewhere();
  await using daemon = await start(network);
  const controller = new AbortController();
  const response = await fetch(`${daemon.http}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${daemon.modelKey}` },
    body: JSON.stringify(ask("far/m", { stream: true })),
  });
  const stream = readCut(response);
  const waiting = call(daemon, "/v1/chat/completions", { body: ask("far/m") });
  const given = call(daemon, "/v1/chat/completions", {
    body: ask("far/m", { user: "gives up" }),
    signal: controller.signal,
  });
  const gaveUp = assert.rejects(given, { name: "AbortError" });
  await network.asked(3);
  network.silence();
  assert.equal(await openAnswers(daemon), 3);

  const startedAt = performance.now();
  controller.abort();
  await gaveUp;
  const signal = AbortSignal.timeout(10_000);
  while ((await openAnswers(daemon)) === 3) signal.throwIfAborted();
  assert.ok(performance.now() - startedAt < LIMIT_S * 1000, "the cancel did not wait for the time limit");
  await othersWork(daemon);

  const timedOut = await waiting;
  assert.equal(timedOut.status, 504, timedOut.text);
  assert.equal(errorOf(timedOut).code, "upstream_timeout");
  const { chunks, isDone } = sse(await stream);
  assert.equal(isDone, false);
  assert.match(textOf(chunks.slice(0, -1)), /^(word )+$/);
  assert.match(JSON.stringify(chunks.at(-1)), /"code":"upstream_timeout"/);
  assert.equal(await openAnswers(daemon), 0);
  await othersWork(daemon);
});

test("a host that cannot be reached any more is a typed error within the limits, and the daemon stops cleanly in the middle of it", async () => {
  await using network = await upstreamElsewhere();
  await using daemon = await start(network);
  network.silence();
  const reply = await call(daemon, "/v1/chat/completions", { body: ask("far/m") });
  assert.ok(["upstream_unreachable", "upstream_timeout"].includes(errorOf(reply).code), reply.text);
  assert.ok(reply.status === 502 || reply.status === 504);
  await othersWork(daemon);
  const waiting = call(daemon, "/v1/chat/completions", { body: ask("far/m") }).catch(() => undefined);
  while ((await openAnswers(daemon)) === 0);
  assert.deepEqual(await daemon.stop(), { code: 0, signal: null });
  await waiting;
});

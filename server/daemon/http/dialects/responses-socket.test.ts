/** What a connection does when its time is up, with time in the test's hand; all else is in test/daemon/responses-socket.test.ts. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { z } from "zod";
import { clientIdSchema, userIdSchema } from "../../../../protocol/ids.ts";
import { type OpenAiHost, startOpenAiHost } from "../../../../test/fakes/openai-host.ts";
import { configFor } from "../../../../test/support/http.ts";
import { type Household, openHousehold } from "../../../../test/support/two-users.ts";
import { onDispose } from "../../../base/disposable.ts";
import type { Log } from "../../../platform/log.ts";
import { systemClock, systemIds } from "../../../platform/system-clock.ts";
import { createWorkerPool, type WorkerPool } from "../../../platform/workers.ts";
import { createBodyReader } from "../body-reader.ts";
import { OpenRequests } from "../open-requests.ts";
import type { ResponsesOptions } from "./responses-desk.ts";
import { serveSocket } from "./responses-socket.ts";

let host: OpenAiHost;
let house: Household;
let workers: WorkerPool;

before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
  house = await openHousehold(configFor(host.baseUrl, "[providers.embedded]\nenabled = false\n"));
  workers = createWorkerPool({ entry: new URL("../body.worker.ts", import.meta.url), size: 1, clock: systemClock });
});
after(async () => {
  await house[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  await workers[Symbol.asyncDispose]();
});

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };
const local = userIdSchema.parse("local");
const frameSchema = z.looseObject({ type: z.string(), error: z.looseObject({ code: z.string() }).optional() });
const never: ResponsesOptions["store"] = {
  put: () => Promise.reject(new Error("nothing is kept here")),
  get: async () => undefined,
  item: async () => undefined,
  delete: async () => false,
  history: async () => undefined,
};

/** A connection whose timers the test calls. */
async function connect(options: { readonly autoPong?: boolean } = {}) {
  const timers = new Map<number, () => void>();
  const keep = (delayMs: number, callback: () => void) => {
    timers.set(delayMs, callback);
    return onDispose(() => timers.delete(delayMs));
  };
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  await once(server, "listening");
  const connected = new Promise<WebSocket>((resolve) => server.once("connection", resolve));
  const actor = { userId: local, client: clientIdSchema.parse("test"), via: { kind: "api", id: "test" } } as const;
  server.on("connection", (socket: WebSocket) => {
    serveSocket(
      {
        brain: house.llm.brain,
        bodies: createBodyReader(workers),
        open: new OpenRequests(),
        store: never,
        ids: systemIds,
        maxBodyBytes: 1_000_000,
        userId: local,
        aliases: [],
        clock: { ...systemClock, after: keep, every: keep },
        log: silent,
      },
      socket,
      actor,
    );
  });
  const address = z.custom<AddressInfo>().parse(server.address());
  const socket = new WebSocket(`ws://127.0.0.1:${address.port}`, options);
  const frames: z.infer<typeof frameSchema>[] = [];
  socket.on("message", (data: Buffer) => frames.push(frameSchema.parse(JSON.parse(data.toString("utf8")))));
  const closed = new Promise<number>((resolve) => socket.once("close", resolve));
  const [served] = await Promise.all([connected, once(socket, "open")]);
  return {
    socket,
    /** The daemon's end. */
    served,
    frames,
    closed,
    /** The timer that runs for so long, or so often. */
    fire: (delayMs: number) => timers.get(delayMs)?.(),
    timers,
    create: (more: object = {}) =>
      socket.send(JSON.stringify({ type: "response.create", model: "up/m", input: "x", store: false, ...more })),
    async until(type: string) {
      while (!frames.some((frame) => frame.type === type)) {
        await once(socket, "message", { signal: AbortSignal.timeout(10_000) });
      }
    },
    [Symbol.dispose]() {
      socket.terminate();
      server.close();
    },
  };
}

const HOUR_MS = 3_600_000;
const PING_MS = 30_000;

test("an idle connection that has lived its hour is told so and closed, and leaves no timer", async () => {
  using peer = await connect();
  const gone = once(peer.served, "close");
  peer.fire(HOUR_MS);
  assert.equal(await peer.closed, 1000);
  await gone;
  assert.deepEqual(
    peer.frames.map(({ type, error }) => [type, error?.code]),
    [["error", "websocket_connection_limit_reached"]],
  );
  assert.equal(peer.timers.size, 0);
});

test("answers under way are finished first, and nothing new is taken", async () => {
  using peer = await connect();
  const posts = () => host.requests.filter(({ method }) => method === "POST").length;
  for (const [index, stream_id] of ["short", "long"].entries()) {
    host.playOnce({ tokens: 20 + 20 * index, msPerToken: 10 });
    peer.create({ stream_id });
    await host.until(() => posts() === index + 1, `${stream_id} has begun`);
  }
  await peer.until("response.output_text.delta");
  peer.fire(HOUR_MS);
  peer.create();
  assert.equal(await peer.closed, 1000);
  const ends = peer.frames.filter(({ type }) => type === "error" || type === "response.completed");
  assert.deepEqual(
    ends.map(({ type, stream_id }) => [type, stream_id]),
    [
      ["error", undefined],
      ["response.completed", "short"],
      ["response.completed", "long"],
      ["error", undefined],
    ],
  );
  assert.equal(posts(), 2);
});

test("a peer that answers no ping is cut; one that does stays", async () => {
  using deaf = await connect({ autoPong: false });
  deaf.fire(PING_MS);
  await once(deaf.socket, "ping");
  deaf.fire(PING_MS);
  assert.equal(await deaf.closed, 1006);
  using peer = await connect();
  for (let round = 0; round < 3; round += 1) {
    const answered = once(peer.served, "pong");
    peer.fire(PING_MS);
    await answered;
  }
  assert.equal(peer.socket.readyState, WebSocket.OPEN);
});

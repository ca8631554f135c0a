/** The client against servers that misbehave: it may lose its connection, and nothing else. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { GhostApiError } from "../errors.ts";
import type { GhostClient } from "../ghost-client.ts";
import { INITIAL_STREAM_CREDIT } from "../stream.ts";
import { FrameDecoder } from "./frame-decoder.ts";
import { defaultLocations } from "./locations.ts";
import { connectSocket } from "./socket-transport.ts";

const never = new AbortController().signal;
const limits = { maxHeaderBytes: 4096, maxFrameBytes: 1_000_000 };

interface Incoming {
  readonly id?: number;
  readonly method: string;
  readonly params: {
    readonly partialResultToken?: string;
    readonly token?: string;
    readonly credit?: number;
    readonly id?: number;
  };
}
interface Peer {
  readonly socket: Socket;
  send(message: object): void;
  sendText(text: string): void;
}
type Script = (message: Incoming, peer: Peer) => void;

const WELCOME = { capabilities: {}, serverInfo: { name: "fake", version: "1" }, ghost: { protocol: 1, clientId: "c" } };

async function withServer(script: Script, use: (connect: () => Promise<GhostClient>) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "ghost-client-"));
  const path = join(folder, "s");
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    const sendText = (text: string) => void socket.write(text);
    const send = (message: object) => {
      const body = JSON.stringify({ jsonrpc: "2.0", ...message });
      sendText(`Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
    };
    const decoder = new FrameDecoder(limits);
    socket.on("data", (chunk) => {
      decoder.push(Buffer.from(chunk));
      for (let body = decoder.next(); body !== undefined; body = decoder.next()) {
        script(JSON.parse(body.toString()), { socket, send, sendText });
      }
    });
  });
  server.listen(path);
  await once(server, "listening");
  const unhandled: unknown[] = [];
  const note = (error: unknown) => void unhandled.push(error);
  process.on("unhandledRejection", note);
  try {
    await use(() => connectSocket(path, { key: "k", clientName: "test", initializeTimeoutMs: 2000 }));
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    assert.deepEqual(unhandled, []);
  } finally {
    process.off("unhandledRejection", note);
    for (const socket of sockets) socket.destroy();
    server.close();
    await rm(folder, { recursive: true });
  }
}

/** Welcomes the client and leaves the rest to `then`. */
const welcome =
  (then: Script): Script =>
  (message, peer) => {
    if (message.method === "initialize") peer.send({ id: message.id, result: WELCOME });
    else if (message.method !== "initialized") then(message, peer);
  };

async function code(work: Promise<unknown>): Promise<string> {
  const thrown = await work.then(
    () => assert.fail("it did not fail"),
    (error: unknown) => error,
  );
  assert.ok(thrown instanceof GhostApiError, String(thrown));
  return thrown.code;
}

async function drain(items: AsyncIterable<unknown>): Promise<number> {
  let count = 0;
  for await (const _ of items) count += 1;
  return count;
}

const progress = (message: Incoming, items: readonly unknown[]) => ({
  method: "$/progress",
  params: { token: message.params.partialResultToken, value: { items } },
});

describe("connecting", () => {
  it("says so when nothing listens", async () => {
    assert.equal(await code(connectSocket("/nonexistent/s.sock", { key: "k", clientName: "t" })), "daemon_unreachable");
  });

  const greetings: readonly (readonly [name: string, script: Script, expected: string])[] = [
    ["closes", (_, { socket }) => socket.destroy(), "daemon_unreachable"],
    ["speaks HTTP", (_, { sendText }) => sendText("HTTP/1.1 400 Bad Request\r\n\r\n"), "protocol_violation"],
    ["sends no JSON", (_, { sendText }) => sendText("Content-Length: 3\r\n\r\n{x}"), "protocol_violation"],
    ["announces too much", (_, { sendText }) => sendText("Content-Length: 999999999999\r\n\r\n"), "protocol_violation"],
    ["welcomes without saying who it is", ({ id }, { send }) => send({ id, result: {} }), "protocol_violation"],
    ["replies with neither result nor error", ({ id }, { send }) => send({ id }), "protocol_violation"],
    [
      "refuses with an error of its own kind",
      ({ id }, { send }) => send({ id, error: { code: 1, message: "no" } }),
      "protocol_violation",
    ],
    [
      "refuses the connection as such",
      (_, { send }) =>
        send({
          id: null,
          error: { code: 1, message: "no", data: { code: "overloaded", message: "full", details: {} } },
        }),
      "overloaded",
    ],
    [
      "is newer and refuses with a code nobody here knows",
      ({ id }, { send }) =>
        send({ id, error: { code: 1, message: "no", data: { code: "brand_new", message: "m", details: {} } } }),
      "internal",
    ],
  ];
  for (const [name, script, expected] of greetings) {
    it(`to a server that ${name} fails with ${expected}`, () =>
      withServer(script, async (connect) => {
        assert.equal(await code(connect()), expected);
      }));
  }

  it("to a server that stays silent ends by itself", () =>
    withServer(
      () => {},
      async (connect) => {
        assert.equal(await code(connect()), "daemon_unreachable");
      },
    ));
});

describe("a connected client", () => {
  it("fails everything that is open when the server closes or sends garbage, and everything after it", async () => {
    for (const [end, expected] of [
      [(peer: Peer) => peer.socket.destroy(), "daemon_unreachable"],
      [(peer: Peer) => peer.sendText("garbage\r\n\r\n"), "protocol_violation"],
    ] as const) {
      let seen = 0;
      await withServer(
        welcome((message, peer) => {
          seen += 1;
          if (message.params.partialResultToken !== undefined) peer.send(progress(message, [{ line: "1" }]));
          if (seen === 2) end(peer);
        }),
        async (connect) => {
          using client = await connect();
          const request = code(client.api.session.list({}, never));
          const items = client.api.daemon.logs({}, never)[Symbol.asyncIterator]();
          const first = await items.next();
          assert.equal(first.done, false);
          assert.equal(await code(items.next()), expected);
          assert.equal(await request, expected);
          await client.closed;
          assert.equal(await code(client.api.session.list({}, never)), expected);
          assert.equal(await code(drain(client.api.daemon.logs({}, never))), expected);
        },
      );
    }
  });

  it("refuses results and items of the wrong shape, and goes on", () =>
    withServer(
      welcome((message, { send }) => {
        if (message.method === "ghost/session/list") send({ id: message.id, result: { sessions: 7 } });
        if (message.method === "ghost/daemon/logs") send(progress(message, [{ line: 7 }]));
        if (message.method === "ghost/daemon/stop") send({ id: message.id, result: { draining: 0, addedLater: true } });
      }),
      async (connect) => {
        using client = await connect();
        assert.equal(await code(client.api.session.list({}, never)), "protocol_violation");
        assert.equal(await code(drain(client.api.daemon.logs({}, never))), "protocol_violation");
        assert.deepEqual(await client.api.daemon.stop({}, never), { draining: 0 });
      },
    ));

  it("refuses more items than it granted, and cancels that stream", async () => {
    const cancelled = Promise.withResolvers<number | undefined>();
    await withServer(
      welcome((message, { send }) => {
        if (message.method === "$/cancelRequest") cancelled.resolve(message.params.id);
        else
          send(
            progress(
              message,
              Array.from({ length: INITIAL_STREAM_CREDIT + 1 }, () => ({ line: "x" })),
            ),
          );
      }),
      async (connect) => {
        using client = await connect();
        assert.equal(await code(drain(client.api.daemon.logs({}, never))), "protocol_violation");
        assert.notEqual(await cancelled.promise, undefined);
      },
    );
  });

  it("grants credit as it reads, and ignores what comes for a stream that is over", async () => {
    const granted: number[] = [];
    await withServer(
      welcome((message, { send }) => {
        if (message.method === "ghost/stream/credit") granted.push(message.params.credit ?? 0);
        if (message.method !== "ghost/daemon/logs") return;
        send(
          progress(
            message,
            Array.from({ length: 200 }, () => ({ line: "x" })),
          ),
        );
        send({ id: message.id, result: null });
        send(progress(message, [{ line: "late" }]));
        send({ id: message.id, result: null });
      }),
      async (connect) => {
        using client = await connect();
        assert.equal(await drain(client.api.daemon.logs({}, never)), 200);
        while (granted.length === 0) {
          await new Promise((resolve) => {
            setImmediate(resolve);
          });
        }
        assert.deepEqual(granted, [INITIAL_STREAM_CREDIT / 2]);
      },
    );
  });

  it("cancels on the wire when a loop is left, and when a signal aborts; not for what was never sent", async () => {
    const seen: string[] = [];
    const both = Promise.withResolvers<void>();
    await withServer(
      welcome((message, { send }) => {
        seen.push(message.method);
        if (message.method === "ghost/daemon/logs") send(progress(message, [{ line: "1" }, { line: "2" }]));
        if (seen.filter((method) => method === "$/cancelRequest").length === 2) both.resolve();
      }),
      async (connect) => {
        using client = await connect();
        assert.equal(await code(client.api.session.list({}, AbortSignal.abort())), "cancelled");
        client.api.daemon.logs({}, never);
        for await (const _ of client.api.daemon.logs({}, never)) break;
        const abort = new AbortController();
        const open = code(client.api.session.list({}, abort.signal));
        abort.abort();
        assert.equal(await open, "cancelled");
        await both.promise;
        assert.deepEqual(seen, ["ghost/daemon/logs", "$/cancelRequest", "ghost/session/list", "$/cancelRequest"]);
      },
    );
  });

  it("can be left while it waits for an item", () =>
    withServer(
      welcome(() => {}),
      async (connect) => {
        using client = await connect();
        const items = client.api.daemon.logs({}, never)[Symbol.asyncIterator]();
        const pending = items.next();
        await items.return?.();
        assert.equal((await pending).done, true);
      },
    ));

  it("is disposed as often as one likes, and fails what was open", () =>
    withServer(
      welcome(() => {}),
      async (connect) => {
        const client = await connect();
        const open = code(client.api.session.list({}, never));
        client[Symbol.dispose]();
        client[Symbol.dispose]();
        assert.equal(await open, "daemon_unreachable");
        await client.closed;
      },
    ));
});

describe("the default locations", () => {
  it("follow the XDG variables, ignore relative ones, and give way to what is asked for", () => {
    const env = { XDG_RUNTIME_DIR: "/run/user/7", XDG_DATA_HOME: "relative" };
    const found = defaultLocations({ env, homeDir: "/home/u", uid: 7 });
    assert.equal(found.socket, "/run/user/7/ghoststack/ghostd-1.sock");
    assert.equal(found.faceKeyFile, "/home/u/.local/share/ghoststack/face.key");
    assert.equal(defaultLocations({ env: {}, homeDir: "/home/u", uid: 7 }).socket, "/tmp/ghoststack-7/ghostd-1.sock");
    assert.equal(defaultLocations({ env, runtimeDir: "/r", dataDir: "/d" }).faceKeyFile, "/d/face.key");
  });
});

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { test } from "node:test";
import { GhostError, OperationalError } from "../base/errors.ts";
import {
  createHttpClient,
  type HttpClient,
  type HttpRequest,
  type HttpResponse,
  header,
  readBody,
} from "./http-client.ts";
import { StandingPermit } from "./permit-mint.ts";

/** A raw TCP server: each test says byte by byte what it answers. */
interface RawServer extends AsyncDisposable {
  readonly origin: string;
  readonly sockets: readonly Socket[];
  /** Everything received so far, on all connections. */
  received(): string;
}

async function rawServer(onRequest: (socket: Socket, head: string) => void): Promise<RawServer> {
  const sockets: Socket[] = [];
  let received = "";
  const server: Server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {}); // A client that resets is what half of these tests are about.
    let unanswered = "";
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1");
      unanswered += chunk.toString("latin1");
      const end = unanswered.indexOf("\r\n\r\n");
      if (end === -1) return;
      const head = unanswered.slice(0, end);
      unanswered = unanswered.slice(end + 4);
      onRequest(socket, head);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  return {
    origin: `http://127.0.0.1:${address.port}`,
    sockets,
    received: () => received,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

const never = new AbortController().signal;

function send(
  client: HttpClient,
  origin: string,
  more: Partial<HttpRequest> = {},
  signal: AbortSignal = never,
): Promise<HttpResponse> {
  const permit = new StandingPermit("test", [
    { capability: "net.http", resource: { kind: "url", method: "GET", origin, path: "/" } },
  ]);
  return client.send(
    permit,
    { method: "GET", origin, path: "/", headersTimeoutMs: 0, idleTimeoutMs: 0, ...more },
    signal,
  );
}

async function text(response: HttpResponse): Promise<string> {
  return (await readBody(response, 1 << 20)).toString("utf8");
}

async function closed(socket: Socket | undefined): Promise<void> {
  assert.ok(socket !== undefined);
  if (!socket.closed) await new Promise<void>((resolve) => socket.once("close", () => resolve()));
}

/** undici gives a connection back one turn of the event loop after its answer's end. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}

function failsWith(code: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof GhostError, `expected one of our errors, got ${String(error)}`);
    assert.equal(error.code, code, error.message);
    return true;
  };
}

const head = (more: string) => `HTTP/1.1 200 OK\r\n${more}\r\n\r\n`;

test("a whole answer arrives, and its connection is used again", async () => {
  await using server = await rawServer((socket) => socket.write(`${head("content-length: 5\r\nx-tag: one")}hello`));
  await using client = createHttpClient();
  const first = await send(client, server.origin);
  assert.equal(first.status, 200);
  assert.equal(header(first, "x-tag"), "one");
  assert.equal(await text(first), "hello");
  await nextTurn();
  assert.equal(await text(await send(client, server.origin)), "hello");
  assert.equal(server.sockets.length, 1);
});

test("a POST carries its body and headers", async () => {
  await using server = await rawServer((socket) => socket.write(head("content-length: 0")));
  await using client = createHttpClient();
  await send(client, server.origin, { method: "POST", body: "{}", headers: { "content-type": "application/json" } });
  assert.match(
    server.received(),
    /^POST \/ HTTP\/1\.1\r\n[^]*content-type: application\/json\r\n[^]*content-length: 2\r\n/,
  );
});

test("a permit for another origin sends nothing", async () => {
  await using server = await rawServer((socket) => socket.write(head("content-length: 0")));
  await using client = createHttpClient();
  const permit = new StandingPermit("test", [
    { capability: "net.http", resource: { kind: "url", method: "GET", origin: "http://127.0.0.1:1", path: "/" } },
  ]);
  const request: HttpRequest = {
    method: "GET",
    origin: server.origin,
    path: "/",
    headersTimeoutMs: 0,
    idleTimeoutMs: 0,
  };
  await assert.rejects(async () => client.send(permit, request, never), failsWith("internal"));
  assert.equal(server.sockets.length, 0);
});

test("nobody listening is upstream_unreachable", async () => {
  const server = await rawServer(() => {});
  await server[Symbol.asyncDispose]();
  await using client = createHttpClient();
  await assert.rejects(send(client, server.origin), failsWith("upstream_unreachable"));
});

test("a reset before the head is upstream_failed", async () => {
  await using server = await rawServer((socket) => socket.resetAndDestroy());
  await using client = createHttpClient();
  await assert.rejects(send(client, server.origin), failsWith("upstream_failed"));
});

test("a reset in mid-body delivers what came before and then fails", async () => {
  await using server = await rawServer((socket) => {
    socket.write(`${head("transfer-encoding: chunked")}5\r\nhello\r\n`);
  });
  await using client = createHttpClient();
  const response = await send(client, server.origin);
  const reader = response.body[Symbol.asyncIterator]();
  assert.equal((await reader.next()).value?.toString(), "hello");
  server.sockets[0]?.resetAndDestroy();
  await assert.rejects(reader.next(), failsWith("upstream_failed"));
});

test("half a body under a content-length is a failure, not an end", async () => {
  await using server = await rawServer((socket) => socket.end(`${head("content-length: 10")}hello`));
  await using client = createHttpClient();
  await assert.rejects(async () => text(await send(client, server.origin)), failsWith("upstream_failed"));
});

test("a chunked body without its last chunk is a failure, not an end", async () => {
  await using server = await rawServer((socket) => socket.end(`${head("transfer-encoding: chunked")}5\r\nhello\r\n`));
  await using client = createHttpClient();
  await assert.rejects(async () => text(await send(client, server.origin)), failsWith("upstream_failed"));
});

test("what is not HTTP is upstream_failed", async () => {
  await using server = await rawServer((socket) => socket.end("SSH-2.0-OpenSSH_9.2\r\n\r\n"));
  await using client = createHttpClient();
  await assert.rejects(send(client, server.origin), failsWith("upstream_failed"));
});

test("no head in time is upstream_timeout, and the socket is closed", async () => {
  await using server = await rawServer(() => {});
  await using client = createHttpClient();
  await assert.rejects(send(client, server.origin, { headersTimeoutMs: 50 }), failsWith("upstream_timeout"));
  await closed(server.sockets[0]);
});

test("silence inside a body is upstream_timeout", async () => {
  await using server = await rawServer((socket) => socket.write(`${head("content-length: 10")}hello`));
  await using client = createHttpClient();
  const response = await send(client, server.origin, { idleTimeoutMs: 50 });
  const reader = response.body[Symbol.asyncIterator]();
  assert.equal((await reader.next()).value?.toString(), "hello");
  await assert.rejects(reader.next(), failsWith("upstream_timeout"));
  await closed(server.sockets[0]);
});

test("a slow reader stalls the server, is not timed out for it, and loses nothing", async () => {
  const totalBytes = 64 * 1024 * 1024;
  const piece = Buffer.alloc(64 * 1024, "x");
  let sentBytes = 0;
  await using server = await rawServer((socket) => {
    socket.write(head(`content-length: ${totalBytes}`));
    const pump = () => {
      while (sentBytes < totalBytes) {
        sentBytes += piece.length;
        if (!socket.write(piece)) return;
      }
    };
    socket.on("drain", pump);
    pump();
  });
  await using client = createHttpClient();
  const response = await send(client, server.origin, { idleTimeoutMs: 1000 });
  const reader = response.body[Symbol.asyncIterator]();
  const first = await reader.next();
  // What the server could get rid of is bounded by the kernel's socket buffers and ours: wait until it has stopped growing.
  for (let before = -1; before !== sentBytes; ) {
    before = sentBytes;
    await new Promise((resolve) => setTimeout(resolve, 400));
  }
  assert.ok(sentBytes < totalBytes / 2, `the server was let go on to ${sentBytes} of ${totalBytes} bytes`);
  // Longer than the idle limit by now: the silence is ours, not the server's.
  await new Promise((resolve) => setTimeout(resolve, 2500));
  let readBytes = first.value?.length ?? 0;
  for await (const chunk of { [Symbol.asyncIterator]: () => reader }) readBytes += chunk.length;
  assert.equal(readBytes, totalBytes);
});

test("a signal that is already aborted sends nothing", async () => {
  await using server = await rawServer(() => {});
  await using client = createHttpClient();
  await assert.rejects(send(client, server.origin, {}, AbortSignal.abort()), failsWith("cancelled"));
  assert.equal(server.sockets.length, 0);
});

test("aborting while the connection is being made keeps the request from going out", async () => {
  await using server = await rawServer(() => {});
  await using client = createHttpClient();
  const controller = new AbortController();
  const pending = send(client, server.origin, {}, controller.signal);
  controller.abort();
  await assert.rejects(pending, failsWith("cancelled"));
  // A second request goes its whole way, so by then the first would have been seen.
  await assert.rejects(
    send(client, server.origin, { path: "/second", headersTimeoutMs: 50 }),
    failsWith("upstream_timeout"),
  );
  assert.doesNotMatch(server.received(), /GET \/ /);
});

test("aborting while waiting for the head closes the socket at once", async () => {
  const asked = Promise.withResolvers<void>();
  await using server = await rawServer(() => asked.resolve());
  await using client = createHttpClient();
  const controller = new AbortController();
  const pending = send(client, server.origin, {}, controller.signal);
  await asked.promise;
  controller.abort();
  await assert.rejects(pending, failsWith("cancelled"));
  await closed(server.sockets[0]);
});

test("aborting in mid-body rejects the waiting reader and closes the socket", async () => {
  await using server = await rawServer((socket) => socket.write(`${head("transfer-encoding: chunked")}5\r\nhello\r\n`));
  await using client = createHttpClient();
  const controller = new AbortController();
  const response = await send(client, server.origin, {}, controller.signal);
  const reader = response.body[Symbol.asyncIterator]();
  await reader.next();
  const waiting = reader.next();
  controller.abort();
  await assert.rejects(waiting, failsWith("cancelled"));
  await closed(server.sockets[0]);
});

test("after an abort nothing that was read before is delivered any more", async () => {
  const sent = Promise.withResolvers<void>();
  await using server = await rawServer((socket) => {
    socket.write(`${head("transfer-encoding: chunked")}5\r\nhello\r\n`, () => sent.resolve());
  });
  await using client = createHttpClient();
  const controller = new AbortController();
  const response = await send(client, server.origin, {}, controller.signal);
  await sent.promise;
  await new Promise((resolve) => setImmediate(resolve));
  controller.abort();
  await assert.rejects(response.body[Symbol.asyncIterator]().next(), failsWith("cancelled"));
});

test("aborting with an error of ours rejects with that error", async () => {
  await using server = await rawServer(() => {});
  await using client = createHttpClient();
  const controller = new AbortController();
  const pending = send(client, server.origin, {}, controller.signal);
  controller.abort(new OperationalError("upstream_timeout", "too slow for us"));
  await assert.rejects(pending, failsWith("upstream_timeout"));
});

test("aborting after the end changes nothing", async () => {
  await using server = await rawServer((socket) => socket.write(`${head("content-length: 5")}hello`));
  await using client = createHttpClient();
  const controller = new AbortController();
  const response = await send(client, server.origin, {}, controller.signal);
  assert.equal(await text(response), "hello");
  controller.abort();
  await nextTurn();
  assert.equal(await text(await send(client, server.origin)), "hello");
  assert.equal(server.sockets.length, 1, "the connection was still good");
});

test("leaving the loop early closes the socket", async () => {
  await using server = await rawServer((socket) => socket.write(`${head("transfer-encoding: chunked")}5\r\nhello\r\n`));
  await using client = createHttpClient();
  const response = await send(client, server.origin);
  for await (const chunk of response.body) {
    assert.equal(chunk.toString(), "hello");
    break;
  }
  await closed(server.sockets[0]);
});

test("interim responses are passed over", async () => {
  await using server = await rawServer((socket) => {
    socket.write("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n");
    socket.write("HTTP/1.1 102 Processing\r\n\r\n");
    socket.write(`${head("content-length: 5")}hello`);
  });
  await using client = createHttpClient();
  const response = await send(client, server.origin);
  assert.equal(response.status, 200);
  assert.equal(header(response, "link"), undefined);
  assert.equal(await text(response), "hello");
});

test("a redirect is handed to the caller, never followed", async () => {
  await using server = await rawServer((socket) =>
    socket.write("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
  );
  await using client = createHttpClient();
  const response = await send(client, server.origin);
  assert.equal(response.status, 302);
  assert.equal(await text(response), "");
});

test("a connection that the server closed while it was idle is not used again", async () => {
  await using server = await rawServer((socket) => socket.write(`${head("content-length: 5")}hello`));
  await using client = createHttpClient();
  await text(await send(client, server.origin));
  server.sockets[0]?.end();
  await closed(server.sockets[0]);
  assert.equal(await text(await send(client, server.origin)), "hello");
  assert.equal(server.sockets.length, 2);
});

test("a GET whose connection breaks before the answer is sent once more, a POST never", async () => {
  let requests = 0;
  await using server = await rawServer((socket) => {
    requests += 1;
    if (requests % 2 === 1) socket.end();
    else socket.write(`${head("content-length: 5")}hello`);
  });
  await using client = createHttpClient();
  assert.equal(await text(await send(client, server.origin)), "hello");
  assert.equal(requests, 2);
  await assert.rejects(send(client, server.origin, { method: "POST", body: "{}" }), failsWith("upstream_failed"));
  assert.equal(requests, 3);
});

test("one origin that hangs does not hold up other requests to it", async () => {
  await using server = await rawServer((socket, request) => {
    if (request.startsWith("GET /fast")) socket.write(`${head("content-length: 5")}hello`);
  });
  await using client = createHttpClient();
  const controller = new AbortController();
  const hanging = Array.from({ length: 20 }, () => send(client, server.origin, {}, controller.signal));
  assert.equal(await text(await send(client, server.origin, { path: "/fast" })), "hello");
  controller.abort();
  for (const outcome of await Promise.allSettled(hanging)) assert.equal(outcome.status, "rejected");
});

test("closing the client ends what is under way, and later requests, as cancelled", async () => {
  const asked = Promise.withResolvers<void>();
  await using server = await rawServer(() => asked.resolve());
  const client = createHttpClient();
  const pending = send(client, server.origin);
  await asked.promise;
  await Promise.all([assert.rejects(pending, failsWith("cancelled")), client[Symbol.asyncDispose]()]);
  await assert.rejects(send(client, server.origin), failsWith("cancelled"));
});

test("an impossible request fails as an error of ours", async () => {
  await using client = createHttpClient();
  const origin = "http://127.0.0.1:1";
  await assert.rejects(send(client, origin, { path: "/with a space" }), failsWith("upstream_failed"));
  await assert.rejects(send(client, origin, { headers: { "x-bad": "line\r\nbreak" } }), failsWith("upstream_failed"));
});

test("a body beyond its bound is refused and its connection closed", async () => {
  await using server = await rawServer((socket) => socket.write(`${head("transfer-encoding: chunked")}5\r\nhello\r\n`));
  await using client = createHttpClient();
  const response = await send(client, server.origin);
  await assert.rejects(readBody(response, 3), failsWith("upstream_failed"));
  await closed(server.sockets[0]);
});

/** Bytes that no honest client sends, to a real socket: each is answered where possible, costs its own connection, and nobody else's. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { GhostApiError } from "../../../protocol/errors.ts";
import { connectSocket } from "../../../protocol/node/socket-transport.ts";
import { frame } from "../../../test/fakes/raw-rpc.ts";
import { FACE_KEY, list, startRpcBench, until } from "../../../test/fakes/rpc-bench.ts";

const never = new AbortController().signal;

describe("frames that lie", () => {
  const body = JSON.stringify(list(1));
  const hostile: readonly (readonly [name: string, bytes: string | Buffer, code: string])[] = [
    ["a huge Content-Length", "Content-Length: 99999999999\r\n\r\n", "body_too_large"],
    ["a Content-Length of 400 digits", `Content-Length: ${"9".repeat(400)}\r\n\r\n`, "protocol_violation"],
    ["a negative Content-Length", "Content-Length: -5\r\n\r\n", "protocol_violation"],
    ["a Content-Length that is no number", "Content-Length: NaN\r\n\r\n", "protocol_violation"],
    ["a Content-Length in hexadecimal", "Content-Length: 0x10\r\n\r\n", "protocol_violation"],
    ["no Content-Length", "Content-Type: text\r\n\r\n", "protocol_violation"],
    ["two Content-Lengths", "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "protocol_violation"],
    [
      "a Content-Length too short, so that garbage follows",
      `Content-Length: ${body.length - 3}\r\n\r\n${body}`,
      "invalid_json",
    ],
    [
      "a Content-Length too long, which swallows the next header",
      Buffer.concat([Buffer.from(`Content-Length: ${body.length + 8}\r\n\r\n${body}`), frame(body)]),
      "invalid_json",
    ],
    ["an empty body", "Content-Length: 0\r\n\r\n", "invalid_json"],
    ["an HTTP request", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "protocol_violation"],
    ["a header without end", "X-Flood: ".padEnd(10_000, "x"), "protocol_violation"],
    ["header lines without end", "X: y\r\n".repeat(2000), "protocol_violation"],
    [
      "another charset",
      `Content-Length: 2\r\nContent-Type: application/vscode-jsonrpc; charset=utf-16\r\n\r\n{}`,
      "protocol_violation",
    ],
    ["binary noise", Buffer.from([0, 255, 1, 254, 13, 10, 13, 10]), "protocol_violation"],
    ["invalid JSON", frame('{"jsonrpc":'), "invalid_json"],
    ["invalid UTF-8", frame(Buffer.from([0x22, 0xc3, 0x28, 0x22])), "invalid_json"],
    ["JSON that is no object", frame("42"), "protocol_violation"],
    ["a batch", frame(`[${body}]`), "protocol_violation"],
    ["an object that is no message", frame("{}"), "protocol_violation"],
    ["another JSON-RPC", frame('{"jsonrpc":"1.0","id":1,"method":"x"}'), "protocol_violation"],
    ["an id that is an object", frame('{"jsonrpc":"2.0","id":{},"method":"x"}'), "protocol_violation"],
    ["an id that is null", frame('{"jsonrpc":"2.0","id":null,"method":"x"}'), "protocol_violation"],
    ["params that are text", frame('{"jsonrpc":"2.0","id":1,"method":"x","params":"y"}'), "protocol_violation"],
    [
      "a method of 10,000 characters",
      frame(`{"jsonrpc":"2.0","id":1,"method":"${"x".repeat(10_000)}"}`),
      "protocol_violation",
    ],
    ["brackets nested 30,000 deep", frame(`${"[".repeat(30_000)}${"]".repeat(30_000)}`), "protocol_violation"],
  ];
  for (const [name, bytes, code] of hostile) {
    it(`${name}: answered with ${code}, then closed; others do not notice`, async () => {
      await using bench = await startRpcBench();
      const other = await bench.ready();
      for (const client of [await bench.ready(), await bench.raw()]) {
        client.sendText(bytes);
        const reply = await client.next();
        assert.equal(reply?.error?.data?.code, code, JSON.stringify(reply));
        assert.equal(await client.next(), undefined);
        await client.closed;
      }
      other.send(list(1));
      assert.ok((await other.next())?.result);
      await until(() => bench.server.connections === 1);
      assert.equal(bench.probe.seen.length, 1);
    });
  }

  it("names the request where its id could be read", async () => {
    await using bench = await startRpcBench();
    const client = await bench.ready();
    client.send({ jsonrpc: "2.0", id: 17, method: "x", params: 5 });
    assert.equal((await client.next())?.id, 17);
  });

  it("gives strangers no room for large messages", async () => {
    await using bench = await startRpcBench({ maxHandshakeBytes: 1000 });
    const client = await bench.raw();
    client.sendText("Content-Length: 1001\r\n\r\n");
    assert.equal((await client.next())?.error?.data?.code, "body_too_large");
    await client.closed;
  });

  it("closes a connection whose frame is never finished", async () => {
    await using bench = await startRpcBench({ frameMs: 50 });
    for (const part of ["Content-", "Content-Length: 10\r\n\r\n{"]) {
      const client = await bench.ready();
      client.sendText(part);
      assert.equal((await client.next())?.error?.data?.code, "protocol_violation");
      await client.closed;
    }
  });

  it("reads frames that come byte by byte, and many that come at once", async () => {
    await using bench = await startRpcBench();
    const client = await bench.ready();
    for (const byte of frame(JSON.stringify(list(1)))) client.sendText(Buffer.of(byte));
    assert.ok((await client.next())?.result);
    const ids = Array.from({ length: 200 }, (_, place) => place + 2);
    client.sendText(Buffer.concat(ids.map((id) => frame(JSON.stringify(list(id))))));
    const answered = new Set<unknown>();
    for (const _ of ids) answered.add((await client.next())?.id);
    assert.equal(answered.size, 200);
  });
});

describe("large messages", () => {
  it("are parsed elsewhere, in their order", async () => {
    await using bench = await startRpcBench({ inlineJsonBytes: 100 });
    const client = await bench.ready();
    const text = "é漢😀".repeat(1000);
    const send = (id: number, token: string) => ({
      jsonrpc: "2.0",
      id,
      method: "ghost/chat/send",
      params: { text, partialResultToken: token, credit: 5 },
    });
    client.send(send(1, "a"));
    client.send({ jsonrpc: "2.0", id: 2, method: "x" });
    assert.deepEqual((await client.next())?.params, { token: "a", value: { items: [{ kind: "text", text }] } });
    const rest = [(await client.next())?.id, (await client.next())?.id];
    assert.deepEqual(new Set(rest), new Set([1, 2]));
  });

  it("are refused with their id when they hold too many values, or are no JSON", async () => {
    await using bench = await startRpcBench({ inlineJsonBytes: 100, maxLargeJsonValues: 50 });
    const first = await bench.ready();
    first.send({ jsonrpc: "2.0", id: 9, method: "x", params: Array.from({ length: 60 }, () => "abc") });
    const reply = await first.next();
    assert.equal(reply?.error?.data?.code, "body_too_large");
    assert.equal(reply?.id, 9);
    await first.closed;
    const second = await bench.ready();
    second.sendText(frame(`{${" ".repeat(200)}`));
    assert.equal((await second.next())?.error?.data?.code, "invalid_json");
    await second.closed;
  });

  it("beyond the limit: a request fails in the client, a result fails its own request", async () => {
    await using bench = await startRpcBench({ maxFrameBytes: 200_000 });
    using client = await connectSocket(bench.socketPath, { key: FACE_KEY, clientName: "test" });
    const items = client.api.chat.send({ text: "x".repeat(199_000) }, never);
    const tooLarge = (error: unknown) => error instanceof GhostApiError && error.code === "body_too_large";
    await assert.rejects(async () => {
      for await (const _ of items) assert.fail("an item that is too large came through");
    }, tooLarge);
    const words = "😀".repeat(1_999_999);
    await assert.rejects(async () => {
      for await (const _ of client.api.completion.create({ prefix: words, suffix: "漢".repeat(3_999_999) }, never))
        assert.fail();
    }, tooLarge);
    assert.deepEqual(await client.api.session.list({}, never), { sessions: [] });
  });
});

import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { WebSocket, WebSocketServer } from "ws";
import { z } from "zod";
import { OperationalError } from "../../../base/errors.ts";
import { inLane, LaneWriter } from "./responses-lane.ts";

/** More than the system's buffers hold between the two ends. */
const LARGE = JSON.stringify({ text: "z".repeat(32_000_000) });

/** Both ends of a connection whose client does not read. */
async function pair() {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  await once(server, "listening");
  const connected = new Promise<WebSocket>((resolve) => server.once("connection", resolve));
  const client = new WebSocket(`ws://127.0.0.1:${z.custom<AddressInfo>().parse(server.address()).port}`);
  await once(client, "open");
  client.pause();
  const served = await connected;
  return {
    served,
    client,
    [Symbol.dispose]() {
      client.terminate();
      server.close();
    },
  };
}

async function isPending(promise: Promise<unknown>): Promise<boolean> {
  let isDone = false;
  const mark = () => {
    isDone = true;
  };
  promise.then(mark, mark);
  for (let turns = 0; turns < 50; turns += 1) await turn();
  return !isDone;
}

test("what is small passes at once; what a reader leaves waits until it reads", async () => {
  using ends = await pair();
  const lane = new LaneWriter(ends.served, "", new AbortController().signal);
  lane.add('{"small":1}');
  await lane.flush();
  lane.add(LARGE);
  const flushed = lane.flush();
  const handedOver = lane.flushAll();
  assert.ok((await isPending(flushed)) && (await isPending(handedOver)));
  const messages = new Promise<number>((resolve) => {
    let bytes = 0;
    ends.client.on("message", (data: Buffer) => {
      bytes += data.length;
      if (bytes > LARGE.length) resolve(bytes);
    });
  });
  ends.client.resume();
  await Promise.all([flushed, handedOver]);
  assert.equal(ends.served.bufferedAmount, 0);
  assert.equal(await messages, LARGE.length + '{"small":1}'.length);
});

test("who waits for a reader is woken when the answer is ended, and when the reader goes", async () => {
  using ends = await pair();
  const ending = new AbortController();
  const lane = new LaneWriter(ends.served, "", ending.signal);
  lane.add(LARGE);
  const waiting = lane.flushAll();
  assert.ok(await isPending(waiting));
  const reason = new OperationalError("daemon_stopping", "the daemon is shutting down");
  ending.abort(reason);
  await assert.rejects(waiting, reason);
  const other = new LaneWriter(ends.served, "", new AbortController().signal);
  other.add("{}");
  const left = other.flushAll();
  ends.client.terminate();
  ends.served.terminate();
  await left;
});

test("an event says its lane", () => {
  assert.equal(inLane('{"a":{"b":1}}', ""), '{"a":{"b":1}}');
  assert.deepEqual(JSON.parse(inLane('{"a":{"b":"}"}}', 'x"y')), { a: { b: "}" }, stream_id: 'x"y' });
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationalError } from "../../../base/errors.ts";
import { responsesFrame } from "../../../ghostllm/frames/responses.ts";
import { eventsFrame, type Frame } from "../../../ghostllm/stream.ts";
import { ResponseStream } from "./responses-stream.ts";
import type { WholeResponse } from "./responses-writer.ts";

const head = {
  id: "resp_1",
  model: "m",
  createdAtMs: 0,
  echo: '"store":true',
  sealReasoning: (data: string) => data,
  sealCall: (_callId: string, data: string) => data,
};

function open(keep: (whole: WholeResponse) => Promise<void>) {
  const seen: string[] = [];
  const stream = new ResponseStream({
    head,
    isRelayed: true,
    now: () => 0,
    sink: (type) => seen.push(type),
    relay: (frames) =>
      seen.push(...[...frames.toString("utf8").matchAll(/^event: (.*)$/gm)].map(([, type = ""]) => type)),
    keep,
  });
  return { stream, seen };
}

const event = (type: string, more: object = {}) => `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`;
const response = { id: "resp_theirs", output: [] };
const relayed = [
  event("response.created", { response }),
  event("response.output_text.delta", { sequence_number: 7, delta: '"response.completed"' }),
  event("response.completed", { response }),
].join("");
const ways: readonly [name: string, frames: readonly Frame[]][] = [
  ["written", [eventsFrame([{ kind: "text", text: "a" }]), eventsFrame([{ kind: "finish", reason: "stop" }])]],
  ["relayed", [responsesFrame(Buffer.from(relayed))]],
];
for (const [name, frames] of ways) {
  test(`a client of a ${name} answer is told that it is complete when it is kept, and not before`, async () => {
    const kept = Promise.withResolvers<void>();
    const { stream, seen } = open(() => kept.promise);
    for (const frame of frames) stream.write(frame);
    const settled = stream.settle();
    assert.ok(seen.length > 0 && !seen.includes("response.completed"));
    kept.resolve();
    await settled;
    stream.end();
    assert.equal(seen.at(-1), "response.completed");
  });

  test(`a ${name} answer that cannot be kept ends as a failure`, async () => {
    const full = new OperationalError("storage_full", "the disk is full");
    const { stream, seen } = open(() => Promise.reject(full));
    for (const frame of frames) stream.write(frame);
    await assert.rejects(stream.settle(), full);
    stream.fail(full);
    assert.ok(seen.includes("error") && !seen.includes("response.completed"));
  });
}

test("what is kept of a relayed answer is the response as its maker wrote it", async () => {
  let kept: WholeResponse | undefined;
  const { stream } = open(async (whole) => {
    kept = whole;
  });
  stream.write(responsesFrame(Buffer.from(relayed)));
  await stream.settle();
  assert.deepEqual(kept, { id: "resp_theirs", text: JSON.stringify(response) });
});

test("a failed response of its maker's passes, and is not kept", async () => {
  const { stream, seen } = open(() => Promise.reject(new Error("kept")));
  stream.write(responsesFrame(Buffer.from(event("response.failed", { response }))));
  await stream.settle();
  stream.end();
  assert.deepEqual(seen, ["response.failed"]);
});

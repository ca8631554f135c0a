import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { GhostError } from "../../base/errors.ts";
import { SseSplitter, sseData, sseFrames } from "./sse.ts";

const frame = fc
  .tuple(fc.array(fc.stringMatching(/^[^\r\n]{0,20}$/u), { minLength: 1, maxLength: 3 }), fc.constantFrom("\n", "\r\n"))
  .map(([lines, end]) => lines.map((line) => `data: ${line}${end}`).join("") + end);

test("whatever the cuts, the frames come out whole and complete", () => {
  fc.assert(
    fc.property(
      fc.array(frame, { minLength: 1, maxLength: 6 }),
      fc.array(fc.nat(), { maxLength: 12 }),
      (frames, cutSeeds) => {
        const bytes = Buffer.from(frames.join(""));
        const cuts = [...new Set(cutSeeds.map((seed) => seed % bytes.length))].toSorted((a, b) => a - b);
        const splitter = new SseSplitter();
        const out: Buffer[] = [];
        let from = 0;
        for (const to of [...cuts, bytes.length]) {
          const whole = splitter.push(bytes.subarray(from, to));
          if (whole !== undefined) {
            assert.match(whole.toString("latin1"), /\n\r?\n$/);
            out.push(whole);
          }
          from = to;
        }
        assert.deepEqual(Buffer.concat(out), bytes);
        assert.equal(splitter.rest().length, 0);
        assert.equal(out.flatMap((piece) => sseFrames(piece)).length, sseFrames(bytes).length);
      },
    ),
  );
});

test("half a frame stays inside until its end comes", () => {
  const splitter = new SseSplitter();
  assert.equal(splitter.push(Buffer.from("data: a\n\ndata: b"))?.toString(), "data: a\n\n");
  assert.equal(splitter.rest().toString(), "data: b");
  assert.equal(splitter.push(Buffer.from("\n")), undefined);
  assert.equal(splitter.push(Buffer.from("\n"))?.toString(), "data: b\n\n");
});

test("CRLF cut between each of its bytes is still one blank line", () => {
  const splitter = new SseSplitter();
  const outs = [..."data: a\r\n\r\n"].map((byte) => splitter.push(Buffer.from(byte))?.toString());
  assert.deepEqual(outs.filter(Boolean), ["data: a\r\n\r\n"]);
});

test("an endless frame is refused instead of filling the memory", () => {
  const splitter = new SseSplitter();
  const chunk = Buffer.alloc(1024 * 1024, "x");
  assert.throws(
    () => {
      for (let count = 0; count < 20; count += 1) splitter.push(chunk);
    },
    (error) => error instanceof GhostError && error.code === "upstream_failed",
  );
});

test("data lines are joined, comments and other fields left out", () => {
  assert.deepEqual(sseData(Buffer.from(": ping\n\nevent: x\ndata: a\ndata:b\nid: 1\n\ndata: [DONE]\n\n")), [
    "a\nb",
    "[DONE]",
  ]);
});

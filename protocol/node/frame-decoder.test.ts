import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { FrameDecoder, FrameError } from "./frame-decoder.ts";

const limits = { maxHeaderBytes: 200, maxFrameBytes: 1_000_000 };
const frame = (body: Buffer, header = "Content-Length") =>
  Buffer.concat([
    Buffer.from(`${header}: ${body.length}\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n`),
    body,
  ]);

function decode(chunks: readonly Buffer[]): string[] {
  const decoder = new FrameDecoder(limits);
  const bodies: string[] = [];
  for (const chunk of chunks) {
    decoder.push(chunk);
    for (let body = decoder.next(); body !== undefined; body = decoder.next()) bodies.push(body.toString("base64"));
  }
  assert.equal(decoder.isMidFrame, false);
  return bodies;
}

describe("a frame decoder", () => {
  it("finds the same bodies wherever the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }),
        (payloads, sizes) => {
          const bodies = payloads.map((payload) => Buffer.from(payload));
          const bytes = Buffer.concat(bodies.map((body) => frame(body, "content-LENGTH")));
          const chunks: Buffer[] = [];
          for (let at = 0, cut = 0; at < bytes.length; cut += 1) {
            const size = sizes[cut % sizes.length] ?? 1;
            chunks.push(bytes.subarray(at, at + size));
            at += size;
          }
          assert.deepEqual(
            decode(chunks),
            bodies.map((body) => body.toString("base64")),
          );
        },
      ),
    );
  });

  it("keeps a large body that comes in small pieces whole", () => {
    const body = Buffer.alloc(500_000, "0123456789");
    const bytes = frame(body);
    const chunks = Array.from({ length: Math.ceil(bytes.length / 777) }, (_, place) =>
      bytes.subarray(place * 777, place * 777 + 777),
    );
    assert.deepEqual(decode(chunks), [body.toString("base64")]);
  });

  it("never throws anything but FrameError, whatever it is fed", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.uint8Array(), fc.constantFrom("Content-Length: ", "\r\n", "\r\n\r\n", "5", ":")), {
          maxLength: 20,
        }),
        (parts) => {
          const decoder = new FrameDecoder(limits);
          try {
            for (const part of parts) {
              decoder.push(Buffer.from(part));
              while (decoder.next() !== undefined);
            }
          } catch (error) {
            assert.ok(error instanceof FrameError);
          }
        },
      ),
    );
  });

  it("refuses a body that is too large before any of it has come", () => {
    const decoder = new FrameDecoder(limits);
    decoder.push(Buffer.from("Content-Length: 1000001\r\n\r\n"));
    assert.throws(
      () => decoder.next(),
      (error) => error instanceof FrameError && error.code === "body_too_large",
    );
  });
});

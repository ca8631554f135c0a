/** A client of the Responses API on a WebSocket, for tests. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { WebSocket } from "ws";
import { z } from "zod";
import type { TestDaemon } from "./daemon.ts";
import { checkStream, type ReadResponse, type ResponseEvent } from "./responses.ts";

const frameSchema = z.looseObject({
  type: z.string(),
  sequence_number: z.int().optional(),
  stream_id: z.string().optional(),
  status: z.int().optional(),
  error: z.looseObject({ code: z.string(), message: z.string(), param: z.string().nullish() }).optional(),
});
type Frame = z.infer<typeof frameSchema>;

/** A client's end: what came so far, and a wait for what is to come. */
export class Peer implements Disposable {
  readonly socket: WebSocket;
  readonly frames: Frame[] = [];
  readonly closed: Promise<number>;

  constructor(at: TestDaemon, headers: Readonly<Record<string, string>> = {}) {
    const url = `${at.http.replace("http", "ws")}/v1/responses`;
    this.socket = new WebSocket(url, { headers: { authorization: `Bearer ${at.modelKey}`, ...headers } });
    this.socket.on("message", (data) => {
      const text = Buffer.isBuffer(data) ? data.toString("utf8") : "";
      this.frames.push(frameSchema.parse(JSON.parse(text)));
    });
    this.closed = new Promise((resolve) => this.socket.once("close", resolve));
  }

  static async open(at: TestDaemon, headers: Readonly<Record<string, string>> = {}): Promise<Peer> {
    const peer = new Peer(at, headers);
    await once(peer.socket, "open");
    return peer;
  }

  send(frame: object): void {
    this.socket.send(JSON.stringify(frame));
  }

  create(body: object): void {
    this.send({ type: "response.create", model: "up/m", store: false, ...body });
  }

  async until(condition: (frames: readonly Frame[]) => boolean): Promise<readonly Frame[]> {
    const signal = AbortSignal.timeout(20_000);
    while (!condition(this.frames)) await once(this.socket, "message", { signal });
    return this.frames;
  }

  /** The frames of the next answer, or its error; they are taken. */
  async answer(lane?: string): Promise<readonly Frame[]> {
    const isOwn = (frame: Frame) => frame.stream_id === lane;
    const isEnd = ({ type }: Frame) => /^(error|response\.(completed|incomplete|failed|steer\.failed))$/.test(type);
    await this.until((frames) => frames.some((frame) => isOwn(frame) && isEnd(frame)));
    const end = this.frames.findIndex((frame) => isOwn(frame) && isEnd(frame));
    const own = this.frames.slice(0, end + 1).filter(isOwn);
    this.frames.splice(0, this.frames.length, ...this.frames.filter((frame) => !own.includes(frame)));
    return own;
  }

  async whole(lane?: string): Promise<ReadResponse> {
    return checkStream((await this.answer(lane)).map(toEvent));
  }

  async error(lane?: string) {
    const [frame, ...others] = await this.answer(lane);
    assert.deepEqual(others, []);
    assert.equal(frame?.type, "error", JSON.stringify(frame));
    return { status: frame.status, code: frame.error?.code, param: frame.error?.param };
  }

  [Symbol.dispose](): void {
    this.socket.terminate();
  }
}

function toEvent(frame: Frame): ResponseEvent {
  assert.ok(frame.sequence_number !== undefined, JSON.stringify(frame));
  return { ...frame, sequence_number: frame.sequence_number };
}

/**
 * The OpenAI-compatible host for benchmarks: its answers are rendered once, so that next to nothing of what is measured is its own work.
 * 1. How it answers is in the model's name: `t16` = 16 tokens at once; `t40e250` = 40 tokens, one every 250 ms; `wait` = nothing, until the
 *    peer leaves; `big72` = a stream of 72 MiB in 16 KiB deltas, as fast as the peer takes it.
 * 2. A streamed delta reads `NNNNNN TTTTTTTTTTTTTTTT `: its number within the stream and the time of its sending in µs of the monotonic
 *    clock, which all processes of a machine share. So a client counts what was lost and times the way.
 * 3. `GET /bench/state` tells what is open, how each broken-off answer ended, how many bytes were taken, and what was not modelled.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";

export interface FastHost extends AsyncDisposable {
  readonly baseUrl: string;
}

/** How one request ended that the peer broke off. */
export interface BrokenOff {
  readonly model: string;
  readonly atUs: number;
  readonly tokensSent: number;
}

export interface FastHostState {
  readonly open: number;
  readonly served: number;
  /** Of each answer that is open, in order of arrival: how many deltas went out. */
  readonly openTokens: readonly number[];
  readonly brokenOff: readonly BrokenOff[];
  /** Bytes of the latest `big` answer that its peer, or the kernel on its way, has taken. */
  readonly bigBytesTaken: number;
  readonly violations: readonly string[];
}

const KEEP_ALIVE_TIMEOUT_MS = 120_000;
const BIG_DELTA_BYTES = 16 * 1024;
const MIB = 1024 * 1024;
/** Where the delta's number and time are written: see (2). */
const NUMBER_DIGITS = 6;
const TIME_DIGITS = 16;
const STAMP_LENGTH = NUMBER_DIGITS + 1 + TIME_DIGITS;
const STREAM_HEADERS = { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache" };
/** Broken-off answers that are remembered; a benchmark reads them a batch at a time. */
const MAX_BROKEN_OFF = 1000;

/** An answer that is rendered and waits for requests. */
interface Rendered {
  readonly name: string;
  readonly kind: "tokens" | "wait" | "big";
  readonly tokens: number;
  readonly everyMs: number;
  readonly body: Buffer;
  readonly roleFrame: Buffer;
  readonly tokenFrame: Buffer;
  readonly stampAt: number;
  readonly end: { readonly plain: Buffer; readonly withUsage: Buffer };
}

/** Microseconds of the clock that all processes of this machine share. */
export function monotonicUs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e6 + Math.round(nanoseconds / 1e3);
}

export async function startFastHost(options: {
  readonly port: number;
  readonly models: readonly string[];
}): Promise<FastHost> {
  const answers = new Map(options.models.map((name) => [name, render(name)]));
  const desk = new Desk(answers);
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS }, (request, response) => {
    if (request.method === "POST" && request.url === "/v1/chat/completions") {
      readBody(request, (body) => desk.answer(body, response));
    } else if (request.method === "GET" && request.url === "/v1/models") {
      const data = options.models.map((id) => ({ id, object: "model", created: 1_700_000_000, owned_by: "bench" }));
      sendJson(response, JSON.stringify({ object: "list", data }));
    } else if (request.method === "GET" && request.url === "/bench/state") {
      sendJson(response, JSON.stringify(desk.state()));
    } else {
      desk.refuse(response, `${request.method} ${request.url}`);
    }
  });
  server.listen(options.port, "127.0.0.1");
  await once(server, "listening");
  const port = portOf(server);
  return {
    baseUrl: `http://127.0.0.1:${port}/v1`,
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** The TCP port of a server that listens. */
export function portOf(server: Server): number {
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the server does not listen on a port");
  return address.port;
}

class Desk {
  readonly #answers: ReadonlyMap<string, Rendered>;
  readonly #open = new Set<{ tokensSent: number }>();
  readonly #violations: string[] = [];
  #served = 0;
  #brokenOff: BrokenOff[] = [];
  #bigResponse: ServerResponse | undefined;
  #bigBytesTaken = 0;

  constructor(answers: ReadonlyMap<string, Rendered>) {
    this.#answers = answers;
  }

  state(): FastHostState {
    const brokenOff = this.#brokenOff;
    this.#brokenOff = [];
    const socket = this.#bigResponse?.socket;
    if (socket !== undefined && socket !== null) this.#bigBytesTaken = socket.bytesWritten - socket.writableLength;
    return {
      open: this.#open.size,
      served: this.#served,
      openTokens: [...this.#open].map((entry) => entry.tokensSent),
      brokenOff,
      bigBytesTaken: this.#bigBytesTaken,
      violations: this.#violations,
    };
  }

  answer(body: Buffer, response: ServerResponse): void {
    this.#served += 1;
    const name = modelOf(body);
    const answer = this.#answers.get(name);
    if (answer === undefined) {
      this.refuse(response, `model ${name}`);
      return;
    }
    const isStream = body.includes('"stream":true') || body.includes('"stream": true');
    if (!isStream && answer.kind === "tokens" && answer.everyMs === 0) {
      response.writeHead(200, { "content-type": "application/json", "content-length": answer.body.length });
      response.end(answer.body);
      return;
    }
    const entry = { tokensSent: 0 };
    this.#open.add(entry);
    response.once("close", () => {
      this.#open.delete(entry);
      if (response.writableFinished || this.#brokenOff.length >= MAX_BROKEN_OFF) return;
      this.#brokenOff.push({ model: name, atUs: monotonicUs(), tokensSent: entry.tokensSent });
    });
    if (answer.kind === "wait") return;
    if (!isStream) {
      this.refuse(response, `${name} without stream`);
      return;
    }
    const end = body.includes("include_usage") ? answer.end.withUsage : answer.end.plain;
    response.writeHead(200, STREAM_HEADERS);
    if (answer.kind === "big") this.#pour(response, { answer, entry, end });
    else stream(response, { answer, entry, end });
  }

  refuse(response: ServerResponse, what: string): void {
    if (this.#violations.length < MAX_BROKEN_OFF) this.#violations.push(what);
    sendJson(response, JSON.stringify({ error: { message: `not modelled: ${what}`, type: "not_modelled" } }), 501);
  }

  #pour(response: ServerResponse, how: Streamed): void {
    this.#bigResponse = response;
    response.write(how.answer.roleFrame);
    const pour = () => {
      while (how.entry.tokensSent < how.answer.tokens && !response.destroyed) {
        const isTaken = response.write(stamped(how.answer, how.entry.tokensSent));
        how.entry.tokensSent += 1;
        if (!isTaken) return;
      }
      if (how.entry.tokensSent >= how.answer.tokens) response.end(how.end);
    };
    response.on("drain", pour);
    pour();
  }
}

interface Streamed {
  readonly answer: Rendered;
  readonly entry: { tokensSent: number };
  readonly end: Buffer;
}

function stream(response: ServerResponse, how: Streamed): void {
  const { answer, entry, end } = how;
  const send = () => {
    response.write(stamped(answer, entry.tokensSent));
    entry.tokensSent += 1;
    if (entry.tokensSent < answer.tokens) return;
    if (timer !== undefined) clearInterval(timer);
    response.end(end);
  };
  const timer = answer.everyMs === 0 ? undefined : setInterval(send, answer.everyMs);
  response.once("close", () => clearInterval(timer));
  response.write(answer.roleFrame);
  if (timer !== undefined) {
    send();
    return;
  }
  while (entry.tokensSent < answer.tokens) send();
}

function stamped(answer: Rendered, number: number): Buffer {
  const frame = Buffer.from(answer.tokenFrame);
  const stamp = `${String(number).padStart(NUMBER_DIGITS, "0")} ${String(monotonicUs()).padStart(TIME_DIGITS, "0")}`;
  frame.write(stamp, answer.stampAt, STAMP_LENGTH, "latin1");
  return frame;
}

function modelOf(body: Buffer): string {
  const key = body.indexOf('"model"');
  const from = body.indexOf('"', body.indexOf(":", key)) + 1;
  return key < 0 ? "" : body.toString("latin1", from, body.indexOf('"', from));
}

function render(name: string): Rendered {
  const [, tokens = "0", everyMs = "0"] = /^t(\d+)(?:e(\d+))?$/.exec(name) ?? [];
  const [, bigMib] = /^big(\d+)$/.exec(name) ?? [];
  const kind = name === "wait" ? "wait" : bigMib !== undefined ? "big" : "tokens";
  const count = bigMib === undefined ? Number(tokens) : (Number(bigMib) * MIB) / BIG_DELTA_BYTES;
  if (kind === "tokens" && count === 0) throw new Error(`a model name like t16, t40e250, wait or big72, not ${name}`);
  const head = { id: "chatcmpl-bench", created: 1_700_000_000, model: name };
  const usage = { prompt_tokens: 60, completion_tokens: count, total_tokens: 60 + count };
  const chunk = (delta: object, finishReason: string | null) =>
    frame({ ...head, object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason: finishReason }] });
  const stamp = "0".repeat(STAMP_LENGTH);
  const filler = bigMib === undefined ? " " : ` ${"x".repeat(BIG_DELTA_BYTES - STAMP_LENGTH - 1)}`;
  const tokenFrame = chunk({ content: stamp + filler }, null);
  const finish = chunk({}, "stop");
  const done = Buffer.from("data: [DONE]\n\n");
  const usageFrame = frame({ ...head, object: "chat.completion.chunk", choices: [], usage });
  const message = { role: "assistant", content: "token ".repeat(bigMib === undefined ? count : 0) };
  const choices = [{ index: 0, message, logprobs: null, finish_reason: "stop" }];
  return {
    name,
    kind,
    tokens: count,
    everyMs: Number(everyMs),
    body: Buffer.from(JSON.stringify({ ...head, object: "chat.completion", choices, usage })),
    roleFrame: chunk({ role: "assistant", content: "" }, null),
    tokenFrame,
    stampAt: tokenFrame.indexOf(stamp),
    end: { plain: Buffer.concat([finish, done]), withUsage: Buffer.concat([finish, usageFrame, done]) },
  };
}

function frame(payload: object): Buffer {
  return Buffer.from(`data: ${JSON.stringify(payload)}\n\n`);
}

function readBody(request: IncomingMessage, done: (body: Buffer) => void): void {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => done(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks)));
}

function sendJson(response: ServerResponse, body: string, status = 200): void {
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
  response.end(body);
}

/**
 * The Responses API over a WebSocket: `response.create` frames in, the events of each answer out, one JSON text a frame.
 * 1. Without a `stream_id` frames are answered one after the other; with one, each lane goes by itself, in its own order.
 * 2. What `store: false` leaves nowhere else, this connection remembers: the latest response of each lane, until it closes. A continuation that fails
 *    makes the response that it went on from unknown here.
 * 3. An error is a frame of its own; the connection stays. Who closes it ends all that is under way on it (I11).
 * 4. Everything has a bound (I9): frames that wait, lanes, what is remembered, what waits for a slow reader, and the connection's own life.
 */
import type { WebsocketPluginOptions } from "@fastify/websocket";
import type { WebSocket } from "ws";
import { errorCatalogue } from "../../../../protocol/errors.ts";
import { type GhostError, OperationalError, toGhostError, UserError } from "../../../base/errors.ts";
import { findMembers, topLevelMembers } from "../../../base/json-scan.ts";
import type { Answer } from "../../../ghostllm/brain.ts";
import { parseJson } from "../../../ghostllm/frames/json.ts";
import { sseData } from "../../../ghostllm/frames/sse.ts";
import type { ChatRequest } from "../../../ghostllm/stream.ts";
import type { Actor } from "../../../platform/permit.ts";
import { openAiError } from "../errors.ts";
import { type ItemsText, rebuild } from "./responses-body.ts";
import { compact, compactionItem } from "./responses-compact.ts";
import {
  conversationWith,
  headOf,
  keepResponse,
  type PreparedResponse,
  prepareResponse,
  type ResponsesOptions,
} from "./responses-desk.ts";
import { ignoreClosed, inLane, LaneWriter } from "./responses-lane.ts";
import { SOCKET_MEMBERS } from "./responses-request.ts";
import { ResponseStream } from "./responses-stream.ts";
import { ResponseEvents, type ResponseHead, type WholeResponse } from "./responses-writer.ts";

/** As OpenAI's: a connection that lives on for ever would hold what it remembers for ever. */
const MAX_LIFE_MS = 60 * 60_000;
/** Lanes with work under way: each may hold a model. */
const MAX_LANES = 32;
/** Frames that wait for their turn; a client that sends faster than it is answered is told so. */
const MAX_WAITING = 64;
/** Of all lanes together; the oldest is forgotten first. */
const MAX_REMEMBERED_BYTES = 64 * 1024 * 1024;
/** A peer that answers no ping for this long is gone, or will never read what waits for it. */
const PING_MS = 30_000;
/** How long a peer may take to close before its socket is cut, at the daemon's end. */
const CLOSE_MS = 500;
const GOING_AWAY = 1001;
const UNSUPPORTED_DATA = 1003;
const STREAM_ID = /^[A-Za-z0-9_.-]{1,256}$/;

/** The plugin's settings: a frame is bounded as a body is. */
export function socketOptions({ clock, log, maxBodyBytes }: ResponsesOptions): WebsocketPluginOptions {
  return {
    options: { maxPayload: maxBodyBytes, perMessageDeflate: false },
    errorHandler(error, socket) {
      log.info({ event: "socket.failed", error });
      socket.terminate();
    },
    preClose(done) {
      const { clients } = this.websocketServer;
      for (const socket of clients) socket.close(GOING_AWAY, "the daemon is shutting down");
      const cut = clock.after(CLOSE_MS, () => {
        for (const socket of clients) socket.terminate();
      });
      this.websocketServer.close(() => cut[Symbol.dispose]());
      done();
    },
  };
}

export function serveSocket(options: ResponsesOptions, socket: WebSocket, actor: Actor): void {
  const connection = new Connection(options, socket, actor);
  const { clock, log } = options;
  const openedAt = clock.monotonic();
  let frames = 0;
  let isAlive = true;
  const pinging = clock.every(PING_MS, () => {
    if (!isAlive) socket.terminate();
    isAlive = false;
    socket.ping();
  });
  const ending = clock.after(MAX_LIFE_MS, () => connection.retire());
  socket.on("pong", () => {
    isAlive = true;
  });
  socket.on("message", (data, isBinary) => {
    isAlive = true;
    frames += 1;
    if (isBinary || !Buffer.isBuffer(data)) socket.close(UNSUPPORTED_DATA, "frames are JSON texts");
    else connection.take(data);
  });
  socket.once("close", () => {
    pinging[Symbol.dispose]();
    ending[Symbol.dispose]();
    connection.close();
    log.info({ event: "socket.closed", client: actor.client, frames, openMs: clock.monotonic() - openedAt });
  });
}

interface Lane {
  readonly name: string;
  readonly waiting: Envelope[];
}

class Connection {
  readonly #options: ResponsesOptions;
  readonly #socket: WebSocket;
  readonly #actor: Actor;
  readonly #lanes = new Map<string, Lane>();
  /** The latest response of each lane; the oldest first. */
  readonly #remembered = new Map<string, { readonly id: string; readonly items: ItemsText }>();
  readonly #working = new Set<AbortController>();
  #waiting = 0;
  #waitingBytes = 0;
  #isRetired = false;

  constructor(options: ResponsesOptions, socket: WebSocket, actor: Actor) {
    this.#options = options;
    this.#socket = socket;
    this.#actor = actor;
  }

  /** A frame of the client's. */
  take(frame: Buffer): void {
    const envelope = readEnvelope(frame);
    const lane = STREAM_ID.test(envelope.streamId ?? "") ? (envelope.streamId ?? "") : "";
    try {
      if (envelope.type === "response.steer") return this.#refuseSteer(frame);
      this.#admit(envelope);
    } catch (thrown) {
      this.#sendError(lane, thrown);
      return;
    }
    if (this.#isRetired) return this.#refuseLimit(lane, LIMITS.connection);
    const known = this.#lanes.get(lane);
    if (known === undefined && this.#lanes.size >= MAX_LANES) return this.#refuseLimit(lane, LIMITS.lanes);
    this.#waiting += 1;
    this.#waitingBytes += frame.length;
    if (known !== undefined) {
      known.waiting.push(envelope);
      return;
    }
    const opened = { name: lane, waiting: [envelope] };
    this.#lanes.set(lane, opened);
    // Every failure of a frame is told to the client inside.
    void this.#work(opened);
  }

  /** The connection has lived long enough: what is under way is finished. */
  retire(): void {
    this.#isRetired = true;
    if (this.#lanes.size === 0) this.#leave();
  }

  close(): void {
    const gone = new OperationalError("cancelled", "the client went away");
    for (const controller of this.#working) controller.abort(gone);
    this.#remembered.clear();
    for (const lane of this.#lanes.values()) lane.waiting.length = 0;
  }

  #admit({ type, streamId, frame }: Envelope): void {
    const refuse = (field: string, message: string): never => {
      throw new UserError("invalid_params", message, { details: { field } });
    };
    if (type === undefined) throw new UserError("invalid_json", "the frame is not a JSON object with a `type`");
    if (type !== "response.create") refuse("type", `\`type\`: there is no ${JSON.stringify(type.slice(0, 100))} here`);
    if (streamId !== undefined && !STREAM_ID.test(streamId))
      refuse("stream_id", "`stream_id`: 1 to 256 letters, digits, `_`, `.` and `-`");
    if (this.#options.open.isDraining)
      throw new OperationalError("daemon_stopping", "the daemon is shutting down", { retryAfterMs: 2_000 });
    if (this.#waiting >= MAX_WAITING || this.#waitingBytes + frame.length > this.#options.maxBodyBytes)
      throw new OperationalError("overloaded", "too many frames already wait on this connection");
  }

  async #work(lane: Lane): Promise<void> {
    for (let next = lane.waiting.shift(); next !== undefined; next = lane.waiting.shift()) {
      await this.#answer(lane.name, next);
      this.#waiting -= 1;
      this.#waitingBytes -= next.frame.length;
    }
    this.#lanes.delete(lane.name);
    if (this.#isRetired && this.#lanes.size === 0) this.#leave();
  }

  async #answer(lane: string, { frame, previousId }: Envelope): Promise<void> {
    using hold = this.#options.open.hold();
    const { controller } = hold;
    this.#working.add(controller);
    const writing = new LaneWriter(this.#socket, lane, controller.signal);
    try {
      const recall = (id: string) => this.#recall(id);
      const asker = { actor: this.#actor, signal: controller.signal, recall };
      const prepared = await prepareResponse(this.#options, frame, asker);
      const keep = async (whole: WholeResponse) => {
        await keepResponse(this.#options, this.#actor.userId, prepared, whole);
        this.#remember(lane, whole.id, conversationWith(prepared, whole));
      };
      if (!prepared.own.generates) await this.#warmUp(prepared, writing, keep);
      else if (prepared.own.isCompaction) await this.#compact(prepared, writing, keep);
      else await this.#generate(prepared, writing, keep);
    } catch (thrown) {
      this.#fail(lane, writing, controller.signal.aborted ? controller.signal.reason : thrown);
      if (previousId !== undefined) this.#forget(previousId);
    } finally {
      this.#working.delete(controller);
    }
  }

  async #generate(prepared: PreparedResponse, writing: LaneWriter, keep: Keep): Promise<void> {
    const { brain, clock } = this.#options;
    const createdAtMs = clock.now();
    await using answer = await brain.answer(forSocket(prepared.request), {}, writing.signal);
    const head = headOf(answer, prepared.own, { createdAtMs, more: noteOf(answer) });
    const stream = new ResponseStream({
      head,
      isRelayed: prepared.request.origin !== undefined,
      now: () => clock.now(),
      sink: (_type, json) => writing.add(json),
      relay: (frames) => sseData(frames).forEach((json) => writing.add(json)),
      keep,
    });
    writing.stream = stream;
    for await (const frame of answer.frames) {
      stream.write(frame);
      await writing.flush();
    }
    await stream.settle();
    stream.end();
    await writing.flushAll();
  }

  /** Everything is checked and remembered, and no model is asked. */
  async #warmUp(prepared: PreparedResponse, writing: LaneWriter, keep: Keep): Promise<void> {
    const { brain, clock, ids } = this.#options;
    const { target, actor } = prepared.request;
    const { plan } = await brain.explain(target, "chat", actor, writing.signal);
    const createdAtMs = clock.now();
    const head: ResponseHead = {
      id: ids.next("resp"),
      model: plan[0] ?? target,
      createdAtMs,
      echo: prepared.own.echo,
      sealReasoning: (data) => data,
      sealCall: (_callId, data) => data,
    };
    const events = new ResponseEvents(head, (_type, json) => writing.add(json));
    await keep(events.finish({ status: "completed", completedAtMs: clock.now(), usage: undefined }));
    await writing.flushAll();
  }

  async #compact(prepared: PreparedResponse, writing: LaneWriter, keep: Keep): Promise<void> {
    const { clock } = this.#options;
    const createdAtMs = clock.now();
    const { answer, usage, sealed } = await compact(this.#options, prepared.request, writing.signal);
    const head = headOf(answer, prepared.own, { createdAtMs, more: noteOf(answer) });
    const events = new ResponseEvents(head, (_type, json) => writing.add(json));
    events.wholeItem((id) => compactionItem(id, sealed), "cmp");
    await keep(events.finish({ status: "completed", completedAtMs: clock.now(), usage }));
    await writing.flushAll();
  }

  #fail(lane: string, writing: LaneWriter, thrown: unknown): void {
    const error = toGhostError(thrown);
    if (error.family === "bug") this.#options.log.error({ event: "socket.answer.failed", error });
    if (writing.stream === undefined) return this.#sendError(lane, error);
    writing.stream.fail(error);
    writing.flushNow();
  }

  #recall(id: string): ItemsText | undefined {
    return [...this.#remembered.values()].find((remembered) => remembered.id === id)?.items;
  }

  /** (2) */
  #remember(lane: string, id: string, items: ItemsText): void {
    this.#remembered.delete(lane);
    this.#remembered.set(lane, { id, items });
    let bytes = [...this.#remembered.values()].reduce((sum, remembered) => sum + remembered.items.length, 0);
    for (const [oldest, remembered] of this.#remembered) {
      if (bytes <= MAX_REMEMBERED_BYTES && this.#remembered.size <= MAX_LANES) break;
      this.#remembered.delete(oldest);
      bytes -= remembered.items.length;
    }
  }

  #forget(id: string): void {
    for (const [lane, remembered] of this.#remembered) if (remembered.id === id) this.#remembered.delete(lane);
  }

  #refuseSteer(frame: Buffer): void {
    const text = (name: string) => {
      const member = topLevelMembers(frame).find(({ key }) => key === name);
      return member === undefined ? "null" : frame.toString("utf8", member.valueStart, member.valueEnd);
    };
    const steer = `{"input":${text("input")},"previous_response_id":${text("previous_response_id")}}`;
    const message = "a response under way takes no more input here; send the next request when it has ended";
    const error = { type: "invalid_request_error", code: "steering_not_supported", message };
    this.#send(
      "",
      `{"type":"response.steer.failed","sequence_number":0,"steer":${steer},"error":${JSON.stringify(error)}}`,
    );
  }

  #refuseLimit(lane: string, { code, message }: (typeof LIMITS)[keyof typeof LIMITS]): void {
    const error = { type: "invalid_request_error", code, message, param: null };
    this.#send(lane, JSON.stringify({ type: "error", status: 400, error }));
  }

  #leave(): void {
    this.#refuseLimit("", LIMITS.connection);
    this.#socket.close(1000, LIMITS.connection.code);
  }

  #sendError(lane: string, thrown: unknown): void {
    const error: GhostError = toGhostError(thrown);
    const { http } = errorCatalogue[error.code];
    this.#send(lane, JSON.stringify({ type: "error", status: http, error: openAiError(error) }));
  }

  #send(lane: string, json: string): void {
    this.#socket.send(inLane(json, lane), ignoreClosed);
  }
}

type Keep = (whole: WholeResponse) => Promise<void>;

const LIMITS = {
  connection: {
    code: "websocket_connection_limit_reached",
    message: "this connection has lived its 60 minutes; open another",
  },
  lanes: { code: "websocket_stream_limit_reached", message: `more than ${MAX_LANES} streams on one connection` },
} as const;

/** Every answer is streamed here, and an upstream gets none of what only the socket has. */
function forSocket(request: ChatRequest): ChatRequest {
  const { origin } = request;
  if (origin === undefined) return { ...request, stream: true };
  const bodyFor = (modelName: string) =>
    rebuild(origin.bodyFor(modelName), { drop: SOCKET_MEMBERS, set: { stream: "true" } });
  return { ...request, stream: true, origin: { ...origin, bodyFor } };
}

/** What HTTP's headers would say, since a frame has none. */
function noteOf({ model, decision, dropped }: Answer): string {
  return `"x_ghost":${JSON.stringify({ model: model.ref, route: decision.reason, dropped })}`;
}

/** A frame, and what of it must be known before its turn. */
interface Envelope {
  readonly frame: Buffer;
  readonly type: string | undefined;
  readonly streamId: string | undefined;
  readonly previousId: string | undefined;
}

/** Without a parse; of a frame that is not JSON the parser says so later. */
function readEnvelope(frame: Buffer): Envelope {
  const found = membersOf(frame);
  const text = (name: string): string | undefined => {
    const member = found.find(({ key }) => key === name);
    const value = member === undefined ? "" : frame.toString("utf8", member.valueStart, member.valueEnd);
    return value.startsWith('"') && value.length >= 2 ? textOf(value) : undefined;
  };
  return { frame, type: text("type"), streamId: text("stream_id"), previousId: text("previous_response_id") };
}

function membersOf(frame: Buffer): ReturnType<typeof findMembers>["found"] {
  try {
    return findMembers(frame, ["type", "stream_id", "previous_response_id"]).found;
  } catch {
    return []; // A key that is no JSON text: the frame is refused for what it lacks.
  }
}

function textOf(json: string): string | undefined {
  const value = parseJson(json);
  return typeof value === "string" ? value : undefined;
}

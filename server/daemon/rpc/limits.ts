/** The bounds of the JSON-RPC front (I9). Tests inject smaller ones. */
import { MAX_FRAME_BYTES, MAX_HEADER_BYTES } from "../../../protocol/stream.ts";

export interface RpcLimits {
  /** Authenticated clients. A desk has a handful of editors and terminals; beyond this something is looping. Full: `overloaded`. */
  readonly maxClients: number;
  /** Connections that have not shown a key yet: each costs a descriptor and a buffer. Full: the oldest is dropped. */
  readonly maxUnauthenticated: number;
  /** From the connection to a valid `initialize`. */
  readonly initializeMs: number;
  /** From the first byte of a frame to its last: a half-sent frame would hold its buffer for ever. */
  readonly frameMs: number;
  readonly maxHeaderBytes: number;
  /** Frames before `initialize` has succeeded: a stranger gets no more memory than a handshake needs. */
  readonly maxHandshakeBytes: number;
  /** The largest message; one that is larger breaks the connection, a result that is larger answers `body_too_large`. */
  readonly maxFrameBytes: number;
  /** Bodies above this are parsed in a worker: parsing 256 KiB takes about 2 ms, the longest stretch allowed on the main loop. */
  readonly inlineJsonBytes: number;
  /** Results and items above this are written a slice at a time (json-slices.ts): making 64 KiB of text takes 0.2 to 0.6 ms. */
  readonly inlineResultBytes: number;
  /**
   * Objects, arrays, keys and elements in a body that a worker parsed: handing over this many takes about 2 ms again, while long texts
   * are only copied. No method's parameters come near it.
   */
  readonly maxLargeJsonValues: number;
  /** Requests of one client that are being answered, streams included. Full: `overloaded`. */
  readonly maxOpenRequests: number;
  readonly maxOpenStreams: number;
  /** Messages read and not yet dispatched; beyond it the socket is not read. */
  readonly maxUndispatched: number;
  /** Unsent bytes of one client above which its streams wait: a terminal that scrolls slowly must not fill our memory. */
  readonly pauseStreamsBytes: number;
  /** Unsent bytes of one client above which it is disconnected: streams have waited long before, so it asks and never reads. */
  readonly maxUnsentBytes: number;
  /** Items in one `$/progress`, and their bytes: large enough to amortise a message, small enough to stay far below 2 ms. */
  readonly maxBatchItems: number;
  readonly maxBatchBytes: number;
  /** How long `close` waits for open answers, and then for the last bytes to leave. */
  readonly drainMs: number;
  readonly flushMs: number;
}

export const RPC_LIMITS: RpcLimits = {
  maxClients: 256,
  maxUnauthenticated: 32,
  initializeMs: 5000,
  frameMs: 30_000,
  maxHeaderBytes: MAX_HEADER_BYTES,
  maxHandshakeBytes: 64 * 1024,
  maxFrameBytes: MAX_FRAME_BYTES,
  inlineJsonBytes: 256 * 1024,
  inlineResultBytes: 64 * 1024,
  maxLargeJsonValues: 10_000,
  maxOpenRequests: 256,
  maxOpenStreams: 64,
  maxUndispatched: 64,
  pauseStreamsBytes: 1024 * 1024,
  maxUnsentBytes: 64 * 1024 * 1024,
  maxBatchItems: 64,
  maxBatchBytes: 64 * 1024,
  drainMs: 5000,
  flushMs: 1000,
};

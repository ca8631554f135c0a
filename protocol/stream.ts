/**
 * Streams over JSON-RPC: a request carries `partialResultToken` and an initial `credit`; its items arrive as `$/progress` under that token, each
 * costing one credit; the reader grants more with `ghost/stream/credit`. The reply (null) ends the stream, an error reply ends it with that error,
 * and `$/cancelRequest` stops it. With credit spent, the sender stops pulling from its source.
 */
import { z } from "zod";

export const STREAM_CREDIT = "ghost/stream/credit";

/** How many items a reader lets the sender run ahead: enough to hide a round trip, and a bound on what a slow reader holds in memory. */
export const INITIAL_STREAM_CREDIT = 256;

/** The most credit that one message grants, and that a stream ever holds: what is granted beyond is dropped. */
export const MAX_STREAM_CREDIT = 4096;

/**
 * The largest message either side sends or accepts, in bytes: the longest prompt of the schemas fits, and a peer that
 * lies about lengths cannot fill the memory.
 */
export const MAX_FRAME_BYTES = 16 * 1024 * 1024;

/** A header block holds two short lines; without a bound an endless one would be kept. */
export const MAX_HEADER_BYTES = 4096;

const tokenSchema = z.union([z.string().min(1).max(128), z.int()]);
const creditSchema = z.int().positive().max(MAX_STREAM_CREDIT);

export const streamRequestExtras = z.object({ partialResultToken: tokenSchema, credit: creditSchema });
export type StreamToken = z.infer<typeof tokenSchema>;
export const streamCreditParams = z.object({ token: tokenSchema, credit: creditSchema });
export const streamProgressValue = z.object({ items: z.array(z.unknown()) });
export type StreamProgressValue = z.infer<typeof streamProgressValue>;

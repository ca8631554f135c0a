/**
 * Reads request bodies without holding up the main loop: what is larger than `INLINE_BYTES` is parsed and checked in a worker, which hands back bytes.
 */
import type { WorkerPool } from "../../platform/workers.ts";
import type { Message } from "../../ghostllm/stream.ts";
import { type ChatFacts, parseChat } from "./dialects/openai-request.ts";
import { decodeReply, encodeJob } from "./body-job.ts";

/** JSON.parse takes about 1 ms for this much; more would pass the 2 ms that anything may hold the loop. */
const INLINE_BYTES = 256 * 1024;

export interface ParsedChat {
  readonly facts: ChatFacts;
  readonly messages: () => Promise<readonly Message[]>;
}

export interface BodyReader {
  /** @throws UserError `invalid_json` | `invalid_params` */
  readChat(body: Buffer, signal: AbortSignal): Promise<ParsedChat>;
  /** The messages of a body that was accepted before, for the transcript. */
  readMessages(body: Buffer): Promise<readonly Message[]>;
}

export function createBodyReader(workers: WorkerPool): BodyReader {
  const inWorker = async (body: Buffer, signal: AbortSignal) => decodeReply<readonly Message[]>(await workers.run(encodeJob("chat-messages", body), signal));
  return {
    async readChat(body, signal) {
      if (body.length <= INLINE_BYTES) {
        const { facts, messages } = parseChat(body);
        return { facts, messages: async () => messages() };
      }
      const facts = decodeReply<ChatFacts>(await workers.run(encodeJob("chat-facts", body), signal));
      return { facts, messages: () => inWorker(body, signal) };
    },
    readMessages: async (body) => (body.length <= INLINE_BYTES ? parseChat(body).messages() : inWorker(body, new AbortController().signal)),
  };
}

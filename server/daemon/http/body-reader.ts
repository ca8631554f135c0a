/**
 * Reads request bodies without holding up the main loop: what is larger than `INLINE_BYTES` is parsed and checked in a worker, which hands back bytes.
 */
import { type MemberPlaces, setMembers } from "../../base/json-scan.ts";
import type { Message } from "../../ghostllm/stream.ts";
import type { WorkerPool } from "../../platform/workers.ts";
import { type BodyJob, decodeReply, encodeJob } from "./body-job.ts";
import {
  type ChatFacts,
  type CompletionFacts,
  type EmbeddingFacts,
  findPlaces,
  parseChat,
  parseCompletion,
  parseEmbedding,
} from "./dialects/openai-request.ts";

/** JSON.parse takes about 1 ms for this much; more would pass the 2 ms that anything may hold the loop. */
const INLINE_BYTES = 256 * 1024;

/** A body with what is known of it. */
export interface ReadBody<Facts> {
  readonly facts: Facts;
  /** The body with other values for `model` and `stream_options`, everything else byte for byte. `values` are JSON texts. */
  with(values: Readonly<Record<string, string>>): Buffer;
}

export interface BodyReader {
  /** @throws UserError `invalid_json` | `invalid_params` | `body_too_large`, like its neighbours */
  readChat(
    body: Buffer,
    signal: AbortSignal,
  ): Promise<ReadBody<ChatFacts> & { messages(): Promise<readonly Message[]> }>;
  readCompletion(body: Buffer, signal: AbortSignal): Promise<ReadBody<CompletionFacts>>;
  readEmbedding(
    body: Buffer,
    signal: AbortSignal,
  ): Promise<ReadBody<EmbeddingFacts> & { texts(): Promise<readonly string[]> }>;
  /** The messages of a body that was accepted before, for the transcript. */
  readMessages(body: Buffer): Promise<readonly Message[]>;
}

interface Head<Facts> {
  readonly facts: Facts;
  readonly places: MemberPlaces;
}

export function createBodyReader(workers: WorkerPool): BodyReader {
  const ask = async <Result>(job: BodyJob, body: Buffer, signal: AbortSignal) =>
    decodeReply<Result>(await workers.run(encodeJob(job, body), signal));
  const inline = <Facts>(body: Buffer, facts: Facts): ReadBody<Facts> => ({
    facts,
    with: (values) => setMembers(body, values, findPlaces(body)),
  });
  const remote = <Facts>(body: Buffer, { facts, places }: Head<Facts>): ReadBody<Facts> => ({
    facts,
    with: (values) => setMembers(body, values, places),
  });
  return {
    async readChat(body, signal) {
      if (body.length <= INLINE_BYTES) {
        const { facts, messages } = parseChat(body);
        return { ...inline(body, facts), messages: async () => messages() };
      }
      const { head } = await ask<Head<ChatFacts>>("chat-facts", body, signal);
      return {
        ...remote(body, head),
        messages: async () => (await ask<readonly Message[]>("chat-messages", body, signal)).head,
      };
    },
    async readCompletion(body, signal) {
      if (body.length <= INLINE_BYTES) return inline(body, parseCompletion(body));
      const { head, texts } = await ask<Head<Omit<CompletionFacts, "prefix" | "suffix">>>("completion", body, signal);
      const [prefix = "", suffix = ""] = texts;
      return remote(body, { facts: { ...head.facts, prefix, suffix }, places: head.places });
    },
    async readEmbedding(body, signal) {
      if (body.length <= INLINE_BYTES) {
        const { texts, ...facts } = parseEmbedding(body);
        return { ...inline(body, facts), texts: async () => texts };
      }
      const { head } = await ask<Head<EmbeddingFacts>>("embedding-facts", body, signal);
      return { ...remote(body, head), texts: async () => (await ask("embedding-texts", body, signal)).texts };
    },
    async readMessages(body) {
      if (body.length <= INLINE_BYTES) return parseChat(body).messages();
      return (await ask<readonly Message[]>("chat-messages", body, new AbortController().signal)).head;
    },
  };
}

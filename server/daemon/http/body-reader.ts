/**
 * Reads request bodies without holding up the main loop: what is larger than `INLINE_BYTES` is parsed and checked in a worker, which hands back bytes.
 */
import { findMembers, type MemberPlaces, setMembers } from "../../base/json-scan.ts";
import type { Dialect, Message } from "../../ghostllm/stream.ts";
import type { WorkerPool } from "../../platform/workers.ts";
import { refuseExcess } from "../json-limits.ts";
import { type BodyJob, decodeMessages, decodeReply, encodeJob } from "./body-job.ts";
import type { ChatFacts } from "./dialects/chat-facts.ts";
import {
  type OllamaCompletion,
  type OllamaEmbedding,
  parseOllamaCompletion,
  parseOllamaEmbed,
  parseOllamaEmbedOne,
} from "./dialects/ollama-request.ts";
import {
  type CompletionFacts,
  type EmbeddingFacts,
  OPENAI_MEMBERS,
  parseCompletion,
  parseEmbedding,
} from "./dialects/openai-request.ts";
import { CHAT_PARSERS, type ChatDialect, type ChatOwn, isChatDialect } from "./dialects/parsers.ts";

/** JSON.parse takes about 1 ms for this much; more would pass the 2 ms that anything may hold the loop. */
const INLINE_BYTES = 256 * 1024;

/** A body with what is known of it. */
export interface ReadBody<Facts> {
  readonly facts: Facts;
  /** The body with other values for its dialect's `members`, everything else byte for byte. `values` are JSON texts. */
  with(values: Readonly<Record<string, string>>): Buffer;
  /** The JSON text of one of its dialect's `members`. */
  member(name: string): string | undefined;
}

export type ReadChat<Name extends ChatDialect> = ReadBody<ChatFacts<ChatOwn[Name]>> & {
  messages(): Promise<readonly Message[]>;
};

export interface BodyReader {
  /** @throws UserError `invalid_json` | `invalid_params` | `body_too_large`, like its neighbours */
  readChat<Name extends ChatDialect>(dialect: Name, body: Buffer, signal: AbortSignal): Promise<ReadChat<Name>>;
  readCompletion(body: Buffer, signal: AbortSignal): Promise<ReadBody<CompletionFacts>>;
  readEmbedding(
    body: Buffer,
    signal: AbortSignal,
  ): Promise<ReadBody<EmbeddingFacts> & { texts(): Promise<readonly string[]> }>;
  /** Undefined for a body that asks a question (`readChat`). */
  readOllamaCompletion(body: Buffer, signal: AbortSignal): Promise<OllamaCompletion | undefined>;
  readOllamaEmbedding(
    route: "ollama-embed" | "ollama-embed-one",
    body: Buffer,
    signal: AbortSignal,
  ): Promise<OllamaEmbedding>;
  /** The messages of a body that was accepted before, for the transcript. */
  readMessages(dialect: Dialect, body: Buffer): Promise<readonly Message[]>;
}

interface Head<Facts> {
  readonly facts: Facts;
  readonly places: MemberPlaces;
}

function placed<Facts>(body: Buffer, facts: Facts, places: () => MemberPlaces): ReadBody<Facts> {
  return {
    facts,
    with: (values) => setMembers(body, values, places()),
    member(name) {
      const found = places().found.findLast(({ key }) => key === name);
      return found === undefined ? undefined : body.toString("utf8", found.valueStart, found.valueEnd);
    },
  };
}

export function createBodyReader(workers: WorkerPool): BodyReader {
  const ask = async <Result>(job: BodyJob, body: Buffer, signal: AbortSignal) =>
    decodeReply<Result>(await workers.run(encodeJob(job, body), signal));
  const askMessages = async (dialect: ChatDialect, body: Buffer, signal: AbortSignal) =>
    decodeMessages(await workers.run(encodeJob({ kind: "chat-messages", dialect }, body), signal));
  const inline = <Facts>(body: Buffer, facts: Facts, members: readonly string[]): ReadBody<Facts> => {
    let places: MemberPlaces | undefined;
    return placed(body, facts, () => (places ??= findMembers(body, members)));
  };
  const remote = <Facts>(body: Buffer, { facts, places }: Head<Facts>): ReadBody<Facts> =>
    placed(body, facts, () => places);
  return {
    async readChat(dialect, body, signal) {
      const { parse, members } = CHAT_PARSERS[dialect];
      if (body.length <= INLINE_BYTES) {
        // A small body can be deep, too: whoever writes it anew for another dialect would run out of stack.
        refuseExcess(body);
        const { facts, messages } = parse(body);
        return { ...inline(body, facts, members), messages: async () => messages() };
      }
      const { head } = await ask<Head<ReturnType<typeof parse>["facts"]>>(
        { kind: "chat-facts", dialect },
        body,
        signal,
      );
      return {
        ...remote(body, head),
        messages: () => askMessages(dialect, body, signal),
      };
    },
    async readCompletion(body, signal) {
      if (body.length <= INLINE_BYTES) return inline(body, parseCompletion(body), OPENAI_MEMBERS);
      const job = { kind: "completion" } as const;
      const { head, texts } = await ask<Head<Omit<CompletionFacts, "prefix" | "suffix">>>(job, body, signal);
      const [prefix = "", suffix = ""] = texts;
      return remote(body, { facts: { ...head.facts, prefix, suffix }, places: head.places });
    },
    async readEmbedding(body, signal) {
      if (body.length <= INLINE_BYTES) {
        const { texts, ...facts } = parseEmbedding(body);
        return { ...inline(body, facts, OPENAI_MEMBERS), texts: async () => texts };
      }
      const { head } = await ask<Head<EmbeddingFacts>>({ kind: "embedding-facts" }, body, signal);
      return { ...remote(body, head), texts: async () => (await ask({ kind: "embedding-texts" }, body, signal)).texts };
    },
    async readOllamaCompletion(body, signal) {
      if (body.length <= INLINE_BYTES) {
        refuseExcess(body);
        return parseOllamaCompletion(body);
      }
      const job = { kind: "ollama-completion" } as const;
      const { head, texts } = await ask<Omit<OllamaCompletion, "prefix" | "suffix"> | null>(job, body, signal);
      const [prefix = "", suffix = ""] = texts;
      return head === null ? undefined : { ...head, prefix, suffix };
    },
    async readOllamaEmbedding(route, body, signal) {
      if (body.length <= INLINE_BYTES) {
        refuseExcess(body);
        return (route === "ollama-embed" ? parseOllamaEmbed : parseOllamaEmbedOne)(body);
      }
      const { head, texts } = await ask<Omit<OllamaEmbedding, "texts">>({ kind: route }, body, signal);
      return { ...head, texts };
    },
    async readMessages(dialect, body) {
      if (!isChatDialect(dialect)) return [];
      if (body.length <= INLINE_BYTES) return CHAT_PARSERS[dialect].parse(body).messages();
      return askMessages(dialect, body, new AbortController().signal);
    },
  };
}

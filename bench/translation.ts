/**
 * What translation alone takes, without sockets, storage and scheduling: the daemon's own functions, called in this process.
 * 1. Of a request: reading the client's body, and writing the upstream's. The floor is the relay of the same size: reading it, and setting the model's name.
 * 2. Of a chunk: reading one delta of the upstream, and writing it for the client.
 * 3. CPU, not time, and the least of several runs: what else the machine does is in neither.
 */
import { answerIdSchema, clientIdSchema, modelRefSchema, userIdSchema } from "../protocol/ids.ts";
import type { ModelInfo } from "../protocol/model.ts";
import { createBodyReader } from "../server/daemon/http/body-reader.ts";
import { createGeminiWriter } from "../server/daemon/http/dialects/gemini-writer.ts";
import { createMessagesWriter } from "../server/daemon/http/dialects/messages-writer.ts";
import { createOllamaWriter } from "../server/daemon/http/dialects/ollama-writer.ts";
import { createStreamWriter } from "../server/daemon/http/dialects/openai-writer.ts";
import type { ChatDialect } from "../server/daemon/http/dialects/parsers.ts";
import { ResponseStream } from "../server/daemon/http/dialects/responses-stream.ts";
import { chatRequest } from "../server/daemon/http/dialects/serve.ts";
import { anthropicFrame } from "../server/ghostllm/frames/anthropic.ts";
import { geminiFrame } from "../server/ghostllm/frames/gemini.ts";
import { OllamaFrames } from "../server/ghostllm/frames/ollama.ts";
import { openAiFrame } from "../server/ghostllm/frames/openai.ts";
import { responsesFrame } from "../server/ghostllm/frames/responses.ts";
import { messagesRequest } from "../server/ghostllm/providers/anthropic-body.ts";
import { familyOf as claudeFamily } from "../server/ghostllm/providers/anthropic-models.ts";
import { geminiRequest } from "../server/ghostllm/providers/gemini-body.ts";
import { familyOf as geminiFamily } from "../server/ghostllm/providers/gemini-models.ts";
import { chatBody as ollamaBody } from "../server/ghostllm/providers/ollama-request.ts";
import { OPENAI_EXTRAS, openAiFamily } from "../server/ghostllm/providers/openai.ts";
import { chatBody } from "../server/ghostllm/providers/openai-body.ts";
import { responsesBody } from "../server/ghostllm/providers/responses-body.ts";
import { type ChatRequest, eventsFrame, type Frame } from "../server/ghostllm/stream.ts";
import { systemClock } from "../server/platform/system-clock.ts";
import { CLIENT_DIALECTS, type ClientDialect, clientRequest, type RequestSize } from "./dialect-request.ts";
import { MODEL_NAMES, renderAnswer, UPSTREAM_KINDS, type UpstreamKind } from "./dialect-upstream.ts";

export interface TranslationCost {
  readonly client: ClientDialect;
  readonly upstream: UpstreamKind;
  /** More than the relay of the same size (1). */
  readonly smallUs: number;
  readonly agentUs: number;
  /** (2) */
  readonly chunkUs: number;
}

export interface TranslationEffort {
  readonly runs: number;
  readonly requests: number;
  readonly chunks: number;
}

const DIALECTS: Readonly<Record<ClientDialect, ChatDialect>> = {
  chat: "openai-chat",
  responses: "openai-responses",
  messages: "anthropic-messages",
  gemini: "gemini",
  ollama: "ollama",
};
const REF = modelRefSchema.parse("bench/m");
const ANSWER_ID = answerIdSchema.parse("ans_01HZZZZZZZZZZZZZZZZZZZZZZZ");
const ACTOR = {
  userId: userIdSchema.parse("bench"),
  client: clientIdSchema.parse("bench"),
  via: { kind: "api", id: "bench" },
} as const;

interface Work {
  readonly count: number;
  once(): unknown;
  leastUs: number;
}

/** All in turns, run by run: so each is measured when everything is compiled that it shares with others. */
export async function measureTranslation(effort: TranslationEffort): Promise<readonly TranslationCost[]> {
  const work = (count: number, once: () => unknown): Work => ({ count, once, leastUs: Number.POSITIVE_INFINITY });
  const request = (once: () => unknown) => work(effort.requests, once);
  const floor = { small: request(() => relay("small")), agent: request(() => relay("agent")) };
  const pairs = CLIENT_DIALECTS.flatMap((client) =>
    UPSTREAM_KINDS.map((upstream) => ({
      client,
      upstream,
      small: request(() => translate(client, upstream, "small")),
      agent: request(() => translate(client, upstream, "agent")),
      chunk: work(effort.chunks, chunkWay(client, upstream)),
    })),
  );
  const all = [floor.small, floor.agent, ...pairs.flatMap(({ small, agent, chunk }) => [small, agent, chunk])];
  for (let run = 0; run < effort.runs; run += 1) {
    for (const each of all) each.leastUs = Math.min(each.leastUs, await cpuUs(each));
  }
  return pairs.map(({ client, upstream, small, agent, chunk }) => ({
    client,
    upstream,
    smallUs: small.leastUs - floor.small.leastUs,
    agentUs: agent.leastUs - floor.agent.leastUs,
    chunkUs: chunk.leastUs,
  }));
}

/** (3) */
async function cpuUs({ count, once }: Work): Promise<number> {
  const before = process.cpuUsage();
  for (let index = 0; index < count; index += 1) {
    const result = once();
    if (result instanceof Promise) await result;
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / count;
}

const reader = createBodyReader({
  size: 0,
  queued: 0,
  run: () => Promise.reject(new Error("bodies of this benchmark are read without a worker")),
  async [Symbol.asyncDispose]() {},
});
const never = new AbortController().signal;
const bodies = new Map<string, Buffer>();

function bodyOf(client: ClientDialect, size: RequestSize): Buffer {
  const key = `${client} ${size}`;
  const asked = { model: "bench/m", prompt: "Explain this function, please.", stream: true };
  const body = bodies.get(key) ?? Buffer.from(JSON.stringify(clientRequest(client, size, asked).body));
  bodies.set(key, body);
  return body;
}

async function relay(size: RequestSize): Promise<Buffer | undefined> {
  const { origin } = await read("chat", size);
  return origin?.bodyFor("m");
}

async function read(client: ClientDialect, size: RequestSize): Promise<ChatRequest> {
  const body = bodyOf(client, size);
  const dialect = DIALECTS[client];
  return chatRequest(dialect, body, await reader.readChat(dialect, body, never), { actor: ACTOR });
}

async function translate(client: ClientDialect, upstream: UpstreamKind, size: RequestSize): Promise<string | Buffer> {
  const { origin: _translated, ...request } = await read(client, size);
  const name = MODEL_NAMES[upstream];
  switch (upstream) {
    case "compatible":
      return (await chatBody(request, name)).body;
    case "openai": {
      const target = { name, ref: REF, family: openAiFamily(name), maker: "openai", extras: OPENAI_EXTRAS };
      const omit = { seals: false, summary: false, include: false };
      return (await responsesBody(request, { ...target, isPadding: true }, omit)).body;
    }
    case "anthropic": {
      const facts = { maker: "anthropic", name, facts: claudeFamily(name), isRefused: () => false };
      return JSON.stringify((await messagesRequest(request, facts)).body);
    }
    case "gemini": {
      const facts = { maker: "gemini", ref: REF, facts: geminiFamily(name), maxOutputTokens: 65_536 };
      return JSON.stringify((await geminiRequest(request, facts)).body);
    }
    case "ollama":
      return JSON.stringify((await ollamaBody(request, OLLAMA_MODEL, { keepAlive: "5m", numCtx: 8192 })).body);
  }
}

const OLLAMA_MODEL: ModelInfo = {
  ref: REF,
  provider: "ollama",
  name: "m",
  locality: "machine",
  capabilities: {
    chat: true,
    complete: true,
    fim: false,
    embeddings: false,
    tools: true,
    vision: false,
    jsonSchema: true,
  },
};

/** The delta is read anew each time, and written as the next one of an answer. */
function chunkWay(client: ClientDialect, upstream: UpstreamKind): () => number {
  const { delta } = renderAnswer(upstream, `${MODEL_NAMES[upstream]}-t1`, "");
  const decode = decoder(upstream);
  const write = writer(client);
  return () => write(eventsFrame(decode(delta).events()));
}

function decoder(upstream: UpstreamKind): (bytes: Buffer) => Frame {
  switch (upstream) {
    case "compatible":
      return (bytes) => openAiFrame("openai-chat", bytes);
    case "openai":
      return responsesFrame;
    case "anthropic":
      return anthropicFrame;
    case "gemini":
      return geminiFrame;
    case "ollama": {
      const frames = new OllamaFrames(() => "call");
      return (bytes) => frames.push(bytes) ?? eventsFrame([]);
    }
  }
}

/** What it writes, in bytes. */
function writer(client: ClientDialect): (frame: Frame) => number {
  const answer = { id: ANSWER_ID, model: REF, maker: "bench", isRelayed: false } as const;
  const startedAtMs = systemClock.monotonic();
  switch (client) {
    case "chat": {
      const chat = createStreamWriter({ ...answer, format: "openai-chat", createdAtMs: 0, includeUsage: false });
      return (frame) => chat.write(frame).length;
    }
    case "responses":
      return responsesWriter();
    case "messages": {
      const messages = createMessagesWriter({ ...answer, thinking: "hidden" });
      return (frame) => messages.write(frame).length;
    }
    case "gemini": {
      const gemini = createGeminiWriter({ ...answer, form: "sse", showsThoughts: false });
      return (frame) => gemini.write(frame).length;
    }
    case "ollama": {
      const writing = { route: "chat", model: REF, showsThinking: true, clock: systemClock, startedAtMs } as const;
      const ollama = createOllamaWriter(writing);
      return (frame) => ollama.write(frame).length;
    }
  }
}

function responsesWriter(): (frame: Frame) => number {
  let written = 0;
  const head = { id: "resp_bench", model: REF, createdAtMs: 0, echo: '"tools":[]' };
  const stream = new ResponseStream({
    head: { ...head, sealReasoning: (data) => data, sealCall: (_callId, data) => data },
    isRelayed: false,
    now: () => 0,
    sink: (type, json) => {
      written = Buffer.from(`event: ${type}\ndata: ${json}\n\n`).length;
    },
    relay() {},
    async keep() {},
  });
  return (frame) => {
    stream.write(frame);
    return written;
  };
}

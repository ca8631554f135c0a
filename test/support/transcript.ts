/** A transcript on real files, as the daemon composes it, for tests that begin, kill and reopen it. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { type AnswerId, answerIdSchema, clientIdSchema, modelRefSchema, userIdSchema } from "../../protocol/ids.ts";
import type { RouteDecision } from "../../protocol/route.ts";
import type { Role } from "../../protocol/session.ts";
import { DisposableStore } from "../../server/base/disposable.ts";
import { decodeFrame } from "../../server/ghostllm/frames/decode.ts";
import { openAiFrame } from "../../server/ghostllm/frames/openai.ts";
import { openTranscript, type Transcript, transcriptMigrations } from "../../server/ghostllm/session/transcript.ts";
import type { Frame, Message } from "../../server/ghostllm/stream.ts";
import type { Database } from "../../server/platform/database.ts";
import { type Log, type LogFields } from "../../server/platform/log.ts";
import type { Actor } from "../../server/platform/permit.ts";
import { StandingPermit } from "../../server/platform/permit-mint.ts";
import { openSpool, type Spool } from "../../server/platform/spool.ts";
import { openDatabase } from "../../server/platform/sqlite.ts";
import { systemClock, systemIds } from "../../server/platform/system-clock.ts";

export const ada = userIdSchema.parse("ada");
export const bob = userIdSchema.parse("bob");
export const MODEL = modelRefSchema.parse("test/model");
export const DECISION: RouteDecision = {
  target: "ghost/auto",
  task: "chat",
  plan: [MODEL],
  candidates: [],
  reason: "a test",
};

export const actorOf = (userId: Actor["userId"]): Actor => ({
  userId,
  client: clientIdSchema.parse("test"),
  via: { kind: "api", id: "test" },
});

export const newAnswerId = (): AnswerId => answerIdSchema.parse(systemIds.next("ans"));

export interface Turn {
  readonly role: Role;
  readonly content: string;
}
export const system = (content: string): Turn => ({ role: "system", content });
export const user = (content: string): Turn => ({ role: "user", content });
export const assistant = (content: string): Turn => ({ role: "assistant", content });

const bodySchema = z.object({
  messages: z.array(z.object({ role: z.enum(["system", "user", "assistant"]), content: z.string() })),
});

/** A client's body with these messages. */
export const bodyOf = (turns: readonly Turn[]): Buffer => Buffer.from(JSON.stringify({ messages: turns }));

/** A frame as an OpenAI-compatible server sends it. */
export function textFrame(text: string): Frame {
  const chunk = { choices: [{ index: 0, delta: { content: text }, finish_reason: null }] };
  return openAiFrame("openai-chat", Buffer.from(`data: ${JSON.stringify(chunk)}\n\n`));
}

export function lastFrame(usage: { readonly prompt_tokens: number; readonly completion_tokens: number }): Frame {
  const chunk = { choices: [{ index: 0, delta: {}, finish_reason: "stop" }], usage };
  return openAiFrame("openai-chat", Buffer.from(`data: ${JSON.stringify(chunk)}\n\n`));
}

/** Keeps what was logged at `warn` and above. */
export interface KeptLog extends Log {
  readonly lines: LogFields[];
}
export function keptLog(): KeptLog {
  const lines: LogFields[] = [];
  const keep = (fields: LogFields) => void lines.push(fields);
  return { lines, debug: () => {}, info: () => {}, warn: keep, error: keep };
}

export async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "transcript-"));
  await mkdir(join(folder, "spool"));
  return folder;
}
export const removeFolder = (folder: string): Promise<void> => rm(folder, { recursive: true, force: true });

export const permitFor = (folder: string): StandingPermit =>
  new StandingPermit("test", [{ capability: "fs.write", resource: { kind: "path", path: folder } }]);

export interface OpenedTranscript extends AsyncDisposable {
  readonly transcript: Transcript;
  readonly database: Database;
  readonly spool: Spool;
  readonly log: KeptLog;
}

export async function openTranscriptAt(
  folder: string,
  options: { readonly spoolMaxBytes?: number; readonly segmentBytes?: number } = {},
): Promise<OpenedTranscript> {
  const permit = permitFor(folder);
  const log = keptLog();
  const store = new DisposableStore();
  const file = join(folder, "ghost.db");
  const { database } = await openDatabase(permit, { file, migrations: transcriptMigrations, clock: systemClock, log });
  store.use(database);
  const spool = store.use(
    openSpool(permit, {
      folder: join(folder, "spool"),
      ...(options.spoolMaxBytes === undefined ? {} : { maxBytes: options.spoolMaxBytes }),
      ...(options.segmentBytes === undefined ? {} : { segmentBytes: options.segmentBytes }),
    }),
  );
  const decodeRequest = async (_dialect: string, body: Buffer): Promise<readonly Message[]> =>
    bodySchema
      .parse(JSON.parse(body.toString("utf8")))
      .messages.map(({ role, content }) => ({ role, parts: [{ kind: "text", text: content }] }));
  const transcript = await openTranscript({
    database,
    spool,
    clock: systemClock,
    ids: systemIds,
    log,
    decodeFrame,
    decodeRequest,
  });
  store.use(transcript);
  return { transcript, database, spool, log, [Symbol.asyncDispose]: () => store[Symbol.asyncDispose]() };
}

/** Asks as an HTTP client does, and has it answered with `pieces`. */
export async function ask(transcript: Transcript, turns: readonly Turn[], pieces: readonly string[], userId = ada) {
  const answerId = newAnswerId();
  const recording = await transcript.begin({
    answerId,
    actor: actorOf(userId),
    task: "chat",
    target: "ghost/auto",
    request: { kind: "body", dialect: "openai-chat", body: bodyOf(turns) },
  });
  recording.opened(MODEL, DECISION);
  for (const piece of pieces) recording.record(textFrame(piece));
  recording.end({ state: "complete" });
  return transcript.settled(answerId);
}

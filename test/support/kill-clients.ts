/**
 * Clients of every kind that ask a daemon one thing after another until it is gone, and keep what each of them was shown.
 *
 * 1. A client's record holds exactly what it could read: the text of whole frames, of whole bodies, of updates. `isAcknowledged` is set only once
 *    the answer's terminal event was there: `[DONE]`, the whole JSON, `finished`.
 * 2. Every question is a marker that no other question has, and the fake host's answer to it is known in advance (`scriptedTokens`).
 */
import type { GhostClient } from "../../protocol/ghost-client.ts";
import type { AnswerId, SessionId } from "../../protocol/ids.ts";
import { answerIdSchema } from "../../protocol/ids.ts";
import type { Usage } from "../../protocol/usage.ts";
import type { ReceivedRequest } from "../fakes/openai-host.ts";
import type { Script } from "../fakes/openai-host-script.ts";
import type { TestDaemon } from "./daemon.ts";
import { sse, textOf } from "./http.ts";
import type { Random } from "./random.ts";

export const UPSTREAM = "up/m";
export const EMBEDDED = "embedded/tiny-code-fim";

/** One question as its client lived it. */
export interface Witness {
  readonly kind: string;
  readonly task: "chat" | "completion";
  readonly model: string;
  /** The question's own first word, which no other question has. */
  readonly marker: string;
  /** The whole answer, where the fake host gives it. */
  readonly whole: string | undefined;
  answerId: AnswerId | undefined;
  sessionId: SessionId | undefined;
  shown: string;
  isAcknowledged: boolean;
  usage: Usage | undefined;
  /** An answer that was none. The daemon has no reason for any. */
  problem: string | undefined;
}

export interface ClientWorld {
  readonly daemon: TestDaemon;
  readonly face: GhostClient;
  readonly random: Random;
  /** Distinguishes the markers of this round. */
  readonly round: number;
  /** Sessions of earlier rounds that some clients go on with. */
  readonly sessions: Map<string, SessionId>;
  readonly witnesses: Witness[];
  /** What stateless clients have said so far, by client. */
  readonly turns: Map<string, readonly Turn[]>;
  /** The signal to kill the daemon is on its way: from here on a broken connection is no surprise. */
  readonly isKilled: () => boolean;
  /** Aborted when the daemon's end was seen: no client waits longer. */
  readonly gone: AbortSignal;
  /** Called whenever somebody is shown something. */
  readonly onShown: (witness: Witness) => void;
}

export type Turn = { readonly role: "user" | "assistant"; readonly content: string };
type Ask = (world: ClientWorld, client: string, count: number) => Promise<void>;

const CODE = "export function add(a: number, b: number): number {\n  return ";
const CLIENTS: readonly (readonly [kind: string, ask: Ask])[] = [
  ["stream", (world, client, count) => askStream(world, client, count, UPSTREAM)],
  ["conversation", askConversation],
  ["plain", askPlain],
  ["text-completion", (world, client, count) => askTextCompletion(world, client, count, UPSTREAM)],
  ["chat", (world, client, count) => askChat(world, client, count, undefined)],
  ["resumed-chat", (world, client, count) => askChat(world, client, count, "resumed")],
  ["face-completion", askFaceCompletion],
  ["embedded-stream", (world, client, count) => askStream(world, client, count, EMBEDDED)],
  ["embedded-completion", (world, client, count) => askTextCompletion(world, client, count, EMBEDDED)],
];
/** Every kind of client, each of which a run must have seen work. */
export const CLIENT_KINDS = CLIENTS.map(([kind]) => kind);

/** All clients at once; resolves when the last of them has noticed that the daemon is gone. */
export async function runClients(world: ClientWorld): Promise<void> {
  await Promise.all(
    CLIENTS.map(async ([kind, ask]) => {
      for (let count = 0; !world.gone.aborted; count += 1) {
        try {
          await ask(world, kind, count);
        } catch (error) {
          // The daemon is gone: what these clients wait for.
          if (world.isKilled()) return;
          throw error;
        }
      }
    }),
  );
}

/** What the fake host says to a marker: `r3cplain5n12` has twelve tokens. */
export function scriptedTokens(marker: string): readonly string[] {
  const count = Number(/n(\d+)$/.exec(marker)?.[1] ?? 1);
  return Array.from({ length: count }, (_, index) => `${marker}:${index} ü🦊\n`);
}

/** The script of the fake host: the answer belongs to the last question's marker. */
export function scriptFor(request: ReceivedRequest): Script {
  const question = lastQuestion(request.body);
  const marker = /^\S+/.exec(question)?.[0] ?? "";
  return { tokens: scriptedTokens(marker), msPerToken: 3 };
}

function lastQuestion(body: unknown): string {
  if (typeof body !== "object" || body === null) return "";
  if ("prompt" in body) return String(body.prompt);
  if (!("messages" in body) || !Array.isArray(body.messages)) return "";
  const last: unknown = body.messages.at(-1);
  return typeof last === "object" && last !== null && "content" in last ? String(last.content) : "";
}

function begin(
  { round, random, witnesses }: Pick<ClientWorld, "round" | "random" | "witnesses">,
  client: string,
  count: number,
  what: Pick<Witness, "task" | "model">,
): Witness {
  const marker = `r${round}${client}${count}n${1 + random.below(60)}`;
  const witness: Witness = {
    ...what,
    kind: client,
    marker,
    whole: what.model === UPSTREAM ? scriptedTokens(marker).join("") : undefined,
    answerId: undefined,
    sessionId: undefined,
    shown: "",
    isAcknowledged: false,
    usage: undefined,
    problem: undefined,
  };
  witnesses.push(witness);
  return witness;
}

function show({ onShown }: ClientWorld, witness: Witness, text: string): void {
  witness.shown += text;
  if (text !== "") onShown(witness);
}

async function post(world: ClientWorld, path: string, body: object, witness: Witness): Promise<Response> {
  const response = await fetch(world.daemon.http + path, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${world.daemon.modelKey}` },
    body: JSON.stringify(body),
    signal: world.gone,
  });
  const id = response.headers.get("x-request-id");
  if (id !== null) witness.answerId = answerIdSchema.parse(id);
  if (response.status !== 200) witness.problem = `status ${response.status} ${await response.text()}`;
  return response;
}

/** Reads frames as they come, so that what is shown when the daemon dies is known. */
async function readStream(world: ClientWorld, response: Response, witness: Witness): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of response.body ?? []) {
    rest += decoder.decode(bytes, { stream: true });
    const end = rest.lastIndexOf("\n\n") + 2;
    if (end < 2) continue;
    const { chunks, isDone } = sse(rest.slice(0, end));
    rest = rest.slice(end);
    show(world, witness, textOf(chunks));
    for (const chunk of chunks) witness.usage = usageOf(chunk) ?? witness.usage;
    if (chunks.some((chunk) => "error" in chunk)) witness.problem = JSON.stringify(chunks);
    if (isDone) witness.isAcknowledged = true;
  }
}

async function askStream(world: ClientWorld, client: string, count: number, model: string): Promise<void> {
  const witness = begin(world, client, count, { task: "chat", model });
  const content = model === EMBEDDED ? `${witness.marker} ${CODE}` : witness.marker;
  const limit = model === EMBEDDED ? { max_tokens: 48 } : {};
  const options = { stream: true, stream_options: { include_usage: true }, ...limit };
  const messages = [{ role: "user", content }];
  await readStream(world, await post(world, "/v1/chat/completions", { model, messages, ...options }, witness), witness);
}

/** Sends everything said so far again, as stateless clients do. */
async function askConversation(world: ClientWorld, client: string, count: number): Promise<void> {
  const turns = world.turns.get(client) ?? [];
  const witness = begin(world, client, count, { task: "chat", model: UPSTREAM });
  const messages: Turn[] = [...turns, { role: "user", content: witness.marker }];
  const body = { model: UPSTREAM, messages, stream: true, stream_options: { include_usage: true } };
  await readStream(world, await post(world, "/v1/chat/completions", body, witness), witness);
  world.turns.set(client, [...messages, { role: "assistant", content: witness.shown }]);
}

async function askPlain(world: ClientWorld, client: string, count: number): Promise<void> {
  const witness = begin(world, client, count, { task: "chat", model: UPSTREAM });
  const messages = [{ role: "user", content: witness.marker }];
  const response = await post(world, "/v1/chat/completions", { model: UPSTREAM, messages }, witness);
  const whole: { choices: { message: { content: string } }[] } = JSON.parse(await response.text());
  show(world, witness, whole.choices[0]?.message.content ?? "");
  witness.usage = usageOf({ ...whole });
  witness.isAcknowledged = true;
}

async function askTextCompletion(world: ClientWorld, client: string, count: number, model: string): Promise<void> {
  const witness = begin(world, client, count, { task: "completion", model });
  const prompt = model === EMBEDDED ? `// ${witness.marker}\n${CODE}` : witness.marker;
  const options = { stream: true, stream_options: { include_usage: true }, max_tokens: model === EMBEDDED ? 48 : 100 };
  await readStream(world, await post(world, "/v1/completions", { model, prompt, ...options }, witness), witness);
}

async function askChat(world: ClientWorld, client: string, count: number, session: string | undefined): Promise<void> {
  const witness = begin(world, client, count, { task: "chat", model: UPSTREAM });
  const sessionId = session === undefined ? undefined : world.sessions.get(session);
  const params = { text: witness.marker, model: UPSTREAM, ...(sessionId === undefined ? {} : { sessionId }) };
  for await (const update of world.face.api.chat.send(params, world.gone)) {
    if (update.kind === "started") {
      witness.answerId = update.answerId;
      witness.sessionId = update.sessionId;
      if (session !== undefined) world.sessions.set(session, update.sessionId);
    }
    if (update.kind === "text") show(world, witness, update.text);
    if (update.kind === "failed") witness.problem = update.error.message;
    if (update.kind !== "finished") continue;
    witness.usage = update.usage;
    witness.isAcknowledged = true;
  }
}

async function askFaceCompletion(world: ClientWorld, client: string, count: number): Promise<void> {
  const witness = begin(world, client, count, { task: "completion", model: UPSTREAM });
  const params = { prefix: witness.marker, model: UPSTREAM, maxTokens: 100, stop: [] };
  for await (const update of world.face.api.completion.create(params, world.gone)) {
    if (update.kind === "started") witness.answerId = update.answerId;
    if (update.kind === "text") show(world, witness, update.text);
    if (update.kind === "failed") witness.problem = update.error.message;
    if (update.kind !== "finished") continue;
    witness.usage = update.usage;
    witness.isAcknowledged = true;
  }
}

function usageOf(chunk: Record<string, unknown>): Usage | undefined {
  const { usage } = chunk;
  if (typeof usage !== "object" || usage === null) return undefined;
  const count = (name: string) => Number(Reflect.get(usage, name));
  return { promptTokens: count("prompt_tokens"), completionTokens: count("completion_tokens") };
}

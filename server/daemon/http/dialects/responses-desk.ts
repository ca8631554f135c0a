/**
 * What both carriers of the Responses API share: a request with its conversation, the head of its response, and what is kept of it.
 * 1. A request that goes on from an earlier response is made whole here: no upstream is asked for a conversation that it would have to keep.
 * 2. An upstream of the same dialect is never asked to keep what we keep: it gets `store: false`. What we keep is written by us, so that it can be read
 *    again as it was; it is relayed only where nothing else could carry what it asks.
 */
import type { UserId } from "../../../../protocol/ids.ts";
import type { Ids } from "../../../base/clock.ts";
import { UserError } from "../../../base/errors.ts";
import type { Answer } from "../../../ghostllm/brain.ts";
import { sealOpaque } from "../../../ghostllm/frames/opaque.ts";
import type { ChatRequest } from "../../../ghostllm/stream.ts";
import type { Actor } from "../../../platform/permit.ts";
import { itemsOf, type ItemsText, joinItems, outputItems, resolveReferences } from "./responses-body.ts";
import type { ReadChat } from "../body-reader.ts";
import { sealCall } from "./responses-items.ts";
import type { ResponsesOwn } from "./responses-request.ts";
import type { ResponseStore } from "./responses-store.ts";
import type { ResponseHead, WholeResponse } from "./responses-writer.ts";
import { chatRequest, type DialectOptions } from "./serve.ts";

export interface ResponsesOptions extends DialectOptions {
  readonly store: ResponseStore;
  readonly ids: Ids;
  readonly maxBodyBytes: number;
}

export interface Asker {
  readonly actor: Actor;
  readonly signal: AbortSignal;
  /** The items up to a response that only this connection remembers. */
  recall?(responseId: string): ItemsText | undefined;
}

export interface PreparedResponse {
  readonly request: ChatRequest;
  readonly own: Pick<ResponsesOwn, "isStored" | "previousId" | "echo" | "isCompaction" | "generates">;
  /** What is kept as this request's own, and after which response of the store. */
  kept(): { readonly input: ItemsText; readonly previousId: string | null };
  /** All items, from the conversation's first. */
  items(): ItemsText;
}

/** @throws UserError `invalid_json` | `invalid_params` | `previous_response_not_found` | `body_too_large` */
export async function prepareResponse(
  options: ResponsesOptions,
  body: Buffer,
  asker: Asker,
): Promise<PreparedResponse> {
  const { actor, signal } = asker;
  const first = await options.bodies.readChat("openai-responses", body, signal);
  const { own } = first.facts;
  const earlier = own.previousId === undefined ? undefined : await historyOf(options, own.previousId, asker);
  const resolved = own.hasReferences ? await resolve(options, itemsOf(first.member("input")), asker) : undefined;
  // Looking for the input costs as much as parsing it: it is done where somebody needs it.
  const input = () => resolved ?? itemsOf(first.member("input"));
  const items = () => joinItems(earlier?.items ?? "", input());
  const isWhole = earlier === undefined && resolved === undefined;
  const whole = isWhole ? body : withInput(first, items(), options.maxBodyBytes);
  const read = isWhole ? first : await options.bodies.readChat("openai-responses", whole, signal);
  const { unmatched, include } = read.facts.own;
  if (unmatched !== undefined) {
    throw new UserError("invalid_params", `No tool call found for function call output with call_id ${unmatched}`, {
      details: { field: "input" },
    });
  }
  const request = chatRequest("openai-responses", whole, read, {
    actor,
    values: own.isStored
      ? { store: "false", ...(include === undefined ? {} : { include: JSON.stringify(include) }) }
      : {},
  });
  const isRelayed = !own.isStored || needsRelay(request);
  return {
    request: isRelayed ? request : withoutOrigin(request),
    own,
    kept: () =>
      earlier?.isStored === true
        ? { input: input(), previousId: own.previousId ?? null }
        : // Nobody else remembers what came before.
          { input: items(), previousId: null },
    items,
  };
}

/** The body with these items as its whole input. @throws UserError `body_too_large` */
function withInput(read: ReadChat<"openai-responses">, items: ItemsText, maxBytes: number): Buffer {
  const whole = read.with({ input: `[${items}]`, previous_response_id: "null" });
  if (whole.length <= maxBytes) return whole;
  throw new UserError(
    "body_too_large",
    `with the conversation before it, the request has ${whole.length} bytes; the limit is ${maxBytes}`,
    { details: { limitBytes: maxBytes } },
  );
}

/** Clients whose history the server keeps name items instead of sending them. */
function resolve({ store }: ResponsesOptions, items: ItemsText, { actor }: Asker): Promise<ItemsText> {
  return resolveReferences(items, async (id) => {
    const item = await store.item(actor.userId, id);
    if (item !== undefined) return item;
    throw new UserError("response_not_found", `Item with id '${id.slice(0, 100)}' not found; it was not kept here`, {
      details: { field: "input" },
    });
  });
}

/** Tools that run on the provider's side, and fields that only this dialect has. */
function needsRelay({ tools, extras = {} }: ChatRequest): boolean {
  return Object.keys(extras).length > 0 || tools.some(({ kind }) => kind === "hosted");
}

function withoutOrigin({ origin: _origin, ...request }: ChatRequest): ChatRequest {
  return request;
}

async function historyOf(
  { store, maxBodyBytes }: ResponsesOptions,
  id: string,
  { actor, recall }: Asker,
): Promise<{ readonly items: ItemsText; readonly isStored: boolean }> {
  const remembered = recall?.(id);
  if (remembered !== undefined) return { items: remembered, isStored: false };
  const items = await store.history(actor.userId, id, maxBodyBytes);
  if (items !== undefined) return { items, isStored: true };
  throw new UserError("previous_response_not_found", `Previous response with id '${id}' not found`, {
    details: { field: "previous_response_id" },
  });
}

/** `more`: further members of the response's JSON, for carriers without headers. */
export function headOf(
  answer: Pick<Answer, "id" | "model">,
  own: Pick<ResponsesOwn, "echo">,
  { createdAtMs, more = "" }: { readonly createdAtMs: number; readonly more?: string },
): ResponseHead {
  const { ref, provider } = answer.model;
  return {
    id: answer.id.replace(/^ans_/, "resp_"),
    model: ref,
    createdAtMs,
    echo: more === "" ? own.echo : `${own.echo},${more}`,
    sealReasoning: (data) => sealOpaque({ maker: provider, data }),
    sealCall: (callId, data) => sealCall(provider, callId, data),
  };
}

/** Keeps a whole response where its client did not say otherwise. */
export async function keepResponse(
  { store, clock }: ResponsesOptions,
  userId: UserId,
  { own, kept }: Pick<PreparedResponse, "own" | "kept">,
  { id, text, pieces }: WholeResponse,
): Promise<void> {
  if (!own.isStored) return;
  // A compaction stands for all that came before it.
  const { input, previousId } = own.isCompaction ? { input: "", previousId: null } : kept();
  const createdAtMs = clock.now();
  await store.put({ input, previousId, id, userId, response: text, pieces: pieces ?? null, createdAtMs });
}

/** The whole conversation with this response, for a connection to remember. */
export function conversationWith({ own, items }: PreparedResponse, { text }: WholeResponse): ItemsText {
  return joinItems(own.isCompaction ? "" : items(), outputItems(text));
}

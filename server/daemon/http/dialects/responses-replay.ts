/** Kept responses, shown again: their events, and the items that were asked with. Pure. */
import { z } from "zod";
import { OperationalError } from "../../../base/errors.ts";
import type { AnswerBlock } from "../../../ghostllm/frames/answer-fold.ts";
import { SUMMARY_GAP } from "../../../ghostllm/frames/responses.ts";
import type { ItemsText } from "./responses-body.ts";
import type { StoredResponse } from "./responses-store.ts";
import { type EventSink, type ResponseHead, ResponseEvents, stepsOf } from "./responses-writer.ts";

const itemSchema = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("message"),
    phase: z.string().optional(),
    content: z.array(
      z.discriminatedUnion("type", [
        z.object({ type: z.literal("output_text"), text: z.string() }),
        z.object({ type: z.literal("refusal"), refusal: z.string() }),
      ]),
    ),
  }),
  z.object({
    type: z.literal("reasoning"),
    summary: z.array(z.object({ text: z.string() })),
    encrypted_content: z.string().nullable(),
  }),
  z.object({
    type: z.literal("function_call"),
    call_id: z.string(),
    name: z.string(),
    namespace: z.string().optional(),
    arguments: z.string(),
  }),
  z.object({
    type: z.literal("custom_tool_call"),
    call_id: z.string(),
    name: z.string(),
    namespace: z.string().optional(),
    input: z.string(),
  }),
]);
const responseSchema = z.looseObject({
  id: z.string(),
  model: z.string(),
  status: z.string(),
  created_at: z.number(),
  output: z.array(itemSchema),
});

/**
 * The events of a response that this daemon wrote, with the numbers that they had, from the one after `startingAfter` on.
 * @throws OperationalError `stream_position_lost` for one that another server wrote: its numbers are not known.
 */
export function replayEvents(stored: StoredResponse, startingAfter: number, sink: EventSink): void {
  const parsed = responseSchema.safeParse(JSON.parse(stored.response));
  if (stored.pieces === null || !parsed.success) {
    throw new OperationalError("stream_position_lost", `the events of ${stored.id} were not kept, only their outcome`);
  }
  const { id, model, created_at, output } = parsed.data;
  const head: ResponseHead = {
    id,
    model,
    createdAtMs: created_at * 1000,
    echo: echoOf(stored.response),
    sealReasoning: (data) => data,
    sealCall: (_callId, data) => data,
  };
  const events = new ResponseEvents(head, (type, json) => {
    const number = Number(/"sequence_number":(\d+)/.exec(json)?.[1]);
    if (number > startingAfter) sink(type, json);
  });
  const blocks = output.flatMap(blocksOf);
  const steps = stepsOf(blocks, stored.pieces);
  const isCutShort = parsed.data.status === "incomplete";
  for (const [index, step] of steps.entries())
    events.step(step, { isCutShort: isCutShort && index === steps.length - 1 });
  events.finishAs(stored.response, isCutShort ? "incomplete" : "completed");
}

function blocksOf(item: z.infer<typeof itemSchema>, index: number): readonly AnswerBlock[] {
  switch (item.type) {
    case "message": {
      const phase: readonly AnswerBlock[] =
        item.phase === undefined
          ? []
          : [{ kind: "reasoning", block: index, text: "", opaque: JSON.stringify({ phase: item.phase }) }];
      const parts = item.content.map(
        (part): AnswerBlock =>
          part.type === "refusal" ? { kind: "refusal", text: part.refusal } : { kind: "text", text: part.text },
      );
      return [...phase, ...parts];
    }
    case "reasoning": {
      const text = item.summary.map((part) => part.text).join(SUMMARY_GAP);
      const sealed = item.encrypted_content === null ? {} : { opaque: item.encrypted_content };
      return [{ kind: "reasoning", block: index, text, ...sealed }];
    }
    case "function_call":
    case "custom_tool_call": {
      const isCustom = item.type === "custom_tool_call";
      const { call_id: callId, name, namespace } = item;
      const text = item.type === "custom_tool_call" ? JSON.stringify({ input: item.input }) : item.arguments;
      const call = {
        kind: "toolCall",
        index,
        callId,
        name,
        arguments: text,
        ...(isCustom ? { isCustom } : {}),
      } as const;
      return [namespace === undefined ? call : { ...call, namespace }];
    }
  }
}

/** What the writer put behind the members that it makes itself; inside strings before it, quotes are escaped. */
function echoOf(response: string): string {
  return response.slice(response.indexOf(',"instructions":') + 1, -1);
}

export interface ItemsQuery {
  readonly limit: number;
  readonly order: "asc" | "desc";
  readonly after: string | undefined;
}

/** The items of a request as a list, each with an id. */
export function listItems(stored: Pick<StoredResponse, "id" | "input">, query: ItemsQuery): object {
  const all = itemsIn(stored);
  const ordered = query.order === "asc" ? all : all.toReversed();
  const start = query.after === undefined ? 0 : ordered.findIndex(({ id }) => id === query.after) + 1;
  const data = ordered.slice(start, start + query.limit);
  return {
    object: "list",
    data,
    first_id: data.at(0)?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: start + data.length < ordered.length,
  };
}

const anyItems = z.array(z.looseObject({ id: z.string().nullish(), type: z.string().nullish() }));
const ID_PREFIXES: Readonly<Record<string, string>> = {
  message: "msg",
  reasoning: "rs",
  function_call: "fc",
  function_call_output: "fco",
  custom_tool_call: "ctc",
  custom_tool_call_output: "ctco",
  compaction: "cmp",
};

function itemsIn({ id, input }: { readonly id: string; readonly input: ItemsText }) {
  return anyItems.parse(JSON.parse(`[${input}]`)).map((item, index) => {
    const type = item.type ?? "message";
    const made = `${ID_PREFIXES[type] ?? "item"}_${id.replace(/^resp_/, "")}_in${index}`;
    const isText = type === "message" && typeof item["content"] === "string";
    const part = item["role"] === "assistant" ? "output_text" : "input_text";
    const content = isText ? { content: [{ type: part, text: item["content"] }] } : {};
    return { ...item, type, id: item.id ?? made, status: item["status"] ?? "completed", ...content };
  });
}

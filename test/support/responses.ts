/** Reading the Responses API in tests: its events, and the rules that every stream of them keeps. */
import assert from "node:assert/strict";
import { z } from "zod";

const eventSchema = z.looseObject({ type: z.string(), sequence_number: z.int() });
export type ResponseEvent = z.infer<typeof eventSchema>;

/** What Open Responses wants on every response, null where it is unknown. */
const FIELDS =
  "id object created_at completed_at status incomplete_details model previous_response_id instructions output error tools tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs temperature reasoning user usage max_output_tokens max_tool_calls store background service_tier metadata safety_identifier prompt_cache_key".split(
    " ",
  );

const itemSchema = z.looseObject({
  id: z.string(),
  type: z.string(),
  status: z.string().optional(),
  call_id: z.string().optional(),
  name: z.string().optional(),
  namespace: z.string().optional(),
  arguments: z.string().optional(),
  input: z.string().optional(),
  phase: z.string().optional(),
  encrypted_content: z.string().nullish(),
  summary: z.array(z.object({ type: z.literal("summary_text"), text: z.string() })).optional(),
  content: z
    .array(
      z.looseObject({
        type: z.string(),
        text: z.string().optional(),
        refusal: z.string().optional(),
        annotations: z.array(z.unknown()).optional(),
        logprobs: z.array(z.unknown()).optional(),
      }),
    )
    .optional(),
});
const responseSchema = z.looseObject({
  id: z.string(),
  status: z.string(),
  output: z.array(itemSchema),
  usage: z.looseObject({ input_tokens: z.number(), output_tokens: z.number() }).nullable(),
  error: z.looseObject({ code: z.string(), message: z.string() }).nullable(),
  incomplete_details: z.looseObject({ reason: z.string() }).nullable(),
  previous_response_id: z.string().nullable(),
  instructions: z.string().nullable(),
});
export type ReadResponse = z.infer<typeof responseSchema>;

/** A response with all its required members. */
export function responseOf(json: unknown): ReadResponse {
  const response = responseSchema.parse(json);
  assert.deepEqual(
    FIELDS.filter((field) => !(field in response)),
    [],
    "members are missing",
  );
  return response;
}

export function textOfResponse({ output }: ReadResponse): string {
  return output.flatMap(({ content }) => (content ?? []).map((part) => part.text ?? part.refusal ?? "")).join("");
}

/** The events of an SSE text; the `event:` line says what the data says. */
export function eventsOf(text: string): readonly ResponseEvent[] {
  assert.ok(!text.includes("[DONE]"), "the dialect has no [DONE]");
  return text
    .split("\n\n")
    .filter((frame) => frame.trim() !== "")
    .map((frame) => {
      const [first = "", second = ""] = frame.split("\n");
      const event = eventSchema.parse(JSON.parse(second.replace(/^data: /, "")));
      assert.equal(first, `event: ${event.type}`);
      return event;
    });
}

const added = z.looseObject({ item: itemSchema, output_index: z.int() });

/** Holds a whole stream against the rules of the dialect; gives back its response. */
export function checkStream(events: readonly ResponseEvent[]): ReadResponse {
  assert.deepEqual(
    events.map((event) => event.sequence_number),
    events.map((_, index) => index),
    "sequence numbers count from 0",
  );
  assert.deepEqual(
    events.slice(0, 2).map(({ type }) => type),
    ["response.created", "response.in_progress"],
  );
  const last = events.at(-1);
  assert.match(last?.type ?? "", /^response\.(completed|incomplete)$/);
  const response = responseOf(last?.["response"]);
  for (const event of events.slice(0, 2)) {
    const begun = responseOf(event["response"]);
    assert.deepEqual([begun.id, begun.status, begun.output], [response.id, "in_progress", []]);
  }
  checkItems(events, response);
  return response;
}

/** Every item is opened once, filled, closed, and then the same in the response. */
function checkItems(events: readonly ResponseEvent[], response: ReadResponse): void {
  const opened = events.filter(({ type }) => type === "response.output_item.added").map((event) => added.parse(event));
  const closed = events.filter(({ type }) => type === "response.output_item.done").map((event) => added.parse(event));
  assert.deepEqual(
    closed.map(({ item }) => item),
    response.output,
  );
  assert.deepEqual(
    opened.map(({ item, output_index }) => [item.id, output_index]),
    response.output.map(({ id }, index) => [id, index]),
  );
  for (const { item } of closed) {
    const own = events.filter((event) => event["item_id"] === item.id);
    const deltas = own
      .filter(({ type }) => type.endsWith(".delta"))
      .map((event) => z.string().parse(event["delta"]))
      .join("");
    if (item.type === "message") assert.equal(deltas, textOfResponse({ ...response, output: [item] }));
    if (item.type === "function_call") assert.ok(deltas === item.arguments || deltas === "", deltas);
    if (item.type === "custom_tool_call") assert.equal(deltas, item.input);
    if (item.call_id !== undefined) assert.notEqual(item.call_id, item.id);
    for (const part of item.content ?? []) {
      if (part.type === "output_text") assert.ok(part.annotations !== undefined && part.logprobs !== undefined);
    }
  }
}

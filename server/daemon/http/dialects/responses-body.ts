/**
 * Bodies of the Responses API as bytes: a request that goes on from an earlier response becomes one that says everything itself, without a parse of the
 * history, which may be large. The texts must be valid JSON (they were parsed before).
 */
import { arrayElements, topLevelMembers } from "../../../base/json-scan.ts";
import { isRecord, parseJson } from "../../../ghostllm/frames/json.ts";

/** Items as JSON texts, one after the other with commas between: an array without its brackets. */
export type ItemsText = string;

/** The output of a response's JSON text. */
export function outputItems(response: string): ItemsText {
  const bytes = Buffer.from(response);
  const output = topLevelMembers(bytes).findLast(({ key }) => key === "output");
  return output === undefined ? "" : itemsOf(bytes.toString("utf8", output.valueStart, output.valueEnd));
}

/** The items of a request's `input`, as JSON. `"hello"` is one message of the user's. */
export function itemsOf(value = ""): ItemsText {
  if (value.startsWith("[")) return value.slice(1, -1).trim();
  if (!value.startsWith('"')) return "";
  return `{"type":"message","role":"user","content":[{"type":"input_text","text":${value}}]}`;
}

/** Longer items are no mere references, and need not be parsed to know it. */
const MAX_REFERENCE_BYTES = 400;

/** The id that an item only names: `{"type":"item_reference","id":"msg_1"}`, where the type may be left out. */
function referenceIn(item: Buffer): string | undefined {
  if (item.length > MAX_REFERENCE_BYTES) return undefined;
  const value = parseJson(item.toString("utf8"));
  if (!isRecord(value)) return undefined;
  const { type, id, role } = value;
  const isReference = type === "item_reference" || (!type && role === undefined);
  return isReference && typeof id === "string" ? id : undefined;
}

/** The items with each that is only named replaced by what `find` has under its id. @throws what `find` throws */
export async function resolveReferences(items: ItemsText, find: (id: string) => Promise<string>): Promise<ItemsText> {
  const resolved: string[] = [];
  for (const item of arrayElements(Buffer.from(`[${items}]`))) {
    const id = referenceIn(item);
    resolved.push(id === undefined ? item.toString("utf8") : await find(id));
  }
  return joinItems(...resolved);
}

/** The item with this id. */
export function itemOf(items: ItemsText, itemId: string): string | undefined {
  const found = arrayElements(Buffer.from(`[${items}]`)).find((item) => {
    const id = topLevelMembers(item).find(({ key }) => key === "id");
    return id !== undefined && item.toString("utf8", id.valueStart, id.valueEnd) === JSON.stringify(itemId);
  });
  return found?.toString("utf8");
}

export function joinItems(...texts: readonly ItemsText[]): ItemsText {
  return texts.filter((text) => text !== "").join(",");
}

/** The object with other members: those in `drop` are gone, those in `set` have this JSON text; what stays keeps its bytes. */
export function rebuild(
  body: Buffer,
  { drop, set }: { readonly drop: readonly string[]; readonly set: Readonly<Record<string, string>> },
): Buffer {
  const gone = new Set([...drop, ...Object.keys(set)]);
  const kept = topLevelMembers(body).flatMap(({ key, valueStart, valueEnd }) =>
    gone.has(key) ? [] : [[Buffer.from(`${JSON.stringify(key)}:`), body.subarray(valueStart, valueEnd)]],
  );
  const added = Object.entries(set).map(([key, value]) => [Buffer.from(`${JSON.stringify(key)}:${value}`)]);
  const pieces = [...kept, ...added].flatMap((member, index) => (index === 0 ? member : [COMMA, ...member]));
  return Buffer.concat([OPEN, ...pieces, CLOSE]);
}

const COMMA = Buffer.from(",");
const OPEN = Buffer.from("{");
const CLOSE = Buffer.from("}");

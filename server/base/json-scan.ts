/**
 * Finds and replaces top-level members of a JSON object without parsing the rest, so that a relayed body keeps every byte that we do not mean to
 * change: number spelling, key order, unknown fields. The text must be valid JSON (it was parsed before).
 */

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

interface Member {
  readonly key: string;
  readonly valueStart: number;
  readonly valueEnd: number;
}

/** Where some members of an object stand, in bytes: plain data, so that a worker can find it for a large text. */
export interface MemberPlaces {
  readonly found: readonly Member[];
  /** The offset of the object's closing brace. */
  readonly close: number;
  readonly isEmpty: boolean;
}

/** The places of the members with these keys; a key that stands twice is found twice. */
export function findMembers(json: Buffer, keys: readonly string[]): MemberPlaces {
  const members = topLevelMembers(json);
  return {
    found: members.filter(({ key }) => keys.includes(key)),
    close: json.lastIndexOf(CLOSE_BRACE),
    isEmpty: members.length === 0,
  };
}

/**
 * Replaces the values of top-level members, or adds members that are absent: `setMembers('{"a":1,"m":"x"}', {m: '"y"', s: "true"})` →
 * `{"a":1,"m":"y","s":true}`. `values` are JSON texts. A key that stands twice is replaced in both places.
 * @param places where the keys of `values` stand, if somebody has looked already.
 */
export function setMembers(
  json: Buffer,
  values: Readonly<Record<string, string>>,
  places: MemberPlaces = findMembers(json, Object.keys(values)),
): Buffer {
  const texts = new Map(Object.entries(values));
  const missing = new Set(texts.keys());
  const pieces: Buffer[] = [];
  let copied = 0;
  for (const member of places.found) {
    const text = texts.get(member.key);
    if (text === undefined) continue;
    missing.delete(member.key);
    pieces.push(json.subarray(copied, member.valueStart), Buffer.from(text));
    copied = member.valueEnd;
  }
  pieces.push(json.subarray(copied, places.close));
  let separator = places.isEmpty ? "" : ",";
  for (const key of missing) {
    pieces.push(Buffer.from(`${separator}${JSON.stringify(key)}:${texts.get(key) ?? "null"}`));
    separator = ",";
  }
  pieces.push(json.subarray(places.close));
  return Buffer.concat(pieces);
}

/**
 * Whether a JSON text goes beyond what may be parsed: V8 ends the whole process, not only a thread, when parsing exhausts the heap. Counts without
 * parsing, in one pass: brackets for the depth, brackets and commas for the values. The text need not be valid.
 */
export function jsonExcess(
  json: Buffer,
  limits: { readonly maxDepth: number; readonly maxValues: number },
): "depth" | "values" | undefined {
  let depth = 0;
  let values = 0;
  for (let at = 0; at < json.length; at += 1) {
    const byte = json[at];
    if (byte === QUOTE) at = stringEnd(json, at) - 1;
    else if (byte === COMMA) values += 1;
    else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      depth += 1;
      values += 1;
      if (depth > limits.maxDepth) return "depth";
    } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) depth -= 1;
    if (values > limits.maxValues) return "values";
  }
  return undefined;
}

/** The members of the outermost object with the byte ranges of their values, in the order in which they stand. */
export function topLevelMembers(json: Buffer): readonly Member[] {
  const members: Member[] = [];
  let at = json.indexOf(OPEN_BRACE) + 1;
  for (;;) {
    at = skipSpace(json, at);
    if (json[at] === COMMA) at = skipSpace(json, at + 1);
    if (json[at] !== QUOTE) return members;
    const keyEnd = stringEnd(json, at);
    const key = String(JSON.parse(json.toString("utf8", at, keyEnd)));
    at = skipSpace(json, keyEnd);
    if (json[at] !== COLON) return members;
    const valueStart = skipSpace(json, at + 1);
    const valueEnd = skipValue(json, valueStart);
    members.push({ key, valueStart, valueEnd });
    at = valueEnd;
  }
}

/** The texts of an array's elements, in their order. */
export function arrayElements(json: Buffer): readonly Buffer[] {
  const elements: Buffer[] = [];
  let at = json.indexOf(OPEN_BRACKET) + 1;
  for (;;) {
    at = skipSpace(json, at);
    if (json[at] === COMMA) at = skipSpace(json, at + 1);
    if (at >= json.length || json[at] === CLOSE_BRACKET) return elements;
    const end = skipValue(json, at);
    if (end <= at) return elements;
    elements.push(json.subarray(at, end));
    at = end;
  }
}

function skipSpace(json: Buffer, from: number): number {
  let at = from;
  while (json[at] === 0x20 || json[at] === 0x0a || json[at] === 0x0d || json[at] === 0x09) at += 1;
  return at;
}

/** The offset behind the string that opens at `from`. `indexOf` runs natively, which makes long strings cheap. */
function stringEnd(json: Buffer, from: number): number {
  for (let at = json.indexOf(QUOTE, from + 1); at !== -1; at = json.indexOf(QUOTE, at + 1)) {
    let slashes = 0;
    while (json[at - 1 - slashes] === BACKSLASH) slashes += 1;
    if (slashes % 2 === 0) return at + 1;
  }
  return json.length;
}

function skipValue(json: Buffer, from: number): number {
  const first = json[from];
  if (first === QUOTE) return stringEnd(json, from);
  if (first !== OPEN_BRACE && first !== OPEN_BRACKET) {
    let at = from;
    while (
      at < json.length &&
      json[at] !== COMMA &&
      json[at] !== CLOSE_BRACE &&
      json[at] !== CLOSE_BRACKET &&
      json[at] !== 0x20 &&
      json[at] !== 0x0a &&
      json[at] !== 0x0d &&
      json[at] !== 0x09
    )
      at += 1;
    return at;
  }
  let depth = 0;
  for (let at = from; at < json.length; at += 1) {
    const byte = json[at];
    if (byte === QUOTE) at = stringEnd(json, at) - 1;
    else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth += 1;
    else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
      depth -= 1;
      if (depth === 0) return at + 1;
    }
  }
  return json.length;
}

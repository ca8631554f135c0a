/**
 * TOML with the place of everything in it.
 * smol-toml parses and checks; a second, small scanner walks the same (now known to be valid) text and notes where each key and value stands,
 * so that an error about `providers.ollama.hosts.ws4090.parallel` can name its line and column.
 * 1. Messages never quote the file's own text: a value may be a key that somebody wrote into the wrong place.
 */
import { parse, TomlError } from "smol-toml";
import { UserError } from "../../base/errors.ts";

/** A place in a file; both count from 1, columns in characters. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

/** Keys of tables and indexes of arrays, from the root on. */
export type TomlPath = readonly (string | number)[];

export interface TomlDocument {
  readonly file: string;
  /** Tables without a prototype, arrays, strings, numbers, booleans and dates. */
  readonly root: Readonly<Record<string, unknown>>;
  /** Where the key at `path` is written; for a path that is not, where its nearest written parent is. */
  keyPlace(path: TomlPath): Place;
  /** Where the value at `path` begins. */
  valuePlace(path: TomlPath): Place;
}

/** Values nest so deep at most; nobody writes that, and the parser recurses. */
const MAX_DEPTH = 64;

/** @throws UserError `config_syntax` with `file`, `line` and `column` in its details. */
export function parseToml(text: string, file: string): TomlDocument {
  const root = parseOrThrow(text, file);
  const spots = new Scanner(text).scan();
  const find = (path: TomlPath, which: "key" | "value"): Place => {
    for (let length = path.length; length > 0; length -= 1) {
      const spot = spots.get(pathKey(path.slice(0, length)));
      if (spot !== undefined) return placeAt(text, length === path.length ? spot[which] : spot.key);
    }
    return { line: 1, column: 1 };
  };
  return {
    file,
    root,
    keyPlace: (path) => find(path, "key"),
    valuePlace: (path) => find(path, "value"),
  };
}

/** `["providers", "ollama", "hosts", "my host"]` → `providers.ollama.hosts."my host"`; array indexes as `[0]`. */
export function formatPath(path: TomlPath): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else text += `${text === "" ? "" : "."}${/^[A-Za-z0-9_-]+$/.test(part) ? part : JSON.stringify(part)}`;
  }
  return text;
}

export function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** One thing that is wrong in a file. */
export interface Problem {
  readonly place: Place;
  /** What it is about, as {@link formatPath} writes it. */
  readonly path: string;
  readonly message: string;
}

/** What kind of value stands there, for "expected …, found …"; strings are not quoted (1). */
export function describeValue(value: unknown): string {
  if (typeof value === "number") return `the number ${value}`;
  if (typeof value === "boolean") return String(value);
  if (value === "") return "an empty string";
  if (typeof value === "string") return "another string";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  return value instanceof Date ? "a date" : "a table";
}

/** `config_invalid` about the first problem in the file, with all of them in `details.problems`. */
export function configInvalid(file: string, problems: readonly Problem[]): UserError {
  const sorted = problems.toSorted((a, b) => a.place.line - b.place.line || a.place.column - b.place.column);
  const texts = sorted.map(({ place, message }) => `${file}:${place.line}:${place.column}: ${message}`);
  const more = texts.length > 1 ? ` (and ${texts.length - 1} more)` : "";
  const [first] = sorted;
  return new UserError("config_invalid", `${texts[0] ?? file}${more}`, {
    details: {
      file,
      ...(first === undefined ? {} : { line: first.place.line, column: first.place.column, path: first.path }),
      problems: texts,
    },
  });
}

function parseOrThrow(text: string, file: string): Readonly<Record<string, unknown>> {
  try {
    return parse(text, { maxDepth: MAX_DEPTH, unsafeKeyBehaviour: "throw" });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const { line, column } = error;
    // Below the first line stands an extract of the file (1); the prefix says no more than our own code does.
    const reason = (error.message.split("\n")[0] ?? "").replace("Invalid TOML document: ", "");
    throw new UserError("config_syntax", `${file}:${line}:${column}: not valid TOML: ${reason}`, {
      details: { file, line, column },
    });
  }
}

interface Spot {
  readonly key: number;
  readonly value: number;
}

const pathKey = (path: TomlPath): string => JSON.stringify(path);

function placeAt(text: string, offset: number): Place {
  const before = text.slice(0, offset);
  const lineStart = before.lastIndexOf("\n") + 1;
  return { line: before.split("\n").length, column: offset - lineStart + 1 };
}

/** Walks valid TOML (https://toml.io/en/v1.1.0) and notes offsets; on anything unexpected it only ever moves on. */
class Scanner {
  readonly #text: string;
  readonly #spots = new Map<string, Spot>();
  /** How many elements each array of tables has so far. */
  readonly #tableArrays = new Map<string, number>();
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  scan(): ReadonlyMap<string, Spot> {
    let table: TomlPath = [];
    if (this.#text.startsWith("\uFEFF")) this.#at = 1;
    for (;;) {
      this.#skipBlank();
      if (this.#at >= this.#text.length) return this.#spots;
      if (this.#text[this.#at] === "[") table = this.#header();
      else this.#pair(table);
    }
  }

  /** `[a.b]` and `[[a.b]]`: the table that the following pairs belong to. */
  #header(): TomlPath {
    const isArray = this.#text[this.#at + 1] === "[";
    const start = this.#at;
    this.#at += isArray ? 2 : 1;
    const keys = this.#keys("]");
    this.#at += isArray ? 2 : 1;
    let path: TomlPath = [];
    for (const [index, { name, offset }] of keys.entries()) {
      path = [...path, name];
      this.#note(path, { key: offset, value: start });
      const key = pathKey(path);
      if (isArray && index === keys.length - 1) this.#tableArrays.set(key, (this.#tableArrays.get(key) ?? 0) + 1);
      const count = this.#tableArrays.get(key);
      if (count !== undefined) path = [...path, count - 1];
    }
    this.#note(path, { key: start, value: start });
    return path;
  }

  /** `a.b = value`, in a table or an inline table. */
  #pair(table: TomlPath): void {
    const keys = this.#keys("=");
    this.#at += 1;
    this.#skipSpaces();
    const value = this.#at;
    let path = table;
    for (const { name, offset } of keys) {
      path = [...path, name];
      this.#note(path, { key: offset, value });
    }
    this.#value(path);
  }

  #keys(end: string): readonly { readonly name: string; readonly offset: number }[] {
    const keys: { name: string; offset: number }[] = [];
    for (;;) {
      this.#skipSpaces();
      const offset = this.#at;
      const first = this.#text[offset];
      if (first === '"' || first === "'") this.#string();
      else while (/[A-Za-z0-9_-]/.test(this.#text[this.#at] ?? "")) this.#at += 1;
      const written = this.#text.slice(offset, this.#at);
      keys.push({ name: first === '"' || first === "'" ? unquote(written) : written, offset });
      this.#skipSpaces();
      if (this.#text[this.#at] !== "." || this.#at >= this.#text.length) break;
      this.#at += 1;
    }
    // Valid TOML stands at `end` now; were our reading ever wrong, this keeps the walk from standing still.
    while (this.#at < this.#text.length && this.#text[this.#at] !== end && this.#text[this.#at] !== "\n") this.#at += 1;
    return keys;
  }

  #value(path: TomlPath): void {
    const first = this.#text[this.#at];
    if (first === '"' || first === "'") this.#string();
    else if (first === "[") this.#array(path);
    else if (first === "{") this.#inlineTable(path);
    else while (this.#at < this.#text.length && !/[,\]}#\n\r]/.test(this.#text[this.#at] ?? "")) this.#at += 1;
  }

  #array(path: TomlPath): void {
    this.#at += 1;
    for (let index = 0; ; index += 1) {
      this.#skipBlank();
      if (this.#at >= this.#text.length || this.#text[this.#at] === "]") break;
      const element = [...path, index];
      this.#note(element, { key: this.#at, value: this.#at });
      this.#value(element);
      this.#skipBlank();
      if (this.#text[this.#at] === ",") this.#at += 1;
    }
    this.#at += 1;
  }

  #inlineTable(path: TomlPath): void {
    this.#at += 1;
    for (;;) {
      this.#skipBlank();
      if (this.#at >= this.#text.length || this.#text[this.#at] === "}") break;
      this.#pair(path);
      this.#skipBlank();
      if (this.#text[this.#at] === ",") this.#at += 1;
    }
    this.#at += 1;
  }

  /** Any of the four kinds of string; a multi-line one may end in up to five quotation marks. */
  #string(): void {
    const quote = this.#text[this.#at] ?? '"';
    const long = this.#text.startsWith(quote.repeat(3), this.#at);
    const end = long ? quote.repeat(3) : quote;
    this.#at += end.length;
    while (this.#at < this.#text.length && !this.#text.startsWith(end, this.#at)) {
      this.#at += quote === '"' && this.#text[this.#at] === "\\" ? 2 : 1;
    }
    this.#at += end.length;
    if (long) while (this.#text[this.#at] === quote) this.#at += 1;
  }

  #skipSpaces(): void {
    while (this.#text[this.#at] === " " || this.#text[this.#at] === "\t") this.#at += 1;
  }

  /** Spaces, line ends and comments. */
  #skipBlank(): void {
    for (;;) {
      while (/\s/.test(this.#text[this.#at] ?? "")) this.#at += 1;
      if (this.#text[this.#at] !== "#") return;
      while (this.#at < this.#text.length && this.#text[this.#at] !== "\n") this.#at += 1;
    }
  }

  /** The first mention counts: `[a]` is where `a` stands, not a later `[a.b]`. */
  #note(path: TomlPath, spot: Spot): void {
    const key = pathKey(path);
    if (!this.#spots.has(key)) this.#spots.set(key, spot);
  }
}

/** A quoted key's text, escapes resolved: `"a\u00e9"` → `aé`. */
function unquote(written: string): string {
  const [name] = Object.keys(parse(`${written} = 0`));
  return name ?? written;
}

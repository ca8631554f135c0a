/**
 * ghost.toml, from text to settings. Pure: whoever calls it has read the file.
 * 1. All problems are found in one pass; the error names the first by line and column and lists the others in `details.problems`.
 * 2. No message quotes a string from the file: it may be a key in the wrong place.
 */
import type { z } from "zod";
import { UserError } from "../../base/errors.ts";
import { suggestion } from "../../base/text.ts";
import {
  configSchema,
  describeExpected,
  describeSchema,
  type GhostConfig,
  LATER_SECTIONS,
  type SchemaNode,
} from "./schema.ts";
import {
  configInvalid,
  describeValue,
  formatPath,
  isTable,
  parseToml,
  type Problem,
  type TomlDocument,
  type TomlPath,
} from "./toml.ts";

export type SettingSource = "default" | "file" | "flag";

export interface ConfigOverrides {
  /** `--port`. */
  readonly port?: number;
}

export interface LoadedConfig {
  readonly config: GhostConfig;
  /** Where each setting that has a value got it from, by its path (`http.port`). */
  readonly sources: ReadonlyMap<string, SettingSource>;
  /** What the user should know though nothing is wrong, one sentence each. */
  readonly warnings: readonly string[];
}

/**
 * @param input.text the content of the file; undefined where there is none: then every setting has its default.
 * @throws UserError `config_syntax` | `config_invalid` with file, line, column, path in its details; `usage` for an override out of range.
 */
export function loadConfig(input: {
  readonly text: string | undefined;
  readonly file: string;
  readonly overrides: ConfigOverrides;
}): LoadedConfig {
  const document = parseToml(input.text ?? "", input.file);
  const secrets = findSecrets(document, document.root, []);
  const { table, warnings } = setAside(document);
  const parsed = configSchema.safeParse(table);
  if (!parsed.success || secrets.length > 0) {
    const issues = parsed.success ? [] : parsed.error.issues;
    throw configInvalid(input.file, [...secrets, ...describeIssues(document, issues, secrets)]);
  }
  const { port } = input.overrides;
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65_535)) {
    throw new UserError("usage", `--port takes a whole number from 0 to 65535, not ${port}`, {
      details: { field: "port" },
    });
  }
  const http = port === undefined ? parsed.data.http : { ...parsed.data.http, port };
  const config: GhostConfig = deepFreeze({ ...parsed.data, http, providers: withoutOwnDoor(parsed.data) });
  const own = findOwnDoors(document, config);
  if (own.length > 0) throw configInvalid(input.file, own);
  const sources = new Map<string, SettingSource>();
  for (const [path] of leavesOf(config)) {
    sources.set(formatPath(path), valueAt(table, path) === undefined ? "default" : "file");
  }
  if (port !== undefined) sources.set("http.port", "flag");
  return { config, sources, warnings };
}

/** Where an Ollama is looked for. */
const OLLAMA_PORT = 11_434;

/** Whoever gives Ollama's own port to the keyless door has no Ollama there: looking for one would find the daemon itself. */
function withoutOwnDoor({ http, providers }: GhostConfig): GhostConfig["providers"] {
  if (!http.ollama.enabled || http.ollama.port !== OLLAMA_PORT) return providers;
  return { ...providers, ollama: { ...providers.ollama, discover: false } };
}

/** A model server that is the daemon itself would list its own models, and ask itself without end. */
function findOwnDoors(document: TomlDocument, { http, providers }: GhostConfig): readonly Problem[] {
  const ports = new Set([http.port, ...(http.ollama.enabled ? [http.ollama.port] : [])].filter((port) => port !== 0));
  return [...leaves(providers, ["providers"])].flatMap(([path, value]) => {
    if (!/^(base_)?url$/.test(String(path.at(-1))) || typeof value !== "string") return [];
    const { hostname, port } = new URL(value);
    if (!/^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname) || !ports.has(Number(port))) return [];
    const text = formatPath(path);
    return [
      { place: document.valuePlace(path), path: text, message: `${text}: this is where the daemon itself listens` },
    ];
  });
}

/** Every setting that has a value, for `settings.get`. */
export function listSettings(
  loaded: LoadedConfig,
): readonly { readonly path: string; readonly value: z.core.util.JSONType; readonly source: SettingSource }[] {
  return leavesOf(loaded.config).map(([parts, value]) => {
    const path = formatPath(parts);
    return { path, value, source: loaded.sources.get(path) ?? "default" };
  });
}

function* leaves(value: unknown, path: TomlPath): Generator<readonly [TomlPath, z.core.util.JSONType]> {
  if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") yield [path, value];
  // The only lists in the schema are lists of strings.
  else if (Array.isArray(value)) yield [path, value.filter((item) => typeof item === "string")];
  else if (isTable(value)) for (const [key, below] of Object.entries(value)) yield* leaves(below, [...path, key]);
}
const leavesOf = (config: GhostConfig) => [...leaves(config, [])];

/** What later versions will read is taken out, with a warning each; the rest is checked. */
function setAside(document: TomlDocument): {
  readonly table: Readonly<Record<string, unknown>>;
  readonly warnings: readonly string[];
} {
  let table = document.root;
  const warnings: string[] = [];
  const warn = (path: TomlPath, what: string) => {
    const { line } = document.keyPlace(path);
    warnings.push(`${document.file}:${line}: ${what} is not used by this version yet`);
  };
  for (const path of LATER_SECTIONS) {
    if (valueAt(table, path) === undefined) continue;
    warn(path, `[${formatPath(path)}]`);
    table = without(table, path);
  }
  const store = ["context", "store"];
  const value = valueAt(table, store);
  if (typeof value === "string" && /^rediss?:\/\//.test(value)) {
    warn(store, "a Redis store (context.store)");
    table = without(table, store);
  }
  return { table, warnings };
}

function without(table: Readonly<Record<string, unknown>>, path: readonly string[]): Readonly<Record<string, unknown>> {
  const [first, ...rest] = path;
  if (first === undefined) return table;
  const { [first]: below, ...others } = table;
  return rest.length === 0 || !isTable(below) ? others : { ...others, [first]: without(below, rest) };
}

function valueAt(root: unknown, path: TomlPath): unknown {
  let value = root;
  for (const part of path) {
    if (Array.isArray(value) && typeof part === "number") value = value[part];
    else if (isTable(value) && Object.hasOwn(value, part)) value = value[part];
    else return undefined;
  }
  return value;
}

const SECRET_NAME = /^(api[_-]?key|key|(access|auth|bearer)?[_-]?token|bearer|secret|password|passwd)$/i;

/** Keys are refused with advice, before anything else could complain about them or store them. */
function findSecrets(document: TomlDocument, value: unknown, path: TomlPath): readonly Problem[] {
  if (Array.isArray(value)) return value.flatMap((item, index) => findSecrets(document, item, [...path, index]));
  if (isTable(value))
    return Object.entries(value).flatMap(([key, below]) => findSecrets(document, below, [...path, key]));
  const last = path.at(-1);
  if (typeof value !== "string" || typeof last !== "string" || !SECRET_NAME.test(last)) return [];
  const text = formatPath(path);
  const message = `${text}: a key is never written into this file. Store it with \`ghost keys set\`, or put it into an environment variable and write that variable's name: key_env = "MY_KEY"`;
  return [{ place: document.keyPlace(path), path: text, message }];
}

function describeIssues(
  document: TomlDocument,
  issues: readonly z.core.$ZodIssue[],
  secrets: readonly Problem[],
): readonly Problem[] {
  const root = describeSchema();
  const reported = new Set(secrets.map(({ path }) => path));
  const problems: Problem[] = [];
  for (const issue of issues) {
    const path = issue.path.filter((part) => typeof part !== "symbol");
    if (issue.code === "unrecognized_keys") {
      for (const key of issue.keys) {
        const full = [...path, key];
        const text = formatPath(full);
        if (reported.has(text)) continue;
        const message = `there is no setting ${text}.${suggestFor(root, path, key)}`;
        problems.push({ place: document.keyPlace(full), path: text, message });
      }
      continue;
    }
    const text = formatPath(path);
    problems.push({ path: text, ...describeIssue(document, root, path, issue.code) });
  }
  return problems;
}

function describeIssue(document: TomlDocument, root: SchemaNode, path: TomlPath, code: string): Omit<Problem, "path"> {
  const text = formatPath(path);
  if (code === "invalid_key") {
    const rule = "a name has at most 64 letters, digits, `.`, `_` and `-`, and is not embedded, ollama or ghost";
    return { place: document.keyPlace(path), message: `${text}: ${rule}` };
  }
  const node = nodeAt(root, path);
  const expected = node === undefined ? "something else" : describeExpected(node);
  const value = valueAt(document.root, path);
  if (value === undefined)
    return { place: document.keyPlace(path), message: `${text} is missing: expected ${expected}` };
  const hint = node?.enum !== undefined && typeof value === "string" ? suggestion(value, node.enum) : "";
  const message = `${text}: expected ${expected}, found ${describeValue(value)}${hint === "" ? "" : `.${hint}`}`;
  return { place: document.valuePlace(path), message };
}

function nodeAt(root: SchemaNode, path: TomlPath): SchemaNode | undefined {
  let node: SchemaNode | undefined = root;
  for (const part of path) {
    if (node === undefined) return undefined;
    const { properties, additionalProperties, items }: SchemaNode = node;
    if (typeof part === "number") node = items;
    else node = properties?.[part] ?? (typeof additionalProperties === "object" ? additionalProperties : undefined);
  }
  return node;
}

/** The nearest name in the same table, else a setting of that name elsewhere. */
function suggestFor(root: SchemaNode, path: TomlPath, key: string): string {
  const later = LATER_SECTIONS.filter((section) => formatPath(section.slice(0, -1)) === formatPath(path));
  const here = [...Object.keys(nodeAt(root, path)?.properties ?? {}), ...later.map((section) => section.at(-1) ?? "")];
  const near = suggestion(key, here);
  if (near !== "") return near;
  const elsewhere = allSettings(root, []).filter((setting) => setting.at(-1) === key);
  return suggestion(key, elsewhere.map(formatPath));
}

function allSettings(node: SchemaNode, path: TomlPath): readonly TomlPath[] {
  return Object.entries(node.properties ?? {}).flatMap(([name, below]) => [
    ...(below.properties === undefined ? [[...path, name]] : []),
    ...allSettings(below, [...path, name]),
  ]);
}

function deepFreeze<Value>(value: Value): Value {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const below of Object.values(value)) deepFreeze(below);
  }
  return value;
}

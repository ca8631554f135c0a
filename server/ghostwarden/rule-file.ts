/**
 * warden.toml, from text to rules. Pure.
 * 1. Nothing is silently ignored: a capability or verdict that does not exist is an error with its line and column.
 * 2. TOML reads `fs.write = "deny"` as a table `fs` with a key `write`, and `"fs.write" = "deny"` as one key: both name the same capability.
 */
import { type Capability, capabilitySchema, type Verdict, verdictSchema } from "../../protocol/policy.ts";
import { suggestion } from "../base/text.ts";
import {
  configInvalid,
  describeValue,
  formatPath,
  isTable,
  parseToml,
  type Problem,
  type TomlDocument,
  type TomlPath,
} from "../platform/config/toml.ts";

export interface Rule {
  readonly capability: Capability;
  readonly verdict: Verdict;
  readonly line: number;
}

export interface RuleFile {
  readonly file: string;
  readonly rules: readonly Rule[];
  /** `scope` is written `kind:name`, for example `repo:ghostctl`. */
  readonly scoped: readonly (Rule & { readonly scope: string })[];
}

const SECTIONS = ["capabilities", "scopes"];
const SCOPE = /^[a-z]+:\S.*$/;

/**
 * Reads `[capabilities]` and `[scopes]`; undefined text is a file that does not exist.
 *
 *     [capabilities]
 *     fs.write = "prompt"        → {capability: "fs.write", verdict: "prompt", line: 2}
 *
 * @throws UserError `config_syntax` | `config_invalid` with file, line and column.
 */
export function parseRuleFile(text: string | undefined, file: string): RuleFile {
  const document = parseToml(text ?? "", file);
  const reader = new Reader(document);
  const { capabilities = {}, scopes = {} } = document.root;
  for (const key of Object.keys(document.root)) {
    if (!SECTIONS.includes(key))
      reader.report("key", [key], `there is no section ${formatPath([key])}.${suggestSection(key)}`);
  }
  const rules = reader.rules(capabilities, ["capabilities"]);
  const scoped: (Rule & { scope: string })[] = [];
  if (!isTable(scopes)) reader.report("value", ["scopes"], `scopes: expected a table, found ${describeValue(scopes)}`);
  else {
    for (const [scope, value] of Object.entries(scopes)) {
      const path = ["scopes", scope];
      if (!SCOPE.test(scope)) {
        reader.report("key", path, `${formatPath(path)}: a scope is written "kind:name", for example "repo:ghostctl"`);
      } else scoped.push(...reader.rules(value, path).map((rule) => ({ ...rule, scope })));
    }
  }
  if (reader.problems.length > 0) throw configInvalid(file, reader.problems);
  return { file, rules, scoped };
}

class Reader {
  readonly problems: Problem[] = [];
  readonly #document: TomlDocument;

  constructor(document: TomlDocument) {
    this.#document = document;
  }

  report(where: "key" | "value", path: TomlPath, message: string): void {
    const place = where === "key" ? this.#document.keyPlace(path) : this.#document.valuePlace(path);
    this.problems.push({ place, path: formatPath(path), message });
  }

  /** The rules of one table, whichever way their names are written (2). */
  rules(value: unknown, path: TomlPath): readonly Rule[] {
    if (!isTable(value)) {
      this.report("value", path, `${formatPath(path)}: expected a table, found ${describeValue(value)}`);
      return [];
    }
    const rules: Rule[] = [];
    const seen = new Map<Capability, number>();
    for (const [below, verdict] of leaves(value, [])) {
      const rule = this.#rule([...path, ...below], below.join("."), verdict);
      if (rule === undefined) continue;
      const before = seen.get(rule.capability);
      if (before !== undefined) {
        this.report("key", [...path, ...below], `${rule.capability} already has a verdict, on line ${before}`);
      }
      seen.set(rule.capability, rule.line);
      rules.push(rule);
    }
    return rules;
  }

  #rule(path: TomlPath, name: string, value: unknown): Rule | undefined {
    const capability = capabilitySchema.safeParse(name);
    const verdict = verdictSchema.safeParse(value);
    if (!capability.success) {
      this.report("key", path, `there is no capability ${JSON.stringify(name)}.${suggestCapability(name)}`);
    } else if (!verdict.success) {
      const hint = typeof value === "string" ? suggestion(value, verdictSchema.options) : "";
      const message = `${name}: expected "allow", "prompt" or "deny", found ${describeValue(value)}`;
      this.report("value", path, hint === "" ? message : `${message}.${hint}`);
    } else {
      return { capability: capability.data, verdict: verdict.data, line: this.#document.keyPlace(path).line };
    }
    return undefined;
  }
}

function* leaves(value: unknown, path: readonly string[]): Generator<readonly [readonly string[], unknown]> {
  if (!isTable(value)) yield [path, value];
  else for (const [key, below] of Object.entries(value)) yield* leaves(below, [...path, key]);
}

/** Also for half a name, which is too short for the nearest ones: `fs` → `fs.read` or `fs.write`. */
function suggestCapability(name: string): string {
  const known = capabilitySchema.options;
  const halves = known.filter((capability) => capability.startsWith(`${name}.`) || capability.endsWith(`.${name}`));
  if (halves.length === 0) return suggestion(name, known);
  return ` Did you mean ${halves.map((capability) => `\`${capability}\``).join(" or ")}?`;
}

function suggestSection(key: string): string {
  const isCapability = capabilitySchema.options.some(
    (capability) => capability === key || capability.startsWith(`${key}.`),
  );
  return isCapability ? " Capabilities stand below [capabilities]." : suggestion(key, SECTIONS);
}

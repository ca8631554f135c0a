/**
 * Runs dependency-cruiser over TypeScript sources, twice: over what is written, and over what Node loads.
 *
 * Its swc parser neither tells `import type` from `import` nor knows `using`. So the sources are copied: once with `using` spelled `const`, once with
 * the types taken out by Node itself. The import graph of the second copy is exactly what runs.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { cruise, type IForbiddenRuleType } from "dependency-cruiser";
import { root } from "../../tools/source-files.ts";
import type { RuleSet } from "./rules.ts";

export interface Violation {
  readonly rule: string;
  readonly from: string;
  readonly to: string;
}

interface Findings {
  readonly violations: readonly Violation[];
  /** The files of ours that were cruised. */
  readonly modules: readonly string[];
}

/** `sources` maps paths relative to the repository to their text. */
export async function cruiseSources(sources: ReadonlyMap<string, string>, rules: RuleSet): Promise<Findings> {
  const written = await cruiseCopy(sources, (text) => text, rules.anyEdge);
  const running = await cruiseCopy(sources, (text) => stripTypeScriptTypes(text), rules.runtimeEdge);
  const modules = written.modules.filter((path) => running.modules.includes(path));
  return { violations: [...written.violations, ...running.violations], modules };
}

export function readSources(paths: readonly string[]): ReadonlyMap<string, string> {
  return new Map(paths.map((path) => [path, readFileSync(join(root, path), "utf8")]));
}

async function cruiseCopy(
  sources: ReadonlyMap<string, string>,
  transform: (text: string) => string,
  forbidden: IForbiddenRuleType[],
): Promise<Findings> {
  const folder = mkdtempSync(join(tmpdir(), "ghost-architecture-"));
  try {
    for (const [path, text] of sources) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      const plain = path.endsWith(".ts") ? transform(text) : text;
      writeFileSync(join(folder, path), plain.replaceAll(/\b(?:await\s+)?using\s+(?=[\w$]+\s*=)/g, "const "));
    }
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
    const tops = [...new Set([...sources.keys()].map((path) => path.split("/")[0] ?? path))];
    const { output } = await cruise(
      tops,
      {
        baseDir: folder,
        parser: "swc",
        tsPreCompilationDeps: true,
        preserveSymlinks: true,
        doNotFollow: { path: "node_modules" },
        validate: true,
        ruleSet: { forbidden: forbidden.map((rule) => ({ ...rule, severity: "error" })) },
      },
      {
        extensions: [".ts", ".mjs", ".js", ".json"],
        conditionNames: ["import", "node", "require"],
        exportsFields: ["exports"],
      },
    );
    if (typeof output === "string") throw new Error("dependency-cruiser rendered text where data was asked for");
    return {
      violations: output.summary.violations.map(({ rule, from, to }) => ({ rule: rule.name, from, to })),
      modules: output.modules.map((module) => module.source).filter((path) => sources.has(path)),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

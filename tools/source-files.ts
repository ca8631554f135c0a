/** The source files of this repository, found in the folder tree itself: what the checks must have examined. */
import { globSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Names of folders that hold no source of ours; `fixtures` are wrong on purpose, or data. */
const NOT_SOURCE = new Set(["node_modules", "fixtures", "dist", "coverage"]);

/** Paths relative to the root, with `/`, sorted; `extensions` as in `["ts", "mjs"]`. */
export function sourceFiles(extensions: readonly string[]): readonly string[] {
  return globSync(
    extensions.map((extension) => `**/*.${extension}`),
    { cwd: root, exclude: (name) => NOT_SOURCE.has(name) || name.startsWith(".") },
  ).toSorted();
}

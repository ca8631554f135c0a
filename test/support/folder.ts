/** Temporary folders of tests: short paths (a Unix socket's path has at most 103 bytes), gone after the test or with its process. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const open = new Set<string>();
process.on("exit", () => open.forEach(remove));
// The runner ends a test file that takes too long with SIGTERM, which by itself would skip every "exit" handler, here and beside.
process.once("SIGTERM", () => process.exit(143));

export interface TestFolder extends Disposable {
  readonly path: string;
  /** A path inside it. */
  join(...names: string[]): string;
}

export function testFolder(): TestFolder {
  const path = mkdtempSync(join(tmpdir(), "gs-"));
  open.add(path);
  return {
    path,
    join: (...names) => join(path, ...names),
    [Symbol.dispose]() {
      remove(path);
      open.delete(path);
    },
  };
}

function remove(path: string): void {
  rmSync(path, { recursive: true, force: true, maxRetries: 5 });
}

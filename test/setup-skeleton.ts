/**
 * A repository small enough to set up in a test: the real tools/setup.mjs, two packages without content, and a program in npm's place that unpacks them
 * as told, because the real one needs the network and a compiler.
 */
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../tools/source-files.ts";

export interface Skeleton extends Disposable {
  readonly path: string;
  /** What to run it with: the stand-in for npm first on PATH, and nothing inherited. */
  readonly env: Readonly<Record<string, string>>;
}

/** `npm` is the stand-in's body: a shell script with `$ROOT` set, called with npm's arguments; its calls are noted in `$ROOT/calls`. */
export function makeSkeleton(npm: string, where: { readonly parent?: string; readonly node?: string } = {}): Skeleton {
  const path = mkdtempSync(join(where.parent ?? tmpdir(), "ghost-setup-"));
  mkdirSync(join(path, "bin"));
  cpSync(join(root, "tools/setup.mjs"), join(path, "tools/setup.mjs"));
  cpSync(join(root, "tools/setup"), join(path, "tools/setup"), { recursive: true });
  writeFileSync(join(path, "package.json"), JSON.stringify({ name: "skeleton", type: "module" }));
  writeFileSync(join(path, "package-lock.json"), lockFile("1.0.0"));
  writeFileSync(join(path, "bin/npm"), `#!/bin/sh\nROOT='${path}'\necho "$*" >>"$ROOT/calls"\n${npm}`);
  chmodSync(join(path, "bin/npm"), 0o755);
  symlinkSync(where.node ?? process.execPath, join(path, "bin/node"));
  chmodSync(path, 0o755);
  return {
    path,
    env: { PATH: `${join(path, "bin")}:/usr/bin:/bin`, HOME: path },
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  };
}

export function lockFile(version: string): string {
  const entry = { version, integrity: `sha512-${version}` };
  const packages = {
    "": { name: "skeleton" },
    "node_modules/node": entry,
    "node_modules/sqlite3": entry,
    "node_modules/elsewhere": { ...entry, optional: true, os: ["win32"] },
  };
  return JSON.stringify({ lockfileVersion: 3, packages });
}

/**
 * What npm would do: `ci` unpacks without running scripts, `rebuild node` runs the one that brings the program. SQLite's native part is "fetched" unless
 * `$NO_PREBUILT` is set, else "compiled"; both are noted among the calls.
 */
export const workingNpm = `
set -e
modules="$ROOT/node_modules"
case "$1 $2" in
  "ci --ignore-scripts")
    rm -rf "$modules"
    mkdir -p "$modules/node" "$modules/sqlite3" "$modules/prebuild-install" "$modules/node-gyp/bin" "$modules/.bin"
    [ -z "$SLOW" ] || sleep "$SLOW"
    for name in node sqlite3; do echo '{"version":"1.0.0","main":"index.js"}' >"$modules/$name/package.json"; done
    echo 'require("node:fs").readFileSync(__dirname + "/build/Release/node_sqlite3.node")' >"$modules/sqlite3/index.js"
    build='const fs = require("node:fs"); fs.mkdirSync("build/Release", { recursive: true }); fs.writeFileSync("build/Release/node_sqlite3.node", "native");'
    note='require("node:fs").appendFileSync("../../calls", require("node:path").basename(__filename) + require("node:os").EOL);'
    echo "$note if (process.env.NO_PREBUILT) process.exit(1); $build" >"$modules/prebuild-install/bin.js"
    echo "$note $build" >"$modules/node-gyp/bin/node-gyp.js"
    cp "$ROOT/package-lock.json" "$modules/.package-lock.json" ;;
  "rebuild node") ln -s "$(readlink "$ROOT/bin/node")" "$modules/.bin/node" ;;
  *) echo "the stand-in for npm does not know: $*" >&2; exit 9 ;;
esac
`;

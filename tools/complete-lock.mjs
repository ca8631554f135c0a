/**
 * Makes package-lock.json whole, so that `npm ci` does the same on every machine, and says what it did. Run it after every `npm install`.
 *
 * 1. Builds of packages for other platforms that npm left out are added. npm forgets an optional package that it cannot fetch while it writes the lock
 *    file (a registry mirror without builds for other systems is enough), and every later `npm ci` then refuses to work: "Missing: … from lock file".
 *    The version is known, because the parent asks for exactly one; system and processor stand in the name, as in `@biomejs/cli-linux-arm64-musl`.
 *    The checksum stays unknown: npm then checks none for these.
 * 2. Optional packages lose their `engines`. npm silently skips an optional package that does not want the Node that npm itself runs on; ours run on the
 *    pinned one. With Node 18, the embedded engine and the linter would be missing.
 */
import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

/** @typedef {{ version?: string, optional?: boolean, dev?: boolean, engines?: Record<string, string>, os?: string[], cpu?: string[], libc?: string[], optionalDependencies?: Record<string, string> }} Locked */

const SYSTEMS = ["darwin", "win32", "linux", "android", "freebsd", "openharmony"];
const SYSTEM_ALIASES = new Map([
  ["mac", "darwin"],
  ["win", "win32"],
  ["linuxmusl", "linux"],
]);
const PROCESSORS = ["x64", "arm64", "ia32", "arm", "ppc64", "riscv64", "s390x"];
const PROCESSOR_ALIASES = new Map([["armv7l", "arm"]]);

/**
 * @param {Record<string, Locked>} packages the lock file's `packages`
 * @returns {readonly { path: string, entry: Locked }[]} what is missing
 */
export function missingPlatformPackages(packages) {
  const found = new Map();
  for (const [parentPath, parent] of Object.entries(packages)) {
    for (const [name, version] of Object.entries(parent.optionalDependencies ?? {})) {
      if (resolves(packages, parentPath, name) || !/^\d+\.\d+\.\d+/.test(version)) continue;
      found.set(`node_modules/${name}`, {
        version,
        ...(parent.dev ? { dev: true } : {}),
        optional: true,
        ...platformOf(name),
      });
    }
  }
  return [...found].map(([path, entry]) => ({ path, entry }));
}

/**
 * @param {Record<string, Locked>} packages the lock file's `packages`
 * @returns {readonly string[]} the optional ones that npm would leave out on some Node
 */
export function boundToEngine(packages) {
  return Object.keys(packages).filter(
    (path) => packages[path]?.optional === true && packages[path]?.engines !== undefined,
  );
}

/** Node's look-up: beside the parent, then in every folder above. @param {Record<string, Locked>} packages @param {string} from @param {string} name */
function resolves(packages, from, name) {
  for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf("node_modules/") - 1))) {
    if (`${folder === "" ? "" : `${folder}/`}node_modules/${name}` in packages) return true;
    if (folder === "") return false;
  }
}

/** @param {string} name @returns {Pick<Locked, "os" | "cpu" | "libc">} */
export function platformOf(name) {
  const words = name.slice(name.lastIndexOf("/") + 1).split("-");
  const os = words.map((word) => SYSTEM_ALIASES.get(word) ?? word).filter((word) => SYSTEMS.includes(word));
  const cpu = words.map((word) => PROCESSOR_ALIASES.get(word) ?? word).filter((word) => PROCESSORS.includes(word));
  const libc = words.some((word) => word.startsWith("musl") || word.endsWith("musl"))
    ? ["musl"]
    : words.some((word) => word.startsWith("gnu"))
      ? ["glibc"]
      : [];
  if (os.length !== 1 || cpu.length !== 1)
    throw new Error(`"${name}" does not name its platform: add the entry by hand`);
  return { os, cpu, ...(libc.length > 0 ? { libc } : {}) };
}

if (process.argv[1] !== undefined && pathToFileURL(process.argv[1]).href === import.meta.url) {
  const file = fileURLToPath(new URL("../package-lock.json", import.meta.url));
  const lock = JSON.parse(readFileSync(file, "utf8"));
  const missing = missingPlatformPackages(lock.packages);
  for (const { path, entry } of missing) lock.packages[path] = entry;
  const bound = boundToEngine(lock.packages);
  for (const path of bound) delete lock.packages[path].engines;
  lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, "en")));
  if (missing.length + bound.length > 0) writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
  process.stdout.write(
    `package-lock.json: ${missing.length} packages for other platforms added, ${bound.length} freed from engines\n`,
  );
}

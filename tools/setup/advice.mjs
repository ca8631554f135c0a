/** What went wrong during set-up, in plain words, with the command that mends it. Pure but for looking for programs on PATH. */
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import process from "node:process";

export class SetupFailure extends Error {
  /**
   * @param {string} message one sentence
   * @param {readonly string[]} advice lines to print below it
   */
  constructor(message, advice) {
    super(message);
    this.name = "SetupFailure";
    this.advice = advice;
  }
}

/** The programs that compiling SQLite needs: any one of each row. */
const BUILD_TOOLS = [
  { what: "a C++ compiler", anyOf: ["c++", "g++", "clang++"] },
  { what: "make", anyOf: ["make", "gmake"] },
  { what: "Python 3", anyOf: ["python3", "python"] },
];

/**
 * What a failed step's output means. Beginning of a real one: `npm error code ENOTFOUND`.
 * @param {string} text
 * @param {string} [path] where to look for programs
 * @returns {readonly string[]} lines to print
 */
export function diagnose(text, path) {
  if (/ENOSPC|no space left/i.test(text))
    return ["  The disk is full: free about 2 GB and run the same command again."];
  const missing = missingBuildTools(path === undefined ? searchPath() : path);
  if (missing.length > 0 && /gyp|prebuild-install|: not found|command not found/i.test(text)) {
    return [
      `  Missing on this machine: ${missing.join(", ")}. SQLite has to be compiled here, because no prebuilt file could be fetched.`,
      "  Arch:            sudo pacman -S --needed base-devel python",
      "  Debian, Ubuntu:  sudo apt install build-essential python3",
    ];
  }
  if (/SELF_SIGNED|self.signed|UNABLE_TO_(GET_ISSUER|VERIFY)|CERT_/i.test(text)) {
    return [
      "  A proxy replaces the certificate of npm's registry: point npm at its CA with `npm config set cafile /path/to/ca.pem`.",
    ];
  }
  if (/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT/.test(text)) {
    return [
      "  npm cannot reach its registry: check the network with `npm ping`.",
      "  Behind a proxy: npm config set proxy http://HOST:PORT && npm config set https-proxy http://HOST:PORT",
    ];
  }
  if (/EINTEGRITY/.test(text))
    return ["  A download was damaged: run `npm cache verify`, then the same command again."];
  if (/EUSAGE|in sync/.test(text)) {
    return [
      "  package.json and package-lock.json differ: run `npm install`, look at what it changed, then run the same command again.",
    ];
  }
  if (/EACCES|EPERM|EROFS/.test(text)) {
    return ["  npm may not write here: see who owns the folder and npm's cache with `ls -ld . node_modules ~/.npm`."];
  }
  return [
    "  Run the same command again; if it fails the same way, remove the folder node_modules and run it once more.",
  ];
}

/**
 * @param {string} root
 * @param {NodeJS.ErrnoException} error
 */
export function permissionAdvice(root, error) {
  const owner = statSync(root).uid;
  const self = typeof process.getuid === "function" ? process.getuid() : -1;
  return new SetupFailure(
    `no permission to write to ${error.path === undefined ? root : error.path} (${error.code}).`,
    [
      `  ${root} belongs to the user with id ${owner}, and you are ${self}.`,
      `  Run the command as that user, or give the folder to yourself:  sudo chown -R "$(id -un)" '${root}'`,
    ],
  );
}

/** @param {string} path @returns {readonly string[]} */
export function missingBuildTools(path) {
  return BUILD_TOOLS.filter((tool) => !tool.anyOf.some((name) => which(name, path) !== undefined)).map(
    (tool) => tool.what,
  );
}

export function searchPath() {
  const { PATH } = process.env;
  return PATH === undefined ? "" : PATH;
}

/**
 * @param {string} name
 * @param {string} path
 * @returns {string | undefined} the program's full path
 */
export function which(name, path) {
  for (const folder of path.split(delimiter)) {
    if (folder === "") continue;
    const candidate = join(folder, name);
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch (error) {
      continue; // not in this folder
    }
  }
  return undefined;
}

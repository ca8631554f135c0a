/**
 * The invariants I1–I6 (docs/architecture.md) as far as imports show them, as rules for dependency-cruiser.
 *
 * `anyEdge` rules also see `import type`; `runtimeEdge` rules see only what Node loads, so that a type may be known where behaviour may not.
 * Exceptions stand in the tables at the top, each with its reason.
 */
import type { IForbiddenRuleType } from "dependency-cruiser";

export interface RuleSet {
  readonly anyEdge: IForbiddenRuleType[];
  readonly runtimeEdge: IForbiddenRuleType[];
}

/** What each folder of server/ may import of the others, besides itself and the types of protocol/ (I1). */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  base: [],
  helper: ["base"],
  platform: ["base"],
  ghostwarden: ["base", "platform"],
  ghostllm: ["base", "platform"],
  zeke: ["base", "platform", "ghostwarden", "ghostllm"],
  // Its tools show a privileged action with the very code that the helper runs.
  jarvis: ["base", "platform", "ghostwarden", "ghostllm", "helper/actions"],
  ghostflow: ["base", "platform", "ghostwarden", "ghostllm", "zeke", "jarvis"],
  daemon: ["base", "platform", "ghostwarden", "ghostllm", "zeke", "jarvis", "ghostflow"],
};

/** Where a product is entered from outside (I1). */
const faces: Readonly<Record<string, readonly string[]>> = {
  ghostwarden: ["warden.ts"],
  // stream.ts: the model stream's types; frames/: its pure parts, which clients' dialects and upstreams share.
  // open-brain.ts: how it is put together.
  ghostllm: ["brain.ts", "open-brain.ts", "stream.ts", "frames/[a-z-]+.ts"],
  zeke: ["zeke.ts"],
  jarvis: ["jarvis.ts"],
  ghostflow: ["engine.ts"],
};

/** Node's modules that touch the machine, wait, or draw on the process (I3, I12). */
const effectModules =
  "^(node:)?(fs|child_process|net|http|https|http2|tls|dgram|dns|worker_threads|cluster|os|process|vm|repl|inspector|readline|tty|sqlite)(/|$)";

const fastify = "node_modules/(@fastify/|fastify/)";
const jsonRpc = "node_modules/vscode-(jsonrpc|languageserver)";
/** Who outside platform/ may load which modules or packages with effects, and why (I3). No two entries name the same file. */
const effectExceptions: readonly {
  readonly name: string;
  readonly from: string;
  readonly to: readonly string[];
  readonly why: string;
}[] = [
  {
    name: "socket-listener",
    from: "^server/daemon/rpc/rpc-server\\.ts$",
    to: ["^(node:)?net$", jsonRpc],
    why: "listens on the Unix socket",
  },
  {
    name: "socket-front",
    from: "^server/daemon/(lsp|rpc/(?!rpc-server\\.ts))",
    to: [jsonRpc],
    why: "speaks JSON-RPC on it",
  },
  {
    name: "http-listener",
    from: "^server/daemon/http/http-server\\.ts$",
    to: ["^(node:)?https?$", fastify],
    why: "listens for HTTP",
  },
  { name: "http-front", from: "^server/daemon/http/(?!http-server\\.ts)", to: [fastify], why: "holds the routes" },
  {
    name: "engine",
    from: "^server/ghostllm/local/(engine-child\\.ts$|child/)",
    to: ["node_modules/node-llama-cpp/"],
    why: "is the embedded engine, in a process of its own",
  },
  {
    name: "helper",
    from: "^server/helper/main\\.ts$",
    to: [effectModules],
    why: "is a program of its own, which nothing imports",
  },
];

/** What of protocol/ does something, beside saying what things look like (I2). */
const protocolBehaviour = "^protocol/((node|browser)/|(ghost-api|ghost-client|manual|rpc-error)\\.ts$)";
/** Packages without effects of their own, for everybody in server/. */
const purePackages = "node_modules/zod/";
/** Programs and threads of their own: started by URL, never imported. */
const entryFiles =
  "^server/(daemon/main\\.ts|helper/main\\.ts|ghostllm/local/engine-child\\.ts|platform/adapters/keyring-child\\.ts|.*\\.worker\\.ts)$";
/** Where keys of providers come from: the door, what lies behind it, and the keyring's library. */
const keySources = "^server/platform/(secrets|secret-[a-z-]+|adapters/keyring[a-z-]*)\\.ts$";
const keyringLibrary = "node_modules/@napi-rs/keyring";
const TEST_FILE = "\\.test\\.ts$";
const OUTSIDE_SERVER = "^(clients|tools|test|bench)/";

export const rules: RuleSet = {
  anyEdge: [
    ...Object.entries(mayImport).map(([folder, below]) => layerRule(folder, below)),
    ...Object.entries(faces).map(([product, files]) => faceRule(product, files)),
    forbid("server-stands-alone", "^server/", OUTSIDE_SERVER, { fromNot: TEST_FILE }),
    forbid("tests-are-not-imported", "^(server|protocol|clients)/", TEST_FILE),
    forbid("base-is-pure", "^server/base/", "^((node:)?[a-z_]+(/|$)|node_modules/)", {
      fromNot: TEST_FILE,
      toNot: "^server/|^protocol/",
    }),
    forbid("protocol-is-a-leaf", "^protocol/", "^(server|clients|tools|bench|test)/", { fromNot: TEST_FILE }),
    forbid("clients-know-protocol-only", "^clients/([^/]+)/", "^(server|tools|bench|test|clients)/", {
      fromNot: TEST_FILE,
      toNot: "^clients/$1/",
    }),
    forbid("only-the-warden-mints", "^(server|protocol|clients)/", "^server/platform/permit-mint\\.ts$", {
      fromNot: `${TEST_FILE}|^server/ghostwarden/|^server/platform/permit\\.ts$`,
    }),
    forbid("only-providers-read-keys", "^(server|protocol|clients)/", keySources, {
      fromNot: `${TEST_FILE}|${keySources}|^server/ghostllm/providers/`,
    }),
    // A library that opens the user's keyring, and may hang its thread: loaded in a process of its own and nowhere else.
    forbid("only-its-adapter-loads-the-keyring", "^(server|protocol|clients)/", keyringLibrary, {
      fromNot: `${TEST_FILE}|^server/platform/adapters/keyring-child\\.ts$`,
    }),
    // Loaded when it is first asked for, and where its process gets a folder and an environment of its own.
    forbid("only-its-adapter-loads-copilot", "^(server|protocol|clients)/", "node_modules/@github/copilot-sdk", {
      fromNot: `${TEST_FILE}|^server/platform/adapters/copilot-runtime\\.ts$`,
    }),
    forbid("processes-belong-to-jarvis-and-the-engine", "^server/", "^server/platform/process\\.ts$", {
      fromNot: `${TEST_FILE}|^server/platform/|^server/jarvis/|^server/ghostllm/local/`,
    }),
    { name: "everything-resolves", from: {}, to: { couldNotResolve: true } },
  ],
  runtimeEdge: [
    forbid("protocol-behaviour-stays-at-the-edge", "^server/", protocolBehaviour, {
      fromNot: `${TEST_FILE}|^server/daemon/|^server/helper/`,
    }),
    forbid("protocol-runs-anywhere", "^protocol/", effectModules, { fromNot: `${TEST_FILE}|^protocol/node/` }),
    effectRule("effects-only-in-platform", effectModules),
    effectRule("packages-only-in-platform", "^(\\.\\./)*node_modules/", purePackages),
    ...effectExceptions.map(exceptionRule),
    forbid("permit-types-only", "^server/platform/permit\\.ts$", "^server/platform/permit-mint\\.ts$"),
    forbid("entries-are-not-imported", "", entryFiles, { fromNot: `${TEST_FILE}|${OUTSIDE_SERVER}` }),
    forbid("workers-have-no-effects", "^server/.*\\.worker\\.ts$", "^server/platform/", {
      toNot: "^server/platform/workers\\.ts$",
    }),
    { name: "no-cycles", from: {}, to: { circular: true } },
  ],
};

function layerRule(folder: string, below: readonly string[]): IForbiddenRuleType {
  const allowed = [folder, ...below].join("|");
  return forbid(`layer-${folder}`, `^server/${folder}/`, `^server/(?!(${allowed})/)`, { fromNot: TEST_FILE });
}

function faceRule(product: string, files: readonly string[]): IForbiddenRuleType {
  const names = files.map((file) => file.replaceAll(".", "\\.")).join("|");
  return forbid(`face-of-${product}`, "", `^server/${product}/(?!(${names})$)`, {
    fromNot: `${TEST_FILE}|^server/${product}/|${OUTSIDE_SERVER}`,
  });
}

/** The general ban; whoever stands in `effectExceptions` is left to a rule of its own, made by `exceptionRule`. */
function effectRule(name: string, to: string, toNot?: string): IForbiddenRuleType {
  const excepted = effectExceptions.map((exception) => exception.from);
  const fromNot = [TEST_FILE, "^server/platform/", ...excepted].join("|");
  return forbid(name, "^server/", to, toNot === undefined ? { fromNot } : { fromNot, toNot });
}

/** A file with an exception may load what it names, and no other effect. */
function exceptionRule(exception: (typeof effectExceptions)[number]): IForbiddenRuleType {
  const toNot = [purePackages, ...exception.to].join("|");
  return forbid(`effects-of-${exception.name}`, exception.from, `${effectModules}|^(\\.\\./)*node_modules/`, {
    fromNot: TEST_FILE,
    toNot,
  });
}

function forbid(
  name: string,
  from: string,
  to: string,
  except: { readonly fromNot?: string; readonly toNot?: string } = {},
): IForbiddenRuleType {
  return {
    name,
    from: { path: from, ...(except.fromNot === undefined ? {} : { pathNot: except.fromNot }) },
    to: { path: to, ...(except.toNot === undefined ? {} : { pathNot: except.toNot }) },
  };
}

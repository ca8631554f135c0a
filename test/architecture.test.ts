/** The layers and borders of docs/architecture.md (I1–I6), held against the import graph; and each rule held against a small tree that breaks it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { sourceFiles } from "../tools/source-files.ts";
import { cruiseSources, readSources, type Violation } from "./architecture/cruise.ts";
import { rules } from "./architecture/rules.ts";

test("no import of this repository breaks an invariant", async () => {
  const files = sourceFiles(["ts", "mjs"]);
  const { violations, modules } = await cruiseSources(readSources([...files, "package.json"]), rules);
  assert.deepEqual(
    modules.filter((path) => path !== "package.json").toSorted(),
    files,
    "every source file was cruised",
  );
  assert.ok(files.some((file) => file.startsWith("server/")) && files.some((file) => file.startsWith("protocol/")));
  assert.deepEqual(violations.map(describe), []);
});

interface Case {
  readonly rule: string;
  /** Path and text of each file; the first one breaks the rule. */
  readonly files: Readonly<Record<string, string>>;
  /** The forbidden import, where it is not the second file. */
  readonly to?: string;
}

const empty = "export const nothing = 0;\n";
const importing = (path: string) => `import { nothing } from "${path}";\nexport const again = nothing;\n`;
const typeImporting = (path: string) => `import type { Nothing } from "${path}";\nexport type Again = Nothing;\n`;
const pair = (rule: string, from: string, to: string, text: string): Case => ({
  rule,
  files: { [from]: text, [to]: empty },
});

const broken: readonly Case[] = [
  pair("layer-base", "server/base/a.ts", "server/platform/b.ts", typeImporting("../platform/b.ts")),
  pair("layer-helper", "server/helper/a.ts", "server/platform/b.ts", importing("../platform/b.ts")),
  pair("layer-platform", "server/platform/a.ts", "server/ghostllm/stream.ts", typeImporting("../ghostllm/stream.ts")),
  pair(
    "layer-ghostwarden",
    "server/ghostwarden/a.ts",
    "server/ghostllm/brain.ts",
    typeImporting("../ghostllm/brain.ts"),
  ),
  pair(
    "layer-ghostllm",
    "server/ghostllm/a.ts",
    "server/ghostwarden/warden.ts",
    typeImporting("../ghostwarden/warden.ts"),
  ),
  pair("layer-zeke", "server/zeke/a.ts", "server/jarvis/jarvis.ts", importing("../jarvis/jarvis.ts")),
  pair("layer-jarvis", "server/jarvis/a.ts", "server/ghostflow/engine.ts", importing("../ghostflow/engine.ts")),
  pair("layer-ghostflow", "server/ghostflow/a.ts", "server/daemon/b.ts", importing("../daemon/b.ts")),
  pair("layer-daemon", "server/daemon/a.ts", "server/helper/b.ts", importing("../helper/b.ts")),
  pair(
    "face-of-ghostwarden",
    "server/daemon/a.ts",
    "server/ghostwarden/consent.ts",
    importing("../ghostwarden/consent.ts"),
  ),
  pair(
    "face-of-ghostllm",
    "server/zeke/a.ts",
    "server/ghostllm/providers/b.ts",
    typeImporting("../ghostllm/providers/b.ts"),
  ),
  pair("face-of-zeke", "server/daemon/a.ts", "server/zeke/edit.ts", importing("../zeke/edit.ts")),
  pair("face-of-jarvis", "server/ghostflow/a.ts", "server/jarvis/plan.ts", importing("../jarvis/plan.ts")),
  pair("face-of-ghostflow", "server/daemon/a.ts", "server/ghostflow/graph.ts", importing("../ghostflow/graph.ts")),
  pair("server-stands-alone", "server/daemon/a.ts", "clients/cli/b.ts", typeImporting("../../clients/cli/b.ts")),
  pair("tests-are-not-imported", "server/daemon/a.ts", "server/daemon/b.test.ts", importing("./b.test.ts")),
  {
    rule: "base-is-pure",
    files: { "server/base/a.ts": 'import { join } from "node:path";\nexport const path = join("a", "b");\n' },
    to: "path",
  },
  pair("protocol-is-a-leaf", "protocol/a.ts", "server/base/b.ts", typeImporting("../server/base/b.ts")),
  pair("clients-know-protocol-only", "clients/cli/a.ts", "server/base/b.ts", typeImporting("../../server/base/b.ts")),
  pair("clients-know-protocol-only", "clients/cli/a.ts", "clients/tui/b.ts", importing("../tui/b.ts")),
  pair(
    "only-the-warden-mints",
    "server/ghostllm/a.ts",
    "server/platform/permit-mint.ts",
    typeImporting("../platform/permit-mint.ts"),
  ),
  pair(
    "only-the-warden-mints",
    "server/platform/a.ts",
    "server/platform/permit-mint.ts",
    importing("./permit-mint.ts"),
  ),
  pair(
    "only-providers-read-keys",
    "server/zeke/a.ts",
    "server/platform/secrets.ts",
    typeImporting("../platform/secrets.ts"),
  ),
  pair(
    "only-providers-read-keys",
    "server/ghostllm/a.ts",
    "server/platform/secrets.ts",
    importing("../platform/secrets.ts"),
  ),
  pair(
    "only-providers-read-keys",
    "server/daemon/a.ts",
    "server/platform/secret-file.ts",
    typeImporting("../platform/secret-file.ts"),
  ),
  pair(
    "only-providers-read-keys",
    "server/platform/a.ts",
    "server/platform/adapters/keyring.ts",
    importing("./adapters/keyring.ts"),
  ),
  {
    rule: "only-its-adapter-loads-the-keyring",
    files: { "server/platform/secrets.ts": 'export const later = () => import("@napi-rs/keyring");\n' },
    to: "node_modules/@napi-rs/keyring/",
  },
  {
    rule: "only-its-adapter-loads-copilot",
    files: { "server/platform/later.ts": 'export const later = () => import("@github/copilot-sdk");\n' },
    to: "node_modules/@github/copilot-sdk/",
  },
  pair(
    "processes-belong-to-jarvis-and-the-engine",
    "server/ghostflow/a.ts",
    "server/platform/process.ts",
    importing("../platform/process.ts"),
  ),
  { rule: "everything-resolves", files: { "server/base/a.ts": importing("./gone.ts") }, to: "./gone.ts" },
  pair(
    "protocol-behaviour-stays-at-the-edge",
    "server/ghostllm/a.ts",
    "protocol/ghost-client.ts",
    importing("../../protocol/ghost-client.ts"),
  ),
  { rule: "protocol-runs-anywhere", files: { "protocol/a.ts": 'import "node:net";\n' }, to: "net" },
  ...["fs", "fs/promises", "child_process", "net", "http", "https", "tls", "dgram", "worker_threads"].map((name) => ({
    rule: "effects-only-in-platform",
    files: { "server/jarvis/a.ts": `import * as module from "node:${name}";\nexport const all = module;\n` },
    to: name,
  })),
  {
    rule: "effects-only-in-platform",
    files: { "server/daemon/a.ts": 'export const later = () => import("node:fs");\n' },
    to: "fs",
  },
  ...["sqlite3", "undici", "fastify", "node-llama-cpp"].map((name) => ({
    rule: "packages-only-in-platform",
    files: { "server/ghostllm/a.ts": `import * as module from "${name}";\nexport const all = module;\n` },
    to: `node_modules/${name}/`,
  })),
  { rule: "effects-of-socket-listener", files: { "server/daemon/rpc/rpc-server.ts": 'import "node:fs";\n' }, to: "fs" },
  { rule: "effects-of-http-listener", files: { "server/daemon/http/http-server.ts": 'import "node:fs";\n' }, to: "fs" },
  {
    rule: "effects-of-http-front",
    files: { "server/daemon/http/a.ts": 'import "undici";\n' },
    to: "node_modules/undici/",
  },
  {
    rule: "effects-of-socket-front",
    files: { "server/daemon/rpc/a.ts": 'import "fastify";\n' },
    to: "node_modules/fastify/",
  },
  { rule: "effects-of-engine", files: { "server/ghostllm/local/engine-child.ts": 'import "node:net";\n' }, to: "net" },
  { rule: "effects-of-helper", files: { "server/helper/main.ts": 'import "undici";\n' }, to: "node_modules/undici/" },
  {
    rule: "permit-types-only",
    files: { "server/platform/permit.ts": importing("./permit-mint.ts"), "server/platform/permit-mint.ts": empty },
  },
  pair("entries-are-not-imported", "server/daemon/a.ts", "server/daemon/b.worker.ts", importing("./b.worker.ts")),
  pair(
    "workers-have-no-effects",
    "server/zeke/a.worker.ts",
    "server/platform/filesystem.ts",
    importing("../platform/filesystem.ts"),
  ),
  {
    rule: "no-cycles",
    files: {
      "server/base/a.ts": importing("./b.ts"),
      "server/base/b.ts": importing("./c.ts"),
      "server/base/c.ts": 'import "./a.ts";\nexport const nothing = 0;\n',
    },
  },
];

for (const { rule, files, to } of broken) {
  const [from, second] = Object.keys(files);
  test(`${rule} is broken by ${from}, and only it`, async () => {
    const { violations } = await cruiseSources(new Map(Object.entries(files)), rules);
    assert.deepEqual(
      [...new Set(violations.map((violation) => violation.rule))],
      [rule],
      violations.map(describe).join("\n"),
    );
    const named = violations.some((violation) => violation.from === from && violation.to.includes(to ?? second ?? ""));
    assert.ok(named, violations.map(describe).join("\n"));
  });
}

test("every rule is shown to fail", () => {
  const names = [...rules.anyEdge, ...rules.runtimeEdge].map((rule) => rule.name);
  assert.deepEqual(new Set(broken.map((example) => example.rule)), new Set(names));
});

test("what the rules mean to allow passes", async () => {
  const allowed = {
    "protocol/chat.ts":
      'import { z } from "zod";\nexport type Nothing = z.ZodType;\nexport const nothing = z.string();\n',
    "server/base/a.ts": typeImporting("../../protocol/chat.ts"),
    "server/platform/permit.ts": typeImporting("./permit-mint.ts"),
    "server/platform/permit-mint.ts": `${importing("./other.ts")}export type Nothing = 0;\n`,
    "server/platform/other.ts": `${typeImporting("./permit.ts")}${empty}`,
    "server/ghostwarden/warden.ts": importing("../platform/permit-mint.ts"),
    "server/ghostllm/brain.ts": typeImporting("../platform/permit.ts"),
    "server/ghostllm/providers/a.ts": importing("../../platform/secrets.ts"),
    "server/platform/secrets.ts": 'import { readFileSync } from "node:fs";\nexport const nothing = readFileSync;\n',
    "server/platform/adapters/keyring-child.ts": 'import "@napi-rs/keyring";\n',
    "server/ghostllm/a.test.ts": 'import "node:fs";\nimport "../ghostwarden/warden.ts";\n',
    "server/daemon/http/http-server.ts":
      'import { createServer } from "node:http";\nimport fastify from "fastify";\nexport const all = [createServer, fastify];\n',
    "server/daemon/a.ts": importing("../../protocol/ghost-client.ts"),
    "protocol/ghost-client.ts": empty,
    "server/ghostllm/session/row.ts": importing("../../../protocol/chat.ts"),
    "clients/cli/a.ts": `${importing("../../protocol/chat.ts")}import "node:fs";\n`,
    "bench/main.ts": 'import "../server/ghostllm/providers/a.ts";\n',
  };
  const { violations, modules } = await cruiseSources(new Map(Object.entries(allowed)), rules);
  assert.deepEqual(violations.map(describe), []);
  assert.equal(modules.length, Object.keys(allowed).length);
});

function describe({ rule, from, to }: Violation): string {
  return `${rule}: ${from} -> ${to}`;
}

/** docs/providers.md names every provider that there is, as it is set up: its settings make a daemon, and each key that it tells to store has a place. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { keyListResult, keySetResult } from "../protocol/key.ts";
import { configSchema } from "../server/platform/config/schema.ts";
import { root } from "../tools/source-files.ts";
import { runGhost } from "./support/cli.ts";
import { startTestDaemon } from "./support/daemon.ts";

const text = readFileSync(join(root, "docs/providers.md"), "utf8");
const blocks = [...text.matchAll(/^```(\w+)\n([^]*?)^```$/gm)].map(({ 1: language = "", 2: content = "" }) => ({
  language,
  content,
}));
const settings = blocks.filter(({ language }) => language === "toml").map(({ content }) => content);
const named = [...text.matchAll(/^ghost keys set (\w+)/gm)].map(({ 1: name = "" }) => name);

test("its settings together are a ghost.toml, and every key that it tells to store is stored", async () => {
  assert.ok(settings.length >= 7 && new Set(named).size >= 6, "the page has lost its settings");
  await using daemon = await startTestDaemon({ config: settings.join("\n") });
  const stdin = `sk-${"0123456789abcdef".repeat(2)}`;
  for (const name of new Set(named)) {
    const { code, stdout, stderr } = await runGhost(["keys", "set", name, "--json"], { env: daemon.env, stdin });
    assert.equal(code, 0, stderr);
    assert.equal(keySetResult.parse(JSON.parse(stdout)).row.provider, name);
  }
  const { rows } = keyListResult.parse(JSON.parse((await runGhost(["keys", "--json"], { env: daemon.env })).stdout));
  const missing = rows.filter(({ source }) => source === "none").map(({ provider }) => provider);
  assert.deepEqual(
    missing.filter((provider) => provider !== "lmstudio"),
    [],
    "the page does not tell how to give these a key",
  );
});

test("every section of the settings is a provider of the page, with its variable", () => {
  const sections = Object.keys(configSchema.shape.providers.unwrap().shape);
  assert.ok(sections.length >= 10);
  for (const section of sections) {
    const isNamed = text.includes(`[providers.${section}`) || named.includes(section);
    assert.ok(isNamed, `nothing about [providers.${section}]`);
  }
  for (const [, variable = ""] of text.matchAll(/`([A-Z_]+_API_KEY)`/g)) {
    const isKnown = readFileSync(join(root, "docs/configuration.md"), "utf8").includes(variable);
    assert.ok(isKnown || ["OPENROUTER_API_KEY", "GOOGLE_API_KEY"].includes(variable), variable);
  }
});

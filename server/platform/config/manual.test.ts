import assert from "node:assert/strict";
import { test } from "node:test";
import { listSettings, loadConfig } from "./load.ts";
import { renderConfigurationManual } from "./manual.ts";

const manual = renderConfigurationManual();
const load = (text: string) => loadConfig({ text, file: "ghost.toml", overrides: {} });
const examples = [...manual.matchAll(/```toml\n([\s\S]*?)```/g)]
  .map((match) => match[1] ?? "")
  .filter((text) => !text.includes("[capabilities]"));

test("every example of the manual is accepted, and together they set each setting once", () => {
  assert.ok(examples.length >= 9, `found ${examples.length} examples`);
  for (const example of examples) load(example);
  const { sources } = load(examples.join("\n"));
  const defaults = [...sources].filter(([, source]) => source === "default").map(([path]) => path);
  assert.deepEqual(defaults, []);
});

test("every setting stands in the manual with its default", () => {
  const settings = listSettings(load(examples.join("\n")));
  assert.ok(settings.length > 25);
  for (const { path } of settings) {
    // The names that the examples choose themselves are not settings.
    const name =
      path
        .replace(/\.(code|"?fast-code"?|"?deepseek-coder-v2"?|qwen-coder|my-gpt)$/, "")
        .split(".")
        .at(-1) ?? "";
    assert.ok(manual.includes(`\n| \`${name}\` |`), path);
  }
  assert.match(manual, /\| `port` \| a whole number from 0 to 65535 \| `4747` \|/);
  assert.match(manual, /\| `idle_timeout_s` \|[^|]*\| `120` \| seconds \|/);
});

test("the manual is the same every time", () => {
  assert.equal(renderConfigurationManual(), manual);
});

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";

/** Makes objects of which some outlive a collection, and prints how large the young generation has become. */
const CHURN = `
  const { boundYoungGeneration } = await import(process.argv[1]);
  const { getHeapSpaceStatistics } = await import("node:v8");
  const bound = process.argv[2] === "bounded" ? boundYoungGeneration() : undefined;
  const kept = [];
  for (let round = 0; round < 200; round += 1) {
    for (let index = 0; index < 20_000; index += 1) kept[index] = { index, list: [index] };
    await new Promise((resolve) => setImmediate(resolve));
  }
  console.log(getHeapSpaceStatistics().find((space) => space.space_name === "new_space").space_size);
  bound?.[Symbol.dispose]();
`;

function youngBytes(how: "bounded" | "free"): number {
  const file = new URL("./young-generation.ts", import.meta.url).href;
  return Number(execFileSync(process.execPath, ["--input-type=module", "-e", CHURN, file, how], { encoding: "utf8" }));
}

test("the young generation grows to its bound and not beyond", () => {
  const MIB = 1024 * 1024;
  const bounded = youngBytes("bounded");
  assert.ok(bounded > 4 * MIB, `it did not grow: ${bounded}`);
  // One collection may pass before the bound is noticed.
  assert.ok(bounded <= 64 * MIB, `${bounded} bytes`);
  assert.ok(youngBytes("free") > bounded, "without the bound it is larger, or this test shows nothing");
});

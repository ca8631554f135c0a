import assert from "node:assert/strict";
import { test } from "node:test";
import { isListed, literalNames } from "./model-patterns.ts";

test("a star stands for anything, everything else for itself", () => {
  assert.equal(isListed("claude-opus-4-8", undefined), true);
  assert.equal(isListed("claude-opus-4-8", ["gpt-*", "claude-*"]), true);
  assert.equal(isListed("Claude-Opus", ["claude-opus"]), true);
  assert.equal(isListed("claude-opus-4-8", ["claude-opus", "*-4-9", "claude.opus*", "[a-z]*"]), false);
  assert.equal(isListed("a+b(c)", ["a+b(c)"]), true);
  assert.deepEqual(literalNames(["a", "b-*", "c"]), ["a", "c"]);
});

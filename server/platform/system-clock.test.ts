import assert from "node:assert/strict";
import { test } from "node:test";
import { systemIds } from "./system-clock.ts";

test("ids are all different and well formed, also where the pool of randomness is filled again", () => {
  const ids = Array.from({ length: 5_000 }, () => systemIds.next("ans"));
  assert.equal(new Set(ids.map((id) => id.slice(-16))).size, ids.length);
  for (const id of ids) assert.match(id, /^ans_[0-9A-HJKMNP-TV-Z]{26}$/);
});

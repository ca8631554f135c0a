import assert from "node:assert/strict";
import { appendFileSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { test } from "node:test";
import { testFolder } from "../../../test/support/folder.ts";
import { openHistory } from "./history.ts";

const unexpected = (problem: string) => assert.fail(problem);

test("what was typed comes back, the latest first, from a file that only its owner reads", () => {
  using folder = testFolder();
  const file = folder.join("history");
  const first = openHistory(file, unexpected);
  first.add("one");
  first.add("two\nlines");
  first.add("two\nlines");
  assert.deepEqual(openHistory(file, unexpected).lines, ["two lines", "one"]);
  assert.equal(statSync(file).mode & 0o777, 0o600);
});

test("half a line of a program that was killed costs that line only", () => {
  using folder = testFolder();
  const file = folder.join("history");
  openHistory(file, unexpected).add("kept");
  appendFileSync(file, '"half');
  assert.deepEqual(openHistory(file, unexpected).lines, ["kept"]);
});

test("a file beyond the limit is shortened at the next start", () => {
  using folder = testFolder();
  const file = folder.join("history");
  const history = openHistory(file, unexpected);
  for (let index = 0; index < 1010; index += 1) history.add(`line ${index}`);
  const { lines } = openHistory(file, unexpected);
  assert.equal(lines.length, 1000);
  assert.equal(lines[0], "line 1009");
  assert.equal(readFileSync(file, "utf8").split("\n").length, 1001);
});

test("a file that cannot be written is told once, and the history goes on in memory", () => {
  using folder = testFolder();
  const file = folder.join("history");
  mkdirSync(file);
  const problems: string[] = [];
  const history = openHistory(file, (problem) => problems.push(problem));
  history.add("one");
  history.add("two");
  assert.deepEqual(history.lines, ["two", "one"]);
  assert.equal(problems.length, 1);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { GhostApiError } from "../../../protocol/errors.ts";
import { findCursor, parsePlace } from "./complete.ts";

test("a place is a file, a line of it, or a column of that line; other colons belong to the name", () => {
  assert.deepEqual(parsePlace("a.ts"), { file: "a.ts", line: undefined, column: undefined });
  assert.deepEqual(parsePlace("a.ts:3"), { file: "a.ts", line: 3, column: undefined });
  assert.deepEqual(parsePlace("a.ts:3:7"), { file: "a.ts", line: 3, column: 7 });
  assert.deepEqual(parsePlace("odd:name.ts:3"), { file: "odd:name.ts", line: 3, column: undefined });
  assert.deepEqual(parsePlace("odd:name"), { file: "odd:name", line: undefined, column: undefined });
});

test("a line without a column means its end, before any line break", () => {
  const text = "one\ntwo\r\n\nfour";
  const rest = (line?: number, column?: number) => text.slice(findCursor(text, line, column, "f"));
  assert.equal(rest(), "");
  assert.equal(rest(1), "\ntwo\r\n\nfour");
  assert.equal(rest(2), "\r\n\nfour");
  assert.equal(rest(3), "\nfour");
  assert.equal(rest(2, 1), "two\r\n\nfour");
  assert.equal(rest(2, 4), "\r\n\nfour");
  assert.equal(rest(4), "");
});

test("a place that the file does not have is a usage error that says what it has", () => {
  const refused = (line: number, column: number | undefined, message: RegExp) =>
    assert.throws(
      () => findCursor("one\ntwo", line, column, "f.ts"),
      (error) => error instanceof GhostApiError && error.code === "usage" && message.test(error.message),
    );
  refused(3, undefined, /f\.ts has only 2 lines/);
  refused(0, undefined, /count from 1/);
  refused(1, 5, /columns 1 to 4/);
  refused(1, 0, /columns 1 to 4/);
});

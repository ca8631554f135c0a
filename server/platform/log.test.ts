import assert from "node:assert/strict";
import { mkdirSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { type TestFolder, testFolder } from "../../test/support/folder.ts";
import { OperationalError, UserError } from "../base/errors.ts";
import { openLog } from "./log.ts";
import { StandingPermit } from "./permit-mint.ts";
import { systemClock } from "./system-clock.ts";

function logIn(folder: TestFolder, maxBytes?: number) {
  const file = folder.join("ghostd.log");
  const permit = new StandingPermit("test", [
    { capability: "fs.write", resource: { kind: "path", path: folder.path } },
  ]);
  const options = { file, level: "debug", clock: systemClock } as const;
  return openLog(permit, maxBytes === undefined ? options : { ...options, maxBytes });
}
const lines = (file: string) => readFileSync(file, "utf8").trimEnd().split("\n");

test("a line is one JSON object, errors have their code and their causes, and secrets are blanked out", () => {
  using folder = testFolder();
  using log = logIn(folder);
  log.redact("very-secret-text");
  const cause = new Error("the disk says very-secret-text");
  log.warn({ event: "it.failed", error: new OperationalError("storage_full", "no room", { cause }) });
  const [line = ""] = lines(log.file);
  const parsed: unknown = JSON.parse(line);
  assert.ok(typeof parsed === "object" && parsed !== null && "error" in parsed && "level" in parsed);
  assert.equal(parsed.level, "warn");
  assert.match(JSON.stringify(parsed.error), /"code":"storage_full".*"message":"the disk says \[secret\]"/);
  assert.equal(statSync(log.file).mode & 0o777, 0o600);
});

test("a secret that begins with another is blanked out whole", () => {
  using folder = testFolder();
  using log = logIn(folder);
  for (const secret of ["very-secret", "very-secret-text"]) log.redact(secret);
  log.info({ event: "told", text: "very-secret-text very-secret" });
  assert.match(lines(log.file)[0] ?? "", /"text":"\[secret\] \[secret\]"/);
});

test("a full file is moved aside once, and no line is lost", () => {
  using folder = testFolder();
  using log = logIn(folder, 1500);
  for (let number = 0; number < 20; number += 1) log.info({ event: "counted", number, text: "x".repeat(30) });
  const all = [...lines(`${log.file}.1`), ...lines(log.file)];
  assert.deepEqual(
    all.map((line) => Number(/"number":(\d+)/.exec(line)?.[1])),
    Array.from({ length: 20 }, (_, number) => number),
  );
});

test("a file that cannot be moved aside grows on, and the descriptor stays the log's own", () => {
  using folder = testFolder();
  using log = logIn(folder, 100);
  mkdirSync(`${log.file}.1`);
  for (let number = 0; number < 5; number += 1) log.info({ event: "counted", number, text: "x".repeat(100) });
  // Would get the number of a descriptor that was closed by mistake.
  const other = folder.join("other");
  openSync(other, "w");
  log.info({ event: "counted", number: 5 });
  assert.equal(readFileSync(other, "utf8"), "");
  assert.equal(lines(log.file).length, 6);
});

test("what cannot be written as JSON still leaves a line", () => {
  using folder = testFolder();
  using log = logIn(folder);
  const circle: { self?: unknown } = {};
  circle.self = circle;
  log.error({ event: "odd", error: new Error("odd", { cause: circle }) });
  log.error({ event: "big", size: 1n });
  assert.deepEqual(
    lines(log.file).map((line) => /"event":"(\w+)"/.exec(line)?.[1]),
    ["odd", "big"],
  );
});

test("after its end a log writes nowhere", () => {
  using folder = testFolder();
  const log = logIn(folder);
  log[Symbol.dispose]();
  const other = folder.join("other");
  openSync(other, "w");
  log.info({ event: "late" });
  log[Symbol.dispose]();
  writeFileSync(folder.join("third"), "");
  assert.equal(readFileSync(other, "utf8"), "");
});

test("a log that cannot be opened is an error for people", () => {
  using folder = testFolder();
  mkdirSync(folder.join("ghostd.log"));
  assert.throws(
    () => logIn(folder),
    (error) => error instanceof UserError && error.code === "folder_unusable" && error.message.includes("ghostd.log"),
  );
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { asCalled, commandName } from "./invocation.ts";

const NPX = { npm_lifecycle_event: "npx", npm_execpath: "/usr/lib/node_modules/npm/bin/npm-cli.js" };

test("under npm the program is `npx ghost`, else `ghost`", () => {
  assert.equal(commandName({}), "ghost");
  assert.equal(commandName(NPX), "npx ghost");
  assert.equal(commandName({ npm_execpath: "/npm-cli.js" }), "npx ghost");
});

test("commands are written as the program was called, and other mentions of its name stay", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["ghost start --port 0", "npx ghost start --port 0"],
    ["Start it with `ghost start` or `npm start`.", "Start it with `npx ghost start` or `npm start`."],
    ["git diff | ghost chat x\n  ghost doctor", "git diff | npx ghost chat x\n  npx ghost doctor"],
    ['eval "$(ghost env)"', 'eval "$(npx ghost env)"'],
    ["(`ghost --help` shows all)", "(`npx ghost --help` shows all)"],
    ["`npx ghost doctor`", "`npx ghost doctor`"],
    ["editors and `ghost`, a ghost in the shell", "editors and `ghost`, a ghost in the shell"],
  ];
  for (const [text, expected] of cases) {
    assert.equal(asCalled(text, NPX), expected);
    assert.equal(asCalled(text, {}), text);
  }
});

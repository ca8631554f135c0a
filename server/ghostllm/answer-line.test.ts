import assert from "node:assert/strict";
import { test } from "node:test";
import { answerIdSchema, clientIdSchema, modelRefSchema, userIdSchema } from "../../protocol/ids.ts";
import type { LogFields } from "../platform/log.ts";
import { systemClock } from "../platform/system-clock.ts";
import { AnswerLine } from "./answer-line.ts";
import { eventsFrame, type StreamEvent } from "./stream.ts";

const actor = {
  userId: userIdSchema.parse("local"),
  client: clientIdSchema.parse("desk"),
  via: { kind: "api", id: "1" },
} as const;

test("usage counts where servers write it: in the first frame and in one of the last", () => {
  const lines: LogFields[] = [];
  const log = { debug() {}, info: (fields: LogFields) => void lines.push(fields), warn() {}, error() {} };
  const line = new AnswerLine(
    { log, clock: systemClock },
    { answer: answerIdSchema.parse("ans_1"), actor, target: "x" },
  );
  line.opened(modelRefSchema.parse("up/m"));
  const said: readonly StreamEvent[] = [
    { kind: "usage", usage: { promptTokens: 7 } },
    ...Array.from({ length: 50 }, (): StreamEvent => ({ kind: "text", text: "word " })),
    { kind: "usage", usage: { completionTokens: 50 } },
    { kind: "finish", reason: "stop" },
  ];
  for (const event of said) line.passed(eventsFrame([event]));
  line.ended({ state: "complete" });
  assert.deepEqual(
    lines.map(({ event, state, promptTokens, completionTokens }) => [event, state, promptTokens, completionTokens]),
    [["answer.ended", "complete", 7, 50]],
  );
});

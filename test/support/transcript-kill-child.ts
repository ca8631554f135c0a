/**
 * The process that `transcript-kill.test.ts` kills: it streams answers into a transcript, several at a time, and prints each thing only after it
 * was recorded, as the daemon sends it only then. Lines: `b <answer> <question>`, `t <answer> <text>`, `e <answer>`.
 */
import { writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import {
  actorOf,
  ada,
  assistant,
  bodyOf,
  DECISION,
  MODEL,
  newAnswerId,
  openTranscriptAt,
  textFrame,
  type Turn,
  user,
} from "./transcript.ts";

const [folder = "", seedText = "1"] = process.argv.slice(2);
let state = Number(seedText) || 1;
/** xorshift32: the parent prints the seed. */
const random = (below: number): number => {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
};
const print = (line: string) => writeSync(1, `${line}\n`);
const turnOfLoop = () => new Promise<void>((resolve) => setImmediate(resolve));

const { transcript } = await openTranscriptAt(folder, { segmentBytes: 16 * 1024 });
print("ready");

/** One conversation after the other. The slow ones' answers live while many segments of the spool come and go. */
async function converse(name: string, isSlow: boolean): Promise<never> {
  let turns: Turn[] = [];
  for (let count = 0; ; count += 1) {
    if (random(4) === 0) turns = turns.slice(0, random(3) * 2);
    const question = `${name}/${count}`;
    turns.push(user(random(40) === 0 ? `${question} ${"L".repeat(300_000)}` : question));
    const answerId = newAnswerId();
    const isShownWhole = random(4) === 0;
    const recording = await transcript.begin({
      answerId,
      actor: actorOf(ada),
      task: "chat",
      target: "ghost/auto",
      request: { kind: "body", dialect: "openai-chat", body: bodyOf(turns) },
      isShownWhole,
    });
    // A model takes its time; then whoever asked may know that it answers.
    if (random(2) === 0) await turnOfLoop();
    recording.opened(MODEL, DECISION);
    if (!isShownWhole) print(`b ${answerId} ${question}`);
    let answer = "";
    for (let piece = random(60); piece >= 0; piece -= 1) {
      const text = `${piece}:${"x".repeat(random(200))};`;
      recording.record(textFrame(text));
      if (!isShownWhole) print(`t ${answerId} ${text}`);
      answer += text;
      if (isSlow) await sleep(4);
      else if (random(3) === 0) await turnOfLoop();
    }
    recording.end({ state: "complete" });
    if (isShownWhole) print(`b ${answerId} ${question}\nt ${answerId} ${answer}`);
    print(`e ${answerId}`);
    turns.push(assistant(answer));
    if (turns.length > 12 || turns.some(({ content }) => content.length > 100_000)) turns = [];
    await turnOfLoop();
  }
}

await Promise.all(Array.from({ length: 6 }, (_, index) => converse(`${seedText}-${index}`, index < 2)));

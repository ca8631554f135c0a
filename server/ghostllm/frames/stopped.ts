/**
 * Stop strings for upstreams that have none: the text is cut here, and the upstream stopped.
 * What may be the beginning of a stop string waits for what follows it.
 */
import { eventsFrame, type Frame, type StreamEvent } from "../stream.ts";
import { StopMatcher } from "./stop-matcher.ts";

/** The frames up to the first of `stops`, which ends them as the model's own end would. */
export async function* stopAt(frames: AsyncIterable<Frame>, stops: readonly string[]): AsyncGenerator<Frame> {
  const matcher = new StopMatcher(stops);
  for await (const frame of frames) {
    const events = cut(frame.events(), matcher);
    if (events.length > 0) yield eventsFrame(events);
    // Leaving the loop ends the upstream.
    if (matcher.stopped) return;
  }
  const rest = matcher.end();
  if (rest !== "") yield eventsFrame([{ kind: "text", text: rest }]);
}

function cut(events: readonly StreamEvent[], matcher: StopMatcher): readonly StreamEvent[] {
  const kept: StreamEvent[] = [];
  const keep = (text: string) => (text === "" ? undefined : kept.push({ kind: "text", text }));
  for (const event of events) {
    if (event.kind !== "text") {
      // Another block, or the end, cannot complete a stop string.
      if (event.kind !== "usage") keep(matcher.end());
      kept.push(event);
      continue;
    }
    keep(matcher.push(event.text));
    if (!matcher.stopped) continue;
    // What the server said behind the cut in the same breath is no longer part of the answer, but for what it cost.
    kept.push(...events.filter(({ kind }) => kind === "usage"), { kind: "finish", reason: "stop" });
    return kept;
  }
  return kept;
}

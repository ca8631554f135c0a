/** What is piped into a command. */
import { failure, type Output } from "./output.ts";

/** What the daemon takes in one message (chat.ts in protocol/), with room for a prompt before it. */
const MAX_CHARACTERS = 4_000_000;
/** Somebody who pipes nothing and does not close the pipe would wait without knowing why. */
const SILENCE_MS = 3000;

/** The whole of stdin as text. @throws GhostApiError `usage` when it is too long for one message. */
export async function readStdin(output: Output, signal: AbortSignal): Promise<string> {
  const silence = setTimeout(() => {
    output.note("reading standard input to its end; redirect it from /dev/null if there is nothing to add");
  }, SILENCE_MS);
  const abort = () => process.stdin.destroy();
  signal.addEventListener("abort", abort, { once: true });
  try {
    let text = "";
    process.stdin.setEncoding("utf8");
    for await (const chunk of process.stdin) {
      clearTimeout(silence);
      text += String(chunk);
      if (text.length > MAX_CHARACTERS) {
        throw failure("usage", `standard input is longer than one message may be (${MAX_CHARACTERS} characters)`);
      }
    }
    return text;
  } finally {
    clearTimeout(silence);
    signal.removeEventListener("abort", abort);
  }
}

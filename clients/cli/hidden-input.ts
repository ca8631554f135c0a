/**
 * A secret typed or pasted at a terminal: nothing of it is shown, and the terminal is left as it was found.
 * Enter ends it; Backspace and Ctrl-U take back; Ctrl-C cancels; Ctrl-D on an empty line is no answer.
 */
import type { CliContext } from "./context.ts";
import { failure } from "./output.ts";

/** Longer than any key; a cat on the keyboard stops here. */
const MAX_CHARACTERS = 16_384;
/** What terminals put around a paste, and what arrow keys send: never part of a key. */
// oxlint-disable-next-line no-control-regex -- matching control sequences is the purpose.
const SEQUENCES = /\u001b(\[[0-9;?]*[ -/]*[@-~]|O.|.)/g;

/** Undefined for no answer. The prompt goes to stderr, so that stdout holds results only. @throws GhostApiError `cancelled` */
export async function askHidden(
  prompt: string,
  { signal, interrupts }: Pick<CliContext, "signal" | "interrupts">,
): Promise<string | undefined> {
  const { stdin, stderr } = process;
  stderr.write(prompt);
  const typed = Promise.withResolvers<string | undefined>();
  let text = "";
  const take = (chunk: Buffer) => {
    for (const character of chunk.toString("utf8").replaceAll(SEQUENCES, "")) {
      if (character === "\r" || character === "\n") return typed.resolve(text);
      // The terminal sends no signal while it is raw.
      if (character === "\u0003") return interrupts.raise();
      if (character === "\u0004" && text === "") return typed.resolve(undefined);
      if (character === "\u007f" || character === "\b") text = text.slice(0, -1);
      else if (character === "\u0015") text = "";
      else if (character >= " ") text = (text + character).slice(0, MAX_CHARACTERS);
    }
  };
  const abort = () => typed.reject(failure("cancelled", "nothing was typed to its end"));
  signal.addEventListener("abort", abort, { once: true });
  stdin.setRawMode(true);
  stdin.on("data", take);
  stdin.on("end", abort);
  stdin.resume();
  try {
    return await typed.promise;
  } finally {
    stdin.off("data", take);
    stdin.off("end", abort);
    stdin.setRawMode(false);
    stdin.pause();
    signal.removeEventListener("abort", abort);
    stderr.write("\n");
  }
}

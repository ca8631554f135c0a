/**
 * The keyboard of a terminal, in one of three states: nobody reads it (idle), a line is being typed, or single keys count.
 *
 * 1. What is typed while an answer streams is kept and stands on the next line.
 * 2. A pasted text of several lines is one message: with bracketed paste, and where a terminal has none, when the lines arrive in one piece.
 * 3. A question may come while a line is typed; the line is put away and comes back.
 * 4. Disposing leaves the terminal as it was found.
 */
import { createInterface, emitKeypressEvents, type Interface } from "node:readline";

/** What is typed ahead; a cat on the keyboard stops here. */
const MAX_TYPED_AHEAD = 4096;
const BRACKETED_PASTE_ON = "\u001b[?2004h";
const BRACKETED_PASTE_OFF = "\u001b[?2004l";

export type LineEvent =
  | { readonly kind: "message"; readonly text: string }
  /** Ctrl-C; `wasEmpty`: nothing had been typed. */
  | { readonly kind: "interrupt"; readonly wasEmpty: boolean }
  /** Ctrl-D on an empty line, or the end of the input. */
  | { readonly kind: "end" };

interface Key {
  readonly name?: string | undefined;
  readonly ctrl?: boolean | undefined;
}

export interface TerminalInput extends Disposable {
  /** Reads one message. `history` holds earlier lines, the latest first. */
  readMessage(prompt: string, history: readonly string[]): Promise<LineEvent>;
  /** Until disposed: Ctrl-C calls `onInterrupt`, and other keys are kept for the next line (1). */
  watchKeys(onInterrupt: () => void): Disposable;
  /**
   * Shows a question and waits for one of `keys`; undefined when the signal aborts first, or when the user leaves it with Escape (or, where a line
   * is being typed, Ctrl-C). What is settled already is not shown.
   */
  askKey(showQuestion: () => void, keys: readonly string[], signal: AbortSignal): Promise<string | undefined>;
}

/** Takes stdin, which must be a terminal. `onInterrupt` is called for a Ctrl-C while only a question is open. */
export function createTerminalInput(onInterrupt: () => void): TerminalInput {
  return new Keyboard(onInterrupt);
}

interface OpenLine {
  readonly prompt: string;
  readonly history: readonly string[];
  readonly settle: (event: LineEvent) => void;
  /** The finished lines of a message that has several. */
  readonly lines: string[];
  reader: Interface | undefined;
}

class Keyboard implements TerminalInput {
  readonly #onInterrupt: () => void;
  #line: OpenLine | undefined;
  #isPasting = false;
  #typedAhead = "";
  #keyWatcher: (() => void) | undefined;
  #question: ((key: string | undefined) => void) | undefined;

  constructor(onInterrupt: () => void) {
    this.#onInterrupt = onInterrupt;
    emitKeypressEvents(process.stdin);
  }

  readMessage(prompt: string, history: readonly string[]): Promise<LineEvent> {
    return new Promise((resolve) => {
      const settle = (event: LineEvent) => {
        this.#closeReader();
        this.#line = undefined;
        resolve(event);
      };
      this.#line = { prompt, history, settle, lines: [], reader: undefined };
      this.#openReader(this.#line);
      const ahead = this.#typedAhead;
      this.#typedAhead = "";
      if (ahead !== "") this.#line.reader?.write(ahead);
    });
  }

  watchKeys(onInterrupt: () => void): Disposable {
    this.#keyWatcher = onInterrupt;
    this.#listen();
    return {
      [Symbol.dispose]: () => {
        this.#keyWatcher = undefined;
        this.#rest();
      },
    };
  }

  async askKey(showQuestion: () => void, keys: readonly string[], signal: AbortSignal): Promise<string | undefined> {
    if (signal.aborted) return undefined;
    const line = this.#line;
    const typed = line?.reader?.line ?? "";
    if (line?.reader !== undefined) {
      this.#closeReader();
      process.stdout.write("\n");
    }
    showQuestion();
    this.#listen();
    const answer = await new Promise<string | undefined>((resolve) => {
      signal.addEventListener("abort", () => resolve(undefined), { once: true });
      this.#question = (key) => {
        if (key === undefined || keys.includes(key)) resolve(key);
      };
    });
    this.#question = undefined;
    this.#rest();
    if (line !== undefined && line === this.#line) {
      this.#openReader(line);
      if (typed !== "") line.reader?.write(typed);
    }
    return answer;
  }

  [Symbol.dispose](): void {
    this.#closeReader();
    this.#line = undefined;
    this.#keyWatcher = undefined;
    this.#question = undefined;
    this.#rest();
  }

  #openReader(line: OpenLine): void {
    const reader = createInterface({
      input: process.stdin,
      output: process.stdout,
      terminal: true,
      prompt: line.prompt,
      history: [...line.history],
      historySize: Math.max(1, line.history.length),
      removeHistoryDuplicates: true,
    });
    line.reader = reader;
    process.stdout.write(BRACKETED_PASTE_ON);
    process.stdin.on("keypress", this.#onPasteKey);
    reader.on("line", (text) => this.#takeLine(line, reader, text));
    reader.on("SIGINT", () => {
      const wasEmpty = reader.line === "" && line.lines.length === 0;
      process.stdout.write("\n");
      line.settle({ kind: "interrupt", wasEmpty });
    });
    reader.on("close", () => {
      if (line.reader === reader) line.settle({ kind: "end" });
    });
    reader.prompt();
  }

  #closeReader(): void {
    const reader = this.#line?.reader;
    if (this.#line === undefined || reader === undefined) return;
    this.#line.reader = undefined;
    process.stdin.off("keypress", this.#onPasteKey);
    this.#isPasting = false;
    process.stdout.write(BRACKETED_PASTE_OFF);
    reader.close();
  }

  /** (2) The lines of a paste come in one turn of the event loop, those of a person in many. */
  #takeLine(line: OpenLine, reader: Interface, text: string): void {
    line.lines.push(text);
    reader.setPrompt("… ");
    if (this.#isPasting) {
      reader.prompt();
      return;
    }
    if (line.lines.length > 1 && reader.line === "") reader.prompt();
    const count = line.lines.length;
    setImmediate(() => {
      const isLast = line.reader === reader && count === line.lines.length;
      if (!isLast || this.#isPasting) return;
      if (reader.line !== "") return reader.prompt(true);
      line.settle({ kind: "message", text: line.lines.join("\n") });
    });
  }

  readonly #onPasteKey = (_text: string | undefined, key: Key) => {
    if (key.name === "paste-start") this.#isPasting = true;
    if (key.name === "paste-end") this.#isPasting = false;
  };

  readonly #onKey = (text: string | undefined, key: Key) => {
    if (key.ctrl === true && key.name === "c") return this.#interrupt();
    if (this.#question !== undefined)
      return this.#question(key.name === "escape" ? undefined : (text ?? "").toLowerCase());
    if (text !== undefined && this.#typedAhead.length + text.length <= MAX_TYPED_AHEAD) this.#typedAhead += text;
  };

  #interrupt(): void {
    if (this.#keyWatcher !== undefined) this.#keyWatcher();
    else if (this.#line !== undefined) this.#question?.(undefined);
    else this.#onInterrupt();
  }

  /** Single keys count from now on. */
  #listen(): void {
    process.stdin.off("keypress", this.#onKey);
    process.stdin.on("keypress", this.#onKey);
    process.stdin.setRawMode(true);
    process.stdin.resume();
  }

  /** Nobody reads any more, unless a watcher is left. */
  #rest(): void {
    if (this.#keyWatcher !== undefined) return;
    process.stdin.off("keypress", this.#onKey);
    process.stdin.setRawMode(false);
    process.stdin.pause();
  }
}

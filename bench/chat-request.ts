/** The bytes of the benchmark's chat requests, and the reading of what comes back in streams. */

/** Where requests go, and what they need there. */
export interface TargetAddress {
  readonly port: number;
  /** Sent as `Authorization: Bearer`; absent where none is asked for. */
  readonly key?: string;
  /** Put before the model's name: `bench/` for ghostd. */
  readonly modelPrefix: string;
}

const COUNTER_DIGITS = 10;
/** Prose and code, so that the JSON has the escapes that real prompts have. */
const FILLER =
  'Explain this function, please.\nfunction add(left: number, right: number) {\n\tconst name = "sum";\n\treturn left + right;\n}\n';

/**
 * Makes requests that differ in a number at the beginning of the prompt: no two are equal, as no two are in life, and nothing can
 * answer one from what it kept of another.
 */
export class RequestMaker {
  readonly #bytes: Buffer;
  readonly #counterAt: number;
  static #next = Math.floor(Math.random() * 1e9);

  constructor(
    target: TargetAddress,
    options: { readonly model: string; readonly promptBytes: number; readonly stream: boolean },
  ) {
    const counter = "0".repeat(COUNTER_DIGITS);
    const length = Math.max(0, options.promptBytes - COUNTER_DIGITS - 1);
    const prompt = `${counter} ${FILLER.repeat(Math.ceil(length / FILLER.length)).slice(0, length)}`;
    const body = JSON.stringify({
      model: target.modelPrefix + options.model,
      messages: [{ role: "user", content: prompt }],
      ...(options.stream ? { stream: true } : {}),
    });
    const head = [
      "POST /v1/chat/completions HTTP/1.1",
      `host: 127.0.0.1:${target.port}`,
      "content-type: application/json",
      `content-length: ${Buffer.byteLength(body)}`,
      ...(target.key === undefined ? [] : [`authorization: Bearer ${target.key}`]),
      "",
      "",
    ].join("\r\n");
    this.#bytes = Buffer.from(head + body);
    this.#counterAt = this.#bytes.indexOf(`"${counter} `) + 1;
  }

  make(): Buffer {
    RequestMaker.#next += 1;
    const bytes = Buffer.from(this.#bytes);
    bytes.write(String(RequestMaker.#next).padStart(COUNTER_DIGITS, "0"), this.#counterAt, COUNTER_DIGITS, "latin1");
    return bytes;
  }
}

/** Reads the numbered and stamped deltas of the benchmark host out of a stream, however it is cut into pieces. */
export class DeltaReader {
  #rest = "";
  /** Deltas that came, in whatever order. */
  count = 0;
  /** Deltas that did not follow the one before: lost, doubled or out of order. */
  misplaced = 0;
  isDone = false;
  error: string | undefined;
  readonly #onDelta: (sentAtUs: number) => void;

  constructor(onDelta: (sentAtUs: number) => void) {
    this.#onDelta = onDelta;
  }

  read(chunk: Buffer): void {
    const lines = (this.#rest + chunk.toString("latin1")).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#readLine(line);
  }

  #readLine(line: string): void {
    if (!line.startsWith("data:")) return;
    const stamp = /"content":"(\d{6}) (\d{16}) /.exec(line);
    if (stamp !== null) {
      if (Number(stamp[1]) !== this.count) this.misplaced += 1;
      this.count += 1;
      this.#onDelta(Number(stamp[2]));
    } else if (line.includes("[DONE]")) {
      this.isDone = true;
    } else if (line.includes('"error"')) {
      this.error = line;
    }
  }
}

/** The bytes of the benchmarks' requests, and the reading of what comes back in streams. */
import {
  type ClientDialect,
  clientRequest,
  type RequestSize,
  STREAM_SIGNS,
  type StreamSigns,
} from "./dialect-request.ts";

/** Where requests go, and what they need there. */
export interface TargetAddress {
  readonly port: number;
  /** Sent as `Authorization: Bearer`; absent where none is asked for. */
  readonly key?: string;
  /** Put before the model's name: `bench/` for ghostd. */
  readonly modelPrefix: string;
  /** Put behind it: the host, where a model is named with it. */
  readonly modelSuffix?: string;
}

const COUNTER_DIGITS = 10;
/** `NNNNNN TTTTTTTTTTTTTTTT `, as the hosts write it. */
const NUMBER_LENGTH = 6;
const STAMP_LENGTH = NUMBER_LENGTH + 1 + 16 + 1;
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
    options: {
      readonly model: string;
      readonly promptBytes: number;
      readonly stream: boolean;
      /** Chat completions where it is not said. */
      readonly dialect?: ClientDialect | undefined;
      /** What is around the prompt; nothing where it is not said. */
      readonly size?: RequestSize | undefined;
    },
  ) {
    const counter = "0".repeat(COUNTER_DIGITS);
    const length = Math.max(0, options.promptBytes - COUNTER_DIGITS - 1);
    const prompt = `${counter} ${FILLER.repeat(Math.ceil(length / FILLER.length)).slice(0, length)}`;
    const { path, headers, ...request } = clientRequest(options.dialect ?? "chat", options.size ?? "small", {
      model: target.modelPrefix + options.model + (target.modelSuffix ?? ""),
      prompt,
      stream: options.stream,
    });
    const body = JSON.stringify(request.body);
    const head = [
      `POST ${path} HTTP/1.1`,
      `host: 127.0.0.1:${target.port}`,
      "content-type: application/json",
      `content-length: ${Buffer.byteLength(body)}`,
      ...(target.key === undefined ? [] : [`authorization: Bearer ${target.key}`]),
      ...Object.entries(headers ?? {}).map(([name, value]) => `${name}: ${value}`),
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

/** Reads the numbered and stamped deltas of the benchmarks' hosts out of a stream of any dialect, however it is cut into pieces. */
export class DeltaReader {
  #rest = "";
  /** Deltas that came, in whatever order. */
  count = 0;
  /** Deltas that did not follow the one before: lost, doubled or out of order. */
  misplaced = 0;
  /** Reads that ended exactly one delta: it came by itself, without waiting for the next. */
  alone = 0;
  isDone = false;
  error: string | undefined;
  readonly #onDelta: (sentAtUs: number) => void;
  readonly #signs: StreamSigns;
  readonly #delta: RegExp;

  constructor(onDelta: (sentAtUs: number) => void, dialect: ClientDialect = "chat") {
    this.#onDelta = onDelta;
    this.#signs = STREAM_SIGNS[dialect];
    this.#delta = new RegExp(`${this.#signs.delta}((?:\\d{6} \\d{16} )+)`);
  }

  read(chunk: Buffer): void {
    const lines = (this.#rest + chunk.toString("latin1")).split("\n");
    this.#rest = lines.pop() ?? "";
    const before = this.count;
    for (const line of lines) this.#readLine(line);
    if (this.count === before + 1) this.alone += 1;
  }

  #readLine(line: string): void {
    // Deltas that came at once may be written as one.
    const stamps = this.#delta.exec(line)?.[1];
    if (stamps !== undefined) {
      for (let at = 0; at < stamps.length; at += STAMP_LENGTH) {
        if (Number(stamps.slice(at, at + NUMBER_LENGTH)) !== this.count) this.misplaced += 1;
        this.count += 1;
        this.#onDelta(Number(stamps.slice(at + NUMBER_LENGTH + 1, at + STAMP_LENGTH - 1)));
      }
    } else if (line.includes(this.#signs.end)) {
      this.isDone = true;
    } else if (line.includes(this.#signs.error)) {
      this.error = line;
    }
  }
}

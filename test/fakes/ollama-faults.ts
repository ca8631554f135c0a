/** What can go wrong on purpose at the fake Ollama host. Each fault happens once unless `times` says otherwise. */

export type FaultRoute = "chat" | "generate" | "embed" | "tags" | "ps" | "show" | "version";

export type FaultKind =
  /** In mid-answer, under status 200. */
  | { readonly kind: "errorLine"; readonly afterTokens: number; readonly text?: string }
  /** The stream ends properly, but without a `done` line. */
  | { readonly kind: "end"; readonly afterTokens: number }
  /** Half of a line, then a proper end. */
  | { readonly kind: "halfLine"; readonly afterTokens: number }
  /** The connection is torn down. */
  | { readonly kind: "reset"; readonly afterTokens: number }
  /** Nothing more comes until `resume()`. */
  | { readonly kind: "hang"; readonly afterTokens: number }
  /** A line that is not UTF-8. */
  | { readonly kind: "invalidUtf8"; readonly afterTokens: number }
  /** A line that is not JSON. */
  | { readonly kind: "garbage"; readonly afterTokens: number }
  /** Every write is cut into pieces of this size. */
  | { readonly kind: "chop"; readonly pieceBytes: number }
  /** What a proxy in front says when it cannot reach the server. */
  | { readonly kind: "html"; readonly status: number }
  | {
      readonly kind: "status";
      readonly status: number;
      readonly body: string;
      readonly headers?: Readonly<Record<string, string>>;
    }
  /** The request is read and never answered. */
  | { readonly kind: "silent" }
  /** The runner process dies while it reads the weights. */
  | { readonly kind: "dieWhileLoading" };

export type Fault = FaultKind & { readonly on?: FaultRoute; readonly model?: string; readonly times?: number };

export class Faults {
  readonly #armed: { readonly fault: Fault; left: number }[] = [];

  inject(fault: Fault): void {
    this.#armed.push({ fault, left: fault.times ?? 1 });
  }

  /** Takes the first fault armed for this place, if any. */
  take<Kind extends FaultKind["kind"]>(
    kinds: readonly Kind[],
    where: { readonly route?: FaultRoute; readonly model?: string },
  ): Extract<FaultKind, { readonly kind: Kind }> | undefined {
    for (const entry of this.#armed) {
      const { fault } = entry;
      if (fault.on !== undefined && where.route !== undefined && fault.on !== where.route) continue;
      if (fault.model !== undefined && fault.model !== where.model) continue;
      if (!isOneOf(fault, kinds)) continue;
      entry.left -= 1;
      if (entry.left <= 0) this.#armed.splice(this.#armed.indexOf(entry), 1);
      return fault;
    }
    return undefined;
  }
}

function isOneOf<Kind extends FaultKind["kind"]>(
  fault: FaultKind,
  kinds: readonly Kind[],
): fault is Extract<FaultKind, { readonly kind: Kind }> {
  return kinds.some((kind) => kind === fault.kind);
}

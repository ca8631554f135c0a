/**
 * One model in memory: its weights, its sequences with what they remember, its embedding context.
 * 1. A sequence keeps the tokens of its last answer, so that the next prompt with the same beginning is not evaluated again.
 * 2. A sequence whose evaluation failed is thrown away: what it remembers is unknown.
 * 3. Answers that run let others in: the library changes what a sequence remembers under a lock that it keeps as long as any answer goes on
 *    evaluating, so everybody asks `turn` before evaluating more.
 */
import {
  type GbnfJsonBasicSchema,
  InsufficientMemoryError,
  JinjaTemplateChatWrapper,
  type Llama,
  type LlamaContext,
  type LlamaContextSequence,
  type LlamaEmbeddingContext,
  type LlamaGrammar,
  LlamaGrammarEvaluationState,
  type LlamaModel,
  type Token,
} from "node-llama-cpp";
import { z } from "zod";
import { BugError, GhostError, OperationalError, UserError } from "../../../base/errors.ts";
import type { EngineGrammar, EngineModel } from "../engine-protocol.ts";

interface PooledSequence {
  sequence: LlamaContextSequence;
  busy: boolean;
  /** When it was used last, by the count of uses. */
  lastUse: number;
}

export interface Lease {
  readonly sequence: LlamaContextSequence;
  /** Gives it back; `broken`: with an unknown state. */
  release(state: "usable" | "broken"): Promise<void>;
}

/** A shorter common beginning is not worth evicting what another conversation left in that sequence. */
const MIN_SHARED_TOKENS = 8;
/** Compiled grammars of one model; a client repeats the same schema, and each may hold some hundred kilobytes. */
const MAX_GRAMMARS = 8;
/** An embedding is evaluated in one batch, whose buffers grow with this number of tokens. */
const MAX_EMBEDDING_TOKENS = 2048;
/** What one evaluation of a piece of a prompt may read from memory: it cannot be interrupted, and with this it takes about 25 ms. */
const CHUNK_WORK_BYTES = 512 * 1024 * 1024;
const MIN_CHUNK_TOKENS = 8;
const MAX_CHUNK_TOKENS = 64;

export class Weights {
  readonly model: LlamaModel;
  readonly spec: EngineModel;
  /** Tokens of prompt and answer together. */
  readonly window: number;
  /** How many tokens of a prompt are evaluated between two looks at the abort signal. */
  readonly chunkTokens: number;
  readonly #llama: Llama;
  readonly #threads: number;
  #context: Promise<LlamaContext> | undefined;
  #embedding: Promise<LlamaEmbeddingContext> | undefined;
  readonly #pool: PooledSequence[] = [];
  readonly #grammars = new Map<string, Promise<LlamaGrammar>>();
  #uses = 0;
  /** Open while somebody changes what a sequence remembers (3). */
  #change: PromiseWithResolvers<void> | undefined;
  #changes = 0;
  #chatWrapper: JinjaTemplateChatWrapper | undefined;

  private constructor(options: { llama: Llama; model: LlamaModel; spec: EngineModel; threads: number }) {
    this.#llama = options.llama;
    this.model = options.model;
    this.spec = options.spec;
    this.#threads = options.threads;
    this.window = Math.min(options.spec.contextSize, options.model.trainContextSize);
    const affordable = Math.floor(CHUNK_WORK_BYTES / Math.max(1, options.model.size));
    this.chunkTokens = Math.max(MIN_CHUNK_TOKENS, Math.min(MAX_CHUNK_TOKENS, affordable));
  }

  /** @throws UserError `weights_corrupt`; OperationalError `no_model_available` without enough memory. */
  static async load(llama: Llama, spec: EngineModel, threads: number): Promise<Weights> {
    const model = await loading(spec.file, () => llama.loadModel({ modelPath: spec.file }));
    return new Weights({ llama, model, spec, threads });
  }

  /** Makes the context for answers, once. */
  async prepare(): Promise<void> {
    this.#context ??= this.#createContext();
    try {
      await this.#context;
    } catch (error) {
      this.#context = undefined;
      throw error;
    }
  }

  /**
   * Renders messages with the template in the weights. (`resolveChatWrapper` would try all wrappers it knows against it, which takes seconds.)
   * @throws UserError `capability_missing` without a template.
   */
  chatWrapper(): JinjaTemplateChatWrapper {
    if (this.#chatWrapper !== undefined) return this.#chatWrapper;
    const template = this.model.fileInfo.metadata.tokenizer.chat_template;
    if (template === undefined) {
      throw new UserError("capability_missing", `${this.spec.file} has no chat template: it can only continue text`);
    }
    const { tokenizer } = this.model;
    this.#chatWrapper = new JinjaTemplateChatWrapper({ template, tokenizer, trimLeadingWhitespaceInResponses: false });
    return this.#chatWrapper;
  }

  /** The free sequence that remembers the longest beginning of `tokens`; else the one that was not used for the longest time. */
  lease(tokens: readonly Token[]): Lease {
    const free = this.#pool.filter((pooled) => !pooled.busy);
    const rated = free.map((pooled) => ({ pooled, shared: sharedTokens(pooled.sequence, tokens) }));
    rated.sort((a, b) => b.shared - a.shared || a.pooled.lastUse - b.pooled.lastUse);
    const best =
      (rated[0]?.shared ?? 0) >= MIN_SHARED_TOKENS
        ? rated[0]?.pooled
        : free.toSorted((a, b) => a.lastUse - b.lastUse)[0];
    if (best === undefined) throw new BugError("internal", "more answers were started than the model has sequences");
    this.#uses += 1;
    best.lastUse = this.#uses;
    best.busy = true;
    return {
      sequence: best.sequence,
      release: async (state) => {
        if (state === "broken") await this.#replace(best);
        best.busy = false;
      },
    };
  }

  /** Waits while another answer changes what its sequence remembers: a millisecond or two. */
  async turn(): Promise<void> {
    while (this.#change !== undefined) await this.#change.promise;
  }

  /** Makes a sequence forget what does not begin like `tokens`. */
  async adapt(sequence: LlamaContextSequence, tokens: Token[]): Promise<void> {
    await this.#changing(() => sequence.adaptStateToTokens(tokens, false));
  }

  /** A fresh evaluation state for one answer, or undefined for free text. @throws UserError `capability_missing` for a schema that cannot be compiled. */
  async grammarState(grammar: EngineGrammar): Promise<LlamaGrammarEvaluationState | undefined> {
    if (grammar.kind === "none") return undefined;
    const key = grammar.kind === "json" ? "" : JSON.stringify(grammar.schema);
    let compiled = this.#grammars.get(key);
    if (compiled === undefined) {
      compiled =
        grammar.kind === "json" ? this.#llama.getGrammarFor("json") : compileSchema(this.#llama, grammar.schema);
      const [oldest] = this.#grammars.keys();
      if (this.#grammars.size >= MAX_GRAMMARS && oldest !== undefined) this.#grammars.delete(oldest);
      this.#grammars.set(key, compiled);
    }
    try {
      return new LlamaGrammarEvaluationState({ model: this.model, grammar: await compiled });
    } catch (error) {
      this.#grammars.delete(key);
      if (error instanceof GhostError) throw error;
      throw new UserError("capability_missing", `the schema cannot be turned into a grammar: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  /** Unit vectors, one for each text, in order. @throws UserError `context_too_long`. */
  async embed(texts: readonly string[], signal: AbortSignal): Promise<{ vectors: number[][]; promptTokens: number }> {
    const size = Math.min(this.window, MAX_EMBEDDING_TOKENS);
    this.#embedding ??= loading(this.spec.file, () =>
      this.model.createEmbeddingContext({ contextSize: size, batchSize: size, threads: this.#threads }),
    );
    const context = await this.#embedding.catch((error: unknown) => {
      this.#embedding = undefined;
      throw error;
    });
    const vectors: number[][] = [];
    let promptTokens = 0;
    for (const [index, text] of texts.entries()) {
      signal.throwIfAborted();
      const length = context.calculateInputLength(text);
      if (length >= size) {
        throw new UserError(
          "context_too_long",
          `text ${index} has ${length} tokens; the window for embeddings has ${size}`,
          {
            details: { field: `input.${index}`, promptTokens: length, contextWindow: size },
          },
        );
      }
      promptTokens += length;
      const { vector } = await context.getEmbeddingFor(text);
      const norm = Math.hypot(...vector) || 1;
      vectors.push(vector.map((value) => value / norm));
    }
    return { vectors, promptTokens };
  }

  async dispose(): Promise<void> {
    await this.model.dispose();
  }

  async #createContext(): Promise<LlamaContext> {
    const context = await loading(this.spec.file, () =>
      this.model.createContext({
        contextSize: this.window,
        sequences: this.spec.sequences,
        threads: this.#threads,
      }),
    );
    for (let index = 0; index < this.spec.sequences; index += 1) {
      this.#pool.push({ sequence: newSequence(context), busy: false, lastUse: 0 });
    }
    return context;
  }

  async #replace(pooled: PooledSequence): Promise<void> {
    const context = pooled.sequence.context;
    await this.#changing(() => pooled.sequence.dispose());
    pooled.sequence = newSequence(context);
  }

  async #changing(change: () => Promise<void>): Promise<void> {
    this.#changes += 1;
    this.#change ??= Promise.withResolvers();
    try {
      await change();
    } finally {
      this.#changes -= 1;
      if (this.#changes === 0) {
        this.#change?.resolve();
        this.#change = undefined;
      }
    }
  }
}

function newSequence(context: LlamaContext): LlamaContextSequence {
  const strategy = () => {
    // The library would silently forget the beginning; lengths are checked before, so this is never reached.
    throw new BugError("internal", "an answer ran past the context window");
  };
  return context.getSequence({ contextShift: { strategy } });
}

function sharedTokens(sequence: LlamaContextSequence, tokens: readonly Token[]): number {
  const remembered = sequence.contextTokens;
  let shared = 0;
  while (shared < remembered.length && shared < tokens.length && remembered[shared] === tokens[shared]) shared += 1;
  return shared;
}

/** Narrower than what may come; the full type is too deep for the compiler. */
const gbnfSchema = z.custom<GbnfJsonBasicSchema>((value) => typeof value === "object" && value !== null);
/** The library lets JSON be followed by line breaks as a sign to stop; without them the model's own end token is the only way on. */
const GRAMMAR_TAIL = / "\\n\\n\\n\\n" \[\\n\]\*$/m;
/** Its integers may have an exponent, which `1e-3` shows to be wrong. */
const INTEGER_RULE = /^integer-number-rule ::= .*$/m;

async function compileSchema(llama: Llama, schema: Readonly<Record<string, unknown>>): Promise<LlamaGrammar> {
  const { grammar } = await llama.createGrammarForJsonSchema(gbnfSchema.parse(schema));
  const text = grammar
    .replace(GRAMMAR_TAIL, "")
    .replace(INTEGER_RULE, 'integer-number-rule ::= "-"? ("0" | [1-9] [0-9]{0,15})');
  return llama.createGrammar({ grammar: text });
}

async function loading<Result>(file: string, load: () => Promise<Result>): Promise<Result> {
  try {
    return await load();
  } catch (error) {
    if (error instanceof InsufficientMemoryError) {
      throw new OperationalError("no_model_available", `${file} does not fit into memory: ${error.message}`, {
        cause: error,
      });
    }
    throw new UserError("weights_corrupt", `${file} cannot be loaded: ${messageOf(error)}`, {
      cause: error,
      details: { path: file },
    });
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

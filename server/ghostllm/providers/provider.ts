/** What every model server looks like from inside. One file each in this folder, one line each in `index.ts`. */
import type { ModelInfo, ProviderStatus } from "../../../protocol/model.ts";
import type { Attempt, ChatRequest, CompletionRequest, Embeddings } from "../stream.ts";
import type { KeyVerdict } from "./key-check.ts";

export interface Provider extends AsyncDisposable {
  /** `embedded`, `ollama` or the name in `[providers.compatible.<name>]`. */
  readonly id: string;
  /**
   * The models it has now. Asks its server; bounded by a few seconds.
   * Never throws for a server that is away: it then has no models, and `status()` says why.
   */
  models(signal: AbortSignal): Promise<readonly ModelInfo[]>;
  /** What the last look at the server found: one row per host. */
  status(): readonly ProviderStatus[];
  /**
   * Starts an answer. Resolves when the first valid content frame is there (the first-chunk gate).
   * @throws UserError | OperationalError before the first frame, so that the router may try another model; after it, errors are events.
   * Aborting stops the upstream at once in every state, also while queued or loading.
   */
  chat(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt>;
  /** Plain continuation or infill; the same promises. @throws UserError `capability_missing` where the model cannot. */
  complete(request: CompletionRequest, model: ModelInfo, signal: AbortSignal): Promise<Attempt>;
  /** @throws UserError `capability_missing` where the model cannot. */
  embed(texts: readonly string[], model: ModelInfo, signal: AbortSignal): Promise<Embeddings>;
  /**
   * The prompt's tokens as the model's own server counts them; absent, or undefined, where nobody can. A request that came in the server's dialect is counted as it came.
   * @throws UserError | OperationalError as `chat` does
   */
  countTokens?(request: ChatRequest, model: ModelInfo, signal: AbortSignal): Promise<number | undefined>;
  /**
   * Asks the server whether it takes the key, by its cheapest call. Only called when there is one. Without it the list of models is looked at.
   * @throws what the call fails with: `explainRefusal` in `key-check.ts` puts it into words.
   */
  testKey?(signal: AbortSignal): Promise<KeyVerdict>;
}

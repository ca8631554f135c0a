/**
 * GhostApi in process: the daemon's handlers, bound to one caller.
 * 1. A handler sees only parameters that passed the method's schema.
 * 2. Every failure leaves as a `GhostApiError` (wire-error.ts), and stays with its own request (I10).
 * 3. Aborting rejects at once, whether or not the handler has noticed yet; leaving a stream's loop aborts its handler's signal (I11).
 */
import type { z } from "zod";
import { GhostApiError } from "../../protocol/errors.ts";
import {
  type GhostApi,
  type GhostHandlers,
  mapMethods,
  type MethodDefinition,
  methodsByName,
} from "../../protocol/ghost-api.ts";
import type { ClientId, UserId } from "../../protocol/ids.ts";
import { BugError, GhostError, OperationalError, UserError } from "../base/errors.ts";
import { type ErrorReport, toWireError } from "./wire-error.ts";

/** Who calls: made by a front once it has authenticated a face. */
export interface Caller {
  readonly userId: UserId;
  readonly clientId: ClientId;
  readonly clientName: string;
}

interface BindOptions extends Omit<ErrorReport, "subject"> {
  /** Check what handlers return against the schemas; for tests, since in the daemon the types vouch for it. */
  readonly validateResults?: boolean;
}

/** One method, ready to be called with whatever came off a wire. */
export type BoundMethod =
  | { readonly kind: "request"; call(params: unknown, signal: AbortSignal): Promise<unknown> }
  | { readonly kind: "stream"; open(params: unknown, signal: AbortSignal): AsyncIterable<unknown> };

export function bindGhostApi(handlers: GhostHandlers<Caller>, caller: Caller, options: BindOptions): GhostApi {
  const methods = bindMethods(handlers, caller, options);
  return mapMethods((name) => {
    const method = methods.get(name);
    return method?.kind === "request" ? method.call : method?.open;
  });
}

/** The same methods by their JSON-RPC names, for a front that dispatches. */
export function bindMethods(
  handlers: GhostHandlers<Caller>,
  caller: Caller,
  options: BindOptions,
): ReadonlyMap<string, BoundMethod> {
  const bound = new Map<string, BoundMethod>();
  for (const [name, definition] of methodsByName) {
    const handle = findHandler(handlers, definition);
    const binding: Binding = {
      name,
      definition,
      invoke: (params, signal) => handle(params, signal, caller),
      toApiError: (thrown) => {
        const error = toWireError(thrown, { ...options, subject: name });
        return new GhostApiError(error, { cause: thrown });
      },
      validateResults: options.validateResults ?? false,
    };
    bound.set(
      name,
      definition.kind === "request"
        ? { kind: "request", call: (params, signal) => callHandler(binding, params, signal) }
        : { kind: "stream", open: (params, signal) => openHandler(binding, params, signal) },
    );
  }
  return bound;
}

type Handle = (params: unknown, signal: AbortSignal, caller: Caller) => unknown;

function findHandler(
  handlers: GhostHandlers<Caller>,
  definition: { readonly namespace: string; readonly method: string },
): Handle {
  const group: unknown = Reflect.get(handlers, definition.namespace);
  if (typeof group !== "object" || group === null) {
    throw new BugError("internal", `no handlers for ${definition.namespace}`);
  }
  const handler: unknown = Reflect.get(group, definition.method);
  if (typeof handler !== "function") {
    throw new BugError("internal", `no handler for ${definition.namespace}.${definition.method}`);
  }
  return (...args) => Reflect.apply(handler, group, args);
}

interface Binding {
  readonly name: string;
  readonly definition: MethodDefinition;
  invoke(params: unknown, signal: AbortSignal): unknown;
  toApiError(thrown: unknown): GhostApiError;
  readonly validateResults: boolean;
}

async function callHandler(binding: Binding, params: unknown, signal: AbortSignal): Promise<unknown> {
  try {
    throwIfAborted(signal);
    const input = parseParams(binding.definition.params, params);
    const result = await untilAborted(Promise.resolve(binding.invoke(input, signal)), signal);
    if (binding.validateResults && binding.definition.kind === "request") binding.definition.result.parse(result);
    return result;
  } catch (thrown) {
    throw binding.toApiError(signal.aborted ? abortReason(signal) : thrown);
  }
}

/** Lazy: nothing runs, and nothing is checked, before the first item is asked for. */
function openHandler(binding: Binding, params: unknown, signal: AbortSignal): AsyncIterable<unknown> {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  /** Those who wait for an item; one listener for all of them, since streams have many items. */
  const waiting = new Set<(reason: unknown) => void>();
  let source: AsyncIterator<unknown> | undefined;
  let isOver = false;
  both.addEventListener("abort", () => {
    for (const fail of waiting) fail(abortReason(both));
  });

  const finish = () => {
    isOver = true;
    stop.abort(new OperationalError("cancelled", "the stream was left"));
    // The handler's own clean-up is not waited for: it may hang in an await, and its failures concern nobody any more.
    void Promise.resolve(source?.return?.()).catch(() => {});
  };
  const start = (): AsyncIterator<unknown> => {
    const iterable = binding.invoke(parseParams(binding.definition.params, params), both);
    if (!isAsyncIterable(iterable)) throw new BugError("internal", `${binding.name} did not return a stream`);
    return iterable[Symbol.asyncIterator]();
  };
  const pull = (from: AsyncIterator<unknown>) =>
    new Promise<IteratorResult<unknown>>((resolve, reject) => {
      waiting.add(reject);
      from
        .next()
        .then(resolve, reject)
        .finally(() => waiting.delete(reject));
    });
  const iterator: AsyncIterableIterator<unknown> = {
    async next() {
      if (isOver) return { value: undefined, done: true };
      try {
        throwIfAborted(signal);
        source ??= start();
        const item = await pull(source);
        if (item.done === true) {
          isOver = true;
          return { value: undefined, done: true };
        }
        if (binding.validateResults && binding.definition.kind === "stream") binding.definition.item.parse(item.value);
        return { value: item.value, done: false };
      } catch (thrown) {
        const wasLeft = isOver;
        finish();
        if (wasLeft) return { value: undefined, done: true };
        throw binding.toApiError(signal.aborted ? abortReason(signal) : thrown);
      }
    },
    async return() {
      finish();
      return { value: undefined, done: true };
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}

/** @throws UserError `invalid_params` with `details.field`, the path of the first thing wrong: `messages.0.role`. */
export function parseParams<Schema extends z.ZodType>(schema: Schema, params: unknown): z.output<Schema> {
  const parsed = schema.safeParse(params ?? {});
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const field = issue === undefined || issue.path.length === 0 ? "params" : issue.path.map(String).join(".");
  throw new UserError("invalid_params", `${field}: ${issue?.message ?? "invalid"}`, { details: { field } });
}

function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw abortReason(signal);
}

/** A reason of ours says more than "cancelled", for example that the daemon stops. */
function abortReason(signal: AbortSignal): unknown {
  const reason: unknown = signal.reason;
  const isOurs = reason instanceof GhostError || reason instanceof GhostApiError;
  return isOurs ? reason : new OperationalError("cancelled", "the request was cancelled");
}

async function untilAborted<Result>(work: Promise<Result>, signal: AbortSignal): Promise<Result> {
  if (signal.aborted) {
    work.catch(() => {}); // The caller is gone; how the work ends is of no interest.
    throw abortReason(signal);
  }
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(abortReason(signal));
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}

/** Does a provider take its key? One cheap call, and what came of it in plain words. */
import type { ErrorCode } from "../../../protocol/errors.ts";
import { type GhostError, systemCode, toGhostError } from "../../base/errors.ts";
import type { ProviderKeys } from "./keys.ts";
import type { Provider } from "./provider.ts";

export interface KeyVerdict {
  readonly ok: boolean;
  /** One sentence or two, without the key. */
  readonly detail: string;
}

/** A provider far away on a slow line answers in time; a person does not wait longer. */
export const KEY_TEST_TIMEOUT_MS = 15_000;

/** @throws what `ProviderKeys.find` throws for a provider without a slot; UserError `cancelled` when the signal aborts. */
export async function checkKey(
  name: string,
  { provider, keys }: { readonly provider: Provider | undefined; readonly keys: ProviderKeys },
  signal: AbortSignal,
): Promise<KeyVerdict> {
  const bounded = AbortSignal.any([signal, AbortSignal.timeout(KEY_TEST_TIMEOUT_MS)]);
  try {
    const found = await keys.find(name, bounded);
    if (found === undefined) return { ok: false, detail: `${name} has no key yet: \`ghost keys set ${name}\`` };
    if (provider === undefined) return { ok: false, detail: `${name} has a key, and is not set up in ghost.toml` };
    return await (provider.testKey?.(bounded) ?? lookAtModels(provider, bounded));
  } catch (thrown) {
    if (signal.aborted) throw thrown;
    const error = toGhostError(thrown);
    if (error.code === "provider_unknown") throw error;
    return { ok: false, detail: keys.clean(explainRefusal(name, error)) };
  }
}

/** For providers without a call of their own: the list of models, which all of them have. */
async function lookAtModels(provider: Provider, signal: AbortSignal): Promise<KeyVerdict> {
  const models = await provider.models(signal);
  const broken = provider.status().find(({ state }) => state === "unreachable" || state === "refused");
  if (broken !== undefined) return { ok: false, detail: broken.problem ?? `${provider.id} is ${broken.state}` };
  return { ok: true, detail: describeModels(provider.id, models.length) };
}

export function describeModels(provider: string, count: number): string {
  return `${provider} takes the key and lists ${count} model${count === 1 ? "" : "s"}`;
}

/** What a refusal is known by: the words that OpenAI, Anthropic, Google, xAI, Azure and OpenRouter use. The first that fits counts. */
const REASONS: readonly {
  readonly codes?: readonly ErrorCode[];
  readonly statuses?: readonly number[];
  readonly words?: RegExp;
  readonly says: (provider: string) => string;
}[] = [
  {
    codes: ["key_unreadable"],
    says: (provider) => `the stored key of ${provider} cannot be read`,
  },
  {
    codes: ["upstream_quota"],
    statuses: [402],
    words:
      /insufficient[_ ](quota|funds|credits?|balance)|billing[_ ](hard|details)|credit balance|out of credits?|exceeded your current quota|not have any credits|n't have any credits|payment required/i,
    says: (provider) => `${provider} knows the key, and its account has no credit left: add some with the provider`,
  },
  {
    statuses: [451],
    words:
      /unsupported_country|country, region|location is not supported|not (available|supported) in your (country|region|location)/i,
    says: (provider) => `${provider} does not serve the place that this machine connects from`,
  },
  {
    statuses: [401],
    words:
      /(incorrect|invalid|wrong|expired|revoked|unknown|malformed)\W+(\w+\W+){0,3}(api[-_ ]?key|x-api-key|credentials?|token)|(api[-_ ]?key|token)\W+(\w+\W+){0,3}(incorrect|invalid|expired|revoked|not valid)|api_key_invalid|invalid_api_key|authentication_error/i,
    says: (provider) => `${provider} does not take the key: it is wrong, expired or revoked`,
  },
  {
    statuses: [403],
    codes: ["upstream_auth"],
    says: (provider) =>
      `${provider} knows the key, and does not let it do this: look at its permissions, project and organisation`,
  },
  {
    codes: ["upstream_rate_limited"],
    says: (provider) => `${provider} asks to slow down; test the key again in a minute`,
  },
  {
    statuses: [404],
    says: (provider) => `${provider} has no list of models at this address: is \`base_url\` right?`,
  },
  {
    codes: ["upstream_timeout", "cancelled"],
    says: (provider) => `${provider} did not answer within ${KEY_TEST_TIMEOUT_MS / 1000} s`,
  },
];

/** Why a call with a key failed, for its owner: wrong key, no credit, wrong place, no network; then the provider's own words. */
export function explainRefusal(provider: string, error: GhostError): string {
  const { code, message, details } = error;
  const says = explainNetwork(error);
  const said = `${String(details["reason"] ?? "")} ${message}`;
  const reason = REASONS.find(
    ({ codes, statuses, words }) =>
      codes?.includes(code) === true ||
      statuses?.includes(Number(details["status"])) === true ||
      words?.test(said) === true,
  );
  const plain = says?.(provider) ?? reason?.says(provider) ?? `${provider} could not be asked`;
  return `${plain} (${message})`;
}

function explainNetwork(error: GhostError): ((provider: string) => string) | undefined {
  const code = systemCode(error) ?? "";
  if (/CERT|TLS|SSL|LEAF_SIGNATURE/.test(code)) return (provider) => `the connection to ${provider} cannot be trusted`;
  if (error.code !== "upstream_unreachable") return undefined;
  if (code === "ENOTFOUND" || code === "EAI_AGAIN")
    return (provider) => `the address of ${provider} cannot be looked up: is this machine online?`;
  if (code === "ECONNREFUSED") return (provider) => `nothing listens at the address of ${provider}`;
  return (provider) => `there is no connection to ${provider}: is this machine online?`;
}

/** What providers say of a key, as their servers word it, and what we make of it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type GhostError, OperationalError, UserError } from "../../base/errors.ts";
import { explainRefusal } from "./key-check.ts";

const refusal = (status: number, message: string, reason?: string): GhostError => {
  const details = { provider: "p", status, ...(reason === undefined ? {} : { reason }) };
  const text = `p answered ${status}: ${message}`;
  if (status === 429) return new OperationalError("upstream_rate_limited", text, { details });
  if (status >= 500) return new OperationalError("upstream_failed", text, { details });
  return new UserError(status === 401 || status === 403 ? "upstream_auth" : "upstream_rejected", text, { details });
};
const system = (code: string) => Object.assign(new Error(code), { code });
const unreachable = (code: string) =>
  new OperationalError("upstream_unreachable", `cannot reach https://api.p.example (${code})`, { cause: system(code) });

const WRONG = /does not take the key/;
const CREDIT = /no credit left/;
const REGION = /does not serve the place/;
const CASES: readonly [what: string, error: GhostError, says: RegExp][] = [
  ["OpenAI's 401", refusal(401, "Incorrect API key provided: sk-…", "invalid_api_key"), WRONG],
  ["Anthropic's 401", refusal(401, "invalid x-api-key", "authentication_error"), WRONG],
  ["Google's 400", refusal(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"), WRONG],
  ["Google's expired key", refusal(400, "API key expired. Please renew the API key."), WRONG],
  ["xAI's 400", refusal(400, "Incorrect API key provided: xa***. You can obtain an API key from …"), WRONG],
  ["Azure's 401", refusal(401, "Access denied due to invalid subscription key or wrong API endpoint."), WRONG],
  ["OpenRouter's 402", refusal(402, "Insufficient credits. Add more using …"), CREDIT],
  [
    "OpenAI's empty account",
    refusal(429, "You exceeded your current quota, please check …", "insufficient_quota"),
    CREDIT,
  ],
  ["Anthropic's empty account", refusal(400, "Your credit balance is too low to access the Anthropic API."), CREDIT],
  ["xAI's new team", refusal(403, "Your newly created teams doesn't have any credits yet."), CREDIT],
  [
    "OpenAI's region",
    refusal(403, "Country, region, or territory not supported", "unsupported_country_region_territory"),
    REGION,
  ],
  ["Google's region", refusal(400, "User location is not supported for the API use.", "FAILED_PRECONDITION"), REGION],
  ["a 451", refusal(451, "Unavailable For Legal Reasons"), REGION],
  [
    "a key without the right",
    refusal(403, "You have insufficient permissions for this operation."),
    /permissions, project/,
  ],
  [
    "a limit of requests",
    refusal(429, "Rate limit reached for requests. Visit …/account/billing to add a card"),
    /slow down/,
  ],
  [
    "a wrong address",
    new UserError("model_not_found", "p answered 404: <html>", { details: { status: 404 } }),
    /`base_url`/,
  ],
  ["a server in trouble", refusal(500, "internal error"), /could not be asked/],
  ["no network", unreachable("ENOTFOUND"), /is this machine online/],
  ["no resolver", unreachable("EAI_AGAIN"), /is this machine online/],
  ["no server", unreachable("ECONNREFUSED"), /nothing listens/],
  ["no route", unreachable("ENETUNREACH"), /no connection .* online/],
  [
    "a certificate of somebody else",
    new OperationalError("upstream_failed", "broke the connection", { cause: system("DEPTH_ZERO_SELF_SIGNED_CERT") }),
    /cannot be trusted/,
  ],
  [
    "silence",
    new OperationalError("upstream_timeout", "https://api.p.example was silent"),
    /did not answer within 15 s/,
  ],
  ["a locked keyring", new OperationalError("key_unreadable", "the key of p is in the OS keyring"), /cannot be read/],
];
for (const [what, error, says] of CASES) {
  test(`${what} is told in plain words, with the provider's own behind them`, () => {
    const detail = explainRefusal("p", error);
    assert.match(detail, says);
    assert.ok(detail.endsWith(`(${error.message})`), detail);
    const others = [WRONG, CREDIT, REGION].filter(
      (pattern) => pattern !== says && pattern.test(detail.split(" (")[0] ?? ""),
    );
    assert.deepEqual(others, []);
  });
}

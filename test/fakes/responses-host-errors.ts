/** Errors of the Responses API's three hosts, in the shape and the words that each has for a status. */
import type { CloudStatus } from "./cloud-script.ts";
import type { ResponsesFlavour } from "./responses-host-models.ts";

interface Words {
  readonly type: string;
  readonly code: string | null;
  readonly message: string;
}

export interface ResponsesError {
  readonly status: number;
  readonly message?: string | undefined;
  readonly type?: string | undefined;
  readonly code?: string | null | undefined;
  readonly param?: string | null | undefined;
  readonly shape?: CloudStatus["shape"];
}

const request = "invalid_request_error";
const OPENAI_WORDS: Readonly<Record<number, Words>> = {
  400: { type: request, code: null, message: "Bad request." },
  401: { type: request, code: "invalid_api_key", message: "Incorrect API key provided." },
  403: {
    type: request,
    code: "unsupported_country_region_territory",
    message: "Country, region, or territory not supported",
  },
  404: { type: request, code: null, message: "Not found." },
  429: { type: "tokens", code: "rate_limit_exceeded", message: "Rate limit reached. Please try again later." },
  500: { type: "server_error", code: null, message: "The server had an error while processing your request." },
  503: {
    type: "service_unavailable_error",
    code: "server_is_overloaded",
    message: "Our servers are currently overloaded. Please try again later.",
  },
};

const XAI_WORDS: Readonly<Record<number, string>> = {
  400: "Client specified an invalid argument",
  401: "Unauthenticated",
  403: "The caller does not have permission to execute the specified operation",
  404: "Some requested entity was not found",
  429: "Some resource has been exhausted",
  500: "Internal error",
  503: "The service is currently unavailable",
};

export function responsesError(flavour: ResponsesFlavour, error: ResponsesError): string {
  const words = OPENAI_WORDS[error.status];
  const message = error.message ?? words?.message ?? "The server had an error while processing your request.";
  const code = error.code === undefined ? (words?.code ?? null) : error.code;
  const type = error.type ?? words?.type ?? "server_error";
  if (flavour !== "xai") return JSON.stringify({ error: { message, type, param: error.param ?? null, code } });
  switch (error.shape ?? "code-and-text") {
    case "nested":
      return JSON.stringify({ error: { message, type, code } });
    case "code-and-text":
      return JSON.stringify({ code: error.code ?? XAI_WORDS[error.status] ?? "Unknown error", error: message });
    case "text":
      return JSON.stringify({ error: message });
  }
}

/** What a wrong or absent key is answered with. */
export function keyError(flavour: ResponsesFlavour, key: string | undefined): ResponsesError {
  switch (flavour) {
    case "openai": {
      const missing =
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth.";
      if (key === undefined) return { status: 401, message: missing, code: null };
      return { status: 401, message: `Incorrect API key provided: ${masked(key)}.` };
    }
    case "azure": {
      const message =
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource.";
      return { status: 401, code: "401", message };
    }
    case "xai":
      if (key === undefined) return { status: 401, message: "No API key was provided." };
      // Unlike the others xAI has status 400 for a key that it does not know.
      return { status: 400, message: `Incorrect API key provided: ${masked(key)}.` };
  }
}

function masked(key: string): string {
  return `${key.slice(0, 2)}***${key.slice(-2)}`;
}

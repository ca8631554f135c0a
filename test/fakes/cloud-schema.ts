/** What is wrong with a body that a fake cloud host's schema refuses; each host says it in its provider's words. */
import type { core, ZodError } from "zod";

export interface SchemaProblem {
  /** `unknown`: a field that the API does not have. `missing`: one that it requires. */
  readonly kind: "unknown" | "missing" | "invalid";
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

export function firstProblem(error: ZodError): SchemaProblem {
  const [issue] = error.issues;
  return issue === undefined ? { kind: "invalid", path: [], message: error.message } : problemOf(deepest(issue));
}

/** Of a union, the issue of the member that came furthest: the one that was meant. */
function deepest(issue: core.$ZodIssue): core.$ZodIssue {
  if (issue.code !== "invalid_union") return issue;
  const inner = issue.errors
    .flatMap((issues) => issues.slice(0, 1))
    .map((each) => deepest(each))
    .toSorted((a, b) => weight(b) - weight(a))[0];
  return inner === undefined ? issue : { ...inner, path: [...issue.path, ...inner.path] };
}

/** A member that is already wrong about which one it is was not meant. */
function weight(issue: core.$ZodIssue): number {
  const isOther = issue.path.at(-1) === "type" || issue.path.at(-1) === "role";
  return issue.path.length * 2 + (issue.code === "unrecognized_keys" ? 1 : 0) - (isOther ? 1 : 0);
}

function problemOf(issue: core.$ZodIssue): SchemaProblem {
  const { message } = issue;
  if (issue.code === "unrecognized_keys")
    return { kind: "unknown", path: [...issue.path, issue.keys[0] ?? ""], message };
  const isMissing = issue.code === "invalid_type" && message.endsWith("received undefined");
  return { kind: isMissing ? "missing" : "invalid", path: issue.path, message };
}

/** What a fake cloud host says of a body that its schema refuses. */
import type { ZodError, core } from "zod";

/** `tools.0.custom.nmae: Extra inputs are not permitted`: the first problem, by its path, in the words that Anthropic has for it. */
export function firstProblem(error: ZodError): string {
  const [issue] = error.issues;
  return issue === undefined ? error.message : problemOf(deepest(issue));
}

/** The fields that nobody knows, by their paths; empty where the problem is another. */
export function unknownFields(error: ZodError): readonly string[] {
  const [issue] = error.issues;
  if (issue === undefined) return [];
  const found = deepest(issue);
  return found.code === "unrecognized_keys" ? found.keys.map((key) => [...found.path, key].map(String).join(".")) : [];
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

function weight(issue: core.$ZodIssue): number {
  return issue.path.length * 2 + (issue.code === "unrecognized_keys" ? 1 : 0);
}

function problemOf(issue: core.$ZodIssue): string {
  const at = (key?: PropertyKey) => [...issue.path, ...(key === undefined ? [] : [key])].map(String).join(".");
  if (issue.code === "unrecognized_keys") return `${at(issue.keys[0])}: Extra inputs are not permitted`;
  if (issue.code === "invalid_type" && issue.message.endsWith("received undefined")) return `${at()}: Field required`;
  return `${at()}: ${issue.message}`;
}

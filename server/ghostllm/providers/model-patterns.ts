/** Names of models as people write them in ghost.toml, where `*` stands for anything: `claude-*`. */

/** No pattern lets all pass. */
export function isListed(name: string, patterns: readonly string[] | undefined): boolean {
  return patterns === undefined || patterns.some((pattern) => toExpression(pattern).test(name));
}

/** Those that name one model each. */
export function literalNames(patterns: readonly string[]): readonly string[] {
  return patterns.filter((pattern) => !pattern.includes("*"));
}

function toExpression(pattern: string): RegExp {
  const parts = pattern.split("*").map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`, "i");
}

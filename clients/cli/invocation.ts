/** How this program was called, so that the commands which it recommends work when they are copied. */
import process from "node:process";

type Variables = Readonly<Record<string, string | undefined>>;

/** `npx ghost` where npm runs us (https://docs.npmjs.com/cli/commands/npm-exec): then `ghost` need not be on the PATH. */
export function commandName(env: Variables = process.env): "ghost" | "npx ghost" {
  return env["npm_lifecycle_event"] === "npx" || env["npm_execpath"] !== undefined ? "npx ghost" : "ghost";
}

/**
 * Writes the commands in a text of ours, of the daemon or of the catalogue the way this program was called: at its beginning, in backticks, behind
 * a pipe and in `$(…)`. What names the program only (`ghost`) stays.
 */
export function asCalled(text: string, env: Variables = process.env): string {
  const name = commandName(env);
  return name === "ghost" ? text : text.replaceAll(/(?<=^\s*|`|\| |\$\()ghost (?=[a-z-])/gm, `${name} `);
}

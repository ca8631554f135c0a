/** The load client as its benchmark sees it: commands in, results out, one at a time. */
import { fileURLToPath } from "node:url";
import type { CommandResults, LoadCommand, LoadReply } from "./load-commands.ts";
import { startNode } from "./processes.ts";

/** Where something is wrong from the beginning, the same is told hundreds of times. */
const MAX_PROBLEMS = 20;

export interface LoadDriver extends AsyncDisposable {
  run<Kind extends LoadCommand["kind"]>(command: Extract<LoadCommand, { kind: Kind }>): Promise<CommandResults[Kind]>;
  /** What failed so far, in one line each. */
  readonly problems: readonly string[];
}

export async function startLoadDriver(): Promise<LoadDriver> {
  const client = await startNode({ args: [fileURLToPath(new URL("./load-client.ts", import.meta.url))] });
  const problems: string[] = [];
  return {
    problems,
    async run<Kind extends LoadCommand["kind"]>(command: Extract<LoadCommand, { kind: Kind }>) {
      client.stdin.write(`${JSON.stringify(command)}\n`);
      const line = await client.lines.next();
      if (line.done === true) throw new Error(`the load client ended:\n${client.stderr()}`);
      const reply: LoadReply<CommandResults[Kind]> = JSON.parse(line.value);
      if (reply.errors > 0) {
        const where = `${command.kind} at port ${command.target.port}`;
        const problem = `${where}: ${reply.errors} failed requests, the first: ${reply.firstError}`;
        if (problems.length < MAX_PROBLEMS) problems.push(problem);
      }
      return reply.result;
    },
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}

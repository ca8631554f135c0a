/** Programs of other makers that answer, where the settings turn them on: each may be run, in a folder of its own, and nothing else is permitted. */
import { join } from "node:path";
import type { Environment } from "../base/clock.ts";
import type { ProgramPlaces } from "../ghostllm/open-brain.ts";
import { bootPermit } from "../ghostwarden/warden.ts";
import { findCopilotExecutable } from "../platform/adapters/copilot-runtime.ts";
import type { GhostConfig } from "../platform/config/schema.ts";

export function programPlaces(
  providers: GhostConfig["providers"],
  dataDir: string,
  environment: Environment,
): ProgramPlaces {
  const { copilot, claude_code: claude } = providers;
  return {
    ...(copilot.enabled ? { copilot: copilotPlace(join(dataDir, "copilot"), environment) } : {}),
    ...(claude.enabled ? { claudeCode: claudePlace(join(dataDir, "claude-code"), claude.command) } : {}),
  };
}

function copilotPlace(folder: string, environment: Environment): NonNullable<ProgramPlaces["copilot"]> {
  const executable = findCopilotExecutable();
  const permit = bootPermit("Copilot runtime", programGrants(executable, folder));
  return { executable, folder, permit, upstream: testUpstream(environment.get("GHOST_COPILOT_TEST_URL")) };
}

function claudePlace(folder: string, command: string): NonNullable<ProgramPlaces["claudeCode"]> {
  return { command, folder, permit: bootPermit("claude program", programGrants(command, folder)) };
}

function programGrants(executable: string | undefined, folder: string) {
  const places = (["fs.read", "fs.write"] as const).map(
    (capability) => ({ capability, resource: { kind: "path", path: folder } }) as const,
  );
  if (executable === undefined) return places;
  return [
    ...places,
    { capability: "cmd.exec", resource: { kind: "argv", executable, args: [], cwd: folder } } as const,
  ];
}

/** `http://127.0.0.1:1/v1?model=m`: the tests' own server in the place of GitHub's. */
function testUpstream(text: string | undefined): { readonly baseUrl: string; readonly model: string } | undefined {
  if (text === undefined) return undefined;
  const { origin, pathname, searchParams } = new URL(text);
  return { baseUrl: origin + pathname, model: searchParams.get("model") ?? "m" };
}

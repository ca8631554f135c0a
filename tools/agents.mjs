/**
 * The coding agents that `npm run test:agents` drives, installed in a folder of their own: together 1.9 GB, so that nobody gets them without asking.
 * Plain npm packages with their programs inside; their install scripts are not run.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** Versions whose ways are known; newer ones are tried by changing the number. */
export const AGENTS = {
  "@openai/codex": "0.169.0",
  "@anthropic-ai/claude-code": "2.1.330",
  "opencode-ai": "1.18.33",
  cline: "3.0.65",
  "@continuedev/cli": "1.5.47",
  "@google/gemini-cli": "0.61.0",
  "@qwen-code/qwen-code": "0.24.4",
};

const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const agentsFolder = join(root, ".cache", "agents");

/** @returns {string | undefined} why they are not there */
export function installAgents() {
  if (isInstalled()) return undefined;
  mkdirSync(agentsFolder, { recursive: true });
  writeFileSync(
    join(agentsFolder, "package.json"),
    `${JSON.stringify({ private: true, dependencies: AGENTS }, null, 2)}\n`,
  );
  process.stderr.write(
    `Fetching ${Object.keys(AGENTS).join(", ")} into ${agentsFolder}: 1.9 GB unpacked, one to ten minutes …\n`,
  );
  const flags = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--foreground-scripts"];
  const npm = spawnSync("npm", flags, { cwd: agentsFolder, stdio: ["ignore", "inherit", "inherit"] });
  if (npm.error !== undefined) return `npm does not start: ${npm.error.message}`;
  return isInstalled() ? undefined : `npm could not fetch them (exit ${npm.status})`;
}

function isInstalled() {
  return Object.entries(AGENTS).every(([name, version]) => {
    const file = join(agentsFolder, "node_modules", name, "package.json");
    return existsSync(file) && JSON.parse(readFileSync(file, "utf8")).version === version;
  });
}

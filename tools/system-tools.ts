/** The programs outside npm that tests drive, with the package that brings each. Missing ones fail CI and are named, loudly, elsewhere. */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

export type Stage = "test" | "systems";

interface SystemTool {
  readonly command: string;
  readonly stage: Stage;
  readonly neededFor: string;
  readonly debian: string;
  readonly arch: string;
}

const systemTools: readonly SystemTool[] = [
  {
    command: "git",
    stage: "test",
    neededFor: "the checks of what belongs to the repository",
    debian: "git",
    arch: "git",
  },
  {
    command: "curl",
    stage: "test",
    neededFor: "the HTTP front as the documentation shows it",
    debian: "curl",
    arch: "curl",
  },
  { command: "tmux", stage: "test", neededFor: "the terminal tests", debian: "tmux", arch: "tmux" },
  {
    command: "setpriv",
    stage: "systems",
    neededFor: "running as an ordinary user",
    debian: "util-linux",
    arch: "util-linux",
  },
  { command: "mount", stage: "systems", neededFor: "full and read-only disks", debian: "mount", arch: "util-linux" },
  { command: "ss", stage: "systems", neededFor: "looking at sockets", debian: "iproute2", arch: "iproute2" },
  { command: "ip", stage: "systems", neededFor: "a network that goes silent", debian: "iproute2", arch: "iproute2" },
  {
    command: "dbus-daemon",
    stage: "systems",
    neededFor: "a session bus for the OS keyring",
    debian: "dbus-daemon",
    arch: "dbus",
  },
  {
    command: "gnome-keyring-daemon",
    stage: "systems",
    neededFor: "stored keys in an OS keyring",
    debian: "gnome-keyring",
    arch: "gnome-keyring",
  },
  { command: "ps", stage: "systems", neededFor: "looking at processes", debian: "procps", arch: "procps-ng" },
];

/** The tools of a stage that are not on `path`; the systems stage runs after the first and needs its tools too. */
export function missingTools(stage: Stage, path: string): readonly SystemTool[] {
  return systemTools.filter((tool) => (stage === "systems" || tool.stage === "test") && !isOnPath(tool.command, path));
}

/** Lines for people: what is missing, what for, and the command that installs it. */
export function describeMissing(missing: readonly SystemTool[]): readonly string[] {
  const names = (pick: (tool: SystemTool) => string) => [...new Set(missing.map(pick))].join(" ");
  return [
    ...missing.map((tool) => `  ${tool.command}: needed for ${tool.neededFor}`),
    `  Arch:            sudo pacman -S --needed ${names((tool) => tool.arch)}`,
    `  Debian, Ubuntu:  sudo apt install ${names((tool) => tool.debian)}`,
  ];
}

function isOnPath(command: string, path: string): boolean {
  return path.split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return folder !== "";
    } catch {
      return false; // not in this folder
    }
  });
}

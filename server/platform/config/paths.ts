/** Where our files and folders lie: the XDG base directories (https://specifications.freedesktop.org/basedir/latest/) and the flags over them. */
import { dirname, isAbsolute, join, resolve } from "node:path";
import type { Environment } from "../../base/clock.ts";
import { UserError } from "../../base/errors.ts";

export interface PathFlags {
  /** `--config FILE` */
  readonly config?: string | undefined;
  /** `--data-dir DIR` */
  readonly dataDir?: string | undefined;
  /** `--runtime-dir DIR` */
  readonly runtimeDir?: string | undefined;
}

/** All absolute and normalised: no `.`, no `..`, no slash at the end. */
export interface GhostPaths {
  readonly configDir: string;
  /** ghost.toml */
  readonly configFile: string;
  /** warden.toml, always beside ghost.toml. */
  readonly wardenFile: string;
  readonly dataDir: string;
  readonly runtimeDir: string;
  readonly socket: string;
  /** What belongs to this machine and is no data, such as the key of stored keys; undefined where there is no home folder. */
  readonly stateDir: string | undefined;
}

/** `sun_path` has 104 bytes on macOS and the BSDs and 108 on Linux (unix(7)), the last of which is the closing zero: what fits everywhere. */
const MAX_SOCKET_PATH_BYTES = 103;

/**
 * @param protocolMajor part of the socket's name, so that clients of an older protocol do not meet a newer daemon.
 * @throws UserError `folder_unusable` where the socket's path would be too long, or there is no home folder to fall back to.
 */
export function defaultPaths(environment: Environment, flags: PathFlags, protocolMajor: number): GhostPaths {
  const configFile =
    flags.config === undefined
      ? join(xdg(environment, "XDG_CONFIG_HOME") ?? inHome(environment, ".config"), "ghoststack", "ghost.toml")
      : resolve(flags.config);
  const dataDir =
    flags.dataDir === undefined
      ? join(xdg(environment, "XDG_DATA_HOME") ?? inHome(environment, ".local/share"), "ghoststack")
      : resolve(flags.dataDir);
  const runtimeDir = flags.runtimeDir === undefined ? defaultRuntimeDir(environment) : resolve(flags.runtimeDir);
  const socket = join(runtimeDir, `ghostd-${protocolMajor}.sock`);
  const sizeBytes = Buffer.byteLength(socket);
  if (sizeBytes > MAX_SOCKET_PATH_BYTES) {
    throw new UserError(
      "folder_unusable",
      `the socket's path ${socket} has ${sizeBytes} bytes, and the system allows ${MAX_SOCKET_PATH_BYTES}: pass a shorter --runtime-dir`,
      { details: { path: socket, bytes: sizeBytes } },
    );
  }
  const configDir = dirname(configFile);
  const wardenFile = join(configDir, "warden.toml");
  return { configDir, configFile, wardenFile, dataDir, runtimeDir, socket, stateDir: stateDir(environment) };
}

/** "All paths set in these environment variables must be absolute. If […] relative […] ignore it." Empty counts as unset. */
function xdg(environment: Environment, name: string): string | undefined {
  const value = environment.get(name);
  return value !== undefined && isAbsolute(value) ? value : undefined;
}

function stateDir(environment: Environment): string | undefined {
  const state = xdg(environment, "XDG_STATE_HOME");
  if (state !== undefined) return join(state, "ghoststack");
  return isAbsolute(environment.homeDir) ? join(environment.homeDir, ".local/state/ghoststack") : undefined;
}

function inHome(environment: Environment, folder: string): string {
  if (!isAbsolute(environment.homeDir)) {
    throw new UserError(
      "folder_unusable",
      "there is no home folder: set HOME, or pass --config, --data-dir and --runtime-dir",
    );
  }
  return join(environment.homeDir, folder);
}

function defaultRuntimeDir(environment: Environment): string {
  const runtime = xdg(environment, "XDG_RUNTIME_DIR");
  if (runtime !== undefined) return join(runtime, "ghoststack");
  const owner = environment.uid >= 0 ? String(environment.uid) : environment.userName;
  return `/tmp/ghoststack-${owner}`;
}

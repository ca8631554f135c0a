/**
 * Where a face finds the daemon of its user, after the XDG base directories:
 * https://specifications.freedesktop.org/basedir-spec/latest/
 */
import { homedir } from "node:os";
import { join } from "node:path";
import { GhostApiError } from "../errors.ts";
import { PROTOCOL_VERSION } from "../ghost-api.ts";
import { ownUid } from "./private-place.ts";

export interface Locations {
  readonly configDir: string;
  readonly dataDir: string;
  readonly runtimeDir: string;
  readonly socket: string;
  /** Holds the face credential. */
  readonly faceKeyFile: string;
}

export interface LocationOptions {
  readonly configDir?: string | undefined;
  readonly dataDir?: string | undefined;
  readonly runtimeDir?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly homeDir?: string;
  readonly uid?: number;
}

/**
 * What is given counts, then the XDG variables (absolute paths only, as the specification says), then the usual places.
 * @throws GhostApiError `folder_unusable` where one of those would lie in the home folder, and there is none.
 */
export function defaultLocations(options: LocationOptions = {}): Locations {
  const env = options.env ?? process.env;
  const inHome = (path: string): string => join(options.homeDir ?? homeFolder(), path);
  const xdg = (name: string): string | undefined => {
    const value = env[name];
    return value?.startsWith("/") === true ? join(value, "ghoststack") : undefined;
  };
  const configDir = options.configDir ?? xdg("XDG_CONFIG_HOME") ?? inHome(".config/ghoststack");
  const dataDir = options.dataDir ?? xdg("XDG_DATA_HOME") ?? inHome(".local/share/ghoststack");
  const runtimeDir =
    options.runtimeDir ?? xdg("XDG_RUNTIME_DIR") ?? join("/tmp", `ghoststack-${options.uid ?? ownUid()}`);
  return {
    configDir,
    dataDir,
    runtimeDir,
    socket: join(runtimeDir, `ghostd-${PROTOCOL_VERSION}.sock`),
    faceKeyFile: join(dataDir, "face.key"),
  };
}

/** HOME, else what the system has on record for this user: a container may run as one that it has nothing on. */
function homeFolder(): string {
  try {
    return homedir();
  } catch (cause) {
    const message = "there is no home folder: set HOME, or XDG_CONFIG_HOME and XDG_DATA_HOME";
    throw new GhostApiError({ code: "folder_unusable", message, details: {} }, { cause });
  }
}

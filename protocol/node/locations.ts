/**
 * Where a face finds the daemon of its user, after the XDG base directories:
 * https://specifications.freedesktop.org/basedir-spec/latest/
 */
import { homedir, userInfo } from "node:os";
import { join } from "node:path";
import { PROTOCOL_VERSION } from "../ghost-api.ts";

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

/** What is given counts, then the XDG variables (absolute paths only, as the specification says), then the usual places. */
export function defaultLocations(options: LocationOptions = {}): Locations {
  const env = options.env ?? process.env;
  const home = options.homeDir ?? homedir();
  const xdg = (name: string): string | undefined => {
    const value = env[name];
    return value?.startsWith("/") === true ? join(value, "ghoststack") : undefined;
  };
  const configDir = options.configDir ?? xdg("XDG_CONFIG_HOME") ?? join(home, ".config/ghoststack");
  const dataDir = options.dataDir ?? xdg("XDG_DATA_HOME") ?? join(home, ".local/share/ghoststack");
  const runtimeDir =
    options.runtimeDir ?? xdg("XDG_RUNTIME_DIR") ?? join("/tmp", `ghoststack-${options.uid ?? userInfo().uid}`);
  return {
    configDir,
    dataDir,
    runtimeDir,
    socket: join(runtimeDir, `ghostd-${PROTOCOL_VERSION}.sock`),
    faceKeyFile: join(dataDir, "face.key"),
  };
}

/**
 * Files. Every function takes a permit and touches exactly the path that it covers.
 * Files of ours are made with mode 0600, folders with 0700, and replaced by rename so that a reader never sees half of one.
 */
import { accessSync, chmodSync, constants, lstatSync, mkdirSync, realpathSync, statSync } from "node:fs";
import { chmod, open, rename, rm, stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { GhostError, OperationalError, systemCode, UserError } from "../base/errors.ts";
import { type AnyPermit, type EffectRequest, type StandingPermit, THIS_MACHINE, underPermit } from "./permit.ts";

const effect = (capability: "fs.read" | "fs.write", path: string): EffectRequest => ({
  capability,
  resource: { kind: "path", path },
  host: THIS_MACHINE,
});

/**
 * Makes a private folder (mode 0700) or checks the one that is there: it must be a folder, ours, usable, and closed to others.
 * @returns its real path, by which two names of one folder are known.
 * @throws UserError `folder_unusable`
 */
export function preparePrivateFolder(permit: StandingPermit, path: string, uid: number): string {
  permit.spend(effect("fs.write", path)).settle({ kind: "done" });
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const found = statSync(path);
    // A link that somebody else put there, as in /tmp, would have us close and fill a folder of their choice.
    const linkOwner = lstatSync(path).uid;
    const owner = linkOwner === 0 ? found.uid : linkOwner;
    for (const other of [owner, found.uid]) {
      if (uid < 0 || other === uid) continue;
      throw new UserError("folder_unusable", `${path} belongs to user ${other}, not to you (${uid})`, {
        details: { path },
      });
    }
    if ((found.mode & 0o077) !== 0) chmodSync(path, 0o700);
    accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK);
    return realpathSync(path);
  } catch (error) {
    const code = systemCode(error);
    if (code === undefined) throw error;
    const why = code === "EEXIST" || code === "ENOTDIR" ? "is not a folder" : `cannot be used (${code})`;
    throw new UserError("folder_unusable", `${path} ${why}`, { cause: error, details: { path } });
  }
}

/** Reads a file of at most `maxBytes`; undefined when there is none. @throws UserError `folder_unusable` where it cannot be read. */
export function readFile(permit: AnyPermit, path: string, maxBytes: number): Promise<Buffer | undefined> {
  return underPermit(permit, effect("fs.read", path), async () => {
    try {
      await using handle = await open(path, "r");
      const { size } = await handle.stat();
      if (size > maxBytes) {
        throw new UserError("folder_unusable", `${path} is larger than ${maxBytes} bytes`, { details: { path } });
      }
      return await handle.readFile();
    } catch (error) {
      if (systemCode(error) === "ENOENT") return undefined;
      throw fileError(error, path, "read");
    }
  });
}

/** Replaces a file: written beside it, flushed to disk, renamed over it. @throws OperationalError `storage_full` on ENOSPC and EDQUOT; UserError `folder_unusable`. */
export function writeFile(permit: AnyPermit, path: string, content: string | Buffer, mode = 0o600): Promise<void> {
  return underPermit(permit, effect("fs.write", path), async () => {
    const temporary = `${path}.new`;
    try {
      {
        await using handle = await open(temporary, "w", mode);
        await handle.writeFile(content);
        await handle.sync();
      }
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => {}); // Why it could not be written matters, not what is left of it.
      throw fileError(error, path, "written");
    }
  });
}

/** Removes one file; fine when it is gone already. */
export function removeFile(permit: AnyPermit, path: string): Promise<void> {
  return underPermit(permit, effect("fs.write", path), () => rm(path, { force: true }));
}

/** Sets a file's permission bits; for files that others make for us, such as a listener's socket. */
export function setFileMode(permit: AnyPermit, path: string, mode: number): Promise<void> {
  return underPermit(permit, effect("fs.write", path), () => chmod(path, mode));
}

export function moveFile(permit: AnyPermit, from: string, to: string): Promise<void> {
  return underPermit(permit, effect("fs.write", to), () => rename(from, to));
}

/** A file's size in bytes, or undefined when there is none. */
export function fileSize(permit: AnyPermit, path: string): Promise<number | undefined> {
  return underPermit(permit, effect("fs.read", path), async () => {
    try {
      return (await stat(path)).size;
    } catch (error) {
      if (systemCode(error) === "ENOENT") return undefined;
      throw error;
    }
  });
}

/** What changes when somebody replaces a file's content. */
export interface FileStamp {
  readonly sizeBytes: number;
  readonly modifiedAtMs: number;
}

/** Undefined when there is no such file. */
export function fileStamp(permit: AnyPermit, path: string): Promise<FileStamp | undefined> {
  return underPermit(permit, effect("fs.read", path), async () => {
    try {
      const { size, mtimeMs } = await stat(path);
      return { sizeBytes: size, modifiedAtMs: mtimeMs };
    } catch (error) {
      if (systemCode(error) === "ENOENT") return undefined;
      throw error;
    }
  });
}

export interface FileReader extends AsyncDisposable {
  readonly sizeBytes: number;
  /** At most `length` bytes from `position`; fewer at the end of the file. */
  read(position: number, length: number): Promise<Buffer>;
}

/** Opens a file to read parts of it. @throws the system's error, also when there is none. */
export function openReader(permit: AnyPermit, path: string): Promise<FileReader> {
  return underPermit(permit, effect("fs.read", path), async () => {
    const handle = await open(path, "r");
    const { size } = await handle.stat();
    return {
      sizeBytes: size,
      async read(position, length) {
        const buffer = Buffer.allocUnsafe(Math.max(0, Math.min(length, size - position)));
        const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
        return buffer.subarray(0, bytesRead);
      },
      [Symbol.asyncDispose]: () => handle.close(),
    };
  });
}

export interface Appender extends AsyncDisposable {
  readonly sizeBytes: number;
  append(bytes: Buffer): Promise<void>;
  flush(): Promise<void>;
}

/** Opens a file for appending, creating its folder; `truncate` empties it first. @throws OperationalError `storage_full` while appending. */
export async function openAppender(
  permit: AnyPermit,
  path: string,
  options: { readonly truncate: boolean },
): Promise<Appender> {
  return underPermit(permit, effect("fs.write", path), async () => {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const handle = await open(path, options.truncate ? "w" : "a", 0o600);
    let sizeBytes = (await handle.stat()).size;
    return {
      get sizeBytes() {
        return sizeBytes;
      },
      async append(bytes) {
        try {
          await handle.appendFile(bytes);
        } catch (error) {
          throw storageError(error, path);
        }
        sizeBytes += bytes.length;
      },
      flush: () => handle.sync(),
      [Symbol.asyncDispose]: () => handle.close(),
    };
  });
}

/** A file of ours that the system refuses, in words for the user; errors of ours pass unchanged. */
export function fileError(error: unknown, path: string, verb: "read" | "written"): unknown {
  const code = systemCode(error);
  const named = storageError(error, path);
  if (code === undefined || named instanceof GhostError) return named;
  return new UserError("folder_unusable", `${path} cannot be ${verb} (${code})`, { cause: error, details: { path } });
}

/** ENOSPC and its relatives as `storage_full`; anything else unchanged. */
export function storageError(error: unknown, path: string): unknown {
  const code = systemCode(error);
  if (code !== "ENOSPC" && code !== "EDQUOT" && code !== "EFBIG") return error;
  return new OperationalError("storage_full", `${path} cannot grow: no space left (${code})`, {
    cause: error,
    details: { path },
  });
}

/** Bytes that an ordinary user may still write in the file system of `path`. */
export function freeBytes(permit: AnyPermit, path: string): Promise<number> {
  return underPermit(permit, effect("fs.read", path), async () => {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  });
}

/** Where weights come from, and what a server's answer says about them. Pure. */
import { UserError } from "../../base/errors.ts";
import type { ModelPullUpdate } from "../../../protocol/model.ts";

export type PullUpdate = Exclude<ModelPullUpdate, { kind: "done" }>;

/** `hf:owner/repo/path/file.gguf` → `https://huggingface.co/owner/repo/resolve/main/path/file.gguf`. @throws UserError `invalid_params`. */
export function resolveSource(source: string, huggingFaceUrl: string): URL {
  const refuse = (problem: string) =>
    new UserError("invalid_params", `${JSON.stringify(source)} ${problem}`, { details: { field: "source" } });
  if (source.startsWith("hf:")) {
    const [owner, repo, ...path] = source.slice(3).split("/");
    if (
      owner === undefined ||
      repo === undefined ||
      path.length === 0 ||
      [owner, repo, ...path].some((part) => part === "" || part === "..")
    ) {
      throw refuse("is not of the form hf:owner/repo/file.gguf");
    }
    return new URL(
      `${[owner, repo, "resolve", "main", ...path].map(encodeURIComponent).join("/")}`,
      `${huggingFaceUrl}/`,
    );
  }
  const url = URL.parse(source);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:"))
    throw refuse("is neither http(s)://… nor hf:owner/repo/file.gguf");
  if (url.username !== "" || url.password !== "") throw refuse("holds a password; that would be stored with the model");
  return url;
}

/** The file's name without `.gguf`. @throws UserError `invalid_params` when that is no name. */
export function defaultName(url: URL): string {
  const last = decodeSegment(url);
  const name = last.replace(/\.gguf$/i, "");
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name)) return name;
  throw new UserError("invalid_params", `${JSON.stringify(last)} gives no name for the model; pass one`, {
    details: { field: "name" },
  });
}

function decodeSegment(url: URL): string {
  const encoded = url.pathname.split("/").at(-1) ?? "";
  try {
    return decodeURIComponent(encoded);
  } catch (cause) {
    throw new UserError("invalid_params", `${JSON.stringify(encoded)} in the source is no valid percent-encoding`, {
      cause,
      details: { field: "source" },
    });
  }
}

/** Where a redirect leads. @throws UserError `download_mismatch` for one that would leave https. */
export function redirectTarget(from: URL, location: string | undefined): URL {
  const to = location === undefined ? null : URL.parse(location, from.href);
  if (to === null || (to.protocol !== "http:" && to.protocol !== "https:")) {
    throw new UserError("download_mismatch", `${from.origin} redirects to nowhere (${JSON.stringify(location)})`);
  }
  if (from.protocol === "https:" && to.protocol === "http:") {
    throw new UserError("download_mismatch", `${from.origin} redirects to ${to.origin}, which is not encrypted`);
  }
  return to;
}

/** `bytes 100-199/200` → `{start: 100, total: 200}`. */
export function parseContentRange(
  value: string | undefined,
): { readonly start: number; readonly total: number | undefined } | undefined {
  const match = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(value ?? "");
  if (match?.[1] === undefined) return undefined;
  return { start: Number(match[1]), total: match[2] === "*" ? undefined : Number(match[2]) };
}

/** A validator that may stand in If-Range: a strong ETag, else a date (RFC 9110 §13.1.5). */
export function strongValidator(etag: string | undefined, lastModified: string | undefined): string | undefined {
  if (etag !== undefined && etag.startsWith('"')) return etag;
  return lastModified;
}

/** A sha256 in quotes or bare, as Hugging Face gives it in `x-linked-etag`. */
export function sha256Of(etag: string | undefined): string | undefined {
  return /^(?:W\/)?"?([0-9a-f]{64})"?$/i.exec(etag ?? "")?.[1]?.toLowerCase();
}

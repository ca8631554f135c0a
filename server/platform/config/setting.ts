/** What settings are made of: their texts, and the kinds of values that several sections share. */
import { z } from "zod";

export interface About {
  readonly description: string;
  readonly unit?: string;
  /** What to write after `name =`. */
  readonly example?: string;
  /** What stands in the column for defaults where there is no fixed one. */
  readonly otherwise?: string;
  /** What is expected, where the type alone does not say it. */
  readonly expects?: string;
}
export const about = (texts: About): z.GlobalMeta => ({ ...texts });

/** A table that may be left out: its settings then have their defaults. */
export const section = <Shape extends z.core.$ZodShape>(description: string, shape: Shape) =>
  z.strictObject(shape).meta(about({ description }));

/** Names become part of model names (`lmstudio/…`, `ollama/…@ws4090`), so they hold neither `/` nor `@`. */
export const name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/);
export const named = <Value extends z.ZodType>(value: Value) => z.record(name, value);

export const isNormalPath = (path: string) => path.startsWith("/") && !/\/(\.{0,2})(\/|$)/.test(path);

/** An address without user, query or fragment: those would carry secrets (1) or be lost when paths are appended. */
export const httpUrl = z.string().refine((text) => {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) return false;
  return url.username === "" && url.password === "" && url.search === "" && url.hash === "";
});
export const URL_EXPECTED = "an http:// or https:// address without user, query and fragment";

export const pattern = z.string().min(1).max(256);
export const patterns = z.array(pattern).min(1).max(64);

/** Branded primitives: a `SessionId` is a string that only the function which makes session ids can produce. */

declare const brand: unique symbol;

export type Brand<Base, Name extends string> = Base & { readonly [brand]: Name };

/** The last line of a parser: gives a checked primitive its brand. Call it only where the value was just validated. */
export function branded<Type extends Brand<string, string>>(value: string): Type {
  // oxlint-disable-next-line typescript/consistent-type-assertions -- a brand has no value to construct.
  return value as Type;
}

/** Members that may be absent: `{...present("seed", body.seed)}` has no `seed` where the value is null or undefined. */
export function present<Key extends string, Value>(
  key: Key,
  value: Value | null | undefined,
): { readonly [Name in Key]?: Value } {
  const member: { [Name in Key]?: Value } = {};
  if (value !== null && value !== undefined) member[key] = value;
  return member;
}

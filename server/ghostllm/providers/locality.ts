/** Where text goes that is sent to an address (DESIGN §4): loopback = this machine, a private address = the local network, anything else = cloud. */
import type { Locality } from "../../../protocol/model.ts";

/**
 * Looks at the address only and resolves no names: a name that is not loopback counts as cloud, because it may point anywhere tomorrow.
 * `http://127.0.0.1:11434` → `machine`; `http://192.168.1.7:11434` → `lan`; `https://ollama.example.com` → `cloud`.
 */
export function localityOf(url: string): Locality {
  const host = new URL(url).hostname.toLowerCase().replace(/^\[|\]$/g, "");
  if (host === "localhost" || host.endsWith(".localhost") || host === "::1") return "machine";
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(host);
  const octets = mapped === null ? ipv4(host) : fromWords(mapped[1] ?? "", mapped[2] ?? "");
  if (octets !== undefined) return ipv4Locality(octets);
  // Unique local (fc00::/7) and link-local (fe80::/10) addresses.
  return /^f[cd][0-9a-f]{2}:/.test(host) || /^fe[89ab][0-9a-f]:/.test(host) ? "lan" : "cloud";
}

function ipv4Locality([first = 0, second = 0]: readonly number[]): Locality {
  if (first === 127) return "machine";
  if (first === 10 || (first === 192 && second === 168) || (first === 169 && second === 254)) return "lan";
  return first === 172 && second >= 16 && second < 32 ? "lan" : "cloud";
}

/** URL parsing has already brought every spelling of an IPv4 address into this form. */
function ipv4(host: string): readonly number[] | undefined {
  return /^\d{1,3}(?:\.\d{1,3}){3}$/.test(host) ? host.split(".").map(Number) : undefined;
}

function fromWords(high: string, low: string): readonly number[] {
  const words = [Number.parseInt(high, 16), Number.parseInt(low, 16)];
  return words.flatMap((word) => [word >> 8, word & 255]);
}

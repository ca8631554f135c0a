/** Renders docs/errors.md from the catalogue in protocol/errors.ts. */
import { type ErrorFamily, errorCatalogue } from "../protocol/errors.ts";

const families: Readonly<Record<ErrorFamily, string>> = {
  user: "You can change something: the message says what, with the ids concerned.",
  operational: "Something outside failed, and trying again may help; where anybody knows when, `retryAfterMs` says it.",
  bug: "We were wrong. It is logged with its stack.",
};

export function renderErrorsManual(): string {
  const codes = Object.entries(errorCatalogue);
  const lines = [
    "# Errors",
    "",
    "<!-- Generated from protocol/errors.ts by `npm run generate`; a test keeps both equal. -->",
    "",
    "Every failure that crosses a process boundary carries one of these codes: in a JSON-RPC error as `data.code`, in an HTTP body as `error.code`,",
    "in a terminal after the message. Codes are never reused for something else.",
  ];
  for (const [family, meaning] of Object.entries(families)) {
    const members = codes.filter(([, entry]) => entry.family === family);
    lines.push(
      "",
      `## \`${family}\``,
      "",
      meaning,
      "",
      "| code | HTTP | what happened | what to do |",
      "|---|---|---|---|",
    );
    for (const [code, entry] of members) {
      lines.push(`| \`${code}\` | ${entry.http} | ${escapeCell(entry.meaning)} | ${escapeCell(entry.advice)} |`);
    }
  }
  return `${lines.join("\n")}\n`;
}

function escapeCell(text: string): string {
  return text.replaceAll("|", "\\|");
}

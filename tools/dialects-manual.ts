/** Renders docs/dialects.md from the matrix in test/dialects/cells.ts, which test/dialects/matrix.test.ts holds cell by cell. */
import {
  CASES,
  type CaseName,
  type Cell,
  cellOf,
  type ClientName,
  CLIENTS,
  UPSTREAMS,
} from "../test/dialects/cells.ts";

const SIGNS: Readonly<Record<Cell, string>> = { works: "✓", refused: "✗", none: "·" };

/** What each case asks, and what must come back. */
const CASE_MEANINGS: Readonly<Record<CaseName, string>> = {
  plain: "a question, answered in one piece: the very text, and the end that the dialect has for it",
  stream: "the same as a stream, ended as the dialect ends one",
  tools:
    "a tool is called, streamed and whole; its result goes back, with the model's signed thinking where its maker signs it, and is answered",
  "parallel tools": "two calls in one answer, the second without arguments: two ids, two results",
  images: "a picture arrives at the model unchanged",
  schema: "an answer by a JSON schema",
  error:
    "the model's server says 429: the client sees 429 in its own shape, with the time to wait where the server named one",
  cut: "the server's stream breaks off: the client never sees a whole answer, and what it saw is a beginning of it",
};

export function renderDialectsManual(): string {
  const all = CLIENTS.flatMap((client) =>
    UPSTREAMS.flatMap((upstream) => CASES.map((name) => cellOf(client, upstream, name))),
  );
  const tested = all.filter((cell) => cell !== "none").length;
  const lines = [
    "# Every dialect to every model",
    "",
    "<!-- Generated from test/dialects/cells.ts by `npm run generate`; a test keeps both equal. -->",
    "",
    `Clients of ${CLIENTS.length} dialects and ${UPSTREAMS.length} kinds of model servers, with ${CASES.length} cases each: ${tested} cells, and each is a test of its own in`,
    "`test/dialects/matrix.test.ts`, through the real daemon, with a strict fake of the server on a real socket (the embedded engine is the real one).",
    "A test is named after its cell:",
    "",
    "```sh",
    `node --test --test-name-pattern "Messages to Gemini: parallel tools" test/dialects/matrix.test.ts`,
    "```",
    "",
    "✓ works · ✗ refused with a clear error before a token is spent · `·` cannot happen there",
    "",
    ...tables(),
    "## The cases",
    "",
    "| case | what is asked, and what must come back |",
    "|---|---|",
    ...CASES.map((name) => `| ${name} | ${CASE_MEANINGS[name]} |`),
    "",
    "What single fields become on the way is in [carriage.md](carriage.md). The official SDKs are tested against the same servers in `test/sdk`, real agents in `test/agents`; see [clients](clients/README.md).",
  ];
  return `${lines.join("\n")}\n`;
}

/** Clients whose cells are the same share a table. */
function tables(): readonly string[] {
  const clientsByTable = Map.groupBy(CLIENTS, (client) => tableOf(client).join("\n"));
  return [...clientsByTable].flatMap(([table, clients]) => [`## ${heading(clients)}`, "", table, ""]);
}

function heading(clients: readonly ClientName[]): string {
  return clients.length === CLIENTS.length
    ? `From clients of every dialect (${clients.join(", ")})`
    : `From clients of ${clients.join(", ")}`;
}

function tableOf(client: ClientName): readonly string[] {
  return [
    `| | ${UPSTREAMS.join(" | ")} |`,
    `|---|${UPSTREAMS.map(() => ":-:").join("|")}|`,
    ...CASES.map(
      (name) => `| ${name} | ${UPSTREAMS.map((upstream) => SIGNS[cellOf(client, upstream, name)]).join(" | ")} |`,
    ),
  ];
}

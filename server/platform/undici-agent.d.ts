/** One class of undici without the rest of it: its index loads fetch, WebSocket, mocks and more, 10 MB of them, and none is used here. */
declare module "undici/lib/dispatcher/agent.js" {
  import type { Agent } from "undici";

  const AgentClass: typeof Agent;
  export default AgentClass;
}

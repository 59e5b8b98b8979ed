// A client on version 1 of the TypeScript SDK whose second server does not know its session. Usage: node ts_sessions.mjs
// FIRST SECOND; prints what it saw.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [first, second] = process.argv.slice(2);
let reached = first;
const balanced = (url, init) => fetch(String(url).replace(first, reached), init);

async function connected() {
  const client = new Client({ name: "typescript", version: "1" });
  await client.connect(new StreamableHTTPClientTransport(new URL(first), { fetch: balanced }));
  return client;
}
const echo = async (client, text) => (await client.callTool({ name: "echo", arguments: { text } })).content[0].text;

const client = await connected();
const seen = { before: await echo(client, "one") };
reached = second;
try {
  seen.lost = await echo(client, "two");
} catch (error) {
  seen.lost = error.code ?? String(error);
}
const again = await connected();
seen.after = await echo(again, "three");
await again.close();
console.log(JSON.stringify(seen));
process.exit(0);

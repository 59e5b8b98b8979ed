// A client on version 2 of the TypeScript SDK, in the era of 2026-07-28. Usage: node ts_client_v2.mjs URL [TOKEN];
// prints what it saw.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const [url, token] = process.argv.slice(2);
const headers = token ? { Authorization: `Bearer ${token}` } : {};
const options = { versionNegotiation: { mode: "auto" } };
const client = new Client({ name: "typescript", version: "2" }, options);
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
const tools = (await client.listTools()).tools;
const echo = await client.callTool({ name: "echo", arguments: { text: "from TypeScript" } });
const progress = [];
const onprogress = (update) => progress.push(update.message ?? "");
await client.callTool({ name: "chatty", arguments: {} }, { onprogress });
const numbers = await client.callTool({ name: "numbers", arguments: {} });
const failed = await client.callTool({ name: "fail", arguments: {} });
const subscription = await client.listen({ toolsListChanged: true });
await subscription.close();
const stop = new AbortController();
const cancelled = client
  .callTool({ name: "wait_for_ever", arguments: { pidfile: "/dev/null" } }, { signal: stop.signal })
  .then(() => "answered", () => "cancelled");
setTimeout(() => stop.abort(), 300);
const seen = {
  version: client.getNegotiatedProtocolVersion(),
  tools: tools.map((tool) => tool.name),
  echo: echo.content[0].text,
  numbers: numbers.structuredContent,
  failed: failed.isError,
  cancelled: await cancelled,
  progress,
};
await client.close();
console.log(JSON.stringify(seen));

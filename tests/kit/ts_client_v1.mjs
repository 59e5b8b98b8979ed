// A client on version 1 of the TypeScript SDK. Usage: node ts_client_v1.mjs URL http|sse [TOKEN]; prints what it saw.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, kind, token] = process.argv.slice(2);
const Transport = kind === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
const headers = token ? { Authorization: `Bearer ${token}` } : {};
const client = new Client({ name: "typescript", version: "1" });
await client.connect(new Transport(new URL(url), { requestInit: { headers } }));
const tools = (await client.listTools()).tools;
const echo = await client.callTool({ name: "echo", arguments: { text: "from TypeScript" } });
const progress = [];
const onprogress = (update) => progress.push(update.message ?? "");
await client.callTool({ name: "chatty", arguments: {} }, undefined, { onprogress });
const numbers = await client.callTool({ name: "numbers", arguments: {} });
const failed = await client.callTool({ name: "fail", arguments: {} });
const stop = new AbortController();
const cancelled = client
  .callTool({ name: "wait_for_ever", arguments: { pidfile: "/dev/null" } }, undefined, { signal: stop.signal })
  .then(() => "answered", () => "cancelled");
setTimeout(() => stop.abort(), 300);
const seen = {
  tools: tools.map((tool) => tool.name),
  echo: echo.content[0].text,
  numbers: numbers.structuredContent,
  failed: failed.isError,
  cancelled: await cancelled,
  progress,
};
await client.close();
console.log(JSON.stringify(seen));

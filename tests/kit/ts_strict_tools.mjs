// What version 1 of the TypeScript SDK makes of tools, one list for each: reads a JSON array of tools from standard
// input and prints, by name, why a client would lose its whole list for one.
import { readFileSync } from "node:fs";
import { ListToolsResultSchema } from "@modelcontextprotocol/sdk/types.js";
import { AjvJsonSchemaValidator } from "@modelcontextprotocol/sdk/validation/ajv";

const validator = new AjvJsonSchemaValidator();
console.warn = () => {}; // of formats that it does not know
const refused = {};
for (const tool of JSON.parse(readFileSync(0, "utf8"))) {
  const parsed = ListToolsResultSchema.safeParse({ tools: [tool] });
  if (!parsed.success) refused[tool.name] = parsed.error.message;
  try {
    if (tool.outputSchema) validator.getValidator(tool.outputSchema);
  } catch (error) {
    refused[tool.name] = error.message;
  }
}
console.log(JSON.stringify(refused));

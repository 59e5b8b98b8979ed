// What VS Code's own parser of JSON with comments reads in texts, a JSON array of them on standard input: the value of
// each, and its faults.
import { parse, printParseErrorCode } from "jsonc-parser";

let input = "";
for await (const chunk of process.stdin) input += chunk;
const out = JSON.parse(input).map((text) => {
  const errors = [];
  const value = parse(text, errors, { allowTrailingComma: true, disallowComments: false });
  return { value, errors: errors.map((error) => printParseErrorCode(error.error)) };
});
console.log(JSON.stringify(out));

// Prints what the official parser finds wrong with the document on standard input.
const { Parser } = require("@asyncapi/parser");
const fs = require("fs");

new Parser().parse(fs.readFileSync(0, "utf8")).then(({ document, diagnostics }) => {
  for (const { severity, message, path } of diagnostics) {
    console.log(severity, path.join("/"), message);
  }
  console.log(document ? "valid" : "invalid");
});

// The scripts of the widgets are put together without modules, so that a notebook holds one text; so do the tests.
import { readFileSync } from "node:fs";

const FOLDER = "kinesis_nb/widgets"; // below the root of the project, where the tests are started

/** Run scripts of the widgets as one, and return what they declare under these names. */
export function load(files, names) {
  const text = files.map((name) => readFileSync(`${FOLDER}/${name}`, "utf-8")).join("\n");
  const script = `const TABLE_STYLE = "", STYLES = "", SCRIPT = "";\n${text.replace("export default", "const exported =")}\nreturn { ${names.join(", ")} };`;
  return new Function(script)();
}

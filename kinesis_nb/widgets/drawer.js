// All of one row, in a panel beside the grid: its JSON as a tree, or indented; its text; its bytes.

const FORMS = { tree: "Tree", json: "JSON", text: "Raw", hex: "Hex" };

/** The panel. ask(message) sends to the kernel; step(by) goes to another row, close() to none; onlyKey(key) filters. */
function drawerOf({ ask, step, close, onlyKey }) {
  const panel = make("div", { class: "knb-drawer", role: "region", "aria-label": "one row", hidden: true });
  const result = make("span", { class: "knb-quiet", role: "status" });
  let form = "tree", shown = null;

  function show({ detail }) {
    shown = detail;
    panel.hidden = false;
    setText(result, "");
    draw();
  }

  function draw() {
    const shut = button("✕", "close (Escape)", close);
    shut.setAttribute("aria-label", "close");
    const older = button("↓", "the next row", () => step(1)), newer = button("↑", "the row before", () => step(-1));
    older.setAttribute("aria-label", "next row");
    newer.setAttribute("aria-label", "previous row");
    if (!shown) {
      panel.replaceChildren(make("div", { class: "knb-bar" }, newer, older, shut), make("div", { class: "knb-quiet" }, "this row is not held any more"));
      return;
    }
    const { number, facts } = shown;
    const copy = button("Copy", "copy the data exactly as they are", () => { setText(result, "copying …"); ask({ kind: "data", number, copy: true }); });
    const save = button("Save", "save the data as a file", () => { setText(result, "saving …"); ask({ kind: "data", number }); });
    const key = facts.find(([name]) => name === "partition key")?.[1];
    const only = button("Only this key", "show only rows with this partition key", () => onlyKey(number));
    only.disabled = !key || key === "-";
    const there = Object.keys(FORMS).filter((name) => shown[name]);
    if (!there.includes(form)) form = there[0];
    const tabs = make("div", { class: "knb-tabs", role: "tablist" }, ...there.map((name) => {
      const tab = make("button", { type: "button", role: "tab", class: "knb-tab", "aria-selected": String(name === form), onclick: () => { form = name; draw(); } }, FORMS[name]);
      return tab;
    }));
    const list = make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    const data = form === "tree" ? make("div", { class: "knb-tree", role: "tabpanel" }, treeNode(shown.tree)) : make("pre", { role: "tabpanel" }, ...isolated(shown[form] ?? ""));
    panel.replaceChildren(make("div", { class: "knb-bar" }, newer, older, copy, save, only, result, shut), list, tabs, data);
  }

  return { panel, show, say: (text) => setText(result, text), hide: () => { panel.hidden = true; shown = null; } };
}

/** Puts the parts of what was asked for together: got(blob, name, number) is called with the last one. */
function assembler(got, progress) {
  let parts = [], size = 0;
  return ({ name, number, size: whole, last }, buffer) => {
    parts.push(buffer.slice ? buffer.slice() : buffer);
    size += buffer.byteLength;
    if (!last) { progress(size, whole); return; }
    const blob = new Blob(parts);
    parts = [];
    size = 0;
    got(blob, name, number);
  };
}

/** Have the browser save something as a file. */
function saveAs(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

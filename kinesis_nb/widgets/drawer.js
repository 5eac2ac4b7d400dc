// All of one row, in a panel beside the grid: its JSON as a tree, or indented; its text; its bytes.

const FORMS = { tree: "Tree", json: "JSON", text: "Raw", hex: "Hex" };

/** The panel. copy(number) and save(number) want the data; step(by) goes to another row, close() to none; onlyKey(number) filters. */
function drawerOf({ copy, save, step, close, onlyKey }) {
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
    const shut = signButton("✕", "close", close);
    const older = signButton("↓", "next row", () => step(1)), newer = signButton("↑", "previous row", () => step(-1));
    if (!shown) {
      panel.replaceChildren(make("div", { class: "knb-bar" }, newer, older, shut), make("div", { class: "knb-quiet" }, "this row is not held any more"));
      return;
    }
    const { number, facts } = shown;
    const toCopy = button("Copy", "copy the data exactly as they are", () => { setText(result, "copying …"); copy(number); });
    const toSave = button("Save", "save the data as a file", () => { setText(result, "saving …"); save(number); });
    const key = facts.find(([name]) => name === "partition key")?.[1];
    const only = button("Only this key", "show only rows with this partition key", () => onlyKey(number));
    only.disabled = !key || key === "-";
    const there = Object.keys(FORMS).filter((name) => shown[name]);
    if (!there.includes(form)) form = there[0];
    const tabs = make("div", { class: "knb-tabs", role: "tablist" }, ...there.map((name) => make("button",
      { type: "button", role: "tab", class: "knb-tab", "aria-selected": String(name === form), onclick: () => { form = name; draw(); } }, FORMS[name])));
    const list = make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    const data = form === "tree" ? make("div", { class: "knb-tree", role: "tabpanel" }, treeNode(shown.tree)) : make("pre", { role: "tabpanel" }, ...isolated(shown[form] ?? ""));
    panel.replaceChildren(make("div", { class: "knb-bar" }, newer, older, toCopy, toSave, only, result, shut), list, tabs, data);
  }

  return { panel, show, say: (text) => setText(result, text), hide: () => { panel.hidden = true; shown = null; } };
}

/**
 * What the kernel sends in parts. get(message, done, progress) asks for it; done(blob, name) is called with all of it.
 * Each has a token: several may be under way, and another page of the view has asked for others.
 */
function downloadsOf(send) {
  const waiting = new Map();
  function get(message, done, progress) {
    const token = random();
    waiting.set(token, { parts: [], size: 0, done, progress });
    send({ ...message, token });
  }
  function take({ token, name, size, last }, buffer) {
    const one = waiting.get(token);
    if (!one) return;
    one.parts.push(buffer);
    one.size += buffer.byteLength;
    if (!last) { one.progress(one.size, size); return; }
    waiting.delete(token);
    one.done(new Blob(one.parts), name);
  }
  return { get, take };
}

/** Have the browser save something as a file. */
function saveAs(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

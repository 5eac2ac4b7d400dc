// What live views share: text stays text, numbers are told from words, a notebook is found or left alone.
import { load } from "./load.js";

const live = load(["notebook.js", "live.js"], [
  "connect", "insertBelow", "isNumbers", "make", "outputsOf", "placeOf", "setText", "showLost", "sparkline", "tableOf", "treeNode",
]);
const HOSTILE = '<img src=x onerror="alert(1)">';

test.each([
  [["1", "-2", "3,000.5"], true],
  [["12 %", "3.5 s", "7 ms", "1e-9"], true],
  [["", "-", "5"], true],
  [["5", "five"], false],
  [["1 km"], false],
  [["", "-"], false],
  [[], false],
])("isNumbers(%j) is %s", (texts, expected) => {
  expect(live.isNumbers(texts)).toBe(expected);
});

test("what make() is given as a child is text, never markup", () => {
  const element = live.make("p", { class: "a", hidden: true, title: undefined, lang: false }, HOSTILE);
  expect(element.children.length).toBe(0);
  expect(element.textContent).toBe(HOSTILE);
  expect(element.getAttributeNames().sort()).toEqual(["class", "hidden"]);
});

test("make() adds handlers and drawings", () => {
  const clicked = vi.fn();
  live.make("button", { onclick: clicked }).click();
  expect(clicked).toHaveBeenCalledOnce();
  expect(live.make("svg", { xmlns: "http://www.w3.org/2000/svg" }).namespaceURI).toBe("http://www.w3.org/2000/svg");
});

test("setText() keeps the node of a text that changes, and replaces anything else", () => {
  const element = live.make("p", {}, "one");
  const node = element.firstChild;
  live.setText(element, HOSTILE);
  expect(element.firstChild).toBe(node);
  expect(element.children.length).toBe(0);
  element.append(live.make("b", {}, "bold"));
  live.setText(element, "two");
  expect(element.innerHTML).toBe("two");
});

test("the table that stays in a notebook escapes what it shows, and puts numbers to the right", () => {
  const html = live.tableOf({ caption: HOSTILE, columns: ["n", "text"], rows: [["1", HOSTILE], ["2", "x"]] });
  expect(html).not.toContain("<img");
  const shown = document.createElement("div");
  shown.innerHTML = html;
  expect([...shown.querySelectorAll("td")].map((cell) => cell.className)).toEqual(["num", "", "num", ""]);
  expect(shown.querySelector("caption").textContent).toBe(HOSTILE);
});

test("a JSON tree is filled when it is opened", () => {
  const leaf = ["name", "string", HOSTILE, []];
  const tree = live.treeNode(["", "object", "1 field", [["inner", "object", "1 field", [leaf]]]]);
  expect(tree.querySelectorAll(".knb-leaf").length).toBe(0);
  const inner = tree.querySelector("details");
  inner.dispatchEvent(new Event("toggle"));
  inner.dispatchEvent(new Event("toggle"));
  expect(inner.querySelectorAll(".knb-leaf").length).toBe(1);
  expect(inner.querySelector(".knb-string").textContent).toBe(HOSTILE);
  expect(tree.querySelector("img")).toBe(null);
});

test("the line of the last minute ends at its newest value, and survives a minute without rows", () => {
  const { picture, draw } = live.sparkline();
  draw([0, 5, 10], "10");
  expect(picture.firstChild.getAttribute("points")).toBe("0,21 60,11 120,1");
  expect(picture.getAttribute("aria-label")).toContain("now 10, at most 10");
  draw([0, 0, 0], "0");
  expect(picture.firstChild.getAttribute("points")).toBe("0,21 60,21 120,21");
});

test("a state without a kernel says so", () => {
  const state = live.make("span");
  live.showLost(state, HOSTILE);
  expect(state.dataset.state).toBe("failed");
  expect(state.children.length).toBe(0);
  expect(state.textContent).toContain("no kernel");
});

function notebook({ readOnly = false } = {}) {
  const insertCell = vi.fn();
  return { model: { widget_manager: { context: { model: { readOnly, sharedModel: { insertCell } } } } }, insertCell };
}

function inCell(place) {
  const cell = document.createElement("div");
  cell.className = "jp-Cell";
  if (place !== undefined) cell.dataset.windowedListIndex = place;
  return cell.appendChild(document.createElement("pre"));
}

test("code goes into a cell below the one that it is in", () => {
  const { model, insertCell } = notebook();
  expect(live.insertBelow(model, inCell(2), "1 + 1")).toBe(true);
  expect(insertCell).toHaveBeenCalledExactlyOnceWith(3, { cell_type: "code", source: "1 + 1", metadata: {} });
});

test("no code goes into a notebook that is read only, or where there is none", () => {
  const { model, insertCell } = notebook({ readOnly: true });
  expect(live.insertBelow(model, inCell(2), "1")).toBe(false);
  expect(live.insertBelow(notebook().model, inCell(), "1")).toBe(false);
  expect(live.insertBelow({}, inCell(2), "1")).toBe(false);
  expect(insertCell).not.toHaveBeenCalled();
});

test("the outputs that show a widget are found, and only those", () => {
  const of = (id) => ({ data: { "application/vnd.jupyter.widget-view+json": { model_id: id } } });
  const items = [of("mine"), of("other"), { data: {} }];
  const outputs = { length: items.length, get: (i) => items[i], set: vi.fn() };
  const model = { widget_manager: { context: { model: { cells: [{}, { outputs }] } } } };
  const found = live.outputsOf(model, "mine");
  expect(found.length).toBe(1);
  found[0]({ "text/plain": "over" });
  expect(outputs.set).toHaveBeenCalledExactlyOnceWith(0, { output_type: "display_data", data: { "text/plain": "over" }, metadata: {} });
  expect(live.outputsOf({}, "mine")).toEqual([]);
});

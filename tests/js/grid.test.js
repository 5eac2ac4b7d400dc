// The grid: only the cells in sight are in the page, rows by their arrival, a frozen grid page by page.
import { load } from "./load.js";

const FILES = ["notebook.js", "live.js", "grid.js", "drawer.js", "timeline.js", "tail_view.js"];
const NAMES = ["gridOf", "profileOf", "badge", "shardLine", "timeBar", "downloadsOf", "isolated"];
const { gridOf, profileOf, badge, shardLine, timeBar, downloadsOf, isolated } = load(FILES, NAMES);
const COLUMNS = [["arrived", "arrived (UTC)"], ["key", "key"], ["shard", "shard"], ["data", "data"]];
const row = (number, arrived = number) => [number, arrived, `00:00:0${number % 10}`, "key", "0", `data ${number}`];
const frame = (numbers, more = {}) => ({
  everything: false, frozen: false, first: 0, newer: 0, rows: numbers.map((one) => row(one)), total: numbers.length, now: { state: "running" }, ...more,
});
const first = (numbers, more = {}) => frame(numbers, { everything: true, columns: COLUMNS, order: ["", true], ...more });
const down = (from, count) => Array.from({ length: count }, (_, i) => from - i);

function made(pick = () => {}) {
  const asked = [], grid = gridOf((message) => asked.push(message), pick);
  Object.defineProperty(grid.grid, "clientWidth", { value: 1_000 });
  return { ...grid, asked, lines: () => [...grid.grid.querySelectorAll(".knb-body .knb-row")].filter((one) => !one.hidden) };
}

test("a thousand rows are a few elements", () => {
  const grid = made();
  grid.put(first(down(5_000, 1_000)));
  expect(grid.lines().length).toBeLessThan(25);
  expect(grid.lines()[0].textContent).toContain("data 5000");
});

test("rows of another shard that arrived earlier go below, whenever they come", () => {
  const grid = made();
  grid.put(first([9, 7, 5]));
  grid.put(frame([8, 6]));
  expect(grid.newest(9).rows.map((cells) => cells[3])).toEqual(["data 9", "data 8", "data 7", "data 6", "data 5"]);
});

test("of one moment the last number is on top", () => {
  const grid = made();
  grid.put(first([], { rows: [row(2, 7), row(4, 7), row(3, 7)] }));
  expect(grid.newest(9).rows.map((cells) => cells[3])).toEqual(["data 4", "data 3", "data 2"]);
});

test("a hundred columns are those in sight", () => {
  const grid = made(), columns = Array.from({ length: 100 }, (_, i) => [`.${i}`, `field ${i}`]);
  grid.put(first([], { columns, rows: [[1, 1, ...columns.map((_, i) => `value number ${i}`)]] }));
  expect(grid.grid.querySelectorAll("[role=columnheader]").length).toBeLessThan(20);
  expect(grid.grid.getAttribute("aria-colcount")).toBe("100");
});

test("a click picks the row by its number, and asks the kernel to freeze the rows", () => {
  const pick = vi.fn(), grid = made(pick);
  grid.put(first([3, 2, 1]));
  grid.lines()[1].dispatchEvent(new Event("click", { bubbles: true }));
  expect(pick).toHaveBeenCalledExactlyOnceWith(2);
  expect(grid.asked).toEqual([{ kind: "hold", number: 2 }]);
  grid.put(first([4, 3, 2, 1], { frozen: true, newer: 2 }));
  expect([grid.newer.hidden, grid.newer.textContent]).toEqual([false, "↑ 2 newer rows"]);
  grid.newer.click();
  expect(grid.asked.at(-1)).toEqual({ kind: "release" });
});

test("rows that are not there yet are asked for by their places, once", () => {
  const grid = made();
  grid.put(first(down(1_000, 10), { frozen: true, total: 1_000, now: { state: "" } }));
  expect(grid.asked).toEqual([{ kind: "page", first: 10, last: 110 }]);
  expect(grid.lines()[12].textContent).toContain("…");
  grid.page({ first: 10, rows: down(990, 100).map((one) => row(one)) });
  expect(grid.lines()[12].textContent).toContain("data 988");
  expect(grid.asked.length).toBe(1);
});

test("the head of a column sorts: largest first, smallest first, by arrival", () => {
  const grid = made(), head = () => grid.grid.querySelectorAll(".knb-sort")[1];
  grid.put(first([1]));
  head().click();
  grid.put(first([1], { order: ["key", true] }));
  expect(head().textContent).toBe("key ↓");
  head().click();
  grid.put(first([1], { order: ["key", false] }));
  head().click();
  expect(grid.asked).toEqual([{ kind: "sort", column: "key", descending: true }, { kind: "sort", column: "key", descending: false }, { kind: "release" }]);
});

test("a click on a bar asks for its range: whole numbers belong to it, an upper edge only at the end", () => {
  const chosen = [], choose = (chip) => chosen.push(chip);
  const click = (about, i) => profileOf(".0", about, choose).querySelectorAll(".knb-hist")[i].dispatchEvent(new Event("click"));
  click({ type: "integer", filled: 9, rows: 9, low: 1, high: 11, bars: [4, 5] }, 0);
  click({ type: "number", filled: 9, rows: 9, low: 0, high: 1, bars: [4, 5] }, 0);
  click({ type: "number", filled: 9, rows: 9, low: 0, high: 1, bars: [4, 5] }, 1);
  expect(chosen).toEqual([
    { column: ".0", low: 1, high: 5, closed: true },
    { column: ".0", low: 0, high: 0.5, closed: false },
    { column: ".0", low: 0.5, high: 1, closed: true },
  ]);
});

test("what comes in parts is put together byte by byte, though another download is under way", async () => {
  const sent = [], done = vi.fn(), other = vi.fn(), progress = vi.fn(), downloads = downloadsOf((message) => sent.push(message));
  downloads.get({ kind: "data", number: 3 }, done, progress);
  downloads.get({ kind: "data", number: 4 }, other, () => {});
  const [{ token }, { token: second }] = sent;
  const take = (one, last, bytes) => downloads.take({ token: one, name: "a", size: 5, last }, new Uint8Array(bytes));
  take(token, false, [1, 2, 3]);
  take(second, true, [9]);
  take("of another page", true, [8]);
  take(token, true, [4, 5]);
  expect(progress).toHaveBeenCalledExactlyOnceWith(3, 5);
  for (const [call, bytes] of [[done, [1, 2, 3, 4, 5]], [other, [9]]]) {
    const [blob, name] = call.mock.calls[0];
    expect([[...new Uint8Array(await blob.arrayBuffer())], name]).toEqual([bytes, "a"]);
  }
});

test("strings from right to left keep their places in the text around them", () => {
  const text = '{"\u05d0": "\u05d1 \\" x", "n": 1}';
  const nodes = isolated(text);
  expect(nodes.map((node) => node.textContent ?? node).join("")).toBe(text);
  expect(nodes.filter((node) => node.tagName === "BDI").map((node) => node.textContent)).toEqual(['"\u05d0"', '"\u05d1 \\" x"']);
  expect(isolated('{"a": "cut \u05d0').map((node) => node.tagName)).toEqual([undefined, undefined, undefined, "BDI"]);
});

test("the badge of a shard is text, with its error in the hint, and chooses the shard", () => {
  const chosen = [], one = badge(["0", "shardId-000000000000", "reading", "1.5 s", 3, "<b>denied</b>", "bad", 0.5, 0, true], true, (id) => chosen.push(id));
  expect(one.textContent).toBe("0 · 1.5 s · 3 throttled");
  expect(one.title).toContain("<b>denied</b>");
  expect(one.title).toContain("50.0 % of the hash keys");
  expect([...one.classList]).toEqual(["knb-badge", "knb-bad", "knb-throttled", "knb-silent", "knb-lit"]);
  expect(one.children.length).toBe(0);
  one.click();
  expect(chosen).toEqual(["shardId-000000000000"]);
});

test("many shards have no text, and are drawn again only when one has changed", () => {
  const line = shardLine(() => {}), shards = Array.from({ length: 200 }, (_, i) => [`${i}`, `shard ${i}`, "reading", "0.0 s", 0, "", "good", 0.005, 0.1, false]);
  line.draw(shards);
  const [first] = line.root.children;
  expect([line.root.children.length, first.textContent]).toEqual([200, ""]);
  line.draw(structuredClone(shards));
  expect(line.root.children[0]).toBe(first);
});

test("a stretch of time is chosen with the keys", () => {
  const chosen = [], time = timeBar((low, high) => chosen.push([low, high])), field = time.root.querySelector(".knb-time");
  const press = (key, shiftKey = false) => field.dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey }));
  time.draw({ start: 100, step: 5, shards: ["0", "1"], bars: [[1, 2, 0, 4], [0, 1, 0, 0]] });
  expect(time.root.querySelectorAll(".knb-slice i").length).toBe(4);
  expect(time.root.querySelector(".knb-scale").textContent).toBe("1/s");
  press("ArrowRight");
  press("ArrowRight", true);
  press("Enter");
  expect(chosen).toEqual([[105e6, 115e6]]);
});

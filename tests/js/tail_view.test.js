// The rows of a tail: only those in sight are in the page, the newest first, and what comes too fast is marked.
import { load } from "./load.js";

const { rowTable, badge } = load(["notebook.js", "live.js", "tail_view.js"], ["rowTable", "badge"]);
const row = (number) => [number, `00:00:0${number % 10}`, "shard 0", "key", `data ${number}`];
const frame = (numbers, everything = false) => ({ everything, columns: ["time", "shard", "key", "data"], rows: numbers.map(row) });
const shown = (grid) => [...grid.querySelectorAll(".knb-body .knb-row")].filter((one) => !one.hidden);

test("a thousand rows are a few elements", () => {
  const table = rowTable(() => {});
  table.put(frame(Array.from({ length: 5_000 }, (_, i) => 5_000 - i), true));
  expect(shown(table.grid).length).toBeLessThan(25);
  expect(shown(table.grid)[0].textContent).toContain("data 5000");
});

test("new rows go to the top, and the oldest of more than a thousand are dropped", () => {
  const table = rowTable(() => {});
  table.put(frame(Array.from({ length: 1_000 }, (_, i) => 1_000 - i), true));
  table.put(frame([1_002, 1_001]));
  expect(shown(table.grid)[0].textContent).toContain("data 1002");
  expect(table.newest(5_000).rows.length).toBe(1_000);
  expect(table.newest(5_000).rows[0][3]).toBe("data 3");
});

test("rows that were skipped are marked with how many they are", () => {
  const table = rowTable(() => {});
  table.put(frame([9, 3, 2], true));
  const [first, second] = shown(table.grid);
  expect(first.classList.contains("knb-gap")).toBe(true);
  expect(first.title).toContain("5 rows below");
  expect(second.title).toBe("");
});

test("a click picks the row by its number, and rows that come then wait", () => {
  const pick = vi.fn();
  const table = rowTable(pick);
  table.put(frame([3, 2, 1], true));
  shown(table.grid)[1].dispatchEvent(new Event("click", { bubbles: true }));
  expect(pick).toHaveBeenCalledExactlyOnceWith(2);
  table.put(frame([5, 4]));
  expect(shown(table.grid)[0].textContent).toContain("data 3");
  expect([table.newer.hidden, table.newer.textContent]).toEqual([false, "↑ 2 newer rows"]);
  table.newer.click();
  expect(shown(table.grid)[0].textContent).toContain("data 5");
});

test("the badge of a shard is text, with its error in the hint", () => {
  const one = badge(["0", "shardId-000000000000", "reading", "1.5 s", 3, "<b>denied</b>", "bad"]);
  expect(one.textContent).toBe("0 · 1.5 s · 3 throttled");
  expect(one.title).toContain("<b>denied</b>");
  expect(one.children.length).toBe(0);
});

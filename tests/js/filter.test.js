// The filters of a tail: what somebody types stays, whatever comes from the kernel meanwhile.
import { load } from "./load.js";

const { exported } = load(["notebook.js", "live.js", "grid.js", "drawer.js", "timeline.js", "tail_view.js"], ["exported"]);
const NOW = { title: "orders", state: "running", counts: "", dropped: "", rate: "0", rates: [0, 0], trouble: "", banner: "", shards: [], notes: [] };
const SETTING = { columns: [], fields: [], chips: [], beyond: 0, order: ["", true], frozen: false, first: 0, total: 0, newer: 0 };

/** A view on a page, and the front end's half of its connection. */
function view() {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "requestAnimationFrame", "performance"] });
  globalThis.kinesisNotebookDraws = undefined;
  const sent = [], heard = {};
  const model = { send: (message) => sent.push(message), on: (name, call) => { heard[name] = call; }, off() {} };
  const el = document.body.appendChild(document.createElement("div"));
  const leave = exported.render({ model, el });
  const close = () => { leave(); vi.useRealTimers(); };
  const [text, key] = el.querySelectorAll("input");
  function frame(...filter) {
    const content = { ...SETTING, everything: true, rows: [], json: false, matching: "", error: "", filter, now: NOW };
    const bytes = new TextEncoder().encode(JSON.stringify(content));
    heard["msg:custom"]({ kind: "frame", number: 1, answer: false, replies: [], model: "m" }, [new DataView(bytes.buffer)]);
    vi.advanceTimersByTime(300);
  }
  function type(input, value) {
    input.value = value;
    input.dispatchEvent(new Event("input"));
  }
  const filters = () => sent.filter(({ kind }) => kind === "filter").map((one) => [one.text, one.key]);
  return { text, key, frame, type, filters, close };
}

test("a frame with the filter from before does not bring a cleared one back", () => {
  const { text, frame, type, filters, close } = view();
  type(text, "pears");
  frame("", "");
  expect(text.value).toBe("pears");
  frame("pears", "");
  type(text, "");
  frame("pears", "");
  expect(text.value).toBe("");
  expect(filters().at(-1)).toEqual(["", ""]);
  frame("", "");
  expect(text.value).toBe("");
  close();
});

test("a filter that code or another page has set is shown", () => {
  const { text, key, frame, type, close } = view();
  frame("apples", "user-1");
  expect([text.value, key.value]).toEqual(["apples", "user-1"]);
  type(key, "user-2");
  frame("apples", "user-2");
  frame("", "");
  expect([text.value, key.value]).toEqual(["", ""]);
  close();
});

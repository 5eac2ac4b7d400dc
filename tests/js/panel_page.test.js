// What a panel does on the page by itself: seconds of work, a kernel that is gone, fields that are read out.
import { load } from "./load.js";

const { exported } = load(["notebook.js", "panel_page.js"], ["exported"]);
const HTML = `
  <div class="knb-field knb-required"><label class="widget-label">Region</label><input value="frankfurt">
    <div class="knb-mark"><span class="knb-wrong">not a region</span></div></div>
  <div class="knb-field"><label class="widget-label">\u200b</label>
    <label class="widget-label-basic"><input type="checkbox" checked><span>Exports</span></label><div class="knb-mark"></div></div>
  <div class="knb-field"><div class="knb-secret"><span class="widget-label">Key</span><input value="CANARY">
    <span class="knb-secret-note">set</span></div><div class="knb-mark"></div></div>
  <div class="widget-html-content"><table><tr><td>found &lt;b&gt;</td></tr></table></div>
  <div class="own"></div>`;

/** A panel on a page, and the front end's half of its connection. */
async function panel({ isThere = true, status = "idle" } = {}) {
  const sent = [], heard = {}, state = { busy: 0, panel: "p", title: "SourceForm" };
  const shown = { data: { "application/vnd.jupyter.widget-view+json": { model_id: "p" } } };
  const left = [], outputs = { length: 1, get: () => shown, set: (_, output) => left.push(output.data) };
  const kernel = { status }, comm = { comm_live: isThere };
  const widget_manager = { get_model: async () => comm, kernel, context: { model: { cells: [{ outputs }] } } };
  const model = {
    get: (name) => state[name], send: (message) => sent.push(message), off() {}, widget_manager,
    on: (name, call) => { heard[name] = call; },
  };
  const root = document.body.appendChild(document.createElement("div"));
  root.className = "knb-panel";
  root.innerHTML = HTML;
  for (const one of root.querySelectorAll("*")) one.getClientRects = () => [1]; // nothing is laid out here
  const close = exported.render({ model, el: root.querySelector(".own") });
  await vi.advanceTimersByTimeAsync(0);
  const busy = (number) => { state.busy = number; heard["change:busy"](); };
  const kernelGoes = async (to) => {
    comm.comm_live = to === "idle";
    kernel.status = to;
    heard.comm_live_update();
    await vi.advanceTimersByTimeAsync(0);
  };
  const [lost, work] = root.querySelector(".own").children;
  return { root, sent, left, busy, kernelGoes, lost, work, close };
}

vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance", "requestAnimationFrame"] });

test("work that takes a second has its seconds counted and can be cancelled", async () => {
  const { work, busy, sent, close } = await panel();
  busy(7);
  vi.advanceTimersByTime(900);
  expect(work.hidden).toBe(true);
  vi.advanceTimersByTime(4_200);
  expect([work.hidden, work.querySelector("span").textContent]).toEqual([false, "5 s"]);
  work.querySelector("button").click();
  expect(sent).toEqual([{ kind: "cancel", number: 7 }]);
  busy(0);
  expect(work.hidden).toBe(true);
  vi.advanceTimersByTime(5_000);
  expect(work.hidden).toBe(true);
  close();
});

test("a field says to a screen reader what is wrong with it, and that it must be filled in", async () => {
  const { root, close } = await panel();
  const [region, exports] = root.querySelectorAll("input"), [mark] = root.querySelectorAll(".knb-mark");
  const attributes = (one) => ["aria-invalid", "aria-required"].map((name) => one.getAttribute(name));
  expect(attributes(region)).toEqual(["true", "true"]);
  expect(attributes(exports)).toEqual(["false", null]);
  expect(document.getElementById(region.getAttribute("aria-describedby"))).toBe(mark);
  mark.textContent = "";
  await vi.advanceTimersByTimeAsync(100);
  expect(attributes(region)).toEqual(["false", "true"]);
  close();
});

test("a connection that is lost makes the panel inert until it is back, and leaves no picture", async () => {
  const { root, lost, left, kernelGoes, close } = await panel();
  expect(lost.hidden).toBe(true);
  await kernelGoes("connecting");
  expect([lost.hidden, lost.textContent]).toEqual([false, "✕ no kernel · run the cell again to use this"]);
  expect([root.children[0].inert, root.querySelector(".own").inert]).toEqual([true, false]);
  expect(left).toEqual([]);
  await kernelGoes("idle");
  expect([lost.hidden, root.children[0].inert]).toEqual([true, false]);
  close();
});

test("a kernel that has ended leaves a picture of the fields, without what is secret", async () => {
  const { left, kernelGoes, close } = await panel();
  await kernelGoes("restarting");
  const [picture] = left.map((data) => data["text/html"]);
  const page = document.createElement("div");
  page.innerHTML = picture;
  const rows = [...page.querySelectorAll("tr")].map((row) => [...row.cells].map((cell) => cell.textContent));
  expect(rows).toEqual([["Region", "frankfurt"], ["Exports", "yes"], ["Key", "set"], ["found <b>"]]);
  expect(page.textContent).toContain("run the cell again");
  expect(picture).not.toContain("CANARY");
  close();
});

test("a panel that was saved and has no kernel says so at once, and stays as it is", async () => {
  const { root, lost, left, close } = await panel({ isThere: false, status: undefined });
  expect([lost.hidden, root.children[0].inert, left.length]).toEqual([false, true, 0]);
  close();
});

test("in another panel, that one does it all", async () => {
  const outer = document.body.appendChild(document.createElement("div"));
  outer.className = "knb-panel";
  const append = vi.spyOn(document.body, "appendChild").mockImplementation((one) => outer.append(one) ?? one);
  const { lost, kernelGoes, close } = await panel({ isThere: false });
  append.mockRestore();
  await expect(kernelGoes("dead")).rejects.toThrow();
  expect(lost.hidden).toBe(true);
  close();
});

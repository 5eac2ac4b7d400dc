// What a panel does on the page by itself: it counts the seconds that work takes and offers to cancel it, says when the
// kernel is gone, and tells screen readers what they need to know of its fields.

const LOST = "✕ no kernel · run the cell again to use this";

/** Tell of each field whether it must be filled in, whether its value is wrong, and where it stands what is wrong. */
function describeFields(root) {
  for (const field of root.querySelectorAll(".knb-field")) {
    const control = field.querySelector("input, select, textarea"), mark = field.querySelector(".knb-mark");
    if (!control || !mark) continue;
    mark.id ||= `knb-${Math.random().toString(36).slice(2)}`;
    control.setAttribute("aria-describedby", mark.id);
    control.setAttribute("aria-invalid", Boolean(mark.querySelector(".knb-wrong")));
    if (field.classList.contains("knb-required")) control.setAttribute("aria-required", "true");
  }
}

/** What is in a field: its label, and its value; of a secret only whether there is one. */
function fieldLine(field) {
  const labels = [...field.querySelectorAll(".widget-label, .widget-label-basic")];
  const label = labels.map((one) => one.textContent.replace(/\u200b/g, "").trim()).find(Boolean) ?? "";
  const note = field.querySelector(".knb-secret-note");
  if (note) return [label, note.textContent];
  const control = field.querySelector("input, select, textarea");
  if (control?.type === "checkbox") return [label, control.checked ? "yes" : "no"];
  return [label, control?.selectedOptions?.[0]?.text ?? control?.value ?? ""];
}

/** A static picture of what a panel shows: its fields, and the tables and pictures that it has found. */
function pictureOf(root, title) {
  const isShown = (one) => one.getClientRects().length > 0;
  const shown = (selector) => [...root.querySelectorAll(selector)].filter(isShown);
  const picture = document.createElement("div"), table = document.createElement("table");
  const line = (text) => {
    const one = document.createElement("p");
    one.textContent = text;
    return one;
  };
  for (const cells of shown(".knb-field").map(fieldLine)) {
    const row = table.insertRow();
    for (const text of cells) row.insertCell().textContent = text;
  }
  picture.append(line(`${title}: ${LOST}`), table, ...shown(".knb-state").map((one) => line(one.textContent)));
  for (const found of shown(".widget-html-content").filter((one) => one.querySelector("table, img"))) {
    picture.append(...[...found.childNodes].map((one) => one.cloneNode(true)));
  }
  return picture.outerHTML;
}

function render({ model, el }) {
  const bar = document.createElement("div"), cancel = document.createElement("button");
  const seconds = document.createElement("span"), lost = document.createElement("div");
  let root = null, timer = 0, waiting = 0, since = 0, isDue = false, isClosed = false;
  bar.className = "knb-work";
  bar.hidden = true;
  cancel.type = "button";
  cancel.textContent = "Cancel";
  cancel.title = "wait no longer; what comes of it is not shown";
  cancel.addEventListener("click", () => model.send({ kind: "cancel", number: model.get("busy") }));
  seconds.setAttribute("aria-hidden", "true"); // nobody wants to hear each of them
  seconds.className = "knb-quiet";
  bar.append(cancel, seconds);
  lost.className = "knb-error knb-lost";
  lost.setAttribute("role", "alert");
  lost.hidden = true;
  el.append(lost, bar);

  function tick() {
    bar.hidden = false;
    seconds.textContent = `${Math.round((performance.now() - since) / 1000)} s`;
  }
  function work() {
    clearInterval(timer);
    bar.hidden = true; // what is done within a second needs no button
    since = performance.now();
    if (model.get("busy")) timer = setInterval(tick, 1000);
  }

  /** Look whether the kernel is there: the connection to it was lost, or is back, or this was saved without one. */
  async function lookForKernel() {
    const { comm_live: isThere } = (await model.widget_manager?.get_model?.(model.get("panel"))) ?? {};
    if (isClosed || isThere === undefined || isThere === lost.hidden) return;
    lost.textContent = isThere ? "" : LOST;
    lost.hidden = isThere;
    if (!isThere) { clearInterval(timer); bar.hidden = true; }
    const own = [...root.children].find((one) => one.contains(el));
    own.style.order = isThere ? "" : "-1"; // to the top
    for (const one of root.children) one.inert = !isThere && one !== own;
  }
  /** The kernel came or went: when it has ended for good, a picture of what it has served stays. */
  async function heardOfKernel() {
    await lookForKernel();
    const hasEnded = ["restarting", "autorestarting", "terminating", "dead", undefined].includes(model.widget_manager?.kernel?.status);
    if (lost.hidden || isClosed || !hasEnded) return;
    // views in the panel hear of it in the same round, and are to be in the picture as they are then
    setTimeout(() => {
      const html = pictureOf(root, model.get("title"));
      for (const put of outputsOf(model, model.get("panel"))) put({ "text/html": html, "text/plain": LOST });
    });
  }

  function describe() {
    isDue = false;
    describeFields(root);
  }
  const observer = new MutationObserver(() => {
    if (!isDue) requestAnimationFrame(describe);
    isDue = true;
  });
  /** Begin when this is in its panel; what is in another panel is served by that one. */
  function begin() {
    root = el.closest(".knb-panel");
    if (!root || !el.isConnected) { waiting = setTimeout(begin, 100); return; }
    if (root.parentElement?.closest(".knb-panel")) return;
    observer.observe(root, { childList: true, subtree: true });
    describe();
    model.on("comm_live_update", heardOfKernel);
    lookForKernel();
  }
  model.on("change:busy", work);
  work();
  begin();
  return () => {
    isClosed = true;
    clearInterval(timer);
    clearTimeout(waiting);
    observer.disconnect();
    model.off("change:busy", work);
    model.off("comm_live_update", heardOfKernel);
  };
}

export default { render };

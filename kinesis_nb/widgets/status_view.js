// A sync or an export as it goes on.

function render({ model, el }) {
  const state = make("span", { class: "knb-state", role: "status" }), rate = make("span", { class: "knb-rate" });
  const spark = sparkline(), facts = make("div", { class: "knb-facts" }), trouble = make("div", { class: "knb-notes" });
  const head = make("tr"), body = make("tbody"), more = make("div", { class: "knb-quiet" });
  const table = make("table", { "aria-label": "shards" }, make("thead", {}, head), body);
  const error = errorLine();
  const stop = button("Stop", "write what was read, then stop; starting it again goes on from there", () => {
    stop.disabled = true;
    setText(stop, "Stopping …");
    line.send({ kind: "stop" });
  });
  const root = make("div", { class: "knb-live", role: "region" },
    make("div", { class: "knb-top" }, state, make("div", { class: "knb-side" }, spark.picture, rate, stop)),
    facts, trouble, make("div", { class: "knb-scroll" }, table), more, error.line);
  el.append(root);
  let shown = { title: "", facts: [], columns: [], rows: [] };

  function draw(frame) {
    error.show(frame.error);
    stop.inert = false;
    if (!frame.state) return;
    shown = frame;
    root.setAttribute("aria-label", frame.title);
    state.dataset.state = frame.state;
    setText(state, `${SIGNS[frame.state] ?? "!"} ${frame.state} · ${frame.title}`);
    setText(rate, `${frame.rate} rows/s`);
    spark.draw(frame.rates, frame.rate);
    const isOver = ["stopped", "ended", "failed"].includes(frame.state);
    stop.disabled ||= isOver;
    if (isOver) setText(stop, "Stop");
    facts.replaceChildren(...frame.facts.map(([name, value]) =>
      make("span", {}, make("span", { class: "knb-quiet" }, `${name} `), make("b", {}, value))));
    setText(trouble, frame.trouble);
    const isNumeric = frame.columns.map((_, i) => isNumbers(frame.rows.map((row) => row[i])));
    const cells = (tag, texts) => texts.map((text, i) => make(tag, { class: isNumeric[i] && "knb-amount" }, text));
    head.replaceChildren(...cells("th", frame.columns));
    body.replaceChildren(...frame.rows.map((row) => make("tr", {}, ...cells("td", row))));
    table.hidden = !frame.rows.length;
    setText(more, frame.more ? `and ${frame.more} more shards` : "");
  }

  function lost() {
    showLost(state, shown.title);
    stop.inert = true;
  }

  function picture() {
    const facts = shown.facts.map(([name, value]) => `${name} ${value}`);
    return { caption: [`${shown.title}: the kernel has ended`, ...facts].join(" · "), columns: shown.columns, rows: shown.rows };
  }

  const line = connect(model, root, { draw, reply: () => {}, lost, picture });
  return line.close;
}

export default { render };

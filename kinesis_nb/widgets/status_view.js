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
    model.send({ kind: "stop" });
  });
  const root = make("div", { class: "knb-live", role: "region" },
    make("div", { class: "knb-top" }, state, make("span", { class: "knb-fill" }), spark.picture, rate, stop),
    facts, trouble, make("div", { class: "knb-scroll" }, table), more, error.line);
  el.append(root);

  function draw(frame) {
    error.show(frame.error);
    if (!frame.state) return;
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
    if (head.childNodes.length !== frame.columns.length) {
      head.replaceChildren(...frame.columns.map((name) => make("th", { scope: "col" }, name)));
    }
    body.replaceChildren(...frame.rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell)))));
    table.hidden = !frame.rows.length;
    setText(more, frame.more ? `and ${frame.more} more shards` : "");
  }

  return connect(model, root, draw, () => {});
}

export default { render };

// The live view of a sync or an export.

function render({ model, el }) {
  const state = make("span", { class: "knb-state", role: "status" }), rate = make("span", { class: "knb-rate" });
  const spark = sparkline(), facts = make("div", { class: "knb-facts" }), trouble = make("div", { class: "knb-notes" });
  const tables = make("div", { class: "knb-scroll" }), log = make("div", { class: "knb-log" });
  const error = errorLine();
  const stop = button("Stop", "write what was read, then stop; starting it again continues from there", () => {
    stop.disabled = true;
    setText(stop, "Stopping …");
    line.send({ kind: "stop" });
  });
  const root = make("div", { class: "knb-live", role: "region" },
    make("div", { class: "knb-top" }, state, make("div", { class: "knb-side" }, spark.picture, rate, stop)),
    facts, trouble, tables, log, error.line);
  el.append(root);
  let shown = { title: "", facts: [], tables: [] };

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
    setText(log, frame.log ?? "");
    tables.replaceChildren(...frame.tables.flatMap(drawTable));
  }

  function drawTable({ columns, rows, more }) {
    const isNumeric = columns.map((_, i) => isNumbers(rows.map((row) => row[i])));
    const line = (tag, texts) =>
      make("tr", {}, ...texts.map((text, i) => make(tag, { class: isNumeric[i] && "knb-amount" }, text)));
    const body = make("tbody", {}, ...rows.map((row) => line("td", row)));
    const rest = more ? [make("div", { class: "knb-quiet" }, `and ${more} more`)] : [];
    return [make("table", {}, make("thead", {}, line("th", columns)), body), ...rest];
  }

  function lost() {
    showLost(state, shown.title);
    stop.inert = true;
  }

  function picture() {
    const facts = shown.facts.map(([name, value]) => `${name} ${value}`);
    return { caption: [`${shown.title}: the kernel has ended`, ...facts].join(" · "), columns: [], rows: [], ...shown.tables[0] };
  }

  const line = connect(model, root, { draw, reply: () => {}, lost, picture });
  return line.close;
}

export default { render, styles: STYLES };

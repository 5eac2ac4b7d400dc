// The grid of a tail, or of records, with what is beside it: state, filters, columns, code, downloads.

const PICTURE_ROWS = 20;  // rows that stay when the kernel is gone
const TYPING = 250;  // ms after the last key before a filter is sent
const TROUBLE = { "not reading": "✕", throttled: "◐" };  // what is wrong with a tail that is running

/** Two search boxes that send what is in them when nothing was typed for a moment. */
function filterBoxes(send) {
  const text = make("input", { type: "search", placeholder: "text in the data", "aria-label": "show rows whose data hold this text" });
  const key = make("input", { type: "search", placeholder: "partition key", "aria-label": "show rows whose partition key holds this text" });
  let typing = 0, typed = null;  // what was typed, until a frame has it: those that come before are of an older filter
  function now() {
    clearTimeout(typing);
    send({ kind: "filter", text: text.value, key: key.value });
  }
  for (const input of [text, key]) {
    input.addEventListener("keydown", (event) => event.stopPropagation());
    input.maxLength = 256;  // as much of it as the kernel looks for
    input.addEventListener("input", () => {
      typed = [text.value, key.value];
      clearTimeout(typing);
      typing = setTimeout(now, TYPING);
    });
    input.addEventListener("change", now);
  }
  function show(filter) {
    if (typed && filter.some((value, i) => value !== typed[i])) return;
    typed = null;
    [text, key].forEach((input, i) => { if (input.value !== filter[i]) input.value = filter[i]; });
  }
  return { text, key, show };
}

/** A button that opens a list below it. fill() gives what is in the list each time it is opened. */
function menu(label, hint, fill) {
  const list = make("div", { class: "knb-list" });
  const box = make("details", { class: "knb-menu", ontoggle: () => { if (box.open) list.replaceChildren(...fill()); } },
    make("summary", { class: "knb-button", title: hint }, label), list);
  box.addEventListener("keydown", (event) => { if (event.key === "Escape") { box.open = false; event.stopPropagation(); } });
  box.addEventListener("focusout", (event) => { if (event.relatedTarget && !box.contains(event.relatedTarget)) box.open = false; });
  return box;
}

function render({ model, el }) {
  const send = (message) => line.send(message);
  const state = make("span", { class: "knb-state", role: "status" });
  const counts = make("span", { class: "knb-counts" }), dropped = make("span", { class: "knb-quiet" });
  const rate = make("span", { class: "knb-rate" }), spark = sparkline();
  let isPaused = false, isLive = true, fields = [], shown = [], chipCount = 0, title = "", filtered = "";
  const pause = button("Pause", "make no calls until you resume; nothing is missed", () => send({ kind: isPaused ? "resume" : "pause" }));
  const stop = button("Stop", "stop reading; the newest rows stay in the notebook", () => {
    stop.disabled = true;
    send({ kind: "stop" });
  });
  const json = button("JSON columns", "show the fields of JSON objects in columns", () => {
    send({ kind: "json", json: json.getAttribute("aria-pressed") !== "true" });
  });
  const boxes = filterBoxes((message) => send(message));
  const chips = make("div", { class: "knb-chips", role: "list", "aria-label": "filters" });
  const columns = menu("Columns", "choose the columns", columnList);
  const files = menu("Download", "the rows that match, as a file", () => [["csv", "CSV"], ["jsonl", "JSON Lines"], ["parquet", "Parquet"]].map(([format, label]) =>
    button(label, "", () => { files.open = false; setText(said, "preparing the file …"); downloads.get({ kind: "file", format }, savedAs((text) => setText(said, text)), progress); })));
  const codes = button("Code", "the Python that gives these rows", () => send({ kind: "code" }));
  const said = make("span", { class: "knb-quiet", role: "status" });
  const codeBox = make("div", { class: "knb-code", hidden: true });
  const shardsLine = shardLine((shard) => send({ kind: "shard", shard })), badges = shardsLine.root, notes = make("div", { class: "knb-notes" });
  const time = timeBar((low, high) => send({ kind: "window", low, high }));
  const banner = errorLine(), error = errorLine();
  const downloads = downloadsOf((message) => send(message));
  const drawer = drawerOf({
    copy: (number) => downloads.get({ kind: "data", number }, copied, progress),
    save: (number) => downloads.get({ kind: "data", number }, savedAs((text) => drawer.say(text)), progress),
    step: (by) => grid.step(by), close: closeDrawer, onlyKey: (number) => send({ kind: "only_key", number }),
  });
  const grid = gridOf(ask, (number) => (number === null ? drawer.hide() : send({ kind: "detail", number })));
  const buttons = make("div", { class: "knb-bar" }, pause, stop, json, columns, boxes.text, boxes.key, codes, files, said);
  const root = make("div", { class: "knb-live knb-tail", role: "region" },
    make("div", { class: "knb-top" }, state, counts, dropped, make("div", { class: "knb-side" }, spark.picture, rate)),
    banner.line, buttons, chips, badges, time.root, notes, codeBox,
    make("div", { class: "knb-split" }, make("div", { class: "knb-frame" }, grid.grid, grid.newer), drawer.panel), error.line);
  el.append(root);

  function closeDrawer() {
    drawer.hide();
    grid.close();
  }

  function ask(message) {
    if (message.kind === "chip") send({ kind: "chips", kept: [...Array(chipCount).keys()], new: message.chip });
    else send(message);
  }

  /** The columns to choose: a search box, all and none, a box for each. */
  function columnList() {
    const choices = fields.map(([id, name]) => {
      const box = make("input", { type: "checkbox", checked: shown.includes(id), onchange: chosen });
      const pin = button(grid.isPinned(id) ? "unpin" : "pin", "keep this column at the left", () => { grid.pin(id); setText(pin, grid.isPinned(id) ? "unpin" : "pin"); });
      return { id, name, box, row: make("div", { class: "knb-choice" }, make("label", {}, box, ` ${name}`), pin) };
    });
    const search = make("input", { type: "search", placeholder: "search", "aria-label": "search a column" });
    search.addEventListener("keydown", (event) => event.stopPropagation());
    search.addEventListener("input", () => choices.forEach(({ name, row }) => row.toggleAttribute("hidden", !name.toLowerCase().includes(search.value.toLowerCase()))));
    function chosen() {
      send({ kind: "columns", columns: choices.filter(({ box }) => box.checked).map(({ id }) => id) });
    }
    const all = (isOn) => () => { choices.forEach(({ box, row }) => { if (!row.hidden) box.checked = isOn; }); chosen(); };
    return [search, button("all", "show all of these", all(true)), button("none", "show none of these", all(false)), ...choices.map(({ row }) => row)];
  }

  function drawSetting(frame) {
    fields = frame.fields;
    shown = frame.columns.map(([id]) => id);
    chipCount = frame.chips.length;
    const hiding = fields.length - shown.length + frame.beyond;
    setText(columns.firstChild, hiding ? `Columns: ${shown.length} of ${fields.length + frame.beyond}` : "Columns");
    json.setAttribute("aria-pressed", frame.json);
    chips.hidden = !chipCount;
    const without = (i) => send({ kind: "chips", kept: [...Array(chipCount).keys()].filter((one) => one !== i) });
    chips.replaceChildren(...frame.chips.map((what, i) => make("span", { role: "listitem", class: "knb-chip" }, what,
      signButton("✕", `remove the filter: ${what}`, () => without(i)))));
    boxes.show(frame.filter);
    filtered = [...frame.filter.filter(Boolean), ...frame.chips].join(" · ");
    grid.say(filtered ? "no row matches" : "no rows yet");
  }

  function draw(frame) {
    error.show(frame.error);
    buttons.inert = false;
    if (!frame.now) return;
    title = frame.now.title;
    setText(counts, [frame.now.counts, frame.matching && `${frame.matching} match`].filter(Boolean).join(" · "));
    if (frame.columns) drawSetting(frame);
    isLive = Boolean(frame.now.state);
    [state, pause, stop, spark.picture, rate, badges].forEach((element) => element.toggleAttribute("hidden", !isLive));
    root.setAttribute("aria-label", isLive ? `tail of ${frame.now.title}` : frame.now.title);
    grid.put(frame);
    if (frame.now.timeline) time.draw(frame.now.timeline);
    if (isLive) drawTail(frame.now);
  }

  function drawTail(now) {
    isPaused = now.state === "paused";
    const isOver = !["running", "paused"].includes(now.state), what = now.trouble || now.state;
    state.dataset.state = now.trouble === "not reading" ? "failed" : now.trouble || now.state;
    setText(state, `${TROUBLE[now.trouble] ?? SIGNS[now.state] ?? "●"} ${what} · ${now.title}`);
    banner.show(now.banner);
    setText(dropped, now.dropped ? `${now.dropped} older rows dropped to make room` : "");
    dropped.title = now.dropped ? "the tail holds the newest rows; max_rows and max_bytes of tail() say how many" : "";
    setText(rate, `${now.rate} rows/s`);
    spark.draw(now.rates, now.rate);
    setText(pause, isPaused ? "Resume" : "Pause");
    pause.disabled = isOver;
    stop.disabled ||= isOver;
    if (now.shards) shardsLine.draw(now.shards);
    setText(notes, now.notes.join("\n"));
  }

  function reply(one, buffer) {
    if (one.kind === "part") downloads.take(one, buffer);
    else if (one.kind === "page") grid.page(one);
    else if (one.kind === "code") showCode(one.code);
    else drawer.show(one);
  }

  function showCode(code) {
    codeBox.hidden = false;
    const shut = signButton("✕", "close the code", () => { codeBox.hidden = true; });
    const copy = button("Copy", "copy the code", async () => setText(copy, (await copyText(code)) ? "Copied" : "Select it and copy"));
    const insert = button("Insert as a cell below", "", () => setText(insert, insertBelow(model, root, code) ? "Inserted" : "Not possible here"));
    codeBox.replaceChildren(make("div", { class: "knb-bar" }, copy, insert, shut), make("pre", {}, ...isolated(code)));
  }

  function progress(size, whole) {
    setText(said, `${Math.round((100 * size) / whole)} % of ${Math.round(whole / 1000).toLocaleString("en")} kB`);
  }

  /** What saves something that the kernel sent, and then says so. */
  function savedAs(say) {
    return (blob, name) => {
      setText(said, "");
      saveAs(blob, name);
      say(`saved ${name}`);
    };
  }

  /** Copy what the kernel sent. */
  async function copied(blob) {
    setText(said, "");
    let exact;
    try {
      exact = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await blob.arrayBuffer());
    } catch {
      drawer.say("these bytes are not text; save them as a file");
      return;
    }
    drawer.say((await copyText(exact)) ? `copied ${blob.size.toLocaleString("en")} bytes` : "this page may not copy; save the data as a file");
  }

  function lost() {
    state.hidden = false;
    showLost(state, title);
    [spark.picture, rate, badges].forEach((element) => element.toggleAttribute("hidden", true));  // of a moment that is past
    buttons.inert = true;
  }

  function picture() {
    const parts = [`${title}: the kernel has ended`, "the newest rows", filtered && `that match: ${filtered}`];
    return { caption: parts.filter(Boolean).join(" · "), ...grid.newest(PICTURE_ROWS) };
  }

  const line = connect(model, root, { draw, reply, lost, picture });
  return () => { grid.end(); line.close(); };
}

export default { render, styles: STYLES };

// A table of rows, and the state of a tail: newest row first; only the rows in sight are in the page.

const ROW = 22, ROWS_SHOWN = 14, KEPT = 1_000;  // pixels; rows
const FIELDS = 3, PICTURE_ROWS = 20;  // the first column that is a field; rows that stay when the kernel is gone
const TYPING = 250;  // ms after the last key before a filter is sent

/** Rows in a scrolling grid of which only those in sight exist. pick(number) is called for a click or Enter. */
function rowTable(pick) {
  let columns = [], rows = [], widths = [], kinds = [], held = [], isHeld = false, active = -1, picked = -1, top = 0;
  const head = make("div", { class: "knb-row knb-head", role: "row" });
  const body = make("div", { class: "knb-body", role: "rowgroup" });
  const empty = make("div", { class: "knb-empty" }, "no rows yet");
  const grid = make("div", { class: "knb-grid", role: "grid", tabindex: "0", "aria-label": "newest rows first",
    onscroll: scrolled, onkeydown: pressed, onclick: clicked }, head, body, empty);
  const newer = make("button", { type: "button", class: "knb-button knb-newer", hidden: true, onclick: release });
  const pool = [];

  function put(frame) {
    if (frame.everything) {
      columns = frame.columns;
      rows = frame.rows;
      held = [];
      picked = -1;
      widths = columns.map((name) => name.length);
      kinds = columns.map(() => undefined);
      head.replaceChildren(...columns.map((name) => make("div", { role: "columnheader", title: name }, name)));
      if (isHeld) release();
    } else {
      if (isHeld) held = [...frame.rows, ...held].slice(0, KEPT);
      else rows = [...frame.rows, ...rows].slice(0, KEPT);
    }
    if (measure(frame.rows) || frame.everything) layOut();
    draw();
  }

  /** Let the columns grow to what is in them; return whether one did. */
  function measure(fresh) {
    let grew = false;
    for (const row of fresh) {
      for (let i = 0; i < widths.length; i++) {
        const text = row[i + 1], width = Math.min(text.length, 36);
        if (width > widths[i]) { widths[i] = width; grew = true; }
        if (i >= FIELDS && text && kinds[i] !== "text") {
          const kind = isNumbers([text]) ? "number" : "text";
          if (kind !== kinds[i]) { kinds[i] = kind; grew = true; }
        }
      }
    }
    return grew;
  }

  function layOut() {
    const last = widths.length - 1;
    const isFilling = (i) => i === last && kinds[i] !== "number";
    const template = widths.map((width, i) => (isFilling(i) ? `minmax(${width + 2}ch, 1fr)` : `${width + 2}ch`)).join(" ");
    grid.style.setProperty("--knb-columns", template);
    align(head);
  }

  /** Put numbers to the right. */
  function align(row) {
    kinds.forEach((kind, i) => row.childNodes[i]?.classList.toggle("knb-amount", kind === "number"));
  }

  function draw() {
    body.style.height = `${rows.length * ROW}px`;
    empty.hidden = rows.length > 0;
    newer.hidden = !isHeld || !held.length;
    const news = held.length >= KEPT ? `${KEPT}+` : String(held.length);
    setText(newer, `↑ ${news} newer rows`);
    const first = Math.max(0, Math.floor(top / ROW) - 2);  // asking the grid would have it laid out in between
    const count = Math.max(0, Math.min(rows.length - first, ROWS_SHOWN + 6));
    while (pool.length < count) pool.push(body.appendChild(make("div", { class: "knb-row", role: "row" })));
    pool.forEach((element, i) => fill(element, i < count ? first + i : -1));
  }

  function fill(element, place) {
    element.hidden = place < 0;
    if (place < 0) return;
    const [number, ...cells] = rows[place];
    const older = rows[place + 1];
    const missing = older ? number - older[0] - 1 : 0;
    element.dataset.place = place;
    element.id = `${grid.dataset.view}-${place}`;
    element.style.top = `${place * ROW}px`;
    element.setAttribute("aria-rowindex", place + 1);
    element.setAttribute("aria-selected", number === picked);
    element.classList.toggle("knb-active", place === active);
    element.classList.toggle("knb-gap", missing > 0);
    element.title = missing > 0 ? `${missing.toLocaleString("en")} rows below this one came too fast to be shown` : "";
    while (element.childNodes.length > cells.length) element.lastChild.remove();
    while (element.childNodes.length < cells.length) element.append(make("div", { role: "gridcell" }));
    cells.forEach((text, i) => setText(element.childNodes[i], text));
    align(element);
  }

  function hold() {
    isHeld = true;
  }

  /** Show the newest rows again. */
  function release() {
    isHeld = false;
    rows = [...held, ...rows].slice(0, KEPT);
    held = [];
    active = -1;
    grid.scrollTop = top = 0;
    draw();
  }

  function scrolled() {
    top = grid.scrollTop;
    if (top > ROW && !isHeld) hold();  // what is being read must not run away
    else if (top <= 0 && isHeld && active < 0) { release(); return; }
    draw();
  }

  function choose(place) {
    active = Math.max(0, Math.min(place, rows.length - 1));
    hold();
    const y = active * ROW, height = grid.clientHeight - head.offsetHeight;
    if (y < grid.scrollTop) grid.scrollTop = y;
    if (y + ROW > grid.scrollTop + height) grid.scrollTop = y + ROW - height;
    top = grid.scrollTop;
    draw();
    grid.setAttribute("aria-activedescendant", `${grid.dataset.view}-${active}`);
  }

  function open(place) {
    picked = rows[place][0];
    choose(place);
    pick(picked);
  }

  function pressed(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: ROWS_SHOWN, PageUp: -ROWS_SHOWN };
    if (event.key in steps && rows.length) choose(active + steps[event.key]);
    else if (event.key === "Enter" && active >= 0) open(active);
    else if (event.key === "Escape") { pick(null); picked = -1; release(); }
    else return;
    event.preventDefault();
    event.stopPropagation();  // the notebook has keys of its own
  }

  function clicked(event) {
    const row = event.target.closest("[data-place]");
    if (row && !getSelection().toString()) open(Number(row.dataset.place));
  }

  grid.dataset.view = `knb-${random()}`;
  grid.style.height = `${(ROWS_SHOWN + 1) * ROW + 4}px`;
  const newest = (most) => ({ columns, rows: [...held, ...rows].slice(0, most).map(([_, ...cells]) => cells).reverse() });
  return { grid, newer, put, newest, close: () => { picked = -1; release(); }, say: (text) => setText(empty, text) };
}

/** Everything about one row. */
function detailPanel(close) {
  const panel = make("div", { class: "knb-detail", role: "region", "aria-label": "one row", hidden: true });
  function show({ detail }) {
    panel.hidden = false;
    const shut = button("✕", "close (Escape)", close);
    shut.setAttribute("aria-label", "close");
    if (!detail) {
      panel.replaceChildren(shut, make("div", { class: "knb-quiet" }, "this row is not held any more"));
      return;
    }
    const copy = button("copy data", "copy the data as shown", () => {
      navigator.clipboard?.writeText(detail.text).then(() => setText(copy, "copied"));
    });
    const facts = make("dl", {}, ...detail.facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    const data = detail.tree ? make("div", { class: "knb-tree" }, treeNode(detail.tree)) : make("pre", {}, detail.text);
    panel.replaceChildren(make("div", { class: "knb-bar" }, copy, shut), facts, data);
  }
  return { panel, show, hide: () => { panel.hidden = true; } };
}

function badge([number, id, state, lag, throttles, error, kind]) {
  const throttled = throttles ? ` · ${throttles} throttled` : "";
  const hint = `${id}: ${state}, ${lag} behind${throttled}${error ? `\n${error}` : ""}`;
  return make("span", { class: `knb-badge knb-${kind}`, title: hint, role: "listitem" }, `${number} · ${lag}${throttled}`);
}

function render({ model, el }) {
  const send = (message) => line.send(message);
  const state = make("span", { class: "knb-state", role: "status" });
  const counts = make("span", { class: "knb-counts" }), dropped = make("span", { class: "knb-dropped" });
  const rate = make("span", { class: "knb-rate" }), spark = sparkline();
  let isPaused = false, isLive = true, shards = "";
  const pause = button("Pause", "make no calls until you resume; nothing is missed", () => send({ kind: isPaused ? "resume" : "pause" }));
  const stop = button("Stop", "stop reading; the newest rows stay in the notebook", () => {
    stop.disabled = true;
    send({ kind: "stop" });
  });
  const json = button("JSON columns", "show the fields of JSON objects in columns", () => {
    send({ kind: "json", json: json.getAttribute("aria-pressed") !== "true" });
  });
  const text = make("input", { type: "search", placeholder: "text in the data", "aria-label": "show rows whose data hold this text" });
  const key = make("input", { type: "search", placeholder: "partition key", "aria-label": "show rows whose partition key holds this text" });
  let typing = 0, typed = null;  // what was typed, until a frame has it: those that come before are of an older filter
  function sendFilter() {
    clearTimeout(typing);
    send({ kind: "filter", text: text.value, key: key.value });
  }
  function showFilter(filter) {
    if (typed && filter.some((value, i) => value !== typed[i])) return;
    typed = null;
    [text, key].forEach((input, i) => { if (input.value !== filter[i]) input.value = filter[i]; });
  }
  for (const input of [text, key]) {
    input.addEventListener("keydown", (event) => event.stopPropagation());
    input.maxLength = 256;  // as much of it as the kernel looks for
    input.addEventListener("input", () => {
      typed = [text.value, key.value];
      clearTimeout(typing);
      typing = setTimeout(sendFilter, TYPING);
    });
    input.addEventListener("change", sendFilter);
  }
  const badges = make("div", { class: "knb-badges", role: "list", "aria-label": "shards" }), notes = make("div", { class: "knb-notes" });
  const error = errorLine();
  const detail = detailPanel(() => { detail.hide(); table.close(); });
  const table = rowTable((number) => (number === null ? detail.hide() : send({ kind: "detail", number })));
  const buttons = make("div", { class: "knb-bar" }, pause, stop, json, text, key);
  const root = make("div", { class: "knb-live knb-tail", role: "region" },
    make("div", { class: "knb-top" }, state, counts, dropped, make("div", { class: "knb-side" }, spark.picture, rate)),
    buttons, badges, notes, make("div", { class: "knb-frame" }, table.grid, table.newer), detail.panel, error.line);
  el.append(root);

  let title = "";

  function draw(frame) {
    error.show(frame.error);
    buttons.inert = false;
    if (!frame.now) return;
    title = frame.now.title;
    setText(counts, frame.matching ? `${frame.now.counts} · ${frame.matching} match` : frame.now.counts);
    json.setAttribute("aria-pressed", frame.json);
    showFilter(frame.filter);
    table.say(frame.filter.some(Boolean) ? "no row matches" : "no rows yet");
    if (frame.everything || frame.rows.length) table.put(frame);
    isLive = Boolean(frame.now.state);
    [state, pause, stop, spark.picture, rate, badges].forEach((element) => element.toggleAttribute("hidden", !isLive));
    root.setAttribute("aria-label", isLive ? `tail of ${frame.now.title}` : frame.now.title);
    if (isLive) drawTail(frame.now);
  }

  function drawTail(now) {
    isPaused = now.state === "paused";
    const isOver = !["running", "paused"].includes(now.state);
    state.dataset.state = now.state;
    setText(state, `${SIGNS[now.state] ?? "●"} ${now.state} · ${now.title}`);
    setText(dropped, now.dropped ? `${now.dropped} dropped: no room` : "");
    setText(rate, `${now.rate} rows/s`);
    spark.draw(now.rates, now.rate);
    setText(pause, isPaused ? "Resume" : "Pause");
    pause.disabled = isOver;
    stop.disabled ||= isOver;
    const signs = JSON.stringify([now.shards, now.more_shards]);
    if (signs !== shards) {
      shards = signs;
      const more = now.more_shards ? [make("span", { class: "knb-quiet" }, `and ${now.more_shards} more shards`)] : [];
      badges.replaceChildren(...now.shards.map(badge), ...more);
    }
    setText(notes, now.notes.join("\n"));
  }

  function lost() {
    state.hidden = false;
    showLost(state, title);
    [spark.picture, rate, badges].forEach((element) => element.toggleAttribute("hidden", true));  // of a moment that is past
    buttons.inert = true;
  }

  function picture() {
    return { caption: `${title}: the kernel has ended · the newest rows`, ...table.newest(PICTURE_ROWS) };
  }

  const line = connect(model, root, { draw, reply: detail.show, lost, picture });
  return line.close;
}

export default { render };

// Rows in a grid of which only the cells in sight exist. A live grid gets the newest rows as they come; a frozen one
// shows a sorted snapshot, which the kernel holds and gives page by page.

const ROW = 22, HEAD = 66, ROWS_SHOWN = 14, LIVE = 300, PAGE = 100;  // pixels; rows
const NARROWEST = 6, WIDEST = 36, HEAD_WIDEST = 18, CELL = 7.25;  // characters; pixels of one
const MOST_PIXELS = 15_000_000;  // what browsers take for the height of an element

/** What is in a column: bars to click, or the most frequent texts. choose(condition) is called for a click. */
function profileOf(id, about, choose) {
  const box = make("div", { class: "knb-profile" });
  if (!about) return box;
  const bars = about.bars ?? [], most = Math.max(...bars, 1), step = (about.high - about.low) / (bars.length || 1);
  const said = (value) => (about.type === "time" ? new Date(value / 1000).toISOString().slice(11, 23) : Number(value.toPrecision(6)).toLocaleString("en"));
  bars.forEach((count, i) => {
    const isWhole = about.type === "integer", isLast = i === bars.length - 1;
    const low = about.low + i * step, high = isWhole && step ? low + step - 1 : isLast ? about.high : low + step;
    const bar = make("div", { class: "knb-hist", title: `${said(low)} to ${said(high)}: ${count.toLocaleString("en")} rows` },
      make("i", { style: `height:${count ? Math.max(2, (22 * count) / most) : 0}px` }));
    if (count) bar.addEventListener("click", () => choose({ column: id, low, high, closed: isWhole || isLast }));
    box.append(bar);
  });
  (about.top ?? []).forEach(([text, count], top) => {
    const share = (100 * count) / about.filled;
    const part = make("div", { class: "knb-top-value", style: `flex:${Math.max(share, 4)} 1 0`, title: `${text}: ${count.toLocaleString("en")} of ${about.filled.toLocaleString("en")} rows` }, id === "shard" ? shortShard(text) : text);
    part.addEventListener("click", () => choose({ column: id, top }));
    box.append(part);
  });
  if (about.distinct > 1 && about.top?.length < about.distinct) {
    const rest = about.filled - about.top.reduce((sum, [, count]) => sum + count, 0);
    box.append(make("div", { class: "knb-top-value knb-rest", style: `flex:${(100 * rest) / about.filled} 1 0`, title: `${about.distinct.toLocaleString("en")} different values` }, `${(about.distinct - about.top.length).toLocaleString("en")} more`));
  }
  return box;
}

function shortShard(id) {
  return id.replace(/^shardId-0*(?=\d)/, "");
}

/** Merge rows that came into those that are shown: the last arrival first, of one moment the last number. */
function merged(fresh, rows) {
  return [...fresh, ...rows].sort((a, b) => b[1] - a[1] || b[0] - a[0]);
}

/**
 * The grid. ask(message) sends a question or a command to the kernel; pick(number) is called when a row is chosen, and
 * with null when none is any more.
 */
function gridOf(ask, pick) {
  let columns = [], rows = [], total = 0, isFrozen = false, newerRows = 0, profile = {}, order = ["", true];
  let pages = new Map(), asked = new Set(), anchor = null, active = -1, picked = -1, canGoOn = false, drawnHead = "";
  const widths = new Map(), kinds = new Map(), pinned = new Set(), isSized = new Set();
  const head = make("div", { class: "knb-row knb-head", role: "row", "aria-rowindex": 1 });
  const body = make("div", { class: "knb-body", role: "rowgroup" });
  const empty = make("div", { class: "knb-empty" }, "no rows yet");
  const grid = make("div", { class: "knb-grid", role: "grid", tabindex: "0", "aria-label": "records",
    onscroll: scrolled, onkeydown: pressed, onclick: clicked }, head, body, empty);
  const newer = make("button", { type: "button", class: "knb-button knb-newer", hidden: true, onclick: release });
  const pool = [];
  let top = 0, left = 0, frames = 0;

  const count = () => (isFrozen ? total : rows.length);
  const at = (place) => (isFrozen ? pages.get(place) : rows[place]);

  function put(frame) {
    canGoOn = Boolean(frame.now?.state);
    if (frame.columns) {
      columns = frame.columns.map(([id, title]) => ({ id, title }));
      order = frame.order;
      drawnHead = "";
    }
    if (frame.profile) { profile = frame.profile; drawnHead = ""; }
    total = frame.total;
    newerRows = frame.newer;
    if (frame.everything) begin(frame);
    else if (!isFrozen) rows = merged(frame.rows, rows).slice(0, LIVE);
    measure(frame.rows);
    draw();
  }

  function begin(frame) {
    const wasFrozen = isFrozen;
    isFrozen = frame.frozen;
    pages = new Map();
    asked = new Set();
    rows = isFrozen ? [] : merged(frame.rows, []);
    if (isFrozen) frame.rows.forEach((row, i) => pages.set(frame.first + i, row));
    if (isFrozen && anchor) {
      const place = frame.first + frame.rows.findIndex((row) => row[0] === anchor.number);
      if (place >= frame.first) grid.scrollTop = top = place * ROW + anchor.offset;
      if (active >= 0) active += place - anchor.place;
      anchor = null;
    } else if (isFrozen !== wasFrozen || frame.first === 0) {
      grid.scrollTop = top = 0;
      active = -1;
    }
  }

  /** Rows of some places that the kernel was asked for. */
  function page({ first, rows: some }) {
    if (!isFrozen) return;
    some.forEach((row, i) => pages.set(first + i, row));
    asked.clear();
    measure(some);
    draw();
  }

  /** Let the columns grow to what is in them. */
  function measure(fresh) {
    for (const row of fresh.slice(0, 100)) {
      columns.forEach(({ id }, i) => {
        const text = row[i + 2] ?? "", width = Math.min(text.length + 2, WIDEST);
        if (!isSized.has(id) && width > (widths.get(id) ?? 0)) { widths.set(id, width); drawnHead = ""; }
        if (text && kinds.get(id) !== "text" && id !== "arrived" && id !== "key" && id !== "shard") kinds.set(id, isNumbers([text]) ? "number" : "text");
      });
    }
  }

  /** Where each column begins and how wide it is, in pixels; the last one fills the grid. */
  function layOut() {
    const ordered = [...columns.filter(({ id }) => pinned.has(id)), ...columns.filter(({ id }) => !pinned.has(id))];
    let x = 0;
    const places = ordered.map(({ id, title }) => {
      const least = profile[id]?.top?.length ? HEAD_WIDEST : Math.max(NARROWEST, Math.min(title.length + 4, HEAD_WIDEST));
      const wide = (isSized.has(id) ? widths.get(id) : Math.max(widths.get(id) ?? 0, least)) * CELL;
      const place = { id, title, x, wide, index: columns.findIndex((one) => one.id === id), isPinned: pinned.has(id) };
      x += wide;
      return place;
    });
    const last = places.at(-1), room = grid.clientWidth - x;
    if (last && room > 0 && kinds.get(last.id) !== "number") { last.wide += room; x += room; }
    return { places, wide: x };
  }

  function draw() {
    const many = count(), { places, wide } = layOut();
    body.style.height = `${Math.min(many * ROW, MOST_PIXELS)}px`;
    body.style.width = head.style.width = `${wide}px`;
    grid.setAttribute("aria-rowcount", many + 1);
    grid.setAttribute("aria-colcount", columns.length);
    empty.hidden = many > 0;
    newer.hidden = !isFrozen || !canGoOn;
    setText(newer, newerRows ? `↑ ${newerRows.toLocaleString("en")} newer rows` : "↑ live");
    let pinnedWide = 0;
    places.filter(({ isPinned }) => isPinned).forEach((one) => { pinnedWide += one.wide; });
    const seen = places.filter(({ x, wide: w, isPinned }) => isPinned || (x + w > left + pinnedWide - 50 && x < left + grid.clientWidth + 50));
    drawHead(seen);
    const first = Math.max(0, Math.floor(top / ROW) - 2);  // asking the grid would have it laid out in between
    const some = Math.max(0, Math.min(many - first, ROWS_SHOWN + 6));
    while (pool.length < some) pool.push(body.appendChild(make("div", { class: "knb-row", role: "row" })));
    pool.forEach((element, i) => fill(element, i < some ? first + i : -1, seen));
    if (isFrozen) want(first, first + some);
  }

  /** Ask for the rows in sight that are not there yet. */
  function want(first, last) {
    for (let place = first; place < last; place++) {
      if (pages.has(place)) continue;
      if (asked.has(place)) return;
      for (let one = place; one < place + PAGE; one++) asked.add(one);
      ask({ kind: "page", first: place, last: place + PAGE });
      return;
    }
  }

  function drawHead(seen) {
    const what = JSON.stringify([seen, order, left * pinned.size]);
    if (what === drawnHead) return;
    drawnHead = what;
    head.replaceChildren(...seen.map((one) => {
      const sign = order[0] === one.id ? (order[1] ? " ↓" : " ↑") : "";
      const about = profile[one.id];
      const sort = make("button", { type: "button", class: "knb-sort", title: `${one.title}: click to sort`, onclick: () => sortBy(one.id) }, one.title + sign);
      const grip = make("span", { class: "knb-grip", title: "drag for the width; double click for the usual width" });
      grip.addEventListener("pointerdown", (event) => resize(event, one));
      grip.addEventListener("dblclick", () => { isSized.delete(one.id); widths.delete(one.id); measure([...pages.values(), ...rows].slice(0, 100)); drawnHead = ""; draw(); });
      const said = !about ? "" : about.filled < about.rows ? `${about.type} · ${Math.round((100 * about.filled) / about.rows)} %` : about.type;
      const cell = make("div", { role: "columnheader", "aria-colindex": one.index + 1, "aria-sort": sign ? (order[1] ? "descending" : "ascending") : "none",
        style: styleOf(one), class: one.isPinned && "knb-pinned" },
      make("div", { class: "knb-title" }, sort, make("span", { class: "knb-type" }, said)),
      profileOf(one.id, about, (chip) => ask({ kind: "chip", chip })), grip);
      return cell;
    }));
  }

  function styleOf({ x, wide, isPinned }) {
    return `left:${x + (isPinned ? left : 0)}px;width:${wide}px`;
  }

  function fill(element, place, seen) {
    element.hidden = place < 0;
    if (place < 0) return;
    const row = at(place);
    element.dataset.place = place;
    element.id = `${grid.dataset.view}-${place}`;
    element.style.top = `${place * ROW}px`;
    element.setAttribute("aria-rowindex", place + 2);
    element.setAttribute("aria-selected", row?.[0] === picked);
    element.classList.toggle("knb-active", place === active);
    while (element.childNodes.length > seen.length) element.lastChild.remove();
    while (element.childNodes.length < seen.length) element.append(make("div", { role: "gridcell" }));
    seen.forEach((one, i) => {
      const cell = element.childNodes[i], style = styleOf(one);
      if (cell.dataset.style !== style) { cell.style.cssText = style; cell.dataset.style = style; }
      cell.classList.toggle("knb-pinned", one.isPinned);
      cell.classList.toggle("knb-amount", kinds.get(one.id) === "number");
      cell.setAttribute("aria-colindex", one.index + 1);
      const title = one.id === "arrived" && row ? new Date(row[1] / 1000).toLocaleString() : "";  // local time
      if (cell.title !== title) cell.title = title;
      setCell(cell, row ? row[one.index + 2] : "…");
    });
  }

  function sortBy(id) {
    const [column, isDescending] = order;
    if (column !== id) ask({ kind: "sort", column: id, descending: true });
    else if (isDescending) ask({ kind: "sort", column: id, descending: false });
    else ask({ kind: "release" });
  }

  function resize(event, one) {
    const from = event.clientX, was = one.wide;
    event.preventDefault();
    function move({ clientX }) {
      isSized.add(one.id);
      widths.set(one.id, Math.max(3, (was + clientX - from) / CELL));
      drawnHead = "";
      draw();
    }
    function done() {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", done);
    }
    addEventListener("pointermove", move);
    addEventListener("pointerup", done);
  }

  /** Freeze the rows, and keep the one at a place where it is on the screen. */
  function hold(place) {
    if (isFrozen || anchor || !rows.length) return;
    const one = rows[Math.min(place, rows.length - 1)];
    anchor = { number: one[0], place, offset: top - place * ROW };
    ask({ kind: "hold", number: one[0] });
  }

  /** Show the newest rows again. */
  function release() {
    active = -1;
    anchor = null;
    ask({ kind: "release" });
  }

  function scrolled() {
    const isDown = grid.scrollTop !== top;
    top = grid.scrollTop;
    left = grid.scrollLeft;
    if (isDown && top > ROW) hold(Math.floor(top / ROW));  // what is being read must not run away
    else if (isDown && top <= 0 && isFrozen && canGoOn && active < 0 && order[0] === "") release();
    cancelAnimationFrame(frames);
    frames = requestAnimationFrame(draw);
  }

  function choose(place) {
    active = Math.max(0, Math.min(place, count() - 1));
    hold(active);
    const y = active * ROW, height = grid.clientHeight - HEAD;
    if (y < grid.scrollTop) grid.scrollTop = y;
    if (y + ROW > grid.scrollTop + height) grid.scrollTop = y + ROW - height;
    top = grid.scrollTop;
    draw();
    grid.setAttribute("aria-activedescendant", `${grid.dataset.view}-${active}`);
  }

  function open(place) {
    const row = at(place);
    if (!row) return;
    picked = row[0];
    choose(place);
    pick(picked);
  }

  function close() {
    picked = -1;
    active = -1;
    draw();
  }

  function pressed(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: ROWS_SHOWN, PageUp: -ROWS_SHOWN, Home: -Infinity, End: Infinity };
    if (event.target !== grid) return;
    if (event.key in steps && count()) choose(active + steps[event.key]);
    else if (event.key === "Enter" && active >= 0) open(active);
    else if (event.key === "Escape") { pick(null); close(); if (canGoOn && isFrozen) release(); }
    else return;
    event.preventDefault();
    event.stopPropagation();  // the notebook has keys of its own
  }

  function clicked(event) {
    const row = event.target.closest("[data-place]");
    if (row && !getSelection().toString()) open(Number(row.dataset.place));
  }

  grid.dataset.view = `knb-${random()}`;
  grid.style.height = `${ROWS_SHOWN * ROW + HEAD + 4}px`;
  const observer = new ResizeObserver(() => draw());
  observer.observe(grid);
  const newest = (most) => {
    const some = isFrozen ? [...pages.keys()].sort((a, b) => a - b).map((place) => pages.get(place)) : rows;
    return { columns: columns.map(({ title }) => title), rows: some.slice(0, most).map(([, , ...cells]) => cells) };
  };
  return {
    grid, newer, put, page, newest, close,
    step: (by) => { if (active + by >= 0 && active + by < count()) open(active + by); },
    say: (text) => setText(empty, text),
    pin: (id) => { pinned[pinned.has(id) ? "delete" : "add"](id); drawnHead = ""; draw(); },
    isPinned: (id) => pinned.has(id),
    end: () => observer.disconnect(),
  };
}

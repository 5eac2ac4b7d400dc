// Rows over time, stacked by shard, of which a stretch can be chosen; and the shards in a line.

const BAR_HEIGHT = 44;  // pixels

/** The bar. choose(low, high) is called with the edges of what was chosen, in microseconds since 1970. */
function timeBar(choose) {
  const scale = make("span", { class: "knb-quiet knb-scale" }), from = make("span", { class: "knb-quiet" }), to = make("span", { class: "knb-quiet" });
  const bars = make("div", { class: "knb-bars" }), mark = make("div", { class: "knb-mark", hidden: true });
  const field = make("div", { class: "knb-time", tabindex: "0", role: "slider", "aria-label": "rows over time: arrow keys move, shift extends, Enter shows only these rows",
    onkeydown: pressed, onpointerdown: began }, bars, mark);
  const legend = make("span", { class: "knb-legend knb-quiet" });
  const root = make("div", { class: "knb-timeline", hidden: true }, scale, field, make("div", { class: "knb-axis" }, from, legend, to));
  let data = { start: 0, step: 1, shards: [], bars: [] }, cursor = 0, anchor = 0, drawn = "";

  const count = () => data.bars[0]?.length ?? 0;
  const clock = (second) => new Date(second * 1000).toISOString().slice(11, 19);
  const total = (bin) => data.bars.reduce((sum, one) => sum + one[bin], 0);

  function draw(given) {
    const signed = JSON.stringify(given);
    if (signed === drawn) return;
    drawn = signed;
    data = given;
    root.hidden = !count();
    const most = Math.max(1, ...Array.from({ length: count() }, (_, bin) => total(bin)));
    bars.replaceChildren(...Array.from({ length: count() }, (_, bin) => make("div", { class: "knb-slice", title: `${clock(data.start + bin * data.step)} UTC: ${total(bin).toLocaleString("en")} rows` },
      ...data.bars.map((one, shard) => (one[bin] ? make("i", { style: `height:${(BAR_HEIGHT * one[bin]) / most}px;background:${colour(shard)}` }) : "")).filter(Boolean))));
    setText(scale, `${Math.round(most / data.step).toLocaleString("en")}/s`);
    setText(from, `${clock(data.start)} UTC`);
    setText(to, clock(data.start + count() * data.step));
    legend.replaceChildren(...(data.shards.length > 1 ? data.shards.map((name, shard) => make("span", {}, make("b", { style: `background:${colour(shard)}` }), name)) : []));
  }

  function colour(shard) {
    return data.shards[shard] === "others" ? "#8888" : `hsl(${(210 + shard * 47) % 360} 55% 55%)`;
  }

  function show() {
    const low = Math.min(anchor, cursor), high = Math.max(anchor, cursor) + 1;
    mark.hidden = false;
    mark.style.left = `${(100 * low) / count()}%`;
    mark.style.width = `${(100 * (high - low)) / count()}%`;
    field.setAttribute("aria-valuetext", `${clock(data.start + low * data.step)} to ${clock(data.start + high * data.step)}`);
    return [(data.start + low * data.step) * 1e6, (data.start + high * data.step) * 1e6];
  }

  function done() {
    const edges = show();
    mark.hidden = true;
    choose(...edges);
  }

  function pressed(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      cursor = Math.max(0, Math.min(count() - 1, cursor + step));
      if (!event.shiftKey) anchor = cursor;
      show();
    } else if (event.key === "Enter" && !mark.hidden) done();
    else if (event.key === "Escape") mark.hidden = true;
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function began(event) {
    const box = field.getBoundingClientRect();
    const bin = ({ clientX }) => Math.max(0, Math.min(count() - 1, Math.floor(((clientX - box.left) / box.width) * count())));
    anchor = cursor = bin(event);
    show();
    function moved(one) { cursor = bin(one); show(); }
    function ended() {
      removeEventListener("pointermove", moved);
      removeEventListener("pointerup", ended);
      done();
    }
    addEventListener("pointermove", moved);
    addEventListener("pointerup", ended);
  }

  return { root, draw };
}

const LABELLED = 24;  // shards that have room for a text

/** The shards: as wide as their share of the hash keys, as full as they are busy. choose(id) is called for a click. */
function shardLine(choose) {
  const root = make("div", { class: "knb-badges", role: "list", "aria-label": "shards, by their hash keys" });
  let drawn = "";
  function draw(shards) {
    const signed = JSON.stringify(shards);
    if (signed === drawn) return;
    drawn = signed;
    root.classList.toggle("knb-many", shards.length > LABELLED);
    root.replaceChildren(...shards.map((one) => badge(one, shards.length <= LABELLED, choose)));
  }
  return { root, draw };
}

function badge([number, id, state, lag, throttles, error, kind, share, rate, isLit], isLabelled, choose) {
  const throttled = throttles ? ` · ${throttles} throttled` : "";
  const hint = `${id}: ${state}, behind: ${lag}${throttled}, ${(100 * share).toPrecision(3)} % of the hash keys, ${Math.round(100 * rate)} % of 1,000 records a second`
    + `${isLit ? ", takes the partition key in the box" : ""}${error ? `\n${error}` : ""}\nclick: only its rows`;
  const mark = throttles ? " knb-throttled" : "", silent = rate === 0 ? " knb-silent" : "", lit = isLit ? " knb-lit" : "";
  return make("button", { type: "button", class: `knb-badge knb-${kind}${mark}${silent}${lit}`, title: hint, role: "listitem", style: `flex:${Math.max(share, 0.001)} 1 0;--knb-fill:${Math.round(100 * rate)}%`,
    onclick: () => choose(id) }, isLabelled ? `${number} · ${lag}${throttled}` : "");
}

// What live views share. Data is set as text only: textContent and text nodes, never markup.

const SVG = "http://www.w3.org/2000/svg";
const SIGNS = { running: "●", waiting: "○", paused: "❚❚", stopped: "■", ended: "■", failed: "✕" };

/** Make an element: attributes, handlers (on...), and children that are nodes or text. */
function make(tag, attributes = {}, ...children) {
  const element = attributes.xmlns ? document.createElementNS(attributes.xmlns, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "xmlns" || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function setText(element, text) {
  const node = element.firstChild;
  if (node?.nodeType === Node.TEXT_NODE && !node.nextSibling) {
    if (node.data !== text) node.data = text;  // cheaper than a new node
  } else if (element.textContent !== text) element.textContent = text;
}

/** Set the text of a cell. */
function setCell(element, text) {
  if (!RIGHT_TO_LEFT.test(text)) setText(element, text);
  else if (element.textContent !== text) element.replaceChildren(...isolated(text));
}

function random() {
  return Math.random().toString(36).slice(2);
}

const DRAWING = 8, BETWEEN = 100;  // ms of drawing in a frame, then the page gets its turn; ms between two rounds

/**
 * Draw in the next round. All views of a page share it, though each has a script of its own: painting a page costs more
 * than drawing a view does, so it is done for all of them at once.
 */
function drawSoon(draw) {
  const page = (globalThis.kinesisNotebookDraws ??= { waiting: new Set(), isDue: false, last: 0 });
  function drawSome() {
    const until = performance.now() + DRAWING;
    for (const one of page.waiting) {
      page.waiting.delete(one);
      one();
      if (performance.now() > until) break;
    }
    page.isDue = page.waiting.size > 0;
    page.last = performance.now();
    if (page.isDue) requestAnimationFrame(drawSome);
  }
  page.waiting.add(draw);
  if (page.isDue) return;
  page.isDue = true;
  setTimeout(() => requestAnimationFrame(drawSome), Math.max(0, page.last + BETWEEN - performance.now()));
}

/**
 * Connect a view on the page to its kernel, and return what sends to it and what ends it.
 *
 * draw(frame) and reply(reply) are called when the kernel sends something; lost() when it is gone. What stays in the
 * notebook then is the table of picture(): a caption, columns and rows.
 */
function connect(model, root, { draw, reply, lost, picture }) {
  const view = random();
  const page = (globalThis.kinesisNotebookPage ??= random());
  let waiting = null, inSight = true, wasSeen = true, isLost = false, isClosed = false, id = "";

  function send(message) {
    if (!isLost) model.send(message);
  }

  function hello() {
    send({ kind: "hello", view, page });
  }

  function show() {
    if (isClosed) return;
    const { frame, answer } = waiting;
    waiting = null;
    draw(frame);
    if (answer) send({ kind: "drawn", number: answer });
  }

  function leave(html) {
    const outputs = outputsOf(model, id);
    outputs.forEach((put) => put(html));
    return outputs.length > 0;
  }

  function received(message, buffers) {
    id = message.model;
    if (message.kind === "leave" && leave(message.picture)) send({ kind: "left" });
    if (message.kind === "part") reply(message, buffers[0]);
    if (message.kind !== "frame") return;
    message.replies.forEach((one) => reply(one));
    const frame = JSON.parse(new TextDecoder().decode(buffers[0]));
    const answer = message.answer ? message.number : waiting?.answer;
    if (waiting?.frame.rows && frame.rows && !frame.everything) {  // two frames between two pictures: the rows of both
      const rows = [...frame.rows, ...waiting.frame.rows];
      Object.assign(frame, { ...waiting.frame, ...frame, rows, everything: waiting.frame.everything });
    }
    waiting = { frame, answer };
    drawSoon(show);
  }

  function look() {
    const isSeen = inSight && document.visibilityState === "visible";
    if (isSeen === wasSeen) return;
    wasSeen = isSeen;
    send({ kind: "seen", view, is_seen: isSeen });
  }

  /** Look whether the kernel is there: the connection to it was lost, or is back. */
  async function lookForKernel() {
    const manager = model.widget_manager;
    const { comm_live: isThere } = await manager.get_model(id);
    if (isThere === !isLost) return;
    isLost = !isThere;
    if (!isLost) hello();
    else lost();
    const hasEnded = ["restarting", "autorestarting", "terminating", "dead", undefined].includes(manager.kernel?.status);
    if (isLost && hasEnded) leave({ "text/html": tableOf(picture()), "text/plain": picture().caption });
  }

  const observer = new IntersectionObserver((entries) => {
    inSight = entries[entries.length - 1].isIntersecting;
    look();
  });
  model.on("msg:custom", received);
  model.on("comm_live_update", lookForKernel);
  document.addEventListener("visibilitychange", look);
  observer.observe(root);
  hello();
  function close() {
    observer.disconnect();
    document.removeEventListener("visibilitychange", look);
    model.off("msg:custom", received);
    model.off("comm_live_update", lookForKernel);
    isClosed = true;
    send({ kind: "seen", view, is_seen: false });
  }
  return { send, close };
}

/** A table as static HTML, as the kernel would leave it. */
function tableOf({ caption, columns, rows }) {
  const isNumeric = columns.map((_, i) => isNumbers(rows.map((row) => row[i])));
  const line = (tag, cells) => make("tr", {}, ...cells.map((text, i) => make(tag, { class: isNumeric[i] && "num" }, text)));
  const table = make("table", {}, make("caption", {}, caption), make("thead", {}, line("th", columns)),
    make("tbody", {}, ...rows.map((row) => line("td", row))));
  return TABLE_STYLE + make("div", { class: "knb" }, table).outerHTML;
}

/** Whether all texts that are not empty are numbers, perhaps with a unit, so that they belong to the right. */
function isNumbers(texts) {
  const filled = texts.filter((text) => text && text !== "-");
  return filled.length > 0 && filled.every((text) => /^-?[\d,]+(\.\d+)?([eE][+-]?\d+)?( ?%| m?s)?$/.test(text));
}

/** A JSON document as a tree of texts: nodes are [name, kind, text, children]. */
function treeNode([name, kind, text, children], isOpen = true) {
  const label = name === "" ? [] : [make("span", { class: "knb-name" }, name), ": "];
  if (!children.length) return make("div", { class: "knb-leaf" }, ...label, make("span", { class: `knb-${kind}` }, text));
  const size = make("span", { class: "knb-quiet" }, text);
  const inner = make("div", { class: "knb-inner" });
  const fill = () => { if (!inner.childNodes.length) inner.append(...children.map((child) => treeNode(child, false))); };
  if (isOpen) fill();
  return make("details", { open: isOpen, ontoggle: fill }, make("summary", {}, ...label, size), inner);
}

/** The error of a view: two lines. */
function errorLine() {
  const line = make("div", { class: "knb-error", role: "alert", hidden: true });
  return { line, show: (text) => { setText(line, text); line.hidden = !text; } };
}

/** Show that the kernel is gone. */
function showLost(state, title) {
  state.dataset.state = "failed";
  setText(state, `✕ no kernel · ${title}`);
}

/** A button. */
function button(label, hint, act) {
  return make("button", { type: "button", class: "knb-button", title: hint, onclick: act }, label);
}

/** A button with a sign on it, and words for who hears it. */
function signButton(sign, words, act) {
  const one = button(sign, words, act);
  one.setAttribute("aria-label", words);
  return one;
}

/** The rate of the last minute as a line. */
function sparkline() {
  const line = make("polyline", { xmlns: SVG, fill: "none", stroke: "currentColor", "stroke-width": "1.5" });
  const picture = make("svg", { xmlns: SVG, class: "knb-spark", viewBox: "0 0 120 22", role: "img" }, line);
  let drawn = "";
  return { picture, draw(rates, rate) {
    const most = Math.max(...rates, 1);
    const points = rates.map((value, i) => `${(i * 120) / (rates.length - 1)},${21 - (20 * value) / most}`).join(" ");
    if (points === drawn) return;
    drawn = points;
    line.setAttribute("points", points);
    picture.setAttribute("aria-label", `rows a second in the last minute: now ${rate}, at most ${most}`);
  } };
}

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
  if (element.textContent !== text) element.textContent = text;
}

function random() {
  return Math.random().toString(36).slice(2);
}

/** Connect a view on the page to its kernel: draw(frame) and reply(reply) are called when it sends something. */
function connect(model, root, draw, reply) {
  const view = random();
  const page = (globalThis.kinesisNotebookPage ??= random());
  let waiting = null, request = 0, inSight = true, wasSeen = true;

  function show() {
    request = 0;
    const { frame, answer } = waiting;
    waiting = null;
    draw(frame);
    if (answer) model.send({ kind: "drawn", number: answer });
  }

  function received(message, buffers) {
    if (message.kind !== "frame") return;
    message.replies.forEach(reply);
    const frame = JSON.parse(new TextDecoder().decode(buffers[0]));
    const answer = message.answer ? message.number : waiting?.answer;
    if (waiting?.frame.rows && frame.rows && !frame.everything) {  // two frames between two pictures: the rows of both
      frame.rows = [...frame.rows, ...waiting.frame.rows];
      frame.everything = waiting.frame.everything;
    }
    waiting = { frame, answer };
    request ||= requestAnimationFrame(show);
  }

  function look() {
    const isSeen = inSight && document.visibilityState === "visible";
    if (isSeen === wasSeen) return;
    wasSeen = isSeen;
    model.send({ kind: "seen", view, is_seen: isSeen });
  }

  const observer = new IntersectionObserver((entries) => {
    inSight = entries[entries.length - 1].isIntersecting;
    look();
  });
  model.on("msg:custom", received);
  document.addEventListener("visibilitychange", look);
  observer.observe(root);
  model.send({ kind: "hello", view, page });
  return () => {
    observer.disconnect();
    document.removeEventListener("visibilitychange", look);
    model.off("msg:custom", received);
    if (request) cancelAnimationFrame(request);
    model.send({ kind: "seen", view, is_seen: false });
  };
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

/** A button that sends a message. */
function button(label, hint, act) {
  return make("button", { type: "button", class: "knb-button", title: hint, onclick: act }, label);
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

// The notebook that a widget is in. JupyterLab and Notebook 7 give it through the widget's manager; Voila and others do
// not, and then nothing here does anything.

/** The notebook's model. */
function notebookOf(model) {
  return model.widget_manager?.context?.model;
}

/** The place of the cell that an element is in; -1 where there is none. */
function placeOf(element) {
  return Number(element.closest(".jp-Cell")?.dataset.windowedListIndex ?? -1);
}

/** Insert a cell with this code below the cell that an element is in; return whether that was possible. */
function insertBelow(model, element, code) {
  const notebook = notebookOf(model), place = placeOf(element);
  if (!notebook?.sharedModel?.insertCell || notebook.readOnly || place < 0) return false;
  notebook.sharedModel.insertCell(place + 1, { cell_type: "code", source: code, metadata: {} });
  return true;
}

/** The outputs that show a widget, as functions that put something else in their place. */
function outputsOf(model, id) {
  const found = [];
  for (const { outputs } of notebookOf(model)?.cells ?? []) {
    for (let i = 0; i < (outputs?.length ?? 0); i++) {
      if (outputs.get(i).data["application/vnd.jupyter.widget-view+json"]?.model_id !== id) continue;
      found.push((data) => outputs.set(i, { output_type: "display_data", data, metadata: {} }));
    }
  }
  return found;
}

/**
 * Copy a text; return a promise of whether it was copied. A page that came by plain http has no clipboard: there a
 * selection is copied, as by the keyboard, which a browser may refuse too.
 */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);
  }
}

function copySelected(text) {
  const box = document.createElement("span"), selection = getSelection();
  const put = (event) => {
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
    event.stopImmediatePropagation(); // a notebook copies its cells
  };
  box.textContent = text;
  box.style.cssText = "position:fixed;opacity:0;user-select:text";
  document.body.append(box);
  selection.selectAllChildren(box);
  globalThis.addEventListener("copy", put, { capture: true });
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    globalThis.removeEventListener("copy", put, { capture: true });
    selection.removeAllRanges();
    box.remove();
  }
}

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

/** A text as nodes in which no string in quotes turns what is around it about: names may be written right to left. */
function isolated(text) {
  return text.split(/("(?:[^"\\\n]|\\.)*"?)/).filter(Boolean).map((part) => {
    if (!part.startsWith('"') || !RIGHT_TO_LEFT.test(part)) return document.createTextNode(part);
    const one = document.createElement("bdi");
    one.textContent = part;
    return one;
  });
}

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

/** Copy a text; return whether that was possible. A page that was loaded over plain http has no clipboard of its own. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = document.body.appendChild(document.createElement("textarea"));
    box.value = text;
    box.select();
    const isCopied = document.execCommand("copy");
    box.remove();
    return isCopied;
  }
}

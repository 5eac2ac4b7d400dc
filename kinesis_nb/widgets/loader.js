// All that a notebook is saved with of a live view: the rest comes from the kernel, once for each page.

async function load(model) {
  const text = await new Promise((resolve, reject) => {
    const give = setTimeout(() => reject(new Error("the kernel did not send the view")), 60_000);
    function received(message, buffers) {
      if (message.kind !== "script") return;
      clearTimeout(give);
      model.off("msg:custom", received);
      resolve(new TextDecoder().decode(buffers[0]));
    }
    model.on("msg:custom", received);
    model.send({ kind: "script" });
  });
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  try {
    return (await import(/* webpackIgnore: true */ url)).default;
  } finally {
    URL.revokeObjectURL(url);
  }
}

async function render(context) {
  const scripts = (globalThis.kinesisNotebookScripts ??= {});
  scripts[SCRIPT] ??= load(context.model);
  try {
    const view = await scripts[SCRIPT];
    context.el.append(Object.assign(document.createElement("style"), { textContent: view.styles }));
    return view.render(context);
  } catch (error) {
    delete scripts[SCRIPT];
    throw error;
  }
}

export default { render };

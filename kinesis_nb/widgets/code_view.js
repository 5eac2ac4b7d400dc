// Code to copy, or to insert into the notebook.

function render({ model, el }) {
  const shown = document.createElement("pre");
  const bar = document.createElement("div");
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  said.className = "knb-quiet";
  function button(label, act) {
    const one = document.createElement("button");
    one.type = "button";
    one.textContent = label;
    one.addEventListener("click", act);
    bar.append(one);
  }
  const code = () => model.get("code").trimEnd();
  if (notebookOf(model)) {
    button("Insert as a cell below", () => {
      said.textContent = insertBelow(model, el, code()) ? "inserted" : "this output is not below a cell; copy the code";
    });
  }
  button("Copy", async () => {
    const isCopied = await copyText(code());
    if (!isCopied) getSelection().selectAllChildren(shown);
    said.textContent = isCopied ? "copied" : "the browser does not let this page copy: the code is selected, copy it yourself";
  });
  bar.className = "knb-code-bar";
  bar.append(said);
  const show = () => {
    shown.replaceChildren(...isolated(code()));
    said.textContent = "";
    el.style.display = code() ? "" : "none";
  };
  show();
  model.on("change:code", show);
  el.append(bar, shown);
  return () => model.off("change:code", show);
}

export default { render };

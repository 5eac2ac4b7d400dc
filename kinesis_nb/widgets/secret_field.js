// A box for a secret. What is typed goes to the kernel as the buffer of a custom message: never as widget state, which
// is saved with the notebook, and never as the content of a message, which a kernel may log.
const PAUSE = 300; // ms without a key before the kernel hears of it

function render({ model, el }) {
  const label = document.createElement("label");
  const name = document.createElement("span");
  const input = document.createElement("input");
  const note = document.createElement("span");
  const forget = document.createElement("button");
  const view = Math.random().toString(36).slice(2); // the same field may be shown twice
  let sent = 0, kept = 0, isDirty = false, timer = 0;

  el.classList.add("knb-secret");
  label.className = "knb-secret-label";
  name.className = "widget-label";
  input.autocomplete = "new-password"; // browsers fill in and offer to save what is called password only
  input.spellcheck = false;
  note.className = "knb-secret-note";
  note.setAttribute("role", "status");
  forget.type = "button";
  forget.className = "knb-secret-forget";
  forget.textContent = "×";
  label.append(name, input);
  el.append(label, note, forget);

  const show = () => {
    name.textContent = name.title = model.get("description");
    input.type = model.get("masked") ? "password" : "text";
    input.placeholder = model.get("placeholder");
    input.disabled = model.get("disabled");
    note.textContent = model.get("note");
    forget.hidden = !model.get("is_set");
    forget.title = `forget: ${model.get("description")}`;
    forget.setAttribute("aria-label", forget.title);
  };
  const send = () => {
    clearTimeout(timer);
    if (!isDirty || !input.value) return;
    isDirty = false;
    sent += 1;
    model.send({ kind: "secret", view, number: sent }, undefined, [new TextEncoder().encode(input.value)]);
  };
  const empty = () => { if (sent === kept && !isDirty) input.value = ""; }; // the kernel has all of it
  const isFocused = () => input.getRootNode().activeElement === input;
  const heard = (message) => {
    if (message.kind !== "kept" || message.view !== view) return;
    kept = message.number;
    if (!isFocused()) empty();
  };

  input.addEventListener("input", () => {
    isDirty = true;
    clearTimeout(timer);
    timer = setTimeout(send, PAUSE);
  });
  input.addEventListener("blur", () => { send(); empty(); });
  input.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the notebook's shortcuts
    if (event.key === "Enter") input.blur();
  });
  forget.addEventListener("click", () => { input.value = ""; isDirty = false; model.send({ kind: "forget" }); });
  model.on("change", show);
  model.on("msg:custom", heard);
  show();
  return () => {
    clearTimeout(timer);
    model.off("change", show);
    model.off("msg:custom", heard);
  };
}

export default { render };

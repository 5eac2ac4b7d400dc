// A secret goes to the kernel as a buffer, and is gone from the page when the kernel has it.
import { load } from "./load.js";

const { exported } = load(["secret_field.js"], ["exported"]);

function field() {
  vi.useFakeTimers();
  const state = { description: "Secret access key", masked: true, placeholder: "", disabled: false, note: "", is_set: true };
  const handlers = {};
  const model = {
    get: (name) => state[name],
    on: (name, handler) => { handlers[name] = handler; },
    off: vi.fn(),
    send: vi.fn(),
  };
  const el = document.createElement("div");
  document.body.replaceChildren(el);
  const close = exported.render({ model, el });
  const input = el.querySelector("input");
  const type = (text) => { input.value = text; input.dispatchEvent(new Event("input")); };
  return { model, el, input, type, close, handlers };
}

test("what is typed is sent once, a moment after the last key, as a buffer and not as content", () => {
  const { model, type } = field();
  type("hun");
  type("hunter2");
  expect(model.send).not.toHaveBeenCalled();
  vi.advanceTimersByTime(300);
  vi.advanceTimersByTime(3_000);
  expect(model.send).toHaveBeenCalledOnce();
  const [content, , buffers] = model.send.mock.calls[0];
  expect(JSON.stringify(content)).not.toContain("hunter2");
  expect(new TextDecoder().decode(buffers[0])).toBe("hunter2");
});

test("the box is emptied when the kernel has all of it, and not before", () => {
  const { model, type, input, handlers } = field();
  type("hunter2");
  input.dispatchEvent(new Event("blur"));
  expect(input.value).toBe("hunter2");
  const [{ view, number }] = model.send.mock.calls[0];
  handlers["msg:custom"]({ kind: "kept", view: "another", number });
  expect(input.value).toBe("hunter2");
  handlers["msg:custom"]({ kind: "kept", view, number });
  expect(input.value).toBe("");
});

test("browsers are kept from saving it, and nothing is sent of a box that was closed", () => {
  const { model, input, type, close } = field();
  expect([input.type, input.autocomplete]).toEqual(["password", "new-password"]);
  type("hunter2");
  close();
  vi.advanceTimersByTime(3_000);
  expect(model.send).not.toHaveBeenCalled();
});

test("forgetting empties the box and tells the kernel", () => {
  const { model, el, input, type } = field();
  type("hunter2");
  el.querySelector("button").click();
  vi.advanceTimersByTime(3_000);
  expect(input.value).toBe("");
  expect(model.send.mock.calls).toEqual([[{ kind: "forget" }]]);
});

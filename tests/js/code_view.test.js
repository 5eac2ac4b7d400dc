// Code to copy: where there is a clipboard, where there is none, and where the browser refuses both.
import { load } from "./load.js";

const { exported } = load(["notebook.js", "code_view.js"], ["exported"]);

function view(code) {
  const heard = {}, state = { code };
  const model = { get: (name) => state[name], on: (name, call) => { heard[name] = call; }, off() {} };
  const el = document.body.appendChild(document.createElement("div"));
  exported.render({ model, el });
  const said = el.querySelector("[role=status]");
  function change(text) {
    state.code = text;
    heard["change:code"]();
  }
  async function copy() {
    el.querySelector("button").click();
    await vi.waitUntil(() => said.textContent !== "");
    return said.textContent;
  }
  return { el, copy, change, said };
}

/** Give the page this clipboard and this way to copy a selection; undefined is a page that came by plain http. */
function browser(clipboard, execCommand) {
  Object.defineProperty(navigator, "clipboard", { value: clipboard, configurable: true });
  document.execCommand = execCommand;
}

test("the clipboard gets the code", async () => {
  const writeText = vi.fn(async () => {});
  browser({ writeText }, undefined);
  expect(await view("tail = 1\n").copy()).toBe("copied");
  expect(writeText).toHaveBeenCalledExactlyOnceWith("tail = 1");
});

test.each([[undefined], [{ writeText: async () => { throw new Error("denied"); } }]])(
  "without a clipboard, or one that refuses, the selection is copied, and the focus stays",
  async (clipboard) => {
    let copied = "";
    browser(clipboard, () => {
      const event = new Event("copy", { bubbles: true });
      event.clipboardData = { setData: (_, text) => { copied = text; } };
      return document.body.dispatchEvent(event);
    });
    const { el, copy } = view("tail = 1");
    el.querySelector("button").focus();
    expect(await copy()).toBe("copied");
    expect(copied).toBe("tail = 1");
    expect(document.activeElement).toBe(el.querySelector("button"));
    expect(document.body.lastChild).toBe(el);
  },
);

test.each([[() => false], [() => { throw new Error("no"); }]])("a refusal says to copy it yourself", async (refuse) => {
  browser(undefined, refuse);
  const { copy, change, said } = view("tail = 1");
  expect(await copy()).toContain("copy it yourself");
  change("tail = 2");
  expect(said.textContent).toBe("");
});

test("a name that is written right to left does not swap what is around it", () => {
  const code = 'read("שלום", key="אב\\"ג", limit=3)';
  const { el } = view(code);
  expect(el.querySelector("pre").textContent).toBe(code);
  expect([...el.querySelectorAll("bdi")].map((one) => one.textContent)).toEqual(['"שלום"', '"אב\\"ג"']);
});

// Classes are searched by name, and any number of them chosen.
const base = document.documentElement.dataset.base;

function chip(name, value, text) {
  const item = document.createElement("li");
  const input = Object.assign(document.createElement("input"), { type: "hidden", name, value });
  const shown = Object.assign(document.createElement("bdi"), { textContent: text });
  const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "×" });
  remove.setAttribute("aria-label", `Leave out ${text}`);
  item.append(input, shown, remove);
  return item;
}

function wire(combo) {
  const box = combo.querySelector("input[role=combobox]"), list = combo.querySelector(".options");
  const chips = combo.querySelector(".chips"), form = combo.closest("form");
  let found = [], foundFor = null, at = -1, latest = 0;

  const changed = () => form.requestSubmit();
  const close = () => {
    list.hidden = true;
    at = -1;
    box.setAttribute("aria-expanded", "false");
    box.removeAttribute("aria-activedescendant");
  };
  const select = (next) => {
    at = (next + found.length) % found.length;
    [...list.children].forEach((item, number) => item.setAttribute("aria-selected", String(number === at)));
    list.children[at].scrollIntoView({ block: "nearest" });
    box.setAttribute("aria-activedescendant", list.children[at].id);
  };
  const take = (one) => {
    if (!chips.querySelector(`input[value="${one.value}"]`)) chips.append(chip(combo.dataset.name, one.value, one.name));
    box.value = "";
    foundFor = null;
    close();
    changed();
  };
  const show = () => {
    list.replaceChildren(...found.map((one, number) => {
      const item = Object.assign(document.createElement("li"), { id: `option-${number}`, textContent: `${one.name} (${one.value})` });
      item.append(Object.assign(document.createElement("span"), { className: "count", textContent: ` ${one.count}` }));
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", "false");
      item.addEventListener("mousedown", (event) => { event.preventDefault(); take(one); });
      return item;
    }));
    if (!found.length) list.append(Object.assign(document.createElement("li"), { className: "muted", textContent: "No such class on any picture" }));
    list.hidden = false;
    box.setAttribute("aria-expanded", "true");
    at = -1;
  };
  const search = async () => {
    const mine = ++latest, text = box.value;
    const answer = await fetch(`${base}/api/runs/${document.documentElement.dataset.run}/names?text=${encodeURIComponent(text)}`);
    const names = answer.ok ? await answer.json() : [];
    if (mine !== latest || document.activeElement !== box) return;
    found = names;
    foundFor = text;
    show();
  };
  const enter = async () => {
    if (foundFor !== box.value) await search();
    if (!list.hidden && found.length && foundFor === box.value) take(found[Math.max(at, 0)]);
  };

  box.addEventListener("input", search);
  box.addEventListener("focus", () => { if (box.value) search(); });
  box.addEventListener("blur", close);
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) search();
      else if (found.length) select(at < 0 && event.key === "ArrowUp" ? found.length - 1 : at + (event.key === "ArrowDown" ? 1 : -1));
    } else if (event.key === "Enter") {
      event.preventDefault();
      enter();
    } else if (event.key === "Escape") close();
    else if (event.key === "Backspace" && !box.value && chips.lastElementChild) {
      chips.lastElementChild.remove();
      changed();
    }
  });
  chips.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    button.closest("li").remove();
    box.focus();
    changed();
  });
}

export function watch() {
  for (const combo of document.querySelectorAll(".combo:not([data-wired])")) {
    combo.dataset.wired = "yes";
    wire(combo);
  }
}

// Starts what the page has.
import * as combo from "./combo.js";
import * as follow from "./follow.js";
import * as keys from "./keys.js";
import * as lazy from "./lazy.js";
import * as look from "./look.js";
import * as play from "./play.js";
import * as stage from "./stage.js";
import * as swaps from "./swap.js";
import * as viewer from "./viewer.js";

const byId = (name) => document.getElementById(name);
const THEMES = { auto: "as the system has it", light: "light", dark: "dark" };

function theme() {
  const button = byId("theme");
  const show = () => {
    const now = document.documentElement.dataset.theme || "auto";
    button.textContent = now[0].toUpperCase() + now.slice(1);
    button.setAttribute("aria-label", `${button.textContent}: colours of the page, ${THEMES[now]}`);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme || "auto") + 1) % names.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    localStorage.setItem("seewhy-theme", next);
    show();
  });
  show();
}

function help() {
  byId("help-open").hidden = false;
  byId("help-open").addEventListener("click", () => byId("help").showModal());
}

function copies() {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = byId(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(byId(button.dataset.copy));
      button.textContent = "Selected: press Ctrl+C";
    }
  });
}

// Weights stand in the address in the order of the metrics.
function weights() {
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-weights]");
    if (!form) return;
    event.preventDefault();
    const boxes = [...form.querySelectorAll("[data-weight]")];
    const values = boxes.map((one) => Math.max(0, Number(one.value) || 0));
    const url = new URL(location.href);
    url.searchParams.delete("weights");
    if (values.some((one, at) => one !== Number(boxes[at].dataset.weight))) url.searchParams.set("weights", values.join(","));
    const at = boxes.indexOf(event.target);
    swaps.swap(url).then(() => document.querySelectorAll("[data-weight]")[at]?.focus());
  });
  document.addEventListener("submit", (event) => { if (event.target.matches("[data-weights]")) event.preventDefault(); });
}

// The legend of a chart: a click hides a line or shows it again, the one that is pointed at is lit.
function legend() {
  const chart = (button) => button.closest(".chart").querySelector(".radar");
  const line = (button) => chart(button).querySelector(`[data-line="${button.dataset.hides}"]`);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-hides]");
    if (!button) return;
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    line(button).classList.toggle("gone", !shown);
  });
  for (const [name, lit] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) {
    document.addEventListener(name, (event) => {
      const button = event.target.closest?.("[data-hides]");
      if (!button) return;
      chart(button).classList.toggle("pointing", lit);
      line(button).classList.toggle("lit", lit);
    });
  }
}

swaps.watch();
look.watch((other) => {
  const url = look.dressed(location.href);
  if (other) swaps.swap(url);
  else history.replaceState(null, "", url);
});
viewer.watch();
keys.watch();
combo.watch();
play.watch();
stage.watch();
lazy.watch();
theme();
help();
copies();
weights();
legend();
swaps.onSwap(() => { combo.watch(); play.renew(); stage.renew(); lazy.watch(); });
follow.watch();

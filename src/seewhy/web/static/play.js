// Counterfactuals: layers one after the other, and the original in place of the small picture.
import { swap } from "./swap.js";

let timer = 0;
let playing = false;

const button = () => document.getElementById("play");
const layers = () => [...document.querySelectorAll("a[data-layer]")];

function shown() {
  return layers().findIndex((link) => link.hasAttribute("aria-current"));
}

async function next(first) {
  const all = layers();
  const at = first ? 0 : shown() + 1;
  if (!playing || at >= all.length) {
    stop();
    return;
  }
  await swap(all[at].href, { part: "main", push: false });
  history.replaceState(null, "", all[at].href);
  timer = setTimeout(next, 1100, false);
}

function stop() {
  playing = false;
  clearTimeout(timer);
  paint();
}

function paint() {
  const now = button();
  if (!now) return;
  now.hidden = layers().length < 2;
  now.setAttribute("aria-pressed", String(playing));
  now.textContent = playing ? "❚❚ Pause" : "▶ Play";
}

export function renew() {
  paint();
  for (const image of document.querySelectorAll(".pair image[data-large]")) {
    const original = new Image();
    original.addEventListener("load", () => image.setAttribute("href", image.dataset.large));
    original.src = image.dataset.large;
  }
}

export function watch() {
  document.addEventListener("click", (event) => {
    if (event.target.closest("#play")) {
      playing = !playing;
      if (playing) next(shown() === layers().length - 1);
      else stop();
    } else if (event.isTrusted && event.target.closest("a")) stop();
  });
  renew();
}

// A map large, over the original, or the original. Its place in the address is ?open=POSITION.EXPLAINER.
import { draw } from "./look.js";

const byId = (name) => document.getElementById(name);
const LARGE = "[data-open], [data-whole]";
const cells = () => [...document.querySelectorAll("#results :is([data-open], [data-whole])")];
const place = (link) => link.dataset.open || link.dataset.whole;
let current = null;

function show(link) {
  current = link;
  const card = link.closest(".sample"), cell = link.closest(".cell");
  const drawing = link.querySelector("svg").cloneNode(true);
  byId("viewer-frame").replaceChildren(drawing);
  byId("viewer-title").textContent = card.querySelector("h2").textContent;
  byId("viewer-about").textContent = cell ? `${cell.querySelector(".who").textContent} · ${link.closest(".maps").dataset.name}` : "The original";
  byId("viewer-values").replaceChildren(...[...(cell?.querySelectorAll(".bar, .nothing-seen, .values, .said") || [])].map((one) => one.cloneNode(true)));
  enlarge(drawing, card.dataset.large);
  mark(place(link));
  if (!byId("viewer").open) byId("viewer").showModal();
  byId("viewer-previous").disabled = !beside(-1);
  byId("viewer-next").disabled = !beside(1);
  draw();
}

// The original in place of the small picture, once it is there.
function enlarge(drawing, address) {
  if (!address) return;
  const original = new Image();
  original.addEventListener("load", () => {
    for (const image of drawing.querySelectorAll(".photo, .grey, .whole")) image.setAttribute("href", address);
  });
  original.src = address;
}

function mark(open) {
  const url = new URL(location.href);
  if (open) url.searchParams.set("open", open);
  else url.searchParams.delete("open");
  history.replaceState(null, "", url);
}

// The same explainer of the sample before or after, or what comes nearest to it.
function beside(step) {
  const cards = [...document.querySelectorAll("#results .sample")].filter((card) => card.querySelector(LARGE));
  const next = cards[cards.indexOf(current.closest(".sample")) + step];
  const number = place(current).split(".")[1];
  const same = number === "original" ? "[data-whole]" : `[data-open$=".${number}"]`;
  return next && (next.querySelector(same) || next.querySelector("[data-open]") || next.querySelector(LARGE));
}

export const isOpen = () => byId("viewer")?.open;

export function move(step) {
  const next = beside(step);
  if (next) show(next);
}

export function turn(step) {
  const same = [...current.closest(".sample").querySelectorAll(LARGE)];
  const next = same[same.indexOf(current) + step];
  if (next) show(next);
}

// After the results were put in anew: the same map, with what it has now.
export function renew() {
  if (!isOpen() || !current) return;
  const again = cells().find((link) => place(link) === place(current))
    || document.querySelector(`#sample-${position()} [data-open]`);
  if (again) show(again);
  else byId("viewer").close();
}

export function position() {
  return current && place(current).split(".")[0];
}

export function openFirst(card) {
  const link = card?.querySelector("[data-open]") || card?.querySelector(LARGE);
  if (link) show(link);
}

export function openAsked() {
  const open = new URLSearchParams(location.search).get("open");
  const link = open && cells().find((one) => place(one) === open);
  if (link) show(link);
}

export function watch() {
  const viewer = byId("viewer");
  if (!viewer) return;
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-open], a[data-whole]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    show(link);
  });
  byId("viewer-previous").addEventListener("click", () => move(-1));
  byId("viewer-next").addEventListener("click", () => move(1));
  byId("viewer-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => {
    mark(null);
    const card = current?.closest(".sample");
    (current?.isConnected ? current : card)?.focus({ preventScroll: true });
  });
  openAsked();
}

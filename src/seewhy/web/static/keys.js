// The keyboard: see the help of the pages.
import { choose } from "./swap.js";
import * as viewer from "./viewer.js";

const byId = (name) => document.getElementById(name);
const samples = () => [...document.querySelectorAll("#results .sample")];

function focused() {
  return document.activeElement?.closest(".sample");
}

function step(by) {
  const all = samples();
  if (!all.length) return;
  const now = focused();
  const next = now ? all[all.indexOf(now) + by] : all[by > 0 ? 0 : all.length - 1];
  if (!next) return;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "center" });
}

async function label(number) {
  const open = viewer.isOpen();
  const card = open ? byId(`sample-${viewer.position()}`) : focused() || samples()[0];
  const link = card?.querySelectorAll("[data-label-of]")[number - 1];
  if (!link) return;
  if (!open) card.focus({ preventScroll: true });
  if (await choose(link.dataset.labelOf, link.dataset.label)) viewer.renew();
}

function page(rel) {
  document.querySelector(`.pager a[rel="${rel}"]`)?.click();
}

const KEYS = {
  ArrowLeft: () => (viewer.isOpen() ? viewer.move(-1) : step(-1)),
  ArrowRight: () => (viewer.isOpen() ? viewer.move(1) : step(1)),
  ArrowUp: () => (viewer.isOpen() ? viewer.turn(-1) : page("prev")),
  ArrowDown: () => (viewer.isOpen() ? viewer.turn(1) : page("next")),
  Enter: () => (document.activeElement?.matches(".sample") ? viewer.openFirst(document.activeElement) : false),
  o: () => byId("overlay")?.click(),
  "?": () => byId("help").showModal(),
};

export function watch() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, summary")) return;
    if (byId("help").open) return;
    if (/^[1-9]$/.test(event.key)) {
      label(Number(event.key));
      return;
    }
    const act = KEYS[event.key];
    if (!act || event.target.closest(".scroll") && event.key.startsWith("Arrow")) return;
    if (event.key.match(/Arrow(Up|Down)/) && !viewer.isOpen() && !event.target.closest(".sample")) return;
    if (act() !== false) event.preventDefault();
  });
}

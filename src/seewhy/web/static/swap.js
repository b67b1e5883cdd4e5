// Another page, filter or label without loading everything again: the server makes the page, its results are put in.
import { dressed, draw, follow } from "./look.js";

const listeners = [];
let asking = null;

export function onSwap(listener) { listeners.push(listener); }

async function load(address) {
  asking?.abort();
  asking = new AbortController();
  const answer = await fetch(address, { signal: asking.signal, headers: { Accept: "text/html" } });
  const made = new DOMParser().parseFromString(await answer.text(), "text/html");
  return { made, address: answer.redirected ? answer.url : address };
}

// Puts what the server made for an address in place of a part of the page.
export async function swap(address, { part = "#results", push = true, focus = true } = {}) {
  const there = document.querySelector(part) || document.querySelector("main");
  there.classList.add("busy");
  try {
    const { made, address: where } = await load(address);
    const here = made.querySelector(part) ? document.querySelector(part) : null;
    const target = here || document.querySelector("main");
    const fresh = here ? made.querySelector(part) : made.querySelector("main");
    const held = document.activeElement?.id;
    target.replaceWith(document.adoptNode(fresh));
    for (const name of ["progress"]) {
      const now = document.getElementById(name), next = made.getElementById(name);
      if (now && next && now.innerHTML !== next.innerHTML) now.replaceWith(document.adoptNode(next));
    }
    document.documentElement.dataset.version = made.documentElement.dataset.version || "";
    document.title = made.title;
    if (push) history.pushState(null, "", where);
    if (focus && held && document.activeElement === document.body) document.getElementById(held)?.focus({ preventScroll: true });
    draw();
    for (const listener of listeners) listener();
    return true;
  } catch (error) {
    if (error.name !== "AbortError") location.assign(address);
    return false;
  } finally {
    document.querySelector(".busy")?.classList.remove("busy");
  }
}

// The address that a form asks for: without what is empty or taken anyway.
export function asked(form, base = form.action) {
  const url = new URL(base, location.href);
  url.search = "";
  for (const [name, value] of new FormData(form)) {
    if (value === "") continue;
    const usual = form.querySelector(`[name="${name}"][data-default]`)?.dataset.default;
    if (usual !== value) url.searchParams.append(name, value);
  }
  const every = [...form.querySelectorAll('[name="explainers"]')];
  if (every.length && every.every((box) => box.checked)) url.searchParams.delete("explainers");
  if (every.length && !every.some((box) => box.checked)) url.searchParams.set("explainers", "");
  return dressed(url);
}

// The page of a number, as near as there is one.
function goTo(box) {
  const page = Math.min(Math.max(Math.round(Number(box.value)) || 1, 1), Number(box.max));
  const url = dressed(location.href);
  if (page === 1) url.searchParams.delete("page");
  else url.searchParams.set("page", page);
  swap(url).then((done) => { if (done) document.getElementById("results")?.scrollIntoView({ block: "start" }); });
}

function submit(form) {
  swap(asked(form), { part: form.dataset.swap === "all" ? "main" : "#results" });
}

export function watch() {
  let waiting = 0;
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-goto]")) {
      goTo(event.target);
      return;
    }
    const form = event.target.closest("form[data-swap]");
    if (!form || !event.target.name) return;
    clearTimeout(waiting);
    for (const name of (event.target.dataset.clears || "").split(" ").filter(Boolean)) form.elements[name].value = "";
    if (event.target.dataset.clears || event.target.id === "name") {
      swap(asked(form), { part: "main" });
    } else submit(form);
  });
  document.addEventListener("input", (event) => {
    const form = event.target.closest("form[data-swap]");
    if (!form || event.target.type !== "search") return;
    clearTimeout(waiting);
    waiting = setTimeout(submit, 250, form);
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-swap]")) return;
    event.preventDefault();
    submit(event.target);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-swap], a[data-label-of], a[data-download]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    if (link.matches("[data-download]")) {
      link.href = dressed(link.href);
      return;
    }
    event.preventDefault();
    const sample = link.dataset.labelOf;
    if (sample) choose(sample, link.dataset.label);
    else {
      swap(dressed(link.href), { part: link.dataset.swap === "all" ? "main" : "#results" }).then((done) => {
        if (done && link.matches(".pager a")) document.getElementById("results")?.scrollIntoView({ block: "start" });
      });
    }
  });
  addEventListener("popstate", async () => {
    await swap(location.href, { part: "main", push: false });
    follow(location.href);
  });
}

// Shows another label of a sample: only its card is put in.
export async function choose(sample, label) {
  const url = dressed(location.href);
  const rest = url.searchParams.getAll("on").filter((one) => one.split(".")[0] !== String(sample));
  url.searchParams.delete("on");
  for (const one of [...rest, `${sample}.${label}`].slice(-96)) url.searchParams.append("on", one);
  const focused = document.activeElement?.closest(".sample")?.dataset.position === String(sample);
  const inside = document.activeElement?.matches("[data-label-of]");
  const done = await swap(url, { part: `#sample-${sample}` });
  const card = document.getElementById(`sample-${sample}`);
  if (done && focused) (inside ? card.querySelector(`[data-label-of][data-label="${label}"]`) : card)?.focus({ preventScroll: true });
  return done;
}

// The page of one sample: original and maps are enlarged and moved in step; keys go through the samples.
const stage = () => document.getElementById("stage");
const views = () => [...document.querySelectorAll("#stage [data-stage]")];
const MOST = 40;
let now = { x: 0.5, y: 0.5, times: 1 };
let drag = null;

function within(value, half) { return Math.min(Math.max(value, half), 1 - half); }

// The part of the picture that is seen, the same in all of them.
function draw(keep = true) {
  now.times = Math.min(Math.max(now.times, 1), MOST);
  const half = 0.5 / now.times;
  now.x = within(now.x, half);
  now.y = within(now.y, half);
  for (const view of views()) {
    const width = Number(view.dataset.width), height = Number(view.dataset.height);
    view.setAttribute("viewBox", `${(now.x - half) * width} ${(now.y - half) * height} ${width / now.times} ${height / now.times}`);
  }
  if (keep) remember();
}

function remember() {
  const url = new URL(location.href);
  const digits = (value) => String(Number(value.toFixed(4)));
  if (now.times === 1) url.searchParams.delete("zoom");
  else url.searchParams.set("zoom", [now.x, now.y, now.times].map(digits).join(","));
  history.replaceState(history.state, "", url);
}

// Enlarges around a place of the picture (shares of width and height), which stays where it is.
function zoom(factor, at = now) {
  const times = Math.min(Math.max(now.times * factor, 1), MOST);
  const share = 1 - now.times / times;
  now = { x: now.x + (at.x - now.x) * share, y: now.y + (at.y - now.y) * share, times };
  draw();
}

function whole() {
  now = { x: 0.5, y: 0.5, times: 1 };
  draw();
}

function place(view, event) {
  const seen = view.viewBox.baseVal, at = new DOMPoint(event.clientX, event.clientY).matrixTransform(view.getScreenCTM().inverse());
  return { x: at.x / Number(view.dataset.width), y: at.y / Number(view.dataset.height), unit: seen.width };
}

// The original in place of the small picture, once it is there.
function enlarge() {
  const address = stage().dataset.large;
  if (!address) return;
  const original = new Image();
  original.addEventListener("load", () => {
    for (const image of document.querySelectorAll("#stage :is(.photo, .grey)")) image.setAttribute("href", address);
  });
  original.src = address;
}

// For the page as it is now: another sample may have been put in.
export function renew() {
  if (!stage()) return;
  const [x, y, times] = (stage().dataset.zoomNow || "0.5,0.5,1").split(",").map(Number);
  now = { x, y, times };
  if ([x, y, times].some(Number.isNaN)) now = { x: 0.5, y: 0.5, times: 1 };
  draw(false);
  enlarge();
  for (const tools of document.querySelectorAll("[data-zoom-tools]")) tools.hidden = false;
}

const STEPS = { in: 1.5, out: 1 / 1.5 };
const KEYS = {
  ArrowLeft: () => document.querySelector('.pager a[rel="prev"]')?.click(),
  ArrowRight: () => document.querySelector('.pager a[rel="next"]')?.click(),
  "+": () => zoom(STEPS.in), "=": () => zoom(STEPS.in), "-": () => zoom(STEPS.out), 0: whole,
};

function pressed(event) {
  if (!stage() || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, summary, dialog")) return;
  if (/^[1-9]$/.test(event.key)) document.querySelector(`[data-nth="${event.key}"]`)?.click();
  else if (/^[a-z]$/.test(event.key)) document.querySelector(`[data-key="${event.key}"]`)?.click();
  else if (KEYS[event.key] && !(event.key.startsWith("Arrow") && event.target.closest(".scroll"))) {
    KEYS[event.key]();
    event.preventDefault();
  }
}

export function watch() {
  document.addEventListener("keydown", pressed);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-zoom]");
    if (!button) return;
    if (button.dataset.zoom === "all") whole();
    else zoom(STEPS[button.dataset.zoom]);
  });
  document.addEventListener("wheel", (event) => {
    const view = event.target.closest?.("[data-stage]");
    if (!view || !(event.ctrlKey || now.times > 1 || event.shiftKey)) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, place(view, event));
  }, { passive: false });
  document.addEventListener("dblclick", (event) => {
    const view = event.target.closest?.("[data-stage]");
    if (view) zoom(2, place(view, event));
  });
  document.addEventListener("pointerdown", (event) => {
    const view = event.target.closest?.("[data-stage]");
    if (!view || event.button || now.times === 1) return;
    drag = { view, x: event.clientX, y: event.clientY, from: { ...now } };
    view.setPointerCapture(event.pointerId);
  });
  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const scale = drag.view.getScreenCTM().a;
    now.x = drag.from.x - (event.clientX - drag.x) / scale / Number(drag.view.dataset.width);
    now.y = drag.from.y - (event.clientY - drag.y) / scale / Number(drag.view.dataset.height);
    draw(false);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    document.addEventListener(name, () => {
      if (drag) remember();
      drag = null;
    });
  }
  renew();
}

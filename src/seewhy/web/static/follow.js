// A run that is being written is followed: its state is asked for now and then, results are renewed when there are more.
import { dressed } from "./look.js";
import { swap } from "./swap.js";
import * as viewer from "./viewer.js";

const page = document.documentElement;
const QUICK = 2000, SLOW = 15000, LONG = 60000;
let calm = 0;

// What was chosen or written and not sent yet would be lost.
function begun() {
  const written = [...document.querySelectorAll("#results textarea")].some((one) => one.value !== one.defaultValue);
  return written || document.querySelector("#results .pick-one :checked");
}

function idle() {
  return !viewer.isOpen() && !begun() && !document.querySelector("#results :focus, .combo-box:focus-within, dialog[open]");
}

function renew() {
  const typed = document.activeElement?.matches("input[type=search], input[type=number]");
  return swap(dressed(location.href), { part: "#results", push: false, focus: !typed });
}

function offer() {
  if (document.getElementById("more")) return;
  const button = Object.assign(document.createElement("button"), { type: "button", id: "more", className: "primary", textContent: "There are new results. Show them" });
  button.addEventListener("click", () => { button.remove(); renew(); });
  document.getElementById("results")?.before(button);
}

async function look() {
  const key = page.dataset.run;
  const answer = await fetch(key ? `${page.dataset.base}/api/runs/${key}` : `${page.dataset.base}/api/runs`);
  if (!answer.ok) return;
  const found = await answer.json();
  if (!key) {
    const state = JSON.stringify(found.runs.map((one) => [one.key, one.version, one.samples]));
    if (look.before && look.before !== state) { calm = 0; if (idle()) await renew(); }
    look.before = state;
    return;
  }
  if (String(found.version) === page.dataset.version) return;
  calm = 0;
  if (idle()) {
    document.getElementById("more")?.remove();
    await renew();
  } else offer();
}

export function watch() {
  const again = async () => {
    if (document.visibilityState === "visible") {
      try { await look(); } catch { calm = LONG; }
    }
    const wait = calm < LONG ? QUICK : SLOW;
    calm += wait;
    setTimeout(again, wait);
  };
  setTimeout(again, QUICK);
}

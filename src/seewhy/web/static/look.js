// How maps look: overlay, opacity, threshold, colours. Nothing here asks the server, but for signed maps.
const byId = (name) => document.getElementById(name);
const DEFAULTS = { overlay: "true", opacity: "75", threshold: "0", colours: "inferno", boxes: "false" };

export function looks() {
  return {
    overlay: String(byId("overlay").checked), opacity: byId("opacity").value,
    threshold: byId("threshold").value, colours: byId("colours").value, boxes: String(byId("boxes").checked),
  };
}

// An address with how the maps look now.
export function dressed(address) {
  const url = new URL(address, location.href);
  if (!byId("overlay")) return url;
  for (const [name, value] of Object.entries(looks())) {
    if (value === DEFAULTS[name]) url.searchParams.delete(name);
    else url.searchParams.set(name, value);
  }
  return url;
}

// What of a map's colour covers the picture, for each of 256 values.
function shares({ overlay, threshold }, signed) {
  return Array.from({ length: 256 }, (_, step) => {
    const value = signed ? Math.abs(step / 127.5 - 1) : step / 255;
    const share = overlay === "true" ? value ** 0.75 : 1;
    return value * 100 >= Number(threshold) ? share.toFixed(3) : "0";
  }).join(" ");
}

function paint(filter, ramp, option, share) {
  const names = ["red", "green", "blue"];
  const transfer = byId(filter).querySelector("feComponentTransfer");
  names.forEach((name, at) => transfer.children[at].setAttribute("tableValues", option.dataset[name]));
  byId(filter).querySelector("feFuncA").setAttribute("tableValues", share);
  const tables = names.map((name) => option.dataset[name].split(" ").map(Number));
  const last = tables[0].length - 1;
  byId(ramp).replaceChildren(...tables[0].map((_, at) => {
    const stop = document.createElementNS("http://www.w3.org/2000/svg", "stop");
    stop.setAttribute("offset", at / last);
    stop.setAttribute("stop-color", `rgb(${tables.map((table) => Math.round(255 * table[at])).join(" ")})`);
    return stop;
  }));
}

// One rule for the layers alone: a property of the whole page would have the style of every element worked out anew.
const sheet = new CSSStyleSheet();
document.adoptedStyleSheets.push(sheet);

function fade(percent) {
  sheet.replaceSync(`[data-overlay="true"] .layer { opacity: ${Number(percent) / 100}; }`);
}

export function draw() {
  if (!byId("overlay")) return;
  const now = looks();
  fade(now.opacity);
  for (const place of [byId("results"), byId("viewer")]) {
    if (place) Object.assign(place.dataset, { overlay: now.overlay, boxes: now.boxes });
  }
  const chosen = byId("colours").selectedOptions[0];
  paint("coloured", "ramp", chosen, shares(now, now.colours === "signed"));
  paint("diverging", "ramp-signed", byId("signed-colours"), shares(now, true));
  byId("opacity").nextElementSibling.textContent = `${now.opacity} %`;
  byId("threshold").nextElementSibling.textContent = `${now.threshold} %`;
}

// Sets the controls to what an address says.
export function follow(address) {
  if (!byId("overlay")) return;
  const asked = new URL(address, location.href).searchParams;
  const said = (name) => asked.get(name) || DEFAULTS[name];
  byId("overlay").checked = said("overlay") === "true";
  byId("opacity").value = said("opacity");
  byId("threshold").value = said("threshold");
  byId("colours").value = said("colours");
  byId("boxes").checked = said("boxes") === "true";
  draw();
}

export function watch(changed) {
  let waiting = 0;
  let before = byId("colours")?.value;
  document.addEventListener("input", ({ target }) => {
    if (target.id === "opacity") {
      fade(target.value);
      target.nextElementSibling.textContent = `${target.value} %`;
    } else if (target.id === "threshold") {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(draw);
    }
  });
  document.addEventListener("change", ({ target }) => {
    if (!Object.hasOwn(DEFAULTS, target.id)) return;
    const other = target.id === "colours" && (before === "signed") !== (target.value === "signed");
    before = byId("colours").value;
    draw();
    changed(other);
  });
  draw();
}

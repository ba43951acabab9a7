// What the viewer does in the browser: it follows a run that goes on, draws curves, and reads tokens out. No code in the
// page, no eval; whatever a run says reaches the page as text.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// --- a run that goes on: one stream of events with a cursor, from which the browser goes on by itself after a sleep

function follow() {
  const source = document.body.dataset.events;
  if (!source || !window.EventSource) return;
  const events = new EventSource(source);
  let first = true;
  events.addEventListener("change", (event) => {
    const news = JSON.parse(event.data);
    const state = $("#state");
    state.className = `state ${news.state}`;
    $("b", state).textContent = news.state;
    $("#says").textContent = news.says;
    if (!first) refresh();
    first = false;
  });
  window.addEventListener("pagehide", () => events.close());
}

let due = 0;
function refresh() {
  const main = $("#main");
  const reads = window.getSelection().toString() || $("details[open]", main);
  if (!main.dataset.live || document.hidden || reads || Date.now() < due) return;
  due = Date.now() + 2000;
  htmx.ajax("GET", location.pathname + location.search, { target: "#main", swap: "innerMorph" });
}

// --- curves

const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [4, 4], [1, 4], [10, 4], [3, 2]];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
let drawn = [];

function smoothed(values, weight) {
  if (!weight) return values;
  let last = null;
  return values.map((v) => (v == null ? null : (last = last == null ? v : weight * last + (1 - weight) * v)));
}

function tables(curves, band, weight) {
  const join = uPlot.join(curves.map((one) => [one.x, one.y]));
  const x = join[0];
  const rows = join.slice(1).map((y) => smoothed(y, weight));
  const families = new Map();
  curves.forEach((one, i) => families.set(one.family, [...(families.get(one.family) || []), i]));
  const data = [x], series = [{ label: "step" }], bands = [];
  let hue = 0;
  for (const members of families.values()) {
    const stroke = colour(`--s${hue % 8}`), dash = DASHES[hue % DASHES.length];
    if (band && members.length > 1) {
      const at = (i) => members.map((m) => rows[m][i]).filter((v) => v != null);
      const of = (f) => x.map((_, i) => (at(i).length ? f(at(i)) : null));
      const label = `${members.length} seeds of ${curves[members[0]].run}`;
      data.push(of((v) => Math.max(...v)), of((v) => Math.min(...v)), of((v) => v.reduce((a, b) => a + b) / v.length));
      const n = series.length;
      series.push({ label: "highest", stroke, width: 0.5, points: { show: false } }, { label: "lowest", stroke, width: 0.5, points: { show: false } }, { label, stroke, width: 2, dash, points: { show: false } });
      bands.push({ series: [n, n + 1], fill: `${stroke}33` });
      hue += 1;
    } else {
      for (const m of members) {
        data.push(rows[m]);
        series.push({ label: curves[m].run, stroke: colour(`--s${hue % 8}`), width: 1.6, dash: DASHES[hue % DASHES.length], spanGaps: true, points: { show: rows[m].filter((v) => v != null).length < 12 } });
        if (weight) {
          data.push(join[m + 1]);
          series.push({ label: "raw", stroke: `${colour(`--s${hue % 8}`)}55`, width: 1, spanGaps: true, points: { show: false } });
        }
        hue += 1;
      }
    }
  }
  return { data, series, bands };
}

function draw() {
  const block = $("#series");
  if (!block || !window.uPlot) return;
  const all = JSON.parse(block.textContent);
  const weight = Number($("#smooth")?.value || 0), log = $("#log")?.checked, band = $("#band")?.checked ?? true;
  drawn.forEach((one) => one.destroy());
  drawn = $$(".uplot-here").map((place) => {
    const { data, series, bands } = tables(all[place.dataset.name] || [], band, weight);
    const axis = { stroke: colour("--faint"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false }, font: `11px ${colour("--sans")}` };
    const width = Math.max(place.clientWidth, 240);
    const positive = data.slice(1).some((row) => row.some((v) => v > 0));
    const options = {
      width, height: 200, series, bands, padding: [10, 12, 0, 0],
      scales: { x: { time: false }, y: log && positive ? { distr: 3 } : { range: (_, low, high) => (low === high ? low === 0 ? [0, 1] : [low - Math.abs(low || 1) / 2, high + Math.abs(high || 1) / 2] : uPlot.rangeNum(low, high, 0.08, true)) } },
      axes: [{ ...axis, size: 30 }, { ...axis, size: 58, values: (_, ticks) => ticks.map((v) => (v == null ? "" : v === 0 || (Math.abs(v) >= 0.001 && Math.abs(v) < 1e6) ? Number(v.toPrecision(6)).toLocaleString("en") : v.toExponential(1))) }],
      legend: { show: series.length > 2, live: true }, cursor: { points: { size: 6 } },
    };
    const chart = new uPlot(options, log ? data.map((row, i) => (i ? row.map((v) => (v > 0 ? v : null)) : row)) : data, place);
    const last = data[1] ? data[1].filter((v) => v != null).at(-1) : null;
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", `${place.dataset.name}, last value ${last == null ? "none" : Number(last.toPrecision(4))}`);
    return chart;
  });
}

// --- tokens: the same by pointer and by keyboard

function tokens() {
  const box = $("#tokens"), says = $("#token");
  if (!box) return;
  const all = $$(".tok", box);
  let at = -1;
  function pick(index) {
    if (index < 0 || index >= all.length || index === at) return;
    if (at >= 0) all[at].setAttribute("aria-selected", "false");
    at = index;
    const one = all[at], data = one.dataset, parts = [];
    one.setAttribute("aria-selected", "true");
    box.setAttribute("aria-activedescendant", one.id);
    parts.push(["token", `${at + 1} of ${all.length}`], ["text", JSON.stringify(one.textContent)], ["id", data.id]);
    if (data.lp !== undefined) parts.push(["probability", `${(100 * Math.exp(Number(data.lp))).toFixed(1)}%`]);
    else parts.push(["", "not chosen by the policy"]);
    for (const one of data.numbers.split(";").filter(Boolean)) parts.push(one.split("="));
    if (one.classList.contains("clipped")) parts.push(["", "past the clip"]);
    says.replaceChildren(...parts.flatMap(([name, value]) => {
      const label = document.createElement("span"), text = document.createElement("b");
      label.className = "soft";
      label.textContent = name ? `${name} ` : "";
      text.textContent = value;
      return [label, text];
    }));
  }
  box.addEventListener("pointerover", (event) => pick(all.indexOf(event.target.closest(".tok"))));
  box.addEventListener("focus", () => at < 0 && pick(0));
  box.addEventListener("keydown", (event) => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1, ArrowDown: at + 10, ArrowUp: at - 10 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    pick(Math.max(0, Math.min(all.length - 1, to)));
    all[at].scrollIntoView({ block: "nearest" });
  });
}

// --- copying, choosing, going on by keyboard

async function copied(button) {
  const text = button.dataset.fetch ? JSON.stringify(await (await fetch(button.dataset.fetch)).json(), null, 2) : button.dataset.copy;
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch {
    button.textContent = "the browser does not allow it";
  }
  setTimeout(() => (button.textContent = before), 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-fetch], [data-copy]");
  if (button) copied(button);
});
document.addEventListener("change", (event) => {
  if (event.target.closest("#controls, .controls") && $("#series")) draw();
  if (event.target.dataset.metric) {
    $("#names").value = $$("[data-metric]").filter((one) => one.checked).map((one) => one.dataset.metric).join(",");
  }
});
document.addEventListener("input", (event) => event.target.id === "smooth" && draw());
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, textarea, #tokens") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); $("#find")?.focus(); }
  if (event.key === "j" || event.key === "k") $(`a[rel=${event.key === "j" ? "next" : "prev"}]`)?.click();
});
document.addEventListener("htmx:after:swap", () => {
  const done = $("[data-goto]");
  if (done) location.assign(done.dataset.goto);
});
document.addEventListener("DOMContentLoaded", () => {
  follow();
  draw();
  tokens();
  for (const one of $$("nav [aria-current]")) {  // on a telephone the lists scroll sideways
    const list = one.closest(".list");
    list.scrollLeft = one.parentElement.offsetLeft - list.offsetLeft - list.clientWidth / 2 + one.offsetWidth / 2;
  }
  let waits;
  window.addEventListener("resize", () => { clearTimeout(waits); waits = setTimeout(draw, 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
});

"use strict";
/* Every text of the supervisor becomes a text node or an attribute by `make`; nothing is ever parsed as markup. */

const SVG = "http://www.w3.org/2000/svg";
const AGAIN_MS = 2000;
const SILENT_MS = 40000; // the server sends something every 15 s at least
const $ = (id) => document.getElementById(id);

function make(tag, about = {}, ...inside) {
  const one = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (name === "class") one.className = value;
    else if (name === "click") one.addEventListener("click", value);
    else if (value !== false && value != null) one.setAttribute(name, value === true ? "" : String(value));
  }
  one.append(...inside.flat().filter((each) => each != null).map((each) => (each instanceof Node ? each : String(each))));
  return one;
}

// -- numbers -----------------------------------------------------------------------------------------------------

const number = (value) => Number(value ?? 0).toLocaleString("en-US", { maximumFractionDigits: 1 });
const dollars = (value) => (value ? `$${value.toFixed(value >= 100 ? 2 : 4)}` : "$0");
const score = (value) => (value == null ? "–" : Number(value).toLocaleString("en-US", { maximumFractionDigits: 3 }));
const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

function span(seconds) {
  if (!seconds) return "–";
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (hours < 1) return `${minutes}m ${Math.floor(seconds % 60)}s`;
  return days < 1 ? `${hours}h ${minutes % 60}m` : `${days}d ${hours % 24}h`;
}

function size(bytes) {
  if (bytes < 2 ** 20) return bytes < 1024 ? `${bytes} B` : `${Math.round(bytes / 1024)} KiB`;
  return bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`;
}

// -- parts -------------------------------------------------------------------------------------------------------

function drawn(lines, kind = "spark") {
  const top = Math.max(0, ...lines.flat());
  const most = (kind === "curve" ? top : 1.15 * top) || 1;
  const least = kind === "curve" ? Math.min(most, ...lines.flat()) : 0;
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 100 100");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("class", kind);
  picture.setAttribute("aria-hidden", "true");
  lines.forEach((line, place) => {
    if (line.length < 2) return;
    const points = line.map((value, i) => {
      const x = (100 * i) / (line.length - 1), y = 96 - (90 * (value - least)) / Math.max(1e-9, most - least);
      return `${x.toFixed(2)},${y.toFixed(2)}`;
    });
    for (const [name, data] of [["area", `M0,100L${points.join("L")}L100,100Z`], ["stroke", `M${points.join("L")}`]]) {
      if (name === "area" && place > 0) continue;
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("d", data);
      path.setAttribute("class", place > 0 ? `${name} second` : name);
      picture.append(path);
    }
  });
  return picture;
}

function line(title, value, ...lines) {
  return make("div", { class: "line" }, make("div", {}, make("span", {}, title), make("b", {}, value)), drawn(lines));
}

/* columns: [head, row => cell, class of the cell]; a cell is a text or a node */
function table(columns, rows) {
  const heads = columns.map(([head, , kind]) => make("th", { class: kind ?? "" }, head));
  const body = rows.map((row) => make("tr", {}, columns.map(([, cell, kind]) => {
    const value = cell(row);
    return make("td", { class: kind ?? "", title: kind === "name" && !(value instanceof Node) ? value : null }, value);
  })));
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, heads)), make("tbody", {}, body)));
}

function bar(share, text) {
  const kind = share > 0.9 ? "bar bad" : share > 0.75 ? "bar warn" : "bar";
  const filled = make("i");
  filled.style.width = `${Math.min(100, Math.max(0, 100 * share))}%`;
  return make("div", { class: kind }, make("i", {}, filled), make("span", {}, text));
}

const tag = (text, kind = "") => make("span", { class: `tag ${kind}` }, text);
const heading = (title, more) => make("h2", {}, title, more ? make("small", {}, more) : null);
const empty = (text) => make("p", { class: "empty" }, text);
const some = (rows, seen) => (seen > rows.length ? `${number(rows.length)} of ${seen >= 1000 ? "1,000 and more" : number(seen)}` : number(seen));

/* Replaces what a section shows, and keeps where the reader had scrolled to; one that is being used waits. */
function show(id, ...inside) {
  const section = $(id);
  const places = [...section.querySelectorAll(".scroll, .log")].map((each) => [each.scrollLeft, each.scrollTop]);
  const focused = section.contains(document.activeElement) ? document.activeElement.dataset?.key : null;
  section.replaceChildren(...inside.flat().filter((each) => each != null));
  section.querySelectorAll(".scroll, .log").forEach((each, i) => {
    if (places[i]) [each.scrollLeft, each.scrollTop] = places[i];
  });
  if (focused) section.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

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

// -- sections ----------------------------------------------------------------------------------------------------

const POOL_KINDS = { ready: "good", starting: "warn", degraded: "bad", closed: "bad" };
const JOB_KINDS = { running: "busy", done: "good", failed: "bad", queued: "warn", cancelling: "warn" };
const PHASE_KINDS = { ready: "good", starting: "warn", running: "busy", queued: "warn", waiting: "warn", cancelled: "bad" };
const last = (list) => list[list.length - 1] ?? 0;
const sum = (rows, value) => rows.reduce((all, row) => all + value(row), 0);

function totals(seen) {
  const usage = seen.usage;
  const all = [
    [number(sum(seen.pools, (pool) => last(pool.history.rate))), "calls a second"],
    [number(sum(seen.pools, (pool) => pool.in_flight)), "running"],
    [number(sum(seen.pools, (pool) => pool.queued)), "queued"],
    [number(sum(seen.pools, (pool) => pool.workers.length)), "workers"],
    [dollars(usage.cost_usd), "spent on models"],
    [number(seen.event_rate), "events a second"],
  ];
  show("totals", all.map(([value, name]) => make("div", { class: "total" }, make("b", {}, value), make("span", {}, name))));
}

function phases(workers) {
  const counted = {};
  for (const one of workers) counted[one.phase] = (counted[one.phase] ?? 0) + 1;
  return Object.entries(counted).map(([phase, count]) => `${count} ${phase}`).join(", ") || "no worker";
}

function memory(worker, cap) {
  if (!worker.rss_bytes && !worker.counted_bytes) return "–";
  return cap ? bar(worker.counted_bytes / cap, `${size(worker.counted_bytes)} of ${size(cap)}`) : size(worker.rss_bytes);
}

function pool(one) {
  const cap = one.memory.cap_bytes, past = one.history;
  const quarantined = Object.keys(one.poison).length;
  return make("article", { class: "card" },
    make("div", { class: "head" },
      make("h2", {}, one.pool), tag(one.state, POOL_KINDS[one.state]),
      make("span", { class: "note" }, `${phases(one.workers)}; ${one.workers.length} of ${one.size} workers`),
      make("span", { class: "note" },
        `${number(one.counts.answered)} answered, ${number(one.counts.failed)} failed, ${number(one.counts.expired)} too late, ` +
        `${number(one.counts.cancelled)} cancelled, ${number(one.counts.deaths)} deaths`)),
    one.reason ? make("p", { class: "note bad" }, `Not ready: ${one.reason}`) : null,
    !one.reason && one.last_boot_error ? make("p", { class: "note bad" }, `Last failed start: ${one.last_boot_error}`) : null,
    cap && !one.memory.is_enforced ? make("p", { class: "note warn" }, "The memory cap is not enforced.") : null,
    quarantined ? make("p", { class: "note warn" }, `In quarantine: ${quarantined} call(s) that killed their workers.`) : null,
    make("div", { class: "lines" },
      line("Calls a second", number(last(past.rate)), past.rate),
      line("Time of a call, mean", span(last(past.mean_s)), past.mean_s),
      line("Under way since, p50 / p99", `${span(last(past.age_p50_s))} / ${span(last(past.age_p99_s))}`, past.age_p99_s, past.age_p50_s),
      line("Queued", `${number(one.queued)} of ${number(one.queue_limit)}`, past.queued)),
    one.workers.length ? table([
      ["Worker", (row) => row.worker],
      ["Phase", (row) => tag(row.phase, PHASE_KINDS[row.phase])],
      ["pid", (row) => row.pid || "–", "number"],
      ["Memory", (row) => memory(row, cap)],
      ["Running", (row) => row.running + (row.abandoned ? ` (${row.abandoned} abandoned)` : ""), "number"],
      ["Queued", (row) => number(row.queued), "number"],
      ["Sessions", (row) => number(row.sessions), "number"],
      ["Answered", (row) => number(row.answered), "number"],
      ["Age", (row) => span(row.age_s), "number"],
    ], [...one.workers].sort((a, b) => a.worker.localeCompare(b.worker, "en", { numeric: true }))) : null);
}

function calls(seen) {
  const columns = [
    ["Age", (row) => span(row.age_s), "number"],
    ["Phase", (row) => tag(row.phase, PHASE_KINDS[row.phase])],
    ["Command", (row) => row.command, "name"],
    ["Program", (row) => row.program || "–", "name"],
    ["Pool", (row) => row.pool, "name"],
    ["Worker", (row) => row.worker || "–"],
    ["Session", (row) => row.session || "–", "name"],
    ["Client", (row) => row.client, "name"],
    ["Left", (row) => (row.deadline_s == null ? "–" : span(Math.max(0, row.deadline_s))), "number"],
  ];
  if (seen.may_operate) columns.push(["", (row) => cancelButton(row)]);
  show("calls", heading("Calls under way", some(seen.calls, seen.calls_seen)),
    seen.calls.length ? table(columns, seen.calls) : empty("No call runs or waits."));
}

const cancelled = new Set();

function cancelButton(row) {
  const isAsked = cancelled.has(row.id) || row.phase === "cancelled";
  return make("button", { type: "button", "data-key": row.id, disabled: isAsked, click: () => cancel(row.id) },
    isAsked ? "cancelled" : "cancel");
}

async function cancel(id) {
  cancelled.add(id);
  redraw();
  try {
    const answer = await fetch(`calls/${id}/cancel`, { method: "POST", headers: { authorization: `Bearer ${token}` } });
    if (!answer.ok) throw new Error((await answer.json()).detail ?? answer.statusText);
  } catch (error) {
    cancelled.delete(id);
    say(`Call ${id} was not cancelled: ${error.message}`);
  }
}

function facts(event) {
  return Object.entries(event.facts).filter(([name]) => name !== "level")
    .map(([name, value]) => `${name}=${Number.isInteger(value) ? value : typeof value === "number" ? value.toPrecision(3) : value}`)
    .join(" ");
}

const levelled = (event) => tag(event.name.replace(/^dspex\./, ""), event.level >= 40 ? "bad" : event.level >= 30 ? "warn" : "");

function log(rows) {
  const table_ = table([
    ["Time", (row) => clock(row.time)], ["Event", levelled], ["Facts", facts, "text"],
  ], [...rows].reverse());
  return make("div", { class: "log" }, table_);
}

function events(seen) {
  const { serious, ends, causes, last: newest } = seen.events;
  const died = sum(causes.filter((row) => row.kind === "died"), (row) => row.times);
  show("restarts", heading("Restarts", died ? `${number(died)} died, of those seen by this page's server` : ""),
    causes.length ? table([
      ["Pool", (row) => row.pool, "name"], ["What", (row) => tag(row.kind, row.kind === "died" ? "bad" : "")],
      ["Why", (row) => row.reason || "–", "text"], ["Times", (row) => number(row.times), "number"],
    ], causes) : empty("No worker has ended."), ends.length ? log(ends) : null);
  const rows = [...new Map([...serious, ...newest].map((row) => [`${row.time} ${row.name} ${facts(row)}`, row])).values()];
  show("events", heading("Events", `${number(seen.event_rate)} a second; warnings stay`),
    rows.length ? log(rows.sort((a, b) => a.time - b.time)) : empty("Nothing has happened."));
}

function jobs(seen) {
  show("jobs", heading("Optimizations", seen.jobs.length ? number(seen.jobs.length) : ""),
    seen.jobs.length ? seen.jobs.map(job) : empty("No optimization runs."));
}

function job(row) {
  let best = -Infinity;
  const bests = row.scores.map((value) => (best = Math.max(best, value)));
  return make("div", { class: "job" },
    make("div", { class: "head" }, make("h2", {}, row.program || row.id), tag(row.state, JOB_KINDS[row.state]),
      make("span", { class: "note" },
        `${row.optimizer}, ${row.stage || "–"}; candidate ${row.trial ?? 0}${row.trials ? ` of ${row.trials}` : ""}; best ` +
        `${score(row.best)}${row.baseline == null ? "" : `, was ${score(row.baseline)}`}; ${number(row.requests)} requests, ` +
        `${dollars(row.cost)}; ${span(row.elapsed)}${row.eta ? `, ${span(row.eta)} left` : ""}`)),
    row.message ? make("p", { class: "note" }, row.message) : null,
    row.scores.length > 1 ? drawn([bests, row.scores], "curve") : empty("No curve before two candidates are scored."));
}

function spend(seen) {
  const usage = seen.usage;
  const asked = usage.requests + usage.cached_requests;
  const models = Object.entries(usage.models ?? {});
  show("spend", heading("Language models", asked ? `${number((100 * usage.cached_requests) / asked)}% from the cache` : ""),
    asked ? [table([
      ["Requests", () => number(usage.requests), "number"], ["From the cache", () => number(usage.cached_requests), "number"],
      ["Tokens in", () => number(usage.prompt_tokens), "number"], ["Tokens out", () => number(usage.completion_tokens), "number"],
      ["Cost", () => dollars(usage.cost_usd), "number"], ["Without a price", () => number(usage.unpriced_requests), "number"],
    ], [usage]),
    models.length ? table([
      ["Model", ([name]) => name, "name"],
      ["Tokens in", ([, row]) => number(row.prompt_tokens), "number"],
      ["Tokens out", ([, row]) => number(row.completion_tokens), "number"],
    ], models) : null] : empty("No language model was asked."));
}

function clients(seen) {
  show("clients", heading("Clients", some(seen.clients, seen.clients_seen)),
    seen.clients.length ? table([
      ["Client", (row) => row.client, "name"], ["Role", (row) => row.role], ["pid", (row) => row.pid || "–", "number"],
      ["Requests", (row) => number(row.requests), "number"], ["Unread", (row) => size(row.unread_bytes), "number"],
      ["Idle", (row) => span(row.idle_s), "number"], ["Age", (row) => span(row.age_s), "number"],
    ], seen.clients) : empty("Nobody is connected."));
}

function sessions(seen) {
  show("sessions", heading("Sessions", some(seen.sessions, seen.sessions_seen)),
    seen.sessions.length ? table([
      ["Session", (row) => row.session, "name"], ["Pool", (row) => row.pool, "name"], ["Client", (row) => row.client, "name"],
      ["Worker", (row) => row.worker || "–"], ["Running", (row) => number(row.running), "number"],
      ["Waiting", (row) => number(row.waiting), "number"],
      ["State", (row) => (row.lost ? tag(`lost: ${row.lost}`, "bad") : row.is_durable ? "durable" : row.is_stateful ? "in its worker" : "none")],
      ["Idle", (row) => span(row.idle_s), "number"],
    ], seen.sessions) : empty("There are no sessions."));
}

// -- the page ----------------------------------------------------------------------------------------------------

let newest = null;
let isDue = false;

function say(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function state(text, kind) {
  $("light").className = `light ${kind}`;
  const name = newest?.supervisor?.name;
  document.title = `${text} – DSPex${name ? ` ${name}` : ""}`;
}

/* However fast pictures come, one frame draws one of them, and a page in the background draws none. */
function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    if (newest) draw(newest);
  });
}

function draw(seen) {
  const who = seen.supervisor;
  $("who").textContent = who.name;
  $("facts").textContent = `pid ${who.pid} · up ${span(who.uptime_s)} · dspex ${who.version} · settings ${who.settings}`;
  $("main").hidden = false;
  totals(seen);
  show("pools", seen.pools.length ? seen.pools.map(pool) : make("div", { class: "card" }, empty("There are no pools.")));
  calls(seen);
  events(seen);
  jobs(seen);
  spend(seen);
  clients(seen);
  sessions(seen);
}

function take(picture) {
  if (picture.problem) {
    lost(picture.problem);
    return;
  }
  newest = picture;
  $("main").classList.remove("stale");
  say("");
  const unready = picture.pools.filter((each) => each.reason || each.state !== "ready");
  if (unready.length) state(unready.every((each) => each.state === "starting") ? "starting" : "not ready", "warn");
  else state(`ready, ${number(sum(picture.pools, (each) => each.in_flight))} running`, "good");
  redraw();
}

function lost(why) {
  $("main").classList.add("stale");
  say(`Connection lost, trying again. ${why}`);
  state("connection lost", "bad");
}

let token = "";

function findToken() {
  const given = location.hash.slice(1);
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname); // not in the history, nor over a shoulder
  }
  token = sessionStorage.getItem("token") ?? "";
}

async function follow() {
  const ending = new AbortController();
  let watch = 0;
  const heard = () => {
    clearTimeout(watch);
    watch = setTimeout(() => ending.abort(), SILENT_MS);
  };
  try {
    heard();
    const answer = await fetch("feed", {
      headers: { authorization: `Bearer ${token}` }, cache: "no-store", signal: ending.signal,
    });
    if (answer.status === 401) return false;
    if (!answer.ok) throw new Error((await answer.json()).detail ?? answer.statusText);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Error("The page's server has ended.");
      heard();
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      const data = events.map((each) => each.split("\n").find((row) => row.startsWith("data: "))).filter(Boolean).pop();
      if (data) take(JSON.parse(data.slice(6)));
    }
  } catch (error) {
    lost(error instanceof TypeError ? "The page's server does not answer." : error.message);
    return true;
  } finally {
    clearTimeout(watch);
  }
}

async function run() {
  findToken();
  state("connecting", "");
  while (await follow()) await new Promise((done) => setTimeout(done, AGAIN_MS));
  $("main").classList.add("stale");
  say("This page has no valid token: open the address that `dspex dashboard` prints.");
  state("no valid token", "bad");
}

addEventListener("hashchange", () => location.reload());
run();

/* One function for each section of the page. */

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

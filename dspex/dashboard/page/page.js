/* The page: it follows the feed, and draws the newest picture. */

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

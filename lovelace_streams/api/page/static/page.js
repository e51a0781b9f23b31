// What moves on a page. Texts and bars come from the server in its own words; without this script a page is as it was
// when it was loaded. Nothing is ever made into HTML here except whole pages of our own.

const body = document.body;
const base = body.dataset.base;
const zone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function localTimes(within) {
  for (const time of within.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) time.textContent = zone.format(at);
  }
}

function say(text) {
  document.getElementById("announce").textContent = text;
}

// -- a job as it changes ---------------------------------------------------------------------------------------------

function update(job) {
  const places = [...document.querySelectorAll("[data-job]")].filter((place) => place.dataset.job === job.job_id);
  let changed = places.length === 0 && document.getElementById("jobs") !== null;
  for (const place of places) {
    if (Number(place.dataset.version) > job.version) continue;
    place.dataset.version = job.version;
    changed = draw(place, job) || changed;
  }
  if (changed) refreshSoon();
}

function draw(place, job) {
  for (const text of place.querySelectorAll("[data-text]")) {
    const now = job.texts[text.dataset.text];
    if (text.textContent !== now) text.textContent = now;
  }
  for (const segment of job.bar) {
    const part = place.querySelector(`rect.${segment.name}`);
    part.setAttribute("x", segment.x);
    part.setAttribute("width", segment.width);
  }
  const bar = place.querySelector(".bar");
  if (job.percent !== null) bar.setAttribute("aria-valuenow", job.percent);
  const { succeeded, failed, skipped, rest } = job.texts;
  bar.setAttribute("aria-valuetext", `${succeeded} succeeded, ${failed} failed, ${skipped} skipped, ${rest} to go`);
  const status = place.querySelector("[data-status]");
  if (status.dataset.status === job.status) return false;
  status.dataset.status = job.status;
  say(`${job.job_id} is ${job.status}`);
  return true;
}

// -- parts of a page that are asked for again ------------------------------------------------------------------------

let asking = false;
let again = false;

function refreshSoon() {
  if (asking) again = true;
  else refresh();
}

async function refresh() {
  asking = true;
  again = false;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (answer.redirected) location.reload(); // the session is over
    else if (answer.ok) replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    // away: the event stream, or the next turn, tries again
  }
  setTimeout(() => {
    asking = false;
    if (again) refresh();
  }, 1000);
}

function replace(page) {
  for (const old of document.querySelectorAll("[data-refresh]")) {
    const fresh = page.getElementById(old.id);
    if (fresh === null) continue;
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    localTimes(fresh);
    old.replaceChildren(...fresh.childNodes);
    if (focused) document.getElementById(focused)?.focus();
  }
}

// -- what this page does ---------------------------------------------------------------------------------------------

function listen(reopened) {
  const live = document.getElementById("live");
  const state = (text, lost) => {
    live.hidden = false;
    live.classList.toggle("lost", lost);
    document.getElementById("live-text").textContent = text;
  };
  const source = new EventSource(`${base}/events`);
  source.addEventListener("open", () => {
    state("Live", false);
    if (reopened) refreshSoon();
    reopened = true;
  });
  source.addEventListener("job", (event) => update(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    state("Reconnecting", true);
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(true), 3000);
  });
}

function copyButtons() {
  if (!navigator.clipboard) return;
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      say("Copied");
    });
  }
}

localTimes(document);
copyButtons();
if (body.dataset.page === "jobs" || body.dataset.page === "job") listen(false);
const every = Number(document.querySelector("[data-every]")?.dataset.every ?? 0);
if (every) setInterval(() => document.hidden || refreshSoon(), 1000 * every);

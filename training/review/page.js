"use strict";
// The samples and their decisions are the server's; the page shows them, and asks again every few seconds for what others decided.
const $ = (id) => document.getElementById(id);
const state = { samples: [], place: 0, changes: -1, shown: null };

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options || {}).catch(() => { throw new Error("the server does not answer; nothing was saved"); });
  if (!response.ok) throw new Error((await response.text()) || response.statusText);
  return response.json();
}

function toast(text) {
  $("toast").textContent = text;
  $("toast").classList.add("shown");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => $("toast").classList.remove("shown"), 3500);
}

const place = (id) => encodeURIComponent(id);
const undecided = (k) => state.samples[k][1] === null;

function found(from, step) {  // the next place to go to, or -1
  for (let k = from; k >= 0 && k < state.samples.length; k += step) if (!$("filter").checked || undecided(k)) return k;
  return -1;
}

function tally() {
  const yes = state.samples.filter((s) => s[1] === true).length, no = state.samples.filter((s) => s[1] === false).length;
  const all = state.samples.length || 1;
  document.querySelector("#bar .yes").style.width = `${(100 * yes) / all}%`;
  document.querySelector("#bar .no").style.width = `${(100 * no) / all}%`;
  $("counts").textContent = `${yes} accepted, ${no} rejected, ${state.samples.length - yes - no} to do`;
  const [id, accepted] = state.samples[state.place];
  $("place").textContent = `${state.place + 1} / ${state.samples.length}`;
  $("name").textContent = id;
  $("badge").className = accepted === null ? "" : accepted ? "yes" : "no";
  $("badge").textContent = accepted === null ? "undecided" : accepted ? "accepted" : "rejected";
}

function scores(values) {
  const entries = Object.entries(values);
  $("scores").replaceChildren(...entries.map(([name, value]) => {
    const box = document.createElement("div"), number = document.createElement("b"), what = document.createElement("span");
    number.textContent = Number.isInteger(value) ? value : value < 0.01 ? value.toPrecision(2) : value.toFixed(3);
    what.textContent = name.replaceAll("_", " ");
    box.append(number, what);
    return box;
  }));
}

async function show() {
  tally();
  const id = state.samples[state.place][0];
  if (state.shown === id) return;
  state.shown = id;
  $("trouble").hidden = true;
  $("clips").hidden = false;
  const sample = await ask(`samples/${place(id)}`);
  if (state.shown !== id) return;  // somebody was quicker
  const pair = sample.kind === "e2e";
  $("caption").textContent = [sample.caption, `${sample.width}×${sample.height}, ${sample.frames} frames, ${sample.fps} fps`, sample.note]
    .filter(Boolean).join(" · ");
  $("leftTitle").hidden = !pair;
  $("rightTitle").textContent = pair ? "Source clip (target)" : "Clip (target)";
  $("referenceTitle").textContent = { character: "Reference of the synthesized clip", image: "Reference image" }[sample.reference]
    || "First frame of the source (no reference on record)";
  $("reference").src = `samples/${place(id)}/reference`;
  $("video").src = `samples/${place(id)}/video`;
  state.fps = sample.fps;
  scores(sample.scores);
  const next = found(state.place + 1, 1);  // made while this one is looked at
  if (next >= 0) fetch(`samples/${place(state.samples[next][0])}/video`).catch(() => {});
}

const go = (k) => { if (k < 0) return toast($("filter").checked ? "nothing undecided there" : "that was the last one"); state.place = k; return show(); };

async function decide(accepted) {
  const sample = state.samples[state.place];
  sample[1] = (await ask(`samples/${place(sample[0])}/decision`, { accepted })).accepted;
  const next = found(state.place + 1, 1);
  tally();
  if (next >= 0) await go(next);
  else toast(state.samples.some((s) => s[1] === null) ? "the end; some before are undecided (F, P)" : "all are decided");
}

async function undo() {
  const answer = await ask("undo", {});
  if (answer.id === null) return toast("nothing of yours to take back");
  const k = state.samples.findIndex((s) => s[0] === answer.id);
  state.samples[k][1] = answer.accepted;
  await go(k);
}

async function refresh() {
  const answer = await ask(`state?since=${state.changes}`);
  const first = state.changes < 0;
  state.changes = answer.changes;
  if (!answer.samples) return;
  state.samples = answer.samples;
  $("title").textContent = answer.title;
  if (first) { const k = answer.samples.findIndex((s) => s[1] === null); state.place = k < 0 ? 0 : k; }
  await show();
}

const video = () => $("video");
function pause() { video().paused ? video().play() : video().pause(); }
function step(by) { video().pause(); video().currentTime = Math.max(0, video().currentTime + by / state.fps); }
function slow() { state.slow = !state.slow; video().defaultPlaybackRate = video().playbackRate = state.slow ? 0.25 : 1; $("slow").lastChild.textContent = state.slow ? " full speed" : " slow"; }

const acts = {
  accept: () => decide(true), reject: () => decide(false), undo, pause, slow,
  next: () => go(found(state.place + 1, 1)), previous: () => go(found(state.place - 1, -1)),
};
const keys = { a: "accept", arrowright: "accept", r: "reject", arrowleft: "reject", u: "undo", n: "next", p: "previous", " ": "pause", s: "slow" };
let last = Promise.resolve();  // one after the other, however fast the keys come
const act = (work) => { last = last.then(work).catch((error) => toast(error.message)); };

for (const name of Object.keys(acts)) $(name).addEventListener("click", (event) => { event.currentTarget.blur(); act(acts[name]); });
$("filter").addEventListener("change", (event) => event.currentTarget.blur());
function fit() {  // the panels are as high as their widths together allow
  const picture = $("reference");
  const aspects = picture.naturalWidth / (picture.naturalHeight || 1) + video().videoWidth / (video().videoHeight || 1);
  if (aspects) document.documentElement.style.setProperty("--aspects", aspects);
}
for (const name of ["play", "pause"]) video().addEventListener(name, () => { $("pause").lastChild.textContent = video().paused ? " play" : " pause"; });
video().addEventListener("loadedmetadata", fit);
$("reference").addEventListener("load", fit);
video().addEventListener("error", async () => {
  const response = await fetch(video().src).catch(() => null);
  $("trouble").textContent = response && !response.ok ? await response.text() : "this browser cannot play the clip (H.264)";
  $("trouble").hidden = false;
  $("clips").hidden = true;
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (key === "f") $("filter").checked = !$("filter").checked;
  else if (key === "," || key === ".") step(key === "," ? -1 : 1);
  else if (keys[key] && !event.repeat) act(acts[keys[key]]);
  else return;
  event.preventDefault();
});
act(refresh);
setInterval(() => act(refresh), 3000);

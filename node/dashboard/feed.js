// The node as it is now: heard by server-sent events, and asked for whole when these say that
// something changed, and every few seconds. Says when what the page shows has become old.

import { ask, Refused } from "./ask.js";

const CALM_MS = 5000;     // after which the node is asked anyway: not all that changes is told
const LEAST_MS = 700;     // between two questions
const STALE_MS = 15000;   // without any word after which all is old
const AGAIN_MS = 3000;    // until a stream that was refused is asked for again

let node = null;          // the last snapshot, with what events said since
let heardAt = null;       // Date.now() of the last word
let nodeAt = 0;           // of the snapshot's own clock
let askedAt = 0, isAsking = false, isOwed = false;
let trouble = null;       // why the last question failed
let stream = null, isStreaming = false;
let watchedAt = Date.now();  // since then this page has been in sight
let tell = null;

// Begins. `told` is called: node(snapshot) on every change, round(report), evaluation(),
// refusals(), again() when the node is there (again), pulse(state) once a second.
export function follow(told) {
  tell = told;
  listen();
  refresh();
  setInterval(look, 1000);
  addEventListener("visibilitychange", () => { watchedAt = Date.now(); refresh(); });
}

// The node's clock now, in Unix seconds.
export function nodeNow() {
  return node === null ? Date.now() / 1000 : node.now + (Date.now() - nodeAt) / 1000;
}

// Asks for the whole snapshot soon; any number of calls make one question.
export function refresh() {
  if (isOwed) return;
  isOwed = true;
  if (!isAsking) askSoon();
}

function askSoon() {
  setTimeout(askNow, Math.max(0, askedAt + LEAST_MS - Date.now()));
}

async function askNow() {
  [isAsking, isOwed, askedAt] = [true, false, Date.now()];
  try {
    take(await ask("/api/v1/status"));
    trouble = null;
  } catch (error) {
    trouble = error instanceof Refused ? error.message : "";
  }
  isAsking = false;
  if (isOwed) askSoon();
  pulse();
}

function take(found) {
  const isBack = node === null || found.started !== node.started || trouble !== null;
  node = found;
  nodeAt = Date.now();
  heard();
  tell.node(node);
  if (isBack) tell.again();
}

function heard() {
  heardAt = Date.now();
}

function listen() {
  stream = new EventSource("/api/v1/events");
  stream.onopen = () => { isStreaming = true; refresh(); };
  stream.onerror = () => {
    isStreaming = false;
    refresh();
    if (stream.readyState !== EventSource.CLOSED) return;  // it comes again by itself
    setTimeout(listen, AGAIN_MS);
  };
  on("status", (now) => change({ now: now.now, learner: now.learner, paused: now.paused }));
  on("warnings", ({ warnings }) => change({ warnings }));
  on("round", (report) => { tell.round(report); refresh(); });
  on("evaluation", () => { tell.evaluation(); refresh(); });
  on("peers", refresh);
  on("refusals", () => { tell.refusals(); refresh(); });
}

function on(name, hear) {
  stream.addEventListener(name, (event) => {
    heard();
    hear(JSON.parse(event.data));
  });
}

function change(parts) {
  if (node === null) return;
  node = { ...node, ...parts };
  if (parts.now !== undefined) nodeAt = Date.now();
  tell.node(node);
}

function look() {
  const passed = Date.now() - askedAt;
  if (!document.hidden && (passed > CALM_MS || (trouble !== null && passed > 1000))) refresh();
  pulse();
}

function pulse() {
  const isOld = heardAt !== null && Date.now() - Math.max(heardAt, watchedAt) > STALE_MS;
  const state = trouble !== null || isOld ? "lost" : node === null ? "connecting" : "live";
  tell.pulse({ state, heardAt, trouble: trouble ?? "", isStreaming });
}

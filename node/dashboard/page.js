// The node's page: who gets which news. What is shown where is the other files' business.

import { beginActions, showActions } from "./actions.js";
import { ask } from "./ask.js";
import { byId, isNew, made, say } from "./elements.js";
import { follow } from "./feed.js";
import { loadRefusals, showGiving } from "./giving.js";
import { beginHealth, refreshHealth, showHealth } from "./health.js";
import { beginLearning, loadLearning, showLastRound } from "./learning.js";
import { MODES, showAge, showFigures, showNow, showStages } from "./now.js";
import { beginReader } from "./reader.js";
import { beginRollouts, newRollouts, offerTasks } from "./rollouts.js";
import { showSwarm } from "./swarm.js";
import { clock, printable, shortId, span } from "./words.js";

const KEPT = 64;   // reports at hand
const FIRST = 16;  // reports of the first rounds

let node = null, lately = [], first = [], isLost = false;

function showNode(found) {
  node = found;
  byId("loading").hidden = true;
  byId("main").hidden = false;
  const learns = node.mode === "train", hasPolicy = learns || node.mode === "generate";
  for (const one of document.querySelectorAll("[data-for=policy]")) one.hidden = !hasPolicy;
  for (const one of document.querySelectorAll("[data-for=learning]")) one.hidden = !learns;
  const [doing, what] = MODES[node.mode] ?? [printable(node.mode), ""];
  document.title = doing ? `sapo · ${doing}` : `sapo · round ${node.learner.round}`;
  say(byId("swarm"), printable(node.swarm_name));
  const parts = [shortId(node.node_id), printable(node.model), what].filter(Boolean);
  say(byId("node"), parts.join(" · "));
  byId("node").title = printable(node.node_id);
  showWarnings(node.warnings);
  showNow(node);
  showFigures(node, lately, first);
  showLastRound(node.last_round, learns);
  showSwarm(node);
  showHealth(node);
  showActions(node, isLost);
  offerTasks(node.tasks);
  say(byId("foot"), `sapo ${printable(node.version)} · swarm ${printable(node.swarm_id).slice(0, 12)} · ${printable(node.home)} · dial: ` +
    (node.addresses.map((one) => printable(one)).join(", ") || "no address yet"));
}

function showWarnings(warnings) {
  const texts = warnings.map((one) => printable(one, 500));
  byId("warnings").hidden = !texts.length;
  const place = byId("warnings").querySelector("ul");
  if (isNew(place, texts)) place.replaceChildren(...texts.map((text) => made("li", text)));
}

function showRounds() {
  showFigures(node, lately, first);
  showStages(lately);
  showGiving(lately);
}

function addRound(report) {
  lately = [...lately.filter((one) => one.round < report.round), report].slice(-KEPT);
  if (first.length < FIRST && report.round <= FIRST) first = [...first, report];
  if (node === null) return;
  showRounds();
  learningSoon();
  rolloutsSoon();
  healthSoon();
}

// The node is there, or there again: whatever is not in its snapshot is asked for.
async function begin() {
  const last = node.learner.round;
  const asked = (since, limit) => ask(`/api/v1/rounds?since=${since}&limit=${limit}`);
  [lately, first] = await Promise.all([asked(Math.max(0, last - KEPT), KEPT + 8), asked(0, FIRST)]);
  lately = lately.slice(-KEPT);
  showRounds();
  await Promise.all([loadLearning(node), loadRefusals(), newRollouts(), refreshHealth()]);
}

// A function that has `load` run, at most once in so many milliseconds however often it is called,
// and only while somebody looks.
function seldom(load, ms) {
  let ranAt = 0, isOwed = false;
  const run = () => {
    if (document.hidden) return addEventListener("visibilitychange", run, { once: true });
    [ranAt, isOwed] = [Date.now(), false];
    quietly(load());
  };
  return () => {
    if (isOwed) return;
    isOwed = true;
    setTimeout(run, Math.max(0, ranAt + ms - Date.now()));
  };
}

// A part that could not be loaded stays as it is; the pulse says whether the node answers.
function quietly(loading) {
  loading.catch(console.error);
}

function showPulse({ state, heardAt, trouble, isStreaming }) {
  const lost = state === "lost";
  byId("pulse").className = state;
  say(byId("pulse"), lost ? "no answer" : state === "live" && !isStreaming ? "live, every 5 s" : state);
  byId("main").classList.toggle("old", lost);
  byId("stale").hidden = !lost;
  if (lost !== isLost && node !== null) showActions(node, lost);
  isLost = lost;
  if (!lost) return showAge();
  const [what, age] = byId("stale").children;  // read out once, and then not every second
  const since = heardAt === null ? "this page was opened" : clock(heardAt / 1000);
  say(what, `No answer from the node since ${since}${trouble ? `: ${trouble}` : ""}.`);
  say(age, heardAt === null ? "" : `What you see is ${span((Date.now() - heardAt) / 1000)} old.`);
}

const learningSoon = seldom(() => loadLearning(node), 4000);
const rolloutsSoon = seldom(newRollouts, 2000);
const healthSoon = seldom(refreshHealth, 5000);

beginActions();
beginLearning();
beginRollouts();
beginHealth();
beginReader();
follow({
  node: showNode,
  round: addRound,
  evaluation: () => { if (node !== null) learningSoon(); },
  refusals: () => quietly(loadRefusals()),
  again: () => quietly(begin()),
  pulse: showPulse,
});

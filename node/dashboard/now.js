// What the node does now: its stage, its figures, and what a round's time goes into.

import { draw, shares } from "./charts.js";
import { byId, holder, isNew, made, say } from "./elements.js";
import { nodeNow } from "./feed.js";
import { count, number, percent, plural, points, printable, span } from "./words.js";

const LATELY = 16;  // rounds that a figure is the mean of

const DOING = {
  starting: ["Starting", "loading the model"],
  drawing: ["Drawing questions", ""],
  generating: ["Generating", "answers of its own"],
  verifying: ["Verifying", "its own answers"],
  sharing: ["Sharing", "rollouts with peers"],
  mixing: ["Mixing", "own rollouts with those of peers"],
  updating: ["Updating", "the policy learns"],
  syncing: ["Syncing", "new weights go into the engine"],
  checkpointing: ["Checkpointing", "weights go to disk"],
  evaluating: ["Evaluating", "on held-out questions"],
  paused: ["Paused", "by its operator, until it is resumed"],
  stopped: ["Stopped", ""],
};

// What a node does that does not train: what "now" says, and a line for people.
export const MODES = {
  train: ["", ""],
  generate: ["", "shares rollouts of a model that stays as it is, and learns nothing"],
  observe: ["Observing", "sees the swarm and passes on what is announced"],
  relay: ["Relaying", "an address for those who join, and a way to those whom nobody can dial"],
};

// Stages in the order of a round, and which colour; what is left counts as "rest".
const STAGES = [
  ["generating", "own", 0], ["updating", "own-soft", 1], ["mixing", "foreign", 2],
  ["verifying", "dim", 3], ["evaluating", "ink", 4],
];

let stageBegan = null;

export function showNow(node) {
  const { learner, now, started, peers } = node;
  const [stage, note, isTrouble] = doing(node);
  stageBegan = note === null ? null : now - learner.stage_age_s;
  say(byId("stage"), stage);
  byId("stage").classList.toggle("trouble", isTrouble);
  byId("stage-note").dataset.note = note ?? idle(node);
  showAge();
  say(byId("round"), count(learner.round));
  const of = learner.target_rounds === null ? "" : `of ${count(learner.target_rounds)} · `;
  say(byId("round-note"), `${of}up ${span(now - started)}`);
  const connected = peers.filter((peer) => peer.connected).length;
  say(byId("peer-count"), count(connected));
  say(byId("peer-note"), `connected · ${count(peers.length)} known`);
}

// Once a second: how long the stage has lasted.
export function showAge() {
  const place = byId("stage-note"), note = place.dataset.note ?? "";
  if (stageBegan === null) return say(place, note);
  say(place, `for ${span(nodeNow() - stageBegan)}${note ? ` · ${note}` : ""}`);
}

function doing({ mode, learner, paused }) {
  const learns = mode === "train";
  const [ofMode] = MODES[mode] ?? [printable(mode)];
  if (ofMode) return [ofMode, null, false];
  if (learner.is_done) return ["Done", null, false];
  if (learner.restart_in_s !== null) return ["Learner down", null, true];
  if (!learns && ["mixing", "updating", "syncing"].includes(learner.stage)) return ["Ending its round", "", false];
  const [stage, note] = DOING[learner.stage] ?? [printable(learner.stage), ""];
  if (paused && learner.stage !== "paused") return [stage, "pauses after this round", false];
  return [stage, note, false];
}

function idle({ mode, learner, now, started }) {
  if (learner.restart_in_s !== null) return `starts again in ${span(learner.restart_in_s)}: ${printable(learner.last_error)}`;
  return learner.is_done && mode === "train" ? "all rounds are made" : `up ${span(now - started)}`;
}

// Own reward, held-out accuracy and groups of peers, against the start.
export function showFigures(node, lately, first) {
  const last = lately.slice(-LATELY);
  const reward = mean(last.map((one) => one.own_reward));
  say(byId("reward"), percent(reward));
  const isKnown = first.length >= LATELY && node.learner.round >= 2 * LATELY;
  const start = isKnown ? mean(first.slice(0, LATELY).map((one) => one.own_reward)) : null;
  say(byId("reward-note"), !last.length ? "no round yet" : start === null
    ? `mean of ${plural(last.length, "round")}`
    : `${points(reward - start)} points since the first ${LATELY} rounds`);
  showHeldOut(node.heldout);
  const used = last.map((one) => one.foreign.filter((group) => group.fate === "used").length);
  say(byId("foreign"), last.length ? number(mean(used), 1) : "–");
  say(byId("foreign-note"), last.length
    ? `groups a round of ${number(mean(last.map((one) => one.foreign_wanted)), 1)} wanted` : "no round yet");
}

function showHeldOut(heldout) {
  const measured = heldout.at(-1);
  say(byId("heldout"), measured ? percent(measured.mean) : "–");
  if (!measured) return say(byId("heldout-note"), "not measured");
  const error = Number.isFinite(measured.standard_error) ? `± ${Math.round(measured.standard_error * 100)} ` : "";
  if (heldout.length < 2) return say(byId("heldout-note"), `${error}at round ${count(measured.round)}`);
  const [start] = heldout;
  const both = Math.hypot(start.standard_error, measured.standard_error);
  const more = Number.isFinite(both) ? ` ± ${Math.round(both * 100)}` : "";
  say(byId("heldout-note"), `${points(measured.mean - start.mean)}${more} points since round ${count(start.round)}`);
}

// What the time of the last rounds went into.
export function showStages(lately) {
  const last = lately.slice(-LATELY);
  const place = byId("stage-chart").parentElement;
  place.classList.toggle("none", !last.length);
  byId("stage-chart").hidden = !last.length;
  const total = sum(last.flatMap((one) => Object.values(one.seconds)));
  if (!total) return;
  const seconds = (name) => sum(last.map((one) => one.seconds[name] ?? 0));
  const parts = STAGES.map(([name, look, key]) => [name, seconds(name) / total, look, key]);
  parts.push(["rest", 1 - sum(parts.map(([, share]) => share)), "line", 5]);
  const shown = parts.filter(([name, share]) => share >= 0.005 || name === "generating");
  const tokens = sum(last.map((one) => one.own_tokens)) / Math.max(seconds("generating"), 1e-9);
  const legend = shown.map(([name, share, , key]) => [key, `${name} ${percent(share)}`]);
  legend.push([null, `${span(total / last.length)} a round`], [null, `${count(tokens)} tokens/s while generating`]);
  draw(byId("stage-chart"), `share of a round: ${legend.map(([, text]) => text).join(", ")}`, () => shares(shown, percent));
  const list = byId("stage-legend");
  if (!isNew(list, legend)) return;
  list.replaceChildren(...legend.map(([key, text]) => {
    if (key === null) return made("li", text);
    return holder("li", "", made("i", "", `key block stage-${key}`), text);
  }));
}

export function mean(values) {
  return values.length ? sum(values) / values.length : NaN;
}

export function sum(values) {
  return values.reduce((total, one) => total + one, 0);
}

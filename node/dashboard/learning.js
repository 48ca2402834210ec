// Whether the node learns: the curves of its rounds, accuracy by task, and its last round.

import { ask } from "./ask.js";
import { draw, lines, roundBars } from "./charts.js";
import { byId, list, orEmpty, rows, say } from "./elements.js";
import { count, number, percent, points as inPoints, plural, printable, span } from "./words.js";

const POINTS = 200;
const SMOOTH = 15;  // points that the bold line is the mean of

// What may be drawn besides: [field of a point, its name, how its values are said, what it means].
const FIGURES = [
  ["entropy", "entropy", (one) => number(one, 2), "nats per token of its own answers"],
  ["kl_to_start", "distance from the start", (one) => number(one, 3), "KL divergence in nats per token"],
  ["batch_reward", "reward with peers' answers", percent, "over all that an update learned from"],
  ["zero_advantage_share", "groups that teach nothing", percent, "own ones, all right or all wrong"],
  ["loss", "loss", (one) => number(one, 3), ""],
  ["gradient_norm", "gradient norm", (one) => number(one, 2), ""],
  ["effective_sample_size", "effective sample size", percent, "of the batch's answers, by their weights"],
  ["tokens_per_s", "tokens per second", count, "while generating"],
  ["round_s", "seconds of a round", (one) => number(one, 1), ""],
];

let curve = [], heldout = [];

export function beginLearning() {
  for (const [field, name] of FIGURES) byId("figure").append(new Option(name, field));
  byId("figure").addEventListener("change", drawFigure);
}

// Asks for what is not in the snapshot: the curve of all rounds, and the tasks.
export async function loadLearning(node) {
  heldout = node.heldout;
  const [found, tasks] = await Promise.all([
    ask(`/api/v1/rounds?points=${POINTS}`), ask("/api/v1/tasks?lately=50"),
  ]);
  curve = found;
  showTasks(tasks);
  showCurves();
}

function showCurves() {
  orEmpty(byId("curves"), byId("no-rounds"), curve.length ? "" : "The curve begins with the first round.");
  if (!curve.length) return;
  const values = curve.map((one) => ({ x: one.last_round, y: one.own_reward?.mean ?? null }));
  const means = smooth(values), width = curve.at(-1).last_round - curve.at(-1).first_round + 1;
  const perPoint = Math.max(...curve.map((one) => one.last_round - one.first_round + 1), width);
  say(byId("smoothing"), `mean of ${plural(Math.min(SMOOTH, curve.length) * perPoint, "round")}`);
  const measured = heldout.map((one) => ({ x: one.round, y: one.mean, error: Number.isFinite(one.standard_error) ? one.standard_error : 0 }));
  const range = reach(measured);
  const start = measured.length ? [{ x: range.first, y: measured[0].y }, { x: range.last, y: measured[0].y }] : [];
  const drawn = [
    { name: "a round", points: values, colour: "own-soft", width: 1, quiet: true },
    { name: "held out at first", points: start, colour: "dim", width: 1.5, dash: [5, 4], quiet: true },
    {
      name: "held out", points: measured, colour: "ink", width: 1.5, dots: 3,
      band: { low: measured.map(({ x, y, error }) => ({ x, y: y - error })), high: measured.map(({ x, y, error }) => ({ x, y: y + error })) },
    },
    { name: "own reward", points: means, colour: "own", width: 2.5 },
  ];
  const last = means.at(-1)?.y, [first] = means;
  draw(byId("reward-chart"),
    `own reward by round, from ${percent(first?.y)} to ${percent(last)}; held out ${measured.map(({ x, y }) => `${percent(y)} at round ${x}`).slice(-3).join(", ") || "not measured"}`,
    () => lines(drawn, { ...range, say: percent }));
  const used = curve.map((one) => ({ x: one.last_round, y: one.foreign_groups_used?.mean ?? 0 }));
  draw(byId("foreign-chart"), `groups of peers in a batch by round, ${number(used.at(-1).y, 1)} in the last`,
    () => roundBars(used, { ...range, name: "groups of peers" }));
  drawFigure();
}

// The rounds that all charts show, so that they line up.
function reach(measured) {
  const first = Math.min(curve[0].first_round, ...measured.map(({ x }) => x));
  return { first, last: Math.max(curve.at(-1).last_round, first + 1) };
}

function drawFigure() {
  if (!curve.length) return;
  const [field, name, said, note] = FIGURES.find(([one]) => one === byId("figure").value) ?? FIGURES[0];
  const values = curve.map((one) => ({ x: one.last_round, y: one[field]?.mean ?? null }));
  const known = values.filter(({ y }) => y !== null);
  say(byId("figure-note"), known.length ? note : "not measured");
  const drawn = [
    { name: "a round", points: values, colour: "line", width: 1, quiet: true },
    { name, points: smooth(values), colour: "ink", width: 1.5 },
  ];
  draw(byId("figure-chart"), `${name} by round, ${said(known.at(-1)?.y)} in the last`,
    () => lines(drawn, { ...reach(heldout.map(({ round }) => ({ x: round }))), say: said, isFloating: true }));
}

// Mean of each value and those before it, `SMOOTH` at most.
function smooth(values) {
  return values.map(({ x }, index) => {
    const part = values.slice(Math.max(0, index - SMOOTH + 1), index + 1).filter(({ y }) => y !== null);
    return { x, y: part.length ? part.reduce((total, { y }) => total + y, 0) / part.length : null };
  });
}

function showTasks(tasks) {
  rows(byId("tasks").tBodies[0], tasks, (task) => {
    const { own, heldout_start: start, heldout_now: now } = task;
    const gain = start && now && start.round !== now.round ? now.mean - start.mean : null;
    const error = gain === null ? NaN : Math.hypot(start.standard_error, now.standard_error);
    const look = gain === null || !(Math.abs(gain) > 2 * error) ? "" : gain > 0 ? "up" : "down";
    return [
      ["task", printable(task.name), task.left_out ? `left out: ${printable(task.left_out, 300)}` : "", task.is_offered ? "" : "off"],
      ["own", percent(own.accuracy), "", "", `${plural(own.num_answers, "answer")} in ${plural(own.num_rounds, "round")}`],
      ["held out", now ? percent(now.mean) : "–", "", "", now ? `${plural(now.num_questions, "question")} at round ${count(now.round)}` : "not measured"],
      ["gain", gain === null ? "–" : inPoints(gain), "", look, Number.isFinite(error) ? `± ${Math.round(error * 100)} points since round ${count(start.round)}` : ""],
    ];
  });
}

export function showLastRound(last, learns) {
  if (last === null) return list(byId("last-round"), [["no round yet", ""]]);
  list(byId("last-round"), [
    ["own reward", percent(last.own_reward)],
    ...(learns ? [["with peers' answers", percent(last.batch_reward)]] : []),
    ["groups that teach nothing", percent(last.zero_advantage_share)],
    ["answers", `${count(last.num_answers)} to ${plural(last.num_questions, "question")}`],
    ["unscorable", count(last.num_unscorable), last.num_unscorable > 0],
    ["shared with peers", count(last.num_shared)],
    ["entropy", `${number(last.entropy, 2)} nats`],
    ...(learns ? [["batch", `${count(last.num_groups)} groups, ${count(last.num_replayed)} replayed, ` +
      `effective sample size ${percent(last.effective_sample_size)}`]] : []),
    ...(last.kl_to_start === null ? []
      : [["from the start", `${number(last.kl_to_start)} nats per token`]]),
    ...(last.brake ? [["brake", printable(last.brake, 500), true]] : []),
    ...(learns ? [["update", last.update_skipped === null
      ? `loss ${number(last.loss)}, gradient ${number(last.gradient_norm)}`
      : `skipped: ${printable(last.update_skipped)}`, last.update_skipped !== null]] : []),
    ["took", span(Object.values(last.seconds).reduce((total, one) => total + one, 0))],
  ]);
}

// One rollout to be read: its question, its answers side by side with verdicts, its author, and what
// was made of it. Its address is the page's with #rollout=HASH.

import { ask } from "./ask.js";
import { byId, holder, made, say } from "./elements.js";
import { clock, count, lines, number, plural, printable, reasonText, shortId } from "./words.js";

const HASH = /^#rollout=([0-9a-f]{64})$/;

const FATES = {
  shared: "offered to peers", not_shared: "kept to itself", in_pool: "waits in the pool",
  drawn: "drawn for", used: "used in", refused: "refused", gone: "gone from the pool",
};

export function beginReader() {
  const dialog = byId("reader");
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    if (HASH.test(location.hash)) history.replaceState(null, "", location.pathname);
  });
  addEventListener("hashchange", openNamed);
  openNamed();
}

function openNamed() {
  const named = HASH.exec(location.hash);
  if (named) openReader(named[1]);
}

export async function openReader(hash) {
  const dialog = byId("reader");
  history.replaceState(null, "", `#rollout=${hash}`);
  clear("Loading …");
  if (!dialog.open) dialog.showModal();
  try {
    show(await ask(`/api/v1/rollouts/${hash}`));
  } catch (error) {
    clear("This rollout cannot be shown");
    say(byId("reader-story"), error.message);
  }
}

function clear(title) {
  say(byId("reader-title"), title);
  for (const id of ["reader-story", "reader-truth"]) say(byId(id), "");
  for (const id of ["reader-facts", "reader-answers", "reader-question"]) byId(id).replaceChildren();
  say(byId("reader-answers-title"), "Answers");
}

function show(one) {
  const isOwn = one.kind === "own";
  say(byId("reader-title"), `${printable(one.task)}, question ${one.index}`);
  say(byId("reader-story"), `${isOwn ? "Made here" : `By ${shortId(one.author)}`}; ${fate(one)}.`);
  const facts = [
    ["author", isOwn ? "this node" : shortId(one.author), printable(one.author)],
    ["its policy", `${printable(one.model, 60) || "not said"}, ${plural(one.policy_round, "update")}${isOwn ? "" : " (says it)"}`],
    ["correct here", one.num_judged ? `${count(one.num_correct)} of ${count(one.num_judged)} judged` : "not judged"],
    ["made", one.created ? clock(one.created) : "–"],
    [isOwn ? "kept" : "heard of", clock(one.seen)],
    ["hash", `${printable(one.hash).slice(0, 12)}…`, printable(one.hash)],
  ];
  byId("reader-facts").replaceChildren(...facts.map(([name, text, title = ""]) => {
    const pair = holder("div", "", made("dt", name), made("dd", text));
    pair.title = title;
    return pair;
  }));
  const turns = one.examples.flatMap((turn) => Object.values(turn)).map((text) => lines(text, 4000));
  const before = one.system ? [lines(one.system, 4000)] : [];
  const question = one.question === null ? "It was refused before the question was made." : lines(one.question);
  say(byId("reader-question"), [...before, ...turns, question].join("\n\n"));
  say(byId("reader-truth"), one.truth === null ? "" : `A correct answer: ${printable(one.truth, 500)}`);
  say(byId("reader-answers-title"), plural(one.answers.length, "answer"));
  byId("reader-answers").replaceChildren(...one.answers.map(card));
}

function card(answer) {
  const [look, verdict] = judged(answer);
  const item = made("li", "", look);
  item.append(made("p", verdict, "verdict"));
  if (answer.claimed !== null && answer.correct !== null && answer.claimed !== answer.correct) {
    item.append(made("p", `its author says ${answer.claimed ? "correct" : "wrong"}`, "problem"));
  }
  const text = made("pre", answer.text === "" ? "(empty)" : lines(answer.text));
  text.tabIndex = 0;
  item.append(text, made("p", [
    plural(answer.num_tokens, "token"), answer.finished ? "" : "cut off",
    answer.mean_logp === null ? "" : `${number(answer.mean_logp, 2)} nats a token`,
  ].filter(Boolean).join(" · "), "note"));
  return item;
}

function judged({ correct, unscorable }) {
  if (correct === true) return ["correct", "✓ correct"];
  if (correct === false) return ["wrong", "✗ wrong"];
  return ["", unscorable === null ? "not judged" : `? cannot be decided: ${printable(unscorable)}`];
}

// What became of a rollout, in a few words.
export function fate({ fate: name, round, reason }) {
  const text = FATES[name] ?? printable(name);
  if (name === "refused") return reason ? `refused: ${reasonText(reason)}` : text;
  if (name === "shared" || name === "not_shared") return text;
  return round === null ? text.replace(/ (in|for)$/, "") : `${text} round ${count(round)}`;
}

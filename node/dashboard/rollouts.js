// The list of rollouts that the node keeps to be read, newest first, a page at a time.

import { ask } from "./ask.js";
import { byId, made, orEmpty, rows } from "./elements.js";
import { nodeNow } from "./feed.js";
import { fate, openReader } from "./reader.js";
import { count, plural, printable, shortId, span } from "./words.js";

const PAGE = 12;

let before = null, shown = [], asked = 0;

export function beginRollouts() {
  for (const id of ["rollout-kind", "rollout-task"]) byId(id).addEventListener("change", () => turn(null));
  byId("rollouts-newest").addEventListener("click", () => turn(null));
  byId("rollouts-older").addEventListener("click", () => turn(shown.at(-1)?.number ?? null));
}

function turn(to) {
  before = to;
  loadRollouts().catch(console.error);
}

export function offerTasks(tasks) {
  const select = byId("rollout-task");
  const known = new Set(Array.from(select.options, (one) => one.value));
  for (const task of tasks) if (!known.has(task)) select.append(new Option(printable(task), task));
}

// What is new, unless somebody reads an older page, or is about to choose a row of this one.
export async function newRollouts() {
  const table = byId("rollout-table");
  if (before !== null) return;
  if (table.matches(":hover") || table.contains(document.activeElement)) byId("rollouts-newest").disabled = false;
  else await loadRollouts();
}

export async function loadRollouts() {
  asked += 1;
  const mine = asked;
  const query = new URLSearchParams({ limit: String(PAGE) });
  if (byId("rollout-kind").value) query.set("kind", byId("rollout-kind").value);
  if (byId("rollout-task").value) query.set("task", byId("rollout-task").value);
  if (before !== null) query.set("before", String(before));
  const found = await ask(`/api/v1/rollouts?${query}`);
  if (mine === asked) show(found);  // else something else was asked for meanwhile
}

function show(found) {
  shown = found;
  const none = before !== null ? "No older ones are kept." : "None yet, or none that fits.";
  orEmpty(byId("rollout-table"), byId("no-rollouts"), found.length ? "" : none);
  byId("rollouts-newest").disabled = before === null;
  byId("rollouts-older").disabled = found.length < PAGE;
  rows(byId("rollout-table").tBodies[0], found, (one) => [
    ["question", ""],
    ["task", printable(one.task)],
    ["author", one.kind === "own" ? "this node" : shortId(one.author), "", one.kind === "own" ? "" : "id", printable(one.author)],
    ["correct", one.num_judged ? `${count(one.num_correct)} of ${count(one.num_answers)}` : "not judged"],
    ["what became of it", fate(one), "", one.fate === "refused" ? "trouble" : ""],
    ["seen", `${span(nodeNow() - one.seen)} ago`],
  ], dress);
}

function dress(row, one) {
  const cell = row.cells[0];
  let button = cell.querySelector("button");
  if (!button) {
    button = made("button", "", "text");
    button.type = "button";
    button.addEventListener("click", () => openReader(row.dataset.hash));
    cell.replaceChildren(button, made("small"));
    cell.lastChild.hidden = true;
  }
  row.dataset.hash = one.hash;
  const text = one.preview === null ? `${printable(one.task)} ${one.index}: not made` : printable(one.preview.replace(/\s+/g, " "), 110);
  if (button.textContent !== text) button.textContent = text;
  button.title = plural(one.num_answers, "answer");
}

// What an operator may have the node do. Everything is confirmed first; what came of it is said.

import { order, Refused } from "./ask.js";
import { byId, made, say } from "./elements.js";
import { refresh } from "./feed.js";
import { clock, plural, shortId } from "./words.js";

const DURATIONS = [["an hour", 3600], ["a day", 86400], ["a week", 604800], ["for good", null]];

const buttons = {};

export function beginActions() {
  add("pause", "Pause", askPause);
  add("checkpoint", "Write checkpoint", askCheckpoint);
  add("shutdown", "Shut down", askShutdown, "grave");
  byId("confirm-no").addEventListener("click", () => byId("confirm").close());
}

function add(name, text, act, look = "") {
  buttons[name] = made("button", text, look);
  buttons[name].type = "button";
  buttons[name].addEventListener("click", act);
  byId("actions").append(buttons[name]);
}

export function showActions({ mode, paused }, isLost) {
  const hasPolicy = mode === "train" || mode === "generate";
  buttons.pause.hidden = buttons.checkpoint.hidden = !hasPolicy;
  buttons.pause.dataset.paused = String(paused);
  say(buttons.pause, paused ? "Resume" : "Pause");
  for (const one of Object.values(buttons)) one.disabled = isLost;
}

function askPause() {
  const isPaused = buttons.pause.dataset.paused === "true";
  confirm({
    title: isPaused ? "Resume rounds?" : "Pause after this round?",
    text: isPaused ? "The learner begins rounds again."
      : "The learner finishes the round under way and begins no other, also after a restart. Peers are answered meanwhile.",
    yes: isPaused ? "Resume" : "Pause",
    act: () => order(isPaused ? "/api/v1/resume" : "/api/v1/pause"),
    done: ({ paused }) => (paused ? "It pauses when the round is finished." : "Rounds go on."),
  });
}

function askCheckpoint() {
  confirm({
    title: "Write a checkpoint?", yes: "Write",
    text: "The learner writes its weights to the disk at the end of the round. The answer comes when they are there.",
    act: () => order("/api/v1/checkpoint"), done: ({ round }) => `The checkpoint of round ${round} is on the disk.`,
    isLong: true,
  });
}

function askShutdown() {
  confirm({
    title: "Shut the node down?", yes: "Shut down", isGrave: true,
    text: "It writes a checkpoint, leaves the swarm and ends. This page cannot start it again: sapo run does, or its service manager.",
    act: () => order("/api/v1/shutdown"), done: () => "The node is shutting down.",
  });
}

export function askBan(id) {
  const reason = field("Why (for people; may be empty)", made("input"));
  reason.type = "text";
  reason.maxLength = 200;
  const how = field("For how long", made("select"));
  DURATIONS.forEach(([text, seconds], index) => how.append(new Option(text, String(index), false, seconds === null)));
  confirm({
    title: `Ban ${shortId(id)}?`, yes: "Ban", isGrave: true, fields: [reason, how],
    text: "What it signs is refused, its rollouts leave the pool and its connections end. Nobody else is told.",
    act: () => order(`/api/v1/peers/${encodeURIComponent(id)}/ban`, { reason: reason.value, for_s: DURATIONS[Number(how.value)][1] }),
    done: ({ banned_until: until, purged }) => `${shortId(id)} is banned ${until === null ? "for good" : `until ${clock(until)}`}; ${plural(purged, "rollout")} of it removed.`,
  });
}

export function unban(id) {
  confirm({
    title: `Unban ${shortId(id)}?`, yes: "Unban", text: "What it signs is taken again, if it passes the checks.",
    act: () => order(`/api/v1/peers/${encodeURIComponent(id)}/unban`),
    done: ({ was_banned: was }) => `${shortId(id)} ${was ? "is banned no more" : "was not banned"}.`,
  });
}

function field(text, input) {
  const label = made("label", text);
  label.append(input);
  input.label = label;
  return input;
}

function confirm({ title, text, yes, act, done, fields = [], isGrave = false, isLong = false }) {
  const dialog = byId("confirm"), button = byId("confirm-yes");
  say(byId("confirm-title"), title);
  say(byId("confirm-text"), text);
  byId("confirm-fields").replaceChildren(...fields.map((one) => one.label));
  byId("confirm-problem").hidden = true;
  say(button, yes);
  button.classList.toggle("grave", isGrave);
  dialog.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    if (isLong) {
      dialog.close();
      say(byId("done"), "Asked for; it is answered when it is done.");
    }
    carryOut(act, done, dialog, button);
  };
  dialog.showModal();
  if (!fields.length) byId("confirm-no").focus();
}

async function carryOut(act, done, dialog, button) {
  button.disabled = true;
  try {
    say(byId("done"), done(await act()));
    dialog.close();
    refresh();
  } catch (error) {
    const why = error instanceof Refused ? `Not done: ${error.message}.` : "No answer from the node; whether it was done is not known.";
    say(dialog.open ? byId("confirm-problem") : byId("done"), why);
    byId("confirm-problem").hidden = !dialog.open;
  }
  button.disabled = false;
}

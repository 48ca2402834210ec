// The node's page: asks /api/v1/status once a second and shows what it says.

import { drawForeign, drawReward, element, smooth } from "./chart.js";
import { bytes, closedIn, count, number, percent, printable, shortId, span } from "./words.js";

const POLL_MS = 1000, PATIENCE_MS = 5000, STALE_MS = 4000;
const LATELY = 16;  // rounds that "lately" means

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
  stopped: ["Stopped", ""],
};

// What a node does that does not train: what "now" says, and a line for people.
const MODES = {
  train: ["", ""],
  generate: ["", "shares rollouts of a model that stays as it is, and learns nothing"],
  observe: ["Observing", "sees the swarm and passes on what is announced"],
  relay: ["Relaying", "an address for those who join, and a way to those whom nobody can dial"],
};

const byId = (id) => document.getElementById(id);

function say(place, text) {
  if (place.textContent !== text) place.textContent = text;  // a selection survives
}

// --- what the node says -------------------------------------------------------------------------

function show(node) {
  byId("live").hidden = false;
  say(byId("swarm"), `${printable(node.swarm_name)} · ${printable(node.swarm_id).slice(0, 12)}`);
  say(byId("node"), printable(node.node_id));
  const learns = node.mode === "train", hasPolicy = learns || node.mode === "generate";
  for (const one of document.querySelectorAll(".of-policy")) one.hidden = !hasPolicy;
  for (const one of document.querySelectorAll(".of-learning")) one.hidden = !learns;
  const [doing, what] = MODES[node.mode] ?? [printable(node.mode), ""];
  document.title = doing ? `sapo · ${doing}` : `sapo · round ${node.learner.round}`;
  say(byId("mode"), what);
  byId("mode").hidden = !what;
  showWarnings(node);
  showNow(node, doing, learns);
  showLearning(node);
  showLastRound(node.last_round, learns);
  showHeldOut(node.heldout);
  showPeers(node);
  showRefused(node.refused);
  showPool(node.pool);
  showTraffic(node);
  showMachine(node, hasPolicy);
  say(byId("foot"), `version ${printable(node.version)} · ${printable(node.home)} · dial: ` +
    (node.addresses.map((one) => printable(one)).join(", ") || "no address yet"));
}

function showWarnings(node) {
  const place = byId("warnings");
  const texts = node.warnings.map((one) => printable(one, 500));
  place.hidden = !texts.length;
  if (place.dataset.shown === texts.join("\n")) return;
  place.dataset.shown = texts.join("\n");
  place.replaceChildren(...texts.map((text) => made("p", text)));
}

function showNow({ learner, now, started, peers, last_round: last, own_reward: rewards,
                   foreign_groups_used: used }, ofMode, learns) {
  const isDown = learner.restart_in_s !== null;
  const isIdle = !learns && ["mixing", "updating", "syncing"].includes(learner.stage);
  const [doing, note] = isIdle ? ["Ending its round", ""]
    : DOING[learner.stage] ?? [printable(learner.stage), ""];
  let stage = doing, more = `for ${span(learner.stage_age_s)}${note ? ` · ${note}` : ""}`;
  if (ofMode) [stage, more] = [ofMode, `up ${span(now - started)}`];
  else if (learner.is_done) [stage, more] = ["Done", "all rounds are made"];
  else if (isDown) {
    stage = "Learner down";
    more = `starts again in ${span(learner.restart_in_s)}: ${printable(learner.last_error)}`;
  }
  say(byId("stage"), stage);
  byId("stage").classList.toggle("trouble", isDown);
  say(byId("stage-note"), more);
  say(byId("round"), count(learner.round));
  const of = learner.target_rounds === null ? "" : `of ${count(learner.target_rounds)} · `;
  say(byId("round-note"), `${of}up ${span(now - started)}`);
  say(byId("reward"), number(smooth(rewards).at(-1)));
  say(byId("reward-note"), rewards.length ? `mean of ${Math.min(15, rewards.length)} rounds` : "no round yet");
  const lately = used.slice(-LATELY);
  say(byId("foreign"), used.length ? count(lately.reduce((sum, one) => sum + one, 0)) : "–");
  say(byId("foreign-note"), used.length
    ? `groups in ${lately.length} rounds, wants ${last ? last.foreign_wanted : 0} in each`
    : "no round yet");
  const connected = peers.filter((peer) => peer.connected).length;
  say(byId("peer-count"), count(connected));
  say(byId("peer-note"), `connected · ${count(peers.length)} known`);
}

function showLearning({ own_reward: rewards, foreign_groups_used: used, last_round: last }) {
  byId("curves").hidden = !rewards.length;
  say(byId("no-rounds"), rewards.length ? "" : "The curve begins with the first round.");
  if (!rewards.length) return;
  const first = (last ? last.round : rewards.length) - rewards.length + 1;
  const shown = JSON.stringify([rewards, used, first, byId("learning").clientWidth]);
  if (byId("curves").dataset.shown === shown) return;
  byId("curves").dataset.shown = shown;
  drawReward(byId("reward-chart"), rewards, first);
  drawForeign(byId("foreign-chart"), used, first);
}

function showLastRound(last, learns) {
  if (last === null) return list(byId("last-round"), [["no round yet", ""]]);
  const total = Object.values(last.seconds).reduce((sum, one) => sum + one, 0);
  const slowest = Object.entries(last.seconds).sort((a, b) => b[1] - a[1]).slice(0, 3);
  const tokensPerS = last.own_tokens / Math.max(last.seconds.generating ?? 0, 1e-9);
  list(byId("last-round"), [
    ["own reward", number(last.own_reward)],
    ...(learns ? [["with peers' answers", number(last.batch_reward)]] : []),
    ["groups that teach nothing", percent(last.zero_advantage_share)],
    ["answers", `${count(last.num_answers)} to ${count(last.num_questions)} questions`],
    ["unscorable", count(last.num_unscorable), last.num_unscorable > 0],
    ["shared with peers", count(last.num_shared)],
    ["tokens/s", last.seconds.generating ? count(Math.round(tokensPerS)) : "–"],
    ["entropy", `${number(last.entropy, 2)} nats`],
    ...(learns ? [["batch", `${count(last.num_groups)} groups, ${count(last.num_replayed)} ` +
      `replayed, effective sample size ${percent(last.effective_sample_size)}`]] : []),
    ...(last.kl_to_start === null ? []
      : [["from the start", `${number(last.kl_to_start)} nats per token`]]),
    ...(last.brake ? [["brake", printable(last.brake, 500), true]] : []),
    ...(learns ? [["update", last.update_skipped === null
      ? `loss ${number(last.loss)}, gradient ${number(last.gradient_norm)}`
      : `skipped: ${printable(last.update_skipped)}`, last.update_skipped !== null]] : []),
    ["took", `${span(total)} · ${slowest.map(([stage, s]) => `${printable(stage)} ${number(s, 1)}`).join(", ")}`],
  ]);
}

function showHeldOut(heldout) {
  const place = byId("heldout");
  if (place.dataset.shown === JSON.stringify(heldout)) return;
  place.dataset.shown = JSON.stringify(heldout);
  if (!heldout.length) return place.replaceChildren(made("p", "not measured", "empty"));
  const first = heldout[0], last = heldout.at(-1);
  const row = made("div", "", "accuracy");
  row.append(accuracy(heldout.length > 1 ? "first" : "measured", first));
  if (heldout.length > 1) {
    const gain = last.mean - first.mean;
    const error = Math.hypot(first.standard_error, last.standard_error);
    const change = made("div");
    change.append(made("p", `${gain < 0 ? "−" : "+"}${number(Math.abs(gain))}`, "big"),
                  made("p", `± ${number(error)}`), made("p", "change"));
    row.append(accuracy("last", last), change);
  }
  place.replaceChildren(row);
}

function accuracy(name, one) {
  const box = made("div");
  box.append(made("p", number(one.mean), "big"),
             made("p", `± ${number(one.standard_error)}`), made("p", `${name}, at round ${count(one.round)}`),
             made("p", `${count(one.num_questions)} questions`));
  if (one.pass_k !== null) box.append(made("p", `pass@${count(one.k)} ${number(one.pass_k)}`));
  return box;
}

function showPeers({ peers, now }) {
  byId("peers").hidden = !peers.length;
  say(byId("no-peers"), peers.length ? "" : "Nobody yet. Peers appear here as soon as they are met.");
  const body = byId("peers").tBodies[0];
  while (body.rows.length > peers.length) body.deleteRow(-1);
  const order = [...peers].sort((a, b) => b.connected - a.connected || b.rollouts_used - a.rollouts_used);
  order.forEach((peer, index) => fillRow(body.rows[index] ?? body.insertRow(), peer, now));
}

function fillRow(row, peer, now) {
  const refused = Object.entries(peer.refused).sort((a, b) => b[1] - a[1]);
  const cells = [
    ["peer", shortId(peer.node_id), printable(peer.address)],
    ["connected", peer.connected ? span(peer.connected_s) : "no", "", peer.connected ? "" : "off"],
    ["offered", count(peer.rollouts_offered)],
    ["admitted", count(peer.rollouts_admitted)],
    ["used", count(peer.rollouts_used)],
    ["refused", count(refused.reduce((sum, [, times]) => sum + times, 0)),
      refused.map(([reason, times]) => `${printable(reason)} ${count(times)}`).join(", ")],
    ["lies", count(peer.lies), "", peer.lies ? "trouble" : ""],
    ["heard", peer.last_heard ? `${span(now - peer.last_heard)} ago` : "never"],
  ];
  cells.forEach(([name, text, note = "", look = ""], index) => {
    const cell = row.cells[index] ?? newCell(row, name);
    cell.className = look;
    say(cell.firstChild, text);
    say(cell.lastChild, note);
    cell.lastChild.hidden = !note;
  });
  row.cells[0].title = printable(peer.node_id);
}

function newCell(row, name) {
  const cell = row.insertCell();
  cell.dataset.name = name;
  cell.append(made("span"), made("small"));
  return cell;
}

function showRefused(refused) {
  const place = byId("refused");
  if (place.dataset.shown === JSON.stringify(refused)) return;
  place.dataset.shown = JSON.stringify(refused);
  const reasons = Object.entries(refused).filter(([, times]) => times).sort((a, b) => b[1] - a[1]);
  if (!reasons.length) return place.replaceChildren(made("p", "nothing", "empty"));
  const most = reasons[0][1];
  const items = made("ul", "", "reasons");
  for (const [reason, times] of reasons) {
    const item = made("li");
    item.append(made("span", printable(reason).replaceAll("_", " ")), made("span", count(times)));
    const bar = element("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none" });
    bar.append(element("rect", { width: (100 * times) / most, height: 4, rx: 1 }));
    items.append(item, bar);
  }
  place.replaceChildren(items);
}

function showPool(pool) {
  list(byId("pool"), [
    ["fresh", count(pool.fresh)],
    ["used", count(pool.used)],
    ["own, served", count(pool.own)],
    ["offered, not fetched", count(pool.offers)],
    ["size", bytes(pool.num_bytes)],
    ["announcements kept", count(pool.announcements)],
    ["from news to pool", span(pool.announced_to_pool_s)],
    ["fetched", bytes(pool.fetched_bytes)],
  ]);
}

function showTraffic(node) {
  list(byId("traffic"), [
    ["sent", bytes(node.bytes_sent)],
    ["received", bytes(node.bytes_received)],
    ["announced", count(node.announcements_sent)],
    ["announcements heard", count(node.announcements_received)],
    ["dropped unheard", count(node.announcements_dropped), node.announcements_dropped > 0],
    ["not sent", count(node.messages_unsent), node.messages_unsent > 0],
    ["caught up", count(node.catch_up.announcements)],
    ["told who missed it", count(node.announcements_told)],
    ...Object.entries(node.limited).map(([kind, times]) => [`limited: ${printable(kind)}`, count(times)]),
    ["connections refused", count(node.connections_refused)],
    ...(node.relay ? [["reached through this relay", `${count(node.relay.reserved)} peers`],
                      ["circuits", count(node.relay.circuits)],
                      ["carried for others", bytes(node.relay.num_bytes)],
                      ["relaying refused", count(node.relay.refused)]] : []),
  ]);
}

function showMachine(node, hasPolicy) {
  list(byId("machine"), [
    ...(hasPolicy ? [["model", printable(node.model) || "–"],
                     ["engine", printable(node.learner.engine) || "loading"]] : []),
    ...Object.entries(node.memory_mib).map(([part, size]) => [`memory, ${printable(part)}`, bytes(size * 2 ** 20)]),
    ["CPU, control", span(node.control_cpu_s)],
    ...(hasPolicy ? [["tokens generated", count(node.total_tokens)],
                     ["learner restarts", count(node.learner.restarts), node.learner.restarts > 0],
                     ["tasks", `${node.tasks.length} judged`]] : []),
    ...Object.entries(node.tasks_left_out).map(([task, reason]) => [`left out: ${printable(task)}`, printable(reason, 500), true]),
    ...(node.isolation ? [["verifier", closedIn(node.isolation), !(node.isolation.landlock_abi && node.isolation.seccomp)]] : []),
  ]);
}

// --- how it is put there ------------------------------------------------------------------------

function made(name, text = "", look = "") {
  const one = document.createElement(name);
  one.textContent = text;
  if (look) one.className = look;
  return one;
}

// Rows of [name, text, whether it is unusual]; kept where they are while their names stay.
function list(place, rows) {
  const names = JSON.stringify(rows.map(([name]) => name));
  if (place.dataset.names !== names) {
    place.dataset.names = names;
    place.replaceChildren(...rows.flatMap(([name]) => [made("dt", name), made("dd")]));
  }
  rows.forEach(([, text, isUnusual = false], index) => {
    const value = place.children[2 * index + 1];
    say(value, text);
    value.classList.toggle("trouble", isUnusual);
  });
}

// --- the pulse ----------------------------------------------------------------------------------

let lastAnswer = null, trouble = "";
let watched = Date.now();  // since then this page has been in sight

async function ask() {
  let answer, node;
  try {
    answer = await fetch("/api/v1/status", { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.ok) node = await answer.json();
  } catch {
    trouble = "";
    return;  // the node is gone, or busy; `showPulse` says so
  }
  if (answer.status === 401) trouble = "it asks for its token; open the address that sapo status prints";
  else if (!answer.ok) trouble = `it answers ${answer.status}`;
  else {
    [lastAnswer, trouble] = [Date.now(), ""];
    show(node);
  }
}

function showPulse() {
  const quiet = Date.now() - Math.max(lastAnswer ?? 0, watched);
  const isLost = quiet > STALE_MS || trouble !== "";
  byId("pulse").className = isLost ? "lost" : lastAnswer ? "live" : "";
  say(byId("pulse"), isLost ? "no answer" : lastAnswer ? "live" : "connecting");
  byId("live").classList.toggle("old", isLost);
  byId("stale").hidden = !isLost;
  if (!isLost) return;
  const since = lastAnswer === null ? "this page was opened"
    : `${new Date(lastAnswer).toLocaleTimeString()} (${span((Date.now() - lastAnswer) / 1000)})`;
  say(byId("stale"), `No answer from the node since ${since}${trouble ? `: ${trouble}` : ""}.` +
    (lastAnswer === null ? "" : " What you see is old."));
}

async function live() {
  for (;;) {
    if (!document.hidden) await ask().catch(console.error);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

addEventListener("visibilitychange", () => { watched = Date.now(); });
setInterval(showPulse, 500);
live();

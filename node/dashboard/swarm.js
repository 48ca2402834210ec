// The swarm as this node sees it: a map on which every peer keeps its place, and a table of them.

import { askBan, unban } from "./actions.js";
import { draw, map } from "./charts.js";
import { byId, isNew, made, orEmpty, rows } from "./elements.js";
import { clock, count, percent, plural, printable, reasonText, shortId, span } from "./words.js";

const MAPPED = 128;  // peers on the map: those that are connected or gave something, at most
const NAMED = 16;    // peers up to which their names stand beside them
const TILT = -1.2;   // radians, of the first place
// How far out a peer is, by the power of two up to which its number among all goes.
const RINGS = [0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 1, 1.25];

const places = new Map();  // node id -> its number, in the order in which they were first met
let shown = [];

export function showSwarm({ peers, now }) {
  orEmpty(byId("swarm-map").querySelector(".split"), byId("no-peers"),
    peers.length ? "" : "Nobody yet. Peers appear here as soon as they are met.");
  for (const one of [...peers].sort((a, b) => a.first_met - b.first_met)) {
    if (!places.has(one.node_id)) places.set(one.node_id, places.size);
  }
  const order = [...peers].sort((a, b) => b.connected - a.connected || b.rollouts_used - a.rollouts_used);
  if (peers.length) showMap(order.slice(0, MAPPED));
  showTable(order, now);
}

function showMap(peers) {
  shown = peers;
  const most = Math.max(1, ...peers.map((one) => one.rollouts_used));
  const dots = peers.map((one) => dot(one, most, peers.length <= NAMED));
  if (!isNew(byId("map-chart"), dots)) return;
  const connected = peers.filter((one) => one.connected);
  const relayed = connected.filter(isRelayed).length;
  draw(byId("map-chart"), `map of ${plural(peers.length, "peer")}: ${connected.length} connected, ${relayed} of them through a relay; the table has the same`,
    () => map(dots, { chosen: point, reach: Math.max(...dots.map((one) => one.ring)) * 1.16 }));
}

// Its place says nothing but who came first. The n-th peer halves the widest gap that those before
// it left, so that any number of them is spread evenly and nobody moves.
function where(place) {
  let share = 0, part = 1, level = 0;
  for (let rest = place; rest > 0; rest >>= 1, level += 1) {
    part /= 2;
    share += (rest & 1) * part;
  }
  const ring = RINGS[Math.min(level, RINGS.length - 1)], angle = TILT + 2 * Math.PI * share;
  return { x: Math.cos(angle) * ring, y: Math.sin(angle) * ring, ring };
}

function dot(peer, most, isNamed) {
  const isBad = peer.banned || peer.lies > 0;
  return {
    ...where(places.get(peer.node_id)),
    size: peer.rollouts_used ? 5 + 13 * Math.sqrt(peer.rollouts_used / most) : 4,
    look: isBad ? "bad" : peer.connected ? "foreign" : "dim",
    shape: isBad ? "rectRot" : "circle",
    isHollow: !isBad && (!peer.connected || isRelayed(peer)),
    isLinked: peer.connected, isDashed: isRelayed(peer),
    name: shortId(peer.node_id), label: isNamed ? `…${printable(peer.node_id).slice(-6)}` : "",
    tip: `${way(peer)} · ${plural(peer.rollouts_used, "group")} used`,
  };
}

function isRelayed(peer) {
  return peer.address.includes("/p2p-circuit");
}

function way(peer) {
  if (peer.banned) return "banned";
  if (!peer.connected) return "away";
  return isRelayed(peer) ? "relayed" : "direct";
}

function sinceOrUntil(peer) {
  if (peer.banned) return peer.banned_until === null ? "for good" : `until ${clock(peer.banned_until)}`;
  return peer.connected ? span(peer.connected_s) : "";
}

// Shows in the table who was chosen on the map.
function point(index) {
  const id = shown[index].node_id;
  for (const row of byId("peers").tBodies[0].rows) {
    const isIt = row.dataset.peer === id;
    row.classList.toggle("chosen", isIt);
    if (isIt) row.scrollIntoView({ block: "nearest" });
  }
}

function showTable(peers, now) {
  const total = peers.reduce((sum, one) => sum + one.rollouts_used, 0);
  rows(byId("peers").tBodies[0], peers, (peer) => {
    const refused = Object.entries(peer.refused).sort((a, b) => b[1] - a[1]);
    const reasons = refused.map(([reason, times]) => `${reasonText(reason)} ${count(times)}`).join(", ");
    const full = `${printable(peer.node_id)}${peer.address ? ` at ${printable(peer.address)}` : ""}`;
    return [
      ["peer", shortId(peer.node_id), peer.ban_reason ? printable(peer.ban_reason) : "", "id", full],
      ["way", way(peer), sinceOrUntil(peer), peer.banned ? "trouble" : peer.connected ? "" : "off", printable(peer.address)],
      ["offered", count(peer.rollouts_offered)],
      ["admitted", count(peer.rollouts_admitted)],
      ["used", count(peer.rollouts_used), peer.rollouts_used ? percent(peer.rollouts_used / total) : "", "", "share of all that was used"],
      ["refused", count(refused.reduce((sum, [, times]) => sum + times, 0)), "", "", reasons],
      ["lies", count(peer.lies), "", peer.lies ? "trouble" : ""],
      ["heard", peer.last_heard ? `${span(now - peer.last_heard)} ago` : "never", "", peer.last_heard ? "" : "off"],
      ["", ""],
    ];
  }, dress);
}

function dress(row, peer) {
  row.classList.toggle("off", !peer.connected);
  const cell = row.cells[8];
  let button = cell.querySelector("button");
  if (!button) {
    button = made("button");
    button.type = "button";
    button.addEventListener("click", () => (row.isBanned ? unban : askBan)(row.dataset.peer));
    cell.replaceChildren(button, made("small"));
    cell.lastChild.hidden = true;
  }
  if (row.dataset.peer !== peer.node_id) row.classList.remove("chosen");
  row.dataset.peer = peer.node_id;
  row.isBanned = peer.banned === true;
  const text = row.isBanned ? "Unban" : "Ban";
  if (button.textContent !== text) button.textContent = text;
  button.setAttribute("aria-label", `${text} ${shortId(peer.node_id)}`);
}

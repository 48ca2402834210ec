// What the node learned from whom: groups by peer and by age, and what was refused.

import { ask } from "./ask.js";
import { bars, draw } from "./charts.js";
import { byId, orEmpty, rows, say } from "./elements.js";
import { nodeNow } from "./feed.js";
import { count, plural, reasonText, shortId } from "./words.js";

const MOST = 8;  // peers with a bar each
const AGES = [["below 10 s", 10], ["10 s to 1 min", 60], ["1 to 10 min", 600], ["10 to 60 min", 3600], ["older", Infinity]];

// Args: the last reports, oldest first.
export function showGiving(lately) {
  const used = lately.flatMap((one) => one.foreign).filter((group) => group.fate === "used");
  for (const place of document.querySelectorAll("#giving .lately")) say(place, lately.length ? `last ${plural(lately.length, "round")}` : "");
  const none = !lately.length ? "No round yet." : "Nothing of a peer was used in these rounds.";
  orEmpty(byId("giver-chart"), byId("no-givers"), used.length ? "" : none);
  orEmpty(byId("age-chart"), byId("no-ages"), used.length ? "" : none);
  if (!used.length) return;
  const givers = byPeer(used), ages = byAge(used);
  const unit = (value) => plural(value, "group");
  const spoken = (parts) => parts.map(([name, value]) => `${name} ${count(value)}`).join(", ");
  byId("giver-chart").style.height = `${34 + 23 * Math.max(3, givers.length)}px`;
  draw(byId("giver-chart"), `groups by peer: ${spoken(givers)}`,
    () => bars(givers, { unit, colours: ([, , isRest]) => (isRest ? "dim" : "foreign") }));
  draw(byId("age-chart"), `groups by age: ${spoken(ages)}`, () => bars(ages, { unit }));
}

function byPeer(used) {
  const counts = new Map();
  for (const { author } of used) counts.set(author, (counts.get(author) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1]);
  const rest = sorted.slice(MOST);
  const shown = sorted.slice(0, MOST).map(([author, number]) => [shortId(author), number, false]);
  if (rest.length) shown.push([`${rest.length} others`, rest.reduce((total, [, number]) => total + number, 0), true]);
  return shown;
}

function byAge(used) {
  const counts = AGES.map(() => 0);
  for (const { age_s: age } of used) counts[AGES.findIndex(([, below]) => age < below)] += 1;
  return AGES.map(([name], index) => [name, counts[index]]);
}

export async function loadRefusals() {
  const { total, since, buckets } = await ask("/api/v1/refusals");
  const from = nodeNow() - 3600;
  const lately = {};
  for (const { begin, refused } of buckets) {
    if (begin < from - 300) continue;
    for (const [reason, number] of Object.entries(refused)) lately[reason] = (lately[reason] ?? 0) + number;
  }
  orEmpty(byId("refusals"), byId("no-refusals"), total.length ? "" : "Nothing was refused.");
  const note = (one) => one.is_harmless ? "happens where all is well" : one.pays === "nobody" ? "" : `counts against its ${one.pays}`;
  const sorted = [...total].sort((a, b) => a.is_harmless - b.is_harmless || b.count - a.count);
  rows(byId("refusals").tBodies[0], sorted, (one) => [
    ["reason", reasonText(one.reason), note(one), one.is_harmless ? "off" : ""],
    ["last hour", count(lately[one.reason] ?? 0), "", one.is_harmless ? "off" : "", since > from ? "since the node's start" : ""],
    ["in all", count(one.count), "", one.is_harmless ? "off" : ""],
  ]);
}

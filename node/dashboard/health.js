// Whether the node is well: memory, disk, queues, what was dropped, its log and settings.

import { ask } from "./ask.js";
import { byId, list, rows, say } from "./elements.js";
import { bytes, clock, closedIn, count, plural, printable, span } from "./words.js";

const LOG_LINES = 200;
const LITTLE_DISK = 2 * 2 ** 30;  // bytes free, below which it is worth a look
const LAG_S = 1;

export function beginHealth() {
  for (const [id, load] of [["checkpoints", loadCheckpoints], ["log", loadLog], ["settings", loadSettings]]) {
    byId(id).addEventListener("toggle", () => { if (byId(id).open) load().catch(console.error); });
  }
  byId("settings-all").addEventListener("change", () => loadSettings().catch(console.error));
}

// What is open is kept new.
export async function refreshHealth() {
  if (byId("checkpoints").open) await loadCheckpoints();
  if (byId("log").open) await loadLog();
}

export function showHealth(node) {
  const hasPolicy = node.mode === "train" || node.mode === "generate";
  const { learner } = node;
  list(byId("machine"), [
    ...Object.entries(node.memory_mib).map(([part, size]) => [`memory, ${printable(part)}`, bytes(size * 2 ** 20)]),
    ["disk free", bytes(node.disk_free), node.disk_free !== null && node.disk_free < LITTLE_DISK],
    ["held up, last minute", span(node.lag_s), node.lag_s > LAG_S],
    ["CPU, control", span(node.control_cpu_s)],
    ...(hasPolicy ? [["engine", printable(learner.engine) || "loading", Boolean(learner.engine_warning)],
                     ["tokens generated", count(node.total_tokens)],
                     ["learner restarts", count(learner.restarts), learner.restarts > 0],
                     ["tasks judged", count(node.tasks.length)]] : []),
    ...Object.entries(node.tasks_left_out).map(([task, reason]) => [`left out: ${printable(task)}`, printable(reason, 500), true]),
    ...(node.isolation ? [["verifier", closedIn(node.isolation), !(node.isolation.landlock_abi && node.isolation.seccomp)]] : []),
  ]);
  const { pool, catch_up: missed } = node;
  list(byId("queues"), [
    ["pool, fresh", count(pool.fresh)],
    ["pool, used", count(pool.used)],
    ["own, served", count(pool.own)],
    ["pool, size", bytes(pool.num_bytes)],
    ["offered, not fetched", count(pool.offers)],
    ["from news to pool", span(pool.announced_to_pool_s)],
    ["announcements kept", count(pool.announcements)],
    ["caught up", `${count(missed.announcements)} of ${plural(missed.peers, "peer")}`],
  ]);
  list(byId("drops"), [
    ["dropped unheard", count(node.announcements_dropped), node.announcements_dropped > 0],
    ["messages not sent", count(node.messages_unsent), node.messages_unsent > 0],
    ["connections refused", count(node.connections_refused)],
    ["authors not reached", `${count(node.visits_failed)} of ${count(node.visits)}`],
    ...Object.entries(node.limited).map(([kind, times]) => [`limited: ${printable(kind)}`, count(times)]),
    ...Object.entries(pool.evicted).map(([kind, times]) => [`gave way: ${printable(kind)}`, count(times)]),
    ["told of nothing new", count(missed.refused)],
  ]);
  list(byId("traffic"), [
    ["sent", bytes(node.bytes_sent)],
    ["received", bytes(node.bytes_received)],
    ["rollouts fetched", bytes(pool.fetched_bytes)],
    ["announced", count(node.announcements_sent)],
    ["announcements heard", count(node.announcements_received)],
    ["told who missed it", count(node.announcements_told)],
    ...(node.relay ? [["reached through this relay", plural(node.relay.reserved, "peer")],
                      ["circuits", count(node.relay.circuits)],
                      ["carried for others", bytes(node.relay.num_bytes)],
                      ["relaying refused", count(node.relay.refused)]] : []),
  ]);
}

async function loadCheckpoints() {
  const found = await ask("/api/v1/checkpoints");
  const none = [{ name: "none yet", num_bytes: null, written_at: null }];
  rows(byId("checkpoints").querySelector("tbody"), found.length ? found : none, (one) => [
    ["checkpoint", printable(one.name)],
    ["size", bytes(one.num_bytes)],
    ["written", one.written_at === null ? "–" : `${clock(one.written_at)} (${span(one.age_s)} ago)`],
  ]);
}

async function loadLog() {
  const found = await ask(`/api/v1/logs?limit=${LOG_LINES}`);
  const place = byId("log").querySelector("pre");
  const isAtEnd = place.scrollTop + place.clientHeight >= place.scrollHeight - 4;
  const text = found.map((one) => [
    `${clock(one.at)} ${printable(one.level)} ${printable(one.logger)}: ${printable(one.message, 2000)}`,
    ...one.traceback.map((line) => `    ${printable(line, 400)}`),
  ].join("\n")).join("\n");
  say(place, text || "Nothing yet.");
  if (isAtEnd) place.scrollTop = place.scrollHeight;
}

async function loadSettings() {
  const found = await ask("/api/v1/config");
  const isAll = byId("settings-all").checked;
  const shown = found.filter((one) => isAll || one.origin !== "default");
  const value = (one) => (one.value === null ? "none" : Array.isArray(one.value) ? one.value.join(", ") || "none" : String(one.value));
  rows(byId("settings").querySelector("tbody"), shown, (one) => [
    ["setting", printable(one.key), "", "id", printable(one.meaning, 500)],
    ["value", printable(value(one), 300)],
    ["from", printable(one.origin)],
  ]);
}

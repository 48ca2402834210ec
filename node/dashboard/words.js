// Numbers and texts as people read them. A stranger's text passes `printable` or `lines` and is then
// set as textContent, never as markup.

const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const UNPRINTABLE_IN_LINES = /(?![\n\t])[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const NONE = "–";

export function printable(text, maxChars = 200) {
  const chars = Array.from(String(text));
  const short = chars.length > maxChars ? chars.slice(0, maxChars - 1).join("") + "…" : chars.join("");
  return short.replace(UNPRINTABLE, escaped);
}

// The same for text of several lines.
export function lines(text, maxChars = 20000) {
  const chars = Array.from(String(text));
  const more = chars.length - maxChars;
  const short = more > 0 ? chars.slice(0, maxChars).join("") : chars.join("");
  const shown = short.replace(UNPRINTABLE_IN_LINES, escaped);
  return more > 0 ? `${shown}\n… ${count(more)} more characters` : shown;
}

function escaped(char) {
  const code = char.codePointAt(0).toString(16);
  if (code.length <= 2) return "\\x" + code.padStart(2, "0");
  return code.length <= 4 ? "\\u" + code.padStart(4, "0") : "\\U" + code.padStart(8, "0");
}

export function shortId(id) {
  const text = printable(id);
  return text.length > 18 ? `${text.slice(0, 8)}…${text.slice(-6)}` : text;
}

export function span(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return NONE;
  if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function bytes(count) {
  if (count === null || !Number.isFinite(count)) return NONE;
  let size = count;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1024 || unit === "GiB") return `${unit === "B" ? size : size.toFixed(1)} ${unit}`;
    size /= 1024;
  }
}

export function number(value, digits = 3) {
  return Number.isFinite(value) ? minus(value.toFixed(digits)) : NONE;
}

export function count(value) {
  return Number.isFinite(value) ? minus(value.toLocaleString("en", { maximumFractionDigits: 0 })) : NONE;
}

export function percent(share) {
  return Number.isFinite(share) ? `${minus(String(Math.round(share * 100)))} %` : NONE;
}

// A difference of two shares, in points of a hundred.
export function points(difference) {
  const shown = Math.round(difference * 100);
  return `${shown > 0 ? "+" : ""}${minus(String(shown))}`;
}

function minus(text) {
  return text.replace("-", "−");
}

export function clock(unixSeconds) {
  const at = new Date(unixSeconds * 1000), today = new Date();
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  return at.toDateString() === today.toDateString() ? time : `${at.toLocaleDateString("en-CA")} ${time}`;
}

export function plural(amount, one, many = `${one}s`) {
  return `${count(amount)} ${amount === 1 ? one : many}`;
}

export function reasonText(reason) {
  return printable(reason).replaceAll("_", " ");
}

export function closedIn(isolation) {
  const abi = isolation.landlock_abi;
  const files = abi ? `files closed (Landlock ${abi})` : "FILES OPEN (no Landlock)";
  const rest = isolation.seccomp ? "closed (seccomp)" : "OPEN (no seccomp)";
  return `${files}, network and processes ${rest}`;
}

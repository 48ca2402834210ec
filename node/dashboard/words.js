// Numbers and texts as people read them. A stranger's text passes `printable` and is then set as
// textContent, never as markup.

const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

export function printable(text, maxChars = 200) {
  const chars = Array.from(String(text));
  const short = chars.length > maxChars ? chars.slice(0, maxChars - 1).join("") + "…" : chars.join("");
  return short.replace(UNPRINTABLE, escaped);
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
  if (seconds === null || !Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function bytes(count) {
  let size = count;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1024 || unit === "GiB") return `${unit === "B" ? size : size.toFixed(1)} ${unit}`;
    size /= 1024;
  }
}

export function number(value, digits = 3) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

export function count(value) {
  return value.toLocaleString("en");
}

export function percent(share) {
  return share === null ? "–" : `${Math.round(share * 100)} %`;
}

export function closedIn(isolation) {
  const abi = isolation.landlock_abi;
  const files = abi ? `files closed (Landlock ${abi})` : "FILES OPEN (no Landlock)";
  const rest = isolation.seccomp ? "closed (seccomp)" : "OPEN (no seccomp)";
  return `${files}, network and processes ${rest}`;
}

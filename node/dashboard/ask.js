// Questions and orders to the node's API, each with a deadline.

const PATIENCE_MS = 8000;
const LONG_MS = 15 * 60 * 1000;  // a checkpoint is answered when it is on the disk

// The node answered, but not with what was asked for.
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// What the node says, as JSON. Throws Refused, or another error where no answer came.
export async function ask(path) {
  return read(await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS) }));
}

// Has the node do something. Throws as `ask` does.
export async function order(path, body) {
  const asked = { method: "POST", signal: AbortSignal.timeout(LONG_MS) };
  if (body !== undefined) {
    asked.body = JSON.stringify(body);
    asked.headers = { "Content-Type": "application/json" };
  }
  return read(await fetch(path, asked));
}

async function read(answer) {
  if (answer.ok) return answer.json();
  let detail = `it answers ${answer.status}`;
  try {
    const problem = await answer.json();
    if (typeof problem.detail === "string") detail = problem.detail;
  } catch { /* an answer that is no problem of ours */ }
  if (answer.status === 401) detail = "it asks for its token; open the address that sapo status prints";
  if (answer.status === 405 || (answer.status === 404 && detail === "Not Found")) detail = "this node does not offer that";
  throw new Refused(answer.status, detail);
}

// Elements of the page: found, made, filled. Whatever is put into them is put there as text.

export const byId = (id) => document.getElementById(id);

export function say(place, text) {
  if (place.textContent !== text) place.textContent = text;  // a selection survives
}

export function made(name, text = "", look = "") {
  const one = document.createElement(name);
  one.textContent = text;
  if (look) one.className = look;
  return one;
}

export function holder(name, look, ...inside) {
  const one = made(name, "", look);
  one.append(...inside);
  return one;
}

// Whether what a place shows has to be made anew: `what` is anything that JSON can say.
export function isNew(place, what) {
  const told = JSON.stringify(what);
  if (place.dataset.shown === told) return false;
  place.dataset.shown = told;
  return true;
}

// Rows of [name, text, whether it is unusual]; kept where they are while their names stay.
export function list(place, rows) {
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

// A table's rows, one per thing, each with cells of [column's name, text, note, look, title].
// Rows keep their place, so that what is focused or selected in them survives.
export function rows(body, things, cells, dress = () => {}) {
  while (body.rows.length > things.length) body.deleteRow(-1);
  things.forEach((thing, place) => {
    const row = body.rows[place] ?? body.insertRow();
    cells(thing).forEach(([name, text, note = "", look = "", title = ""], index) => {
      const cell = row.cells[index] ?? newCell(row, name);
      if (cell.className !== look) cell.className = look;
      say(cell.firstChild, text);
      say(cell.lastChild, note);
      cell.lastChild.hidden = !note;
      if (cell.title !== title) cell.title = title;
    });
    dress(row, thing);
  });
}

function newCell(row, name) {
  const cell = row.insertCell();
  cell.dataset.name = name;
  cell.append(made("span"), made("small"));
  return cell;
}

// Shows one of two: what there is, or a line that says why there is nothing.
export function orEmpty(place, empty, text) {
  place.hidden = text !== "";
  empty.hidden = text === "";
  say(empty, text);
}

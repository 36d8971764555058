// The table: sorted, filtered, and only the rows in sight are in the document.

const ROW_HEIGHT = 35;
const SHOWN_COLUMNS = 30;
const table = { sort: null, descending: false, filters: new Map(), search: "", columns: [] };

function startTable() {
  table.columns = DATA.columns.map((_, index) => index).slice(0, SHOWN_COLUMNS);
  byId("search").addEventListener("input", (event) => {
    table.search = event.target.value.toLowerCase();
    update();
  });
  byId("reset").addEventListener("click", showAll);
  byId("scroller").addEventListener("scroll", drawRows);
  byId("rows").addEventListener("keydown", moveFocus);
  byId("rows").addEventListener("click", (event) => openRow(event.target.closest("tr[tabindex]")));
  drawChooser();
  drawHead();
}

function showAll() {
  table.filters.clear();
  table.search = byId("search").value = "";
  clearBrushes();
  drawHead();
  update();
}

function drawChooser() {
  const box = byId("chooser").querySelector("div");
  byId("chooser").hidden = DATA.columns.length < 2;
  DATA.columns.forEach((column, index) => {
    const check = element("input", { type: "checkbox", checked: table.columns.includes(index) });
    check.addEventListener("change", () => toggleColumn(index, check.checked));
    const label = element("label");
    label.append(check, ` ${column.name}`);
    box.append(label);
  });
}

function toggleColumn(index, isShown) {
  const others = table.columns.filter((other) => other !== index);
  table.columns = (isShown ? [...others, index] : others).sort((a, b) => a - b);
  drawHead();
  drawRows();
}

function drawHead() {
  const names = table.columns.map(headCell);
  const filters = table.columns.map(filterCell);
  byId("names").replaceChildren(...names);
  byId("filters").replaceChildren(...filters);
}

function headCell(index) {
  const column = DATA.columns[index];
  const isSorted = table.sort === index;
  const arrow = isSorted ? (table.descending ? " ↓" : " ↑") : "";
  const cell = element("th", { className: column.numeric ? "number" : "", scope: "col" });
  cell.setAttribute("aria-sort", isSorted ? (table.descending ? "descending" : "ascending") : "none");
  const button = element("button", { type: "button", title: column.name }, column.name + arrow);
  button.addEventListener("click", () => sortBy(index));
  cell.append(button);
  return cell;
}

function filterCell(index) {
  const input = element("input", { type: "text", value: table.filters.get(index) ?? "" });
  input.setAttribute("aria-label", `Filter ${DATA.columns[index].name}`);
  input.addEventListener("input", () => {
    table.filters.set(index, input.value);
    update();
  });
  const cell = element("th");
  cell.append(input);
  return cell;
}

function sortBy(index) {
  table.descending = table.sort === index && !table.descending;
  table.sort = index;
  drawHead();
  byId("names").children[table.columns.indexOf(index)].querySelector("button").focus();
  update();
}

/** The rows that pass everything, in their order. */
function chosenRows() {
  const tests = [...table.filters].filter(([, text]) => text.trim()).map(([index, text]) => [index, matcher(text)]);
  const rows = DATA.rows.map((_, row) => row).filter((row) => isChosen(row, tests));
  return table.sort === null ? rows : rows.sort((a, b) => compareRows(a, b));
}

function isChosen(row, tests) {
  const cells = DATA.rows[row];
  return (
    tests.every(([index, matches]) => matches(cells[index])) &&
    (!table.search || cells.some((cell) => cellText(cell).toLowerCase().includes(table.search))) &&
    passesBrushes(row)
  );
}

function matcher(text) {
  const range = /^\s*(\S+?)\s*\.\.\s*(\S+)\s*$/.exec(text);
  if (range && isNumber(range[1]) && isNumber(range[2])) {
    return (cell) => typeof cell === "number" && cell >= Number(range[1]) && cell <= Number(range[2]);
  }
  const [, operator, wanted] = /^\s*(<=|>=|!=|==|=|<|>)?\s*(.*?)\s*$/s.exec(text);
  if (!operator) return (cell) => cellText(cell).toLowerCase().includes(wanted.toLowerCase());
  if (operator === "!=") return (cell) => !isSame(cell, wanted);
  if (operator === "=" || operator === "==") return (cell) => isSame(cell, wanted);
  return (cell) => holds(cell, operator, wanted);
}

function isNumber(text) {
  return text.trim() !== "" && Number.isFinite(Number(text));
}

function isSame(cell, text) {
  if (typeof cell === "number" && isNumber(text)) return cell === Number(text);
  return cellText(cell).toLowerCase() === text.toLowerCase();
}

function holds(cell, operator, wanted) {
  const isNumeric = typeof cell === "number" && isNumber(wanted);
  if (!isNumeric && (cell === null || typeof cell === "number" || isNumber(wanted))) return false;
  const [left, right] = isNumeric ? [cell, Number(wanted)] : [cellText(cell), wanted];
  return { "<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right }[operator];
}

/** Numbers, then texts; what is not there is always last. */
function compareRows(first, second) {
  const [a, b] = [DATA.rows[first][table.sort], DATA.rows[second][table.sort]];
  const [kind, other] = [kindOfCell(a), kindOfCell(b)];
  if (kind !== other) return kind - other;
  const order = kind === 0 ? a - b : kind === 1 ? cellText(a).localeCompare(cellText(b)) : 0;
  return (table.descending ? -order : order) || first - second;
}

function kindOfCell(cell) {
  return typeof cell === "number" ? 0 : cell === null || ["nan", "inf", "-inf"].includes(cell) ? 2 : 1;
}

function drawRows() {
  const scroller = byId("scroller");
  const first = Math.max(0, Math.floor(scroller.scrollTop / ROW_HEIGHT) - 10);
  const last = Math.min(state.rows.length, first + Math.ceil(scroller.clientHeight / ROW_HEIGHT) + 20);
  const focused = document.activeElement?.dataset?.position;
  const rows = state.rows.slice(first, last).map((row, index) => bodyRow(row, first + index));
  byId("rows").replaceChildren(space(first), ...rows, space(state.rows.length - last));
  if (focused !== undefined) rowAt(focused)?.focus({ preventScroll: true });
}

function space(count) {
  const cell = element("td", { colSpan: Math.max(1, table.columns.length) });
  cell.style.height = `${Math.max(0, count) * ROW_HEIGHT}px`;
  const row = element("tr", { className: "space" });
  row.append(cell);
  return row;
}

function bodyRow(row, position) {
  const line = element("tr", { tabIndex: 0, className: state.open === row ? "chosen" : "" });
  line.dataset.row = row;
  line.dataset.position = position;
  line.append(...table.columns.map((index) => bodyCell(DATA.columns[index], DATA.rows[row][index])));
  return line;
}

function bodyCell(column, value) {
  const isBad = column.name.endsWith("status") && ["failed", "lost", "damaged"].includes(value);
  const className = [column.numeric ? "number" : "", isBad ? "bad" : ""].join(" ").trim();
  const text = cellText(value);
  return element("td", { className, title: text }, shortText(value));
}

function rowAt(position) {
  return byId("rows").querySelector(`tr[data-position="${position}"]`);
}

function openRow(line) {
  if (line) openDetails(Number(line.dataset.row));
}

function moveFocus(event) {
  const line = event.target.closest("tr[tabindex]");
  if (!line) return;
  if (event.key === "Enter" || event.key === " ") openRow(line);
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12 }[event.key];
  if (step) focusRow(Number(line.dataset.position) + step);
  if (step || event.key === "Enter" || event.key === " ") event.preventDefault();
}

function focusRow(wanted) {
  const position = Math.min(Math.max(0, wanted), state.rows.length - 1);
  const scroller = byId("scroller");
  const [top, height] = [position * ROW_HEIGHT, scroller.clientHeight - 120];
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  if (top > scroller.scrollTop + height) scroller.scrollTop = top - height;
  drawRows();
  rowAt(position)?.focus({ preventScroll: true });
}

// What the parts share, and what starts them.

const DATA = JSON.parse(document.getElementById("data").textContent);
const state = { rows: [], open: null, opener: undefined, pending: 0 };

function byId(id) {
  return document.getElementById(id);
}

/** A new element. What users wrote gets into the document here, and only as text. */
function element(name, properties = {}, text = null) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== null) made.textContent = text;
  return made;
}

function cellText(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function shortText(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return cellText(value);
  return String(Number(value.toPrecision(5)));
}

function drawHeader() {
  document.title = `${DATA.title} · report`;
  byId("title").textContent = DATA.title;
  byId("origin").textContent = [DATA.made, DATA.where, DATA.command].filter(Boolean).join(" · ");
  for (const [name, count] of [["tasks", DATA.rows.length], ...Object.entries(DATA.counts)]) {
    const item = element("li", { className: name });
    item.append(element("strong", {}, count.toLocaleString("en")), element("span", { className: "quiet" }, name));
    byId("counts").append(item);
  }
  byId("notes").append(...DATA.notes.map((note) => element("li", {}, note)));
}

function theme() {
  return document.documentElement.dataset.theme;
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
}

function startTheme() {
  const preferred = window.matchMedia("(prefers-color-scheme: dark)");
  setTheme(preferred.matches ? "dark" : "light");
  preferred.addEventListener("change", () => {
    setTheme(preferred.matches ? "dark" : "light");
    drawPlots();
  });
  byId("theme").addEventListener("click", () => {
    setTheme(theme() === "dark" ? "light" : "dark");
    drawPlots();
  });
}

/** Shows what is chosen now: the table at once, and the plots when the typing pauses. */
function update() {
  state.rows = chosenRows();
  byId("shown").textContent = `${state.rows.length.toLocaleString("en")} of ${DATA.rows.length.toLocaleString("en")} tasks`;
  byId("scroller").scrollTop = 0;
  drawRows();
  clearTimeout(state.pending);
  state.pending = setTimeout(drawChosen, 120);
}

function drawChosen() {
  drawFailures();
  drawPictures();
  drawMetrics();
  drawCurves();
  drawTimeline();
}

function start() {
  startTheme();
  drawHeader();
  startTable();
  startPlots();
  update();
  document.addEventListener("keydown", (event) => event.key === "Escape" && closeDetails());
  document.body.dataset.ready = "true";
}

start();

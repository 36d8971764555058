// What belongs to single tasks: details, failures and pictures.

function openDetails(row) {
  state.open = row;
  state.opener = document.activeElement?.dataset?.position;
  const record = DATA.records[row];
  const close = element("button", { type: "button", className: "close" }, "Close");
  close.addEventListener("click", closeDetails);
  const parts = [close, element("h2", {}, record.overrides || record.uid), ...commandParts(record)];
  if (record.error) parts.push(element("h3", {}, "Error"), element("pre", {}, record.traceback || record.error));
  const config = { ...DATA.common, ...record.config };
  const values = Object.fromEntries(DATA.columns.map((column, index) => [column.name, DATA.rows[row][index]]));
  const provenance = { ...record.about, ...DATA.provenance[record.provenance] };
  for (const [name, entries] of Object.entries({ Values: values, Configuration: config, Provenance: provenance })) {
    parts.push(element("h3", {}, name), definitions(entries));
  }
  byId("details").replaceChildren(...parts);
  byId("details").hidden = false;
  byId("details").focus();
  drawRows();
}

function commandParts(record) {
  if (!record.rerun) return [];
  const copy = element("button", { type: "button" }, "Copy");
  copy.addEventListener("click", () => navigator.clipboard?.writeText(record.rerun));
  return [element("h3", {}, "Run it again"), element("pre", { className: "command" }, record.rerun), copy];
}

function closeDetails() {
  if (byId("details").hidden) return;
  byId("details").hidden = true;
  state.open = null;
  drawRows();
  rowAt(state.opener)?.focus();
}

function definitions(entries) {
  const list = element("dl");
  for (const [name, value] of Object.entries(entries)) {
    if (value === null || value === "") continue;
    list.append(element("dt", {}, name), element("dd", {}, cellText(value)));
  }
  return list;
}

function drawFailures() {
  const chosen = new Set(state.rows);
  const groups = DATA.failures.map((group) => ({ ...group, rows: group.rows.filter((row) => chosen.has(row)) }));
  const shown = groups.filter((group) => group.rows.length);
  byId("failures").hidden = DATA.failures.length === 0;
  byId("groups").replaceChildren(...shown.map(failureGroup));
}

function failureGroup(group) {
  const article = element("article");
  const count = group.rows.length === 1 ? "1 task" : `${group.rows.length} tasks`;
  const names = group.rows.slice(0, 5).map((row) => DATA.records[row].overrides || DATA.records[row].uid);
  const more = group.rows.length > 5 ? ` and ${group.rows.length - 5} more` : "";
  const open = element("button", { type: "button" }, "Show the first");
  open.addEventListener("click", () => openDetails(group.rows[0]));
  article.append(element("h3", { className: "bad" }, `${count}: ${group.error}`));
  article.append(element("p", { className: "quiet" }, [group.place, names.join("; ") + more].filter(Boolean).join(" · ")));
  if (group.log) article.append(element("pre", {}, group.log));
  article.append(open);
  return article;
}

function drawPictures() {
  const chosen = new Set(state.rows);
  byId("gallery").hidden = DATA.pictures.length === 0;
  byId("pictures").replaceChildren(...DATA.pictures.filter((picture) => chosen.has(picture.row)).map(figure));
}

function figure(picture) {
  const box = element("figure", { tabIndex: 0 });
  const record = DATA.records[picture.row];
  const name = record.overrides || record.uid;
  const image = element("img", { src: picture.source, alt: `${picture.name} of ${name}` });
  const caption = element("figcaption", {}, name);
  caption.append(element("div", { className: "quiet" }, picture.name));
  box.append(image, caption);
  box.addEventListener("click", () => openDetails(picture.row));
  box.addEventListener("keydown", (event) => event.key === "Enter" && openDetails(picture.row));
  return box;
}

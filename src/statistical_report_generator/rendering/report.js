"use strict";
// Tables sort by a click or a key on a heading; what is shown is what is copied.
const read = (cell, numeric) => {
  const text = cell.textContent.trim(), number = parseFloat(text.replace(/[,+%\s]/g, "").replace("\u2212", "-"));
  return numeric && !Number.isNaN(number) ? number : text;
};
const order = (a, b) => typeof a !== typeof b ? (typeof a === "number" ? -1 : 1)
  : typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
for (const heading of document.querySelectorAll("th")) heading.firstElementChild.addEventListener("click", () => {
  const table = heading.closest("table"), body = table.tBodies[0], place = heading.cellIndex;
  const numeric = heading.classList.contains("number"), up = heading.getAttribute("aria-sort") !== "ascending";
  const rows = [...body.rows].map((row, number) => [read(row.cells[place], numeric), number, row]);
  rows.sort((a, b) => (up ? 1 : -1) * order(a[0], b[0]) || a[1] - b[1]);
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows.map(row => row[2]));
});
const quote = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
const copy = async text => {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("not copied");
};
for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", async () => {
  const rows = [...document.getElementById(button.dataset.table).rows];
  const text = rows.map(row => [...row.cells].map(cell => quote(cell.textContent)).join(",") + "\r\n").join("");
  try { await copy(text); button.textContent = "Copied"; } catch { button.textContent = "Could not copy"; }
});

// Figures say the value at the point nearest to the mouse or a finger; a slider goes through the points by keyboard.
const NEAR = 30;
for (const plot of document.querySelectorAll("[data-points]")) {
  const points = JSON.parse(plot.dataset.points).map(([x, y, words]) => ({ x: x / 1000, y: y / 1000, words }));
  const [ring, tip] = plot.querySelectorAll(".ring, .tip"), slider = plot.parentElement.querySelector(".steps");
  const hide = () => { ring.hidden = tip.hidden = true; };
  const show = ({ x, y, words }) => {
    tip.textContent = words;
    for (const part of [ring, tip]) { part.hidden = false; part.style.left = `${100 * x}%`; part.style.top = `${100 * y}%`; }
    tip.style.transform = `translate(${x > .5 ? "calc(-100% - 12px)" : "12px"}, ${y > .5 ? "calc(-100% - 12px)" : "12px"})`;
  };
  const choose = () => {
    const point = points[slider.value];
    slider.setAttribute("aria-valuetext", point.words);
    return point;
  };
  const point = event => {
    const box = plot.getBoundingClientRect();
    const far = ({ x, y }) => Math.hypot(event.clientX - box.left - x * box.width, event.clientY - box.top - y * box.height);
    const nearest = points.reduce((best, one) => far(one) < far(best) ? one : best);
    if (far(nearest) < NEAR) show(nearest); else hide();
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hide(); });
  slider.max = points.length - 1;
  slider.hidden = false;
  choose();
  slider.addEventListener("input", () => show(choose()));
  slider.addEventListener("focus", () => { if (slider.matches(":focus-visible")) show(choose()); });
  slider.addEventListener("blur", hide);
  document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
}

// Many figures are packed; each is unpacked here, for its words and lines are all there.
for (const image of document.querySelectorAll("[data-packed]")) (async () => {
  const bytes = Uint8Array.from(atob(image.dataset.packed), letter => letter.charCodeAt(0));
  const lines = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  image.replaceWith(new DOMParser().parseFromString(lines, "text/html").body.firstElementChild);
})();

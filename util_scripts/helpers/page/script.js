'use strict';
// Tables sort by a click, or Enter, on a title; equal rows keep their order.
for (const button of document.querySelectorAll('th button')) {
  button.addEventListener('click', () => {
    const title = button.parentElement, table = title.closest('table');
    const column = [...title.parentElement.children].indexOf(title);
    const sign = title.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
    const body = table.tBodies[0];
    const value = row => {
      const cell = row.children[column];
      return 'v' in cell.dataset ? Number(cell.dataset.v) : cell.textContent;
    };
    const compare = (a, b) => typeof a === 'number' ? a - b : a.localeCompare(b);
    const rows = [...body.rows].sort((a, b) => sign * compare(value(a), value(b)));
    body.append(...rows);
    for (const other of title.parentElement.children) other.removeAttribute('aria-sort');
    title.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
  });
}
// Pictures stand still for whoever asked the system for less motion, and at a click.
const still = value => {
  document.body.classList.toggle('still', value);
  for (const button of document.querySelectorAll('[data-pause]')) {
    button.textContent = value ? 'Play pictures' : 'Pause pictures';
    button.setAttribute('aria-pressed', String(value));
  }
};
still(matchMedia('(prefers-reduced-motion: reduce)').matches);
for (const button of document.querySelectorAll('[data-pause]')) {
  button.addEventListener('click', () => still(!document.body.classList.contains('still')));
}

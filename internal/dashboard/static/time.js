// Times as people say them.

const units = [['s', 60], ['min', 60], ['h', 24], ['d', 365], ['y', Infinity]];

// ago is a length of time given in milliseconds: 3 s, 5 min, 2 h.
export function ago(ms) {
  if (ms == null) return null;
  let n = Math.max(0, ms) / 1000;
  for (const [unit, size] of units) {
    if (Math.round(n) < size) return `${Math.round(n)} ${unit}`;
    n /= size;
  }
}

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'long' });

function relative(iso) {
  const ms = new Date(iso) - Date.now();
  if (Math.abs(ms) < 1000) return 'now';
  return ms < 0 ? `${ago(-ms)} ago` : `in ${ago(ms)}`;
}

// moment is a relative time with the exact one as its title.
export function moment(iso) {
  const e = document.createElement('time');
  e.dateTime = iso;
  e.title = `${exact.format(new Date(iso))} (${iso})`;
  e.textContent = relative(iso);
  return e;
}

// refreshTimes says all moments on the page anew.
export function refreshTimes() {
  for (const e of document.querySelectorAll('time')) {
    const text = relative(e.dateTime);
    if (e.textContent !== text) e.textContent = text;
  }
}

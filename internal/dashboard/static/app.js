// The dashboard. What stands in the address decides what is shown. While somebody can
// see it, everything is asked again every two seconds, and only what has changed is
// drawn again, so that focus and selection stay where they are.

import { $, call, curl, el, explain, snippet, statusOf, word } from './api.js';
import { closeJob, showJob } from './detail.js';
import { ago, moment, refreshTimes } from './time.js';

const statuses = ['PENDING', 'EXECUTING', 'COMPLETED', 'FAILED', 'CANCELED'];
const executors = ['internal', 'trigger'];
const filters = ['executor', 'status', 'type', 'tag', 'userId', 'order'];
const period = 2000, slowest = 30000; // milliseconds between looks, and when looking fails
const builtIn = 'removeOldWorkerJobs'; // the job that sidejob itself keeps

let view = readView();
let cursors = ['']; // of the pages up to the one shown
let nextCursor = null;
let stats = {};
let failures = 0, timer = 0, looking = new AbortController();

// readView takes filters and open job from the address, #status=FAILED&job=12.
function readView() {
  const given = new URLSearchParams(location.hash.slice(1));
  const job = given.get('job');
  return { job, filters: new URLSearchParams(filters.flatMap(f => (given.get(f) ? [[f, given.get(f)]] : []))) };
}

function address(kept, job) {
  const params = new URLSearchParams(kept);
  if (job) params.set('job', job);
  return `#${params}`;
}

function filterBy(wanted) {
  history.replaceState(null, '', address(Object.entries(wanted).filter(([, v]) => v), view.job));
  follow();
}

// follow draws what the address says after it has changed.
function follow() {
  const before = view;
  view = readView();
  if (String(before.filters) !== String(view.filters)) cursors = [''];
  for (const f of filters) {
    const input = $('filters').elements[f];
    if (input !== document.activeElement) input.value = view.filters.get(f) ?? '';
  }
  $('clear').hidden = !view.filters.size;
  document.querySelector('main').classList.toggle('open', Boolean(view.job));
  for (const row of $('rows').children) row.querySelector('a').href = address(view.filters, row.dataset.id);
  if (before.job !== view.job) closeJob();
  if (before.job && !view.job) $('rows').querySelector(`[data-id="${CSS.escape(before.job)}"] a`)?.focus();
  look();
}

// look asks for all that is shown, then waits for the next look. It ends the look
// that is under way.
async function look() {
  clearTimeout(timer);
  looking.abort();
  if (document.hidden) return;
  const mine = looking = new AbortController();
  const began = performance.now();
  const failed = await Promise.all([showHealth, showStats, showList, showDetail].map(f => f(mine.signal)))
    .then(() => null, err => err);
  if (mine.signal.aborted) return;
  tell(failed);
  refreshTimes();
  failures = failed ? failures + 1 : 0;
  const wait = Math.min(slowest, Math.max(period * 2 ** failures, 4 * (performance.now() - began)));
  if ($('live').checked) timer = setTimeout(look, wait);
}

let told = '';

// tell shows a failure once, not again with every look.
function tell(err) {
  const text = err ? `${err.message} ${err.detail ?? ''}` : '';
  if (text === told) return;
  told = text;
  $('problem').hidden = !err;
  $('problem').replaceChildren(...(err ? [explain(err)] : []));
}

async function showHealth(signal) {
  const answer = await fetch('/readyz', { signal, cache: 'no-store' }).then(r => r.json()).catch(() => ({ status: 'no answer' }));
  if (signal.aborted || $('health').dataset.mark === JSON.stringify(answer)) return;
  $('health').dataset.mark = JSON.stringify(answer);
  $('health').dataset.state = answer.status;
  $('health').textContent = word(answer.status ?? 'unknown');
  $('notes').replaceChildren(...(answer.notes ?? []).map(n => el('li', { class: 'notice' }, n)));
}

async function showStats(signal) {
  stats = (await call('/api/stats', { signal })).body;
  const count = (status, executor) => stats.jobs?.[executor]?.[status] ?? 0;
  for (const button of $('tiles').querySelectorAll('button')) {
    const { status, executor } = button.dataset;
    const n = executor ? count(status, executor) : executors.reduce((sum, e) => sum + count(status, e), 0);
    button.lastChild.textContent = n.toLocaleString();
    button.setAttribute('aria-pressed', status === view.filters.get('status') && (executor ?? null) === view.filters.get('executor'));
  }
  showFacts();
}

function showFacts() {
  const { outbox = {}, trigger = {} } = stats;
  const facts = {
    'Trigger.dev': trigger.reason ? `${trigger.state}: ${trigger.reason}` : trigger.state,
    'To send': outbox.depth ? `${outbox.depth}, oldest ${ago(outbox.oldestMs)}` : 0,
    'Cancels pending': stats.cancelsPending, 'Sync lag': ago(stats.syncLagMs), Up: ago(stats.uptimeMs), Version: stats.version,
  };
  const shown = Object.entries(facts).filter(([, value]) => value != null && value !== '');
  $('facts').replaceChildren(...shown.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, String(value)))));
}

function makeTile(status) {
  const part = executor => el('button', { type: 'button', 'data-status': status, 'data-executor': executor },
    el('span', { class: 'unseen' }, `${word(status)} `), el('span', {}, executor), ' ', el('b', {}, '–'));
  return el('li', {}, el('button', { type: 'button', 'data-status': status }, el('span', { class: 'status', 'data-is': status }, word(status)),
    ' ', el('b', {}, '–')), el('div', {}, executors.map(part)));
}

// press filters by the tile's status and executor; pressed again it lets them go.
function press(button) {
  const { status, executor } = button.dataset;
  const off = button.getAttribute('aria-pressed') === 'true';
  filterBy({ ...Object.fromEntries(view.filters), status: off ? '' : status, executor: off ? '' : executor });
}

async function showList(signal) {
  const query = new URLSearchParams({ limit: '50', ...Object.fromEntries(view.filters) });
  if (cursors.at(-1)) query.set('cursor', cursors.at(-1));
  const { body } = await call(`/api/jobs?${query}`, { signal }).catch(noRows);
  nextCursor = body.nextCursor;
  drawRows(body.jobs);
  const plain = !view.filters.size && cursors.length === 1;
  $('none').hidden = plain || body.jobs.length > 0;
  $('previous').hidden = $('next').hidden = cursors.length === 1 && !nextCursor;
  $('previous').disabled = cursors.length === 1;
  $('next').disabled = !nextCursor;
  $('page').textContent = `Page ${cursors.length}: ${body.jobs.length} job${body.jobs.length === 1 ? '' : 's'}`;
  showFirst(plain && body.jobs.every(j => j.type === builtIn));
}

// noRows leaves nothing on the page that the refused filters might seem to have found.
function noRows(err) {
  if (err.status >= 400) drawRows([]);
  throw err;
}

// drawRows moves, makes and drops rows until they are the jobs'. A row whose job has
// not changed is not touched.
function drawRows(jobs) {
  const rows = $('rows'), old = new Map(Array.from(rows.children, r => [r.dataset.id, r]));
  let place = rows.firstElementChild;
  for (const job of jobs) {
    const row = old.get(String(job.id)) ?? el('tr', { 'data-id': job.id });
    old.delete(row.dataset.id);
    if (row === place) place = place.nextElementSibling;
    else rows.insertBefore(row, place);
    fillRow(row, job);
  }
  for (const row of old.values()) row.remove();
}

function fillRow(row, job) {
  const mark = JSON.stringify([job.updatedAt, job.status, job.cancelRequested, job.paused, job.missedAt, job.due]);
  if (row.dataset.mark !== mark) {
    const focused = row.contains(document.activeElement);
    row.dataset.mark = mark;
    row.replaceChildren(...cells(job));
    if (focused) row.querySelector('a').focus();
  }
  row.querySelector('a').ariaCurrent = row.dataset.id === view.job ? 'true' : null;
}

function cells(job) {
  const link = el('a', { href: address(view.filters, job.id) }, `#${job.id} `, el('b', {}, job.type));
  const user = job.userId === 0 ? 'system' : String(job.userId);
  return [el('td', { class: 'job' }, link, job.cronSchedule ? el('small', { title: job.timezone }, job.cronSchedule) : null),
    el('td', { class: 'tag', title: job.tag }, job.tag), el('td', {}, statusOf(job)), el('td', {}, job.executor),
    el('td', {}, user), el('td', { class: 'when' }, ...lastMoment(job))];
}

function lastMoment(job) {
  if (job.finished) return ['ended ', moment(job.finished)];
  if (job.started) return ['started ', moment(job.started)];
  return [job.cronSchedule ? 'next ' : 'due ', moment(job.due ?? job.createdAt)];
}

// showFirst tells how to schedule a job while there is none but sidejob's own.
function showFirst(empty) {
  if ($('first').hidden === !empty) return;
  $('first').hidden = !empty;
  if (!empty || $('first').querySelector('.snippet')) return;
  const task = 'process-large-dataset';
  const body = stats.trigger?.state === 'off' ? { type: 'hello', data: { name: 'Ada' } }
    : { type: task, executor: 'trigger', triggerTaskId: task, data: { rows: 1000 } };
  $('first').append(snippet('In a shell', curl('POST', '/api/jobs', body)));
}

const showDetail = signal => (view.job ? showJob(view.job, signal, {
  back: address(view.filters), to: id => address(view.filters, id), runs: stats.trigger?.runsUrl,
}) : null);

let typing = 0;

function start() {
  $('tiles').append(...statuses.map(makeTile));
  $('tiles').addEventListener('click', e => e.target.closest('button') && press(e.target.closest('button')));
  $('filters').addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => filterBy(Object.fromEntries(new FormData($('filters')))), 250);
  });
  $('filters').addEventListener('submit', e => e.preventDefault());
  $('filters').addEventListener('reset', e => { e.preventDefault(); filterBy({}); $('filters').elements.executor.focus(); });
  $('next').addEventListener('click', () => { cursors.push(nextCursor); look(); });
  $('previous').addEventListener('click', () => { cursors.pop(); look(); });
  $('live').addEventListener('change', look);
  addEventListener('hashchange', follow);
  addEventListener('job-changed', look);
  document.addEventListener('visibilitychange', look);
  follow();
}

start();

// One job: what it is, what has happened to it, and what can be done about it.

import { $, Problem, call, el, explain, say, statusOf, sure } from './api.js';
import { moment } from './time.js';

const times = new Set(['due', 'started', 'finished', 'removeAt', 'lastSyncedAt', 'missedAt', 'createdAt', 'updatedAt']);
let open = null; // id of the job drawn
let seen = {}; // what was drawn last, as text: of each part, and in all

export function closeJob() {
  open = null;
  $('detail').hidden = true;
}

// showJob draws job id, and again whatever of it has changed. links knows the
// addresses: back, to(id), and runs, what goes before a run's id.
export async function showJob(id, signal, links) {
  const { text, body: job } = await call(`/api/jobs/${encodeURIComponent(id)}`, { signal }).catch(asNone);
  const mark = [text, links.back, links.runs].join(), fresh = open !== id;
  if (!fresh && seen.all === mark) return;
  const events = job ? (await call(`/api/jobs/${job.id}/events`, { signal })).body.events ?? [] : [];
  if (fresh) begin(id);
  seen.all = mark;
  $('job-back').href = links.back;
  part('head', [job?.type, job?.status, job?.cancelRequested, job?.paused, job?.missedAt], () => head(id, job));
  if (fresh) $('job-title').focus();
  part('notices', job && notices(job), n => n?.map(words => el('p', { class: 'notice' }, words)) ?? []);
  part('why', job?.status === 'FAILED' && job.result?.error, why);
  for (const name of ['result', 'data']) part(name, job?.[name], value => block(name, value));
  part('history', events, history);
  part('members', [job, links], () => (job ? members(job, links) : []));
}

function asNone(err) {
  if (!(err instanceof Problem) || err.status !== 404) throw err;
  return { text: 'none', body: null };
}

// begin makes the empty parts, so that later only what changes is drawn again.
function begin(id) {
  open = id;
  seen = {};
  const parts = ['head', 'notices', 'why', 'result', 'data', 'history', 'members'].map(name => el('div', { id: `part-${name}` }));
  $('detail').replaceChildren(el('a', { id: 'job-back', class: 'back', 'aria-label': 'Close the job' }, '×'), ...parts);
  $('detail').hidden = false;
}

function part(name, value, make) {
  const mark = JSON.stringify(value) ?? '';
  if (seen[name] === mark) return;
  seen[name] = mark;
  const box = $(`part-${name}`), focused = box.contains(document.activeElement);
  box.replaceChildren(...make(value));
  if (focused) $('job-title').focus();
}

function head(id, job) {
  const title = el('h2', { id: 'job-title', tabindex: '-1' }, `#${id} `, job ? job.type : 'does not exist');
  if (!job) return [title, el('p', {}, 'It was never there, or its time to be removed has come.')];
  const problem = el('div', { id: 'act-problem', class: 'notice bad', role: 'alert', hidden: true });
  return [title, el('p', {}, statusOf(job)), el('div', { class: 'row' }, ...actions(job)), problem];
}

function actions(job) {
  if (job.finished) return [button('Retry', () => retry(job))];
  const rest = job.paused ? button('Resume', () => change(`/api/jobs/${job.id}/resume`, `Job ${job.id}: resumed.`))
    : button('Pause', () => change(`/api/jobs/${job.id}/pause`, `Job ${job.id}: paused.`));
  return [button(job.cancelRequested ? 'Canceling…' : 'Cancel', () => cancel(job), job.cancelRequested),
    job.cronSchedule && !job.cancelRequested ? rest : null].filter(Boolean);
}

function button(text, run, disabled = false) {
  const b = el('button', { type: 'button', disabled }, text);
  b.addEventListener('click', async () => {
    b.disabled = true;
    await run().catch(refused);
    b.disabled = disabled;
  });
  return b;
}

function refused(err) {
  $('act-problem').replaceChildren(explain(err));
  $('act-problem').hidden = false;
}

async function cancel(job) {
  const waits = job.cronSchedule && job.status !== 'EXECUTING';
  const more = waits ? ' This ends the recurring job.' : '';
  if (!await sure(`Cancel job ${job.id}?${more}`, 'Cancel the job')) return;
  const { status, body } = await call(`/api/jobs/${job.id}/cancel`, { method: 'POST' });
  say(status === 202 ? 'Cancel asked for. Trigger.dev has not confirmed it yet.' : `Job ${job.id}: ${body.status.toLowerCase()}.`);
  dispatchEvent(new Event('job-changed'));
}

async function change(path, done) {
  await call(path, { method: 'POST' });
  say(done);
  dispatchEvent(new Event('job-changed'));
}

async function retry(job) {
  const { body } = await call(`/api/jobs/${job.id}/retry`, { method: 'POST' });
  say(`Job ${body.id} tries job ${job.id} again.`);
  const params = new URLSearchParams(location.hash.slice(1));
  params.set('job', body.id);
  location.hash = params;
}

function notices(job) {
  return [
    job.error && `The last try to reach Trigger.dev failed: ${job.error}`,
    job.cancelRequested && !job.finished && 'Cancel asked for. Trigger.dev has not confirmed it yet; sidejob keeps at it.',
    job.paused && !job.finished && 'Paused: no run of it starts until it is resumed.',
    job.missedAt && !job.finished && 'Its time has passed and nothing has begun.',
  ].filter(Boolean);
}

// why shows an error of Trigger.dev, {message, name, stackTrace}, or whatever was reported.
function why(error) {
  if (!error) return [];
  const text = typeof error === 'string' ? error : error.stackTrace ?? error.message ?? JSON.stringify(error);
  return [el('pre', { class: 'notice bad', tabindex: '0', 'aria-label': 'why it failed' }, String(text))];
}

function block(name, value) {
  if (value == null) return [];
  return [el('h3', {}, name), el('pre', { tabindex: '0', 'aria-label': name }, JSON.stringify(value, null, 2))];
}

function history(events) {
  if (!events.length) return [];
  return [el('h3', {}, 'history'), el('ol', { class: 'history' }, events.map(e => el('li', {},
    moment(e.at), el('b', {}, e.kind), e.from === e.to ? null : el('span', {}, `${e.from ?? ''} → ${e.to}`),
    e.source ? el('small', {}, `by ${e.source}`) : null, detailOf(e.detail))))];
}

function detailOf(detail) {
  const text = typeof detail === 'string' ? detail : JSON.stringify(detail ?? {});
  return text === '' || text === '{}' ? null : el('code', {}, text);
}

function members(job, links) {
  const rows = Object.entries(job).filter(([name]) => !['$schema', 'data', 'result'].includes(name));
  return [el('h3', {}, 'all members'), el('dl', { class: 'members' },
    rows.map(([name, value]) => [el('dt', {}, name), el('dd', {}, member(name, value, links))]))];
}

function member(name, value, links) {
  if (value === null || value === '') return el('span', { class: 'nothing' }, '–');
  if (times.has(name)) return [moment(value), ' ', el('small', {}, value)];
  if (name === 'rescheduledFromJob' || name === 'scheduleId') return el('a', { href: links.to(value) }, `#${value}`);
  // Only a web address becomes a link: what is written here comes from a server's configuration.
  if (name === 'triggerRunId' && /^https?:/.test(links.runs ?? '')) {
    return el('a', { href: links.runs + encodeURIComponent(value), rel: 'noreferrer', target: '_blank' }, value);
  }
  return typeof value === 'object' ? el('code', {}, JSON.stringify(value)) : String(value);
}

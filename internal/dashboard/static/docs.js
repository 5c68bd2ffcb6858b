// The API's description, /openapi.json, made readable.

import { $, call, curl, el, explain, snippet } from './api.js';
import { prose, schemas } from './schema.js';

const methods = ['get', 'post', 'put', 'patch', 'delete'];

// operations lists what the API does, by tag, in the document's order.
function operations(doc) {
  const byTag = new Map((doc.tags ?? []).map(t => [t.name, { description: t.description, list: [] }]));
  for (const [path, item] of Object.entries(doc.paths ?? {})) {
    for (const method of methods.filter(m => item[m])) {
      const op = item[method], tag = op.tags?.[0] ?? 'other';
      if (!byTag.has(tag)) byTag.set(tag, { list: [] });
      byTag.get(tag).list.push({ ...op, path, method, id: op.operationId ?? `${method}-${path}`,
        parameters: [...(item.parameters ?? []), ...(op.parameters ?? [])] });
    }
  }
  return [...byTag].filter(([, group]) => group.list.length);
}

function draw(doc) {
  const groups = operations(doc), schema = schemas(doc);
  document.title = `${doc.info?.title ?? 'sidejob'} API`;
  $('toc').replaceChildren(...groups.map(([tag, { list }]) => el('section', {}, el('h2', {}, tag),
    el('ul', {}, list.map(op => el('li', {}, el('a', { href: `#${op.id}` }, op.summary ?? `${op.method} ${op.path}`)))))));
  $('page').replaceChildren(el('h1', {}, doc.info?.title ?? 'API', ' ', el('small', {}, doc.info?.version)),
    ...prose(doc.info?.description), ...groups.map(([tag, group]) => el('section', {}, el('h2', {}, tag),
      prose(group.description), group.list.map(op => operation(op, doc, schema)))));
}

function operation(op, doc, schema) {
  return el('article', { id: op.id, class: 'op', 'aria-labelledby': `${op.id}-title` },
    el('div', { class: 'text' },
      el('h3', { id: `${op.id}-title` }, op.summary ?? op.id),
      el('p', { class: 'route' }, el('b', { 'data-method': op.method }, op.method), ' ', el('code', {}, op.path)),
      op.deprecated ? el('p', { class: 'notice' }, 'Deprecated.') : null,
      prose(op.description), parameters(op, schema), request(op, schema), responses(op, schema)),
    el('div', { class: 'example' }, snippet('Example', example(op, doc, schema))));
}

function parameters(op, schema) {
  const list = op.parameters.map(p => schema.look(p));
  return ['path', 'query', 'header'].map(place => {
    const here = list.filter(p => p.in === place);
    return here.length ? [el('h4', {}, `${place} parameters`), el('ul', { class: 'fields' },
      here.map(p => schema.field(p.name, p.schema, p.required, p.description ?? p.schema?.description)))] : [];
  }).flat();
}

const contentOf = thing => Object.entries(thing?.content ?? {})[0] ?? [];

function request(op, schema) {
  const body = schema.look(op.requestBody), [type, media] = contentOf(body);
  return media ? [el('h4', {}, 'body ', el('small', {}, type)), ...prose(body.description), schema.body(media.schema, true)] : [];
}

function responses(op, schema) {
  const all = Object.entries(op.responses ?? {}).map(([status, r]) => [status, schema.look(r)]);
  return [el('h4', {}, 'answers'), el('ul', { class: 'answers' }, all.map(([status, r]) => {
    const [, media] = contentOf(r), headers = Object.keys(r.headers ?? {}).join(', ');
    return el('li', {}, el('b', {}, status === 'default' ? 'else' : status), el('div', {}, prose(r.description),
      headers ? el('p', { class: 'limits' }, `headers ${headers}`) : null, media?.schema ? schema.body(media.schema) : null));
  }))];
}

function example(op, doc, schema) {
  const given = p => p.example ?? Object.values(p.examples ?? {})[0]?.value ?? schema.sample(p.schema);
  const list = op.parameters.map(p => schema.look(p));
  const path = op.path.replace(/{(.*?)}/g, (_, name) => encodeURIComponent(given(list.find(p => p.name === name) ?? {})));
  const query = new URLSearchParams(list.filter(p => p.in === 'query' && p.required).map(p => [p.name, given(p)]));
  const [, media] = contentOf(schema.look(op.requestBody));
  const body = media && (media.example ?? Object.values(media.examples ?? {})[0]?.value ?? schema.sample(media.schema));
  const auth = (op.security ?? doc.security ?? []).length > 0;
  return curl(op.method.toUpperCase(), path + (query.size ? `?${query}` : ''), body, auth || undefined);
}

async function start() {
  const narrow = matchMedia('(max-width: 56rem)');
  $('contents').open = !narrow.matches;
  $('toc').addEventListener('click', () => { if (narrow.matches) $('contents').open = false; });
  try {
    draw((await call('/openapi.json')).body);
  } catch (err) {
    $('page').replaceChildren(el('div', { class: 'notice bad', role: 'alert' }, explain(err)));
  }
  // The address named a place that was not there when the page was loaded.
  if (location.hash) $(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

start();

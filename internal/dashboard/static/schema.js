// JSON Schemas as people read them: a type in words, members that unfold, a sample.

import { el } from './api.js';

// prose is text with blank lines between paragraphs and `code` in it.
export function prose(text) {
  return (text ?? '').split(/\n\s*\n/).filter(Boolean).map(p =>
    el('p', {}, p.split('`').map((piece, i) => (i % 2 ? el('code', {}, piece) : piece))));
}

// schemas reads the schemas of one OpenAPI document.
export function schemas(doc) {
  // look follows a $ref, as #/components/schemas/Job. What stands beside it counts too.
  function look(schema = {}) {
    const { $ref, ...beside } = schema;
    return $ref ? { ...look($ref.slice(2).split('/').reduce((at, name) => at?.[name], doc)), ...beside } : schema;
  }

  function typeName(schema) {
    const s = look(schema), types = [s.type].flat().filter(Boolean);
    const options = s.oneOf ?? s.anyOf;
    if (options) return options.map(typeName).join(' or ');
    if (s.const !== undefined) return JSON.stringify(s.const);
    if (s.enum) return s.enum.map(v => JSON.stringify(v)).join(' | ');
    const named = schema.$ref?.split('/').at(-1);
    return types.map(t => (t === 'array' ? `array of ${typeName(s.items)}` : t === 'object' ? named ?? t : t)).join(' or ') || 'any';
  }

  const bounds = [['minimum', 'at least'], ['exclusiveMinimum', 'more than'], ['maximum', 'at most'], ['exclusiveMaximum', 'less than'],
    ['minLength', 'length at least'], ['maxLength', 'length at most'], ['minItems', 'items at least'], ['maxItems', 'items at most'],
    ['pattern', 'matches'], ['format', 'format']];

  // limits says what the type leaves open: bounds, format, default, examples.
  function limits(schema) {
    const s = look(schema);
    const said = bounds.filter(([key]) => s[key] !== undefined && !/^(int|double)/.test(s[key])).map(([key, word]) => `${word} ${s[key]}`);
    if (s.default !== undefined) said.push(`default ${JSON.stringify(s.default)}`);
    if (s.examples?.length) said.push(`for example ${s.examples.map(e => JSON.stringify(e)).join(', ')}`);
    return said.join(', ');
  }

  // inner is the schema whose members stand below a name: an object's own, that of a
  // list's items, or that of a map's values.
  function inner(schema, depth = 0) {
    const s = look(schema);
    if (s.properties && Object.keys(s.properties).length) return s;
    const below = [s.items, typeof s.additionalProperties === 'object' && s.additionalProperties, ...(s.oneOf ?? s.anyOf ?? [])];
    return depth > 5 ? null : below.filter(Boolean).map(b => inner(b, depth + 1)).find(Boolean) ?? null;
  }

  function members(schema) {
    const s = inner(schema);
    if (!s) return null;
    const names = Object.keys(s.properties).filter(name => name !== '$schema'), needed = name => s.required?.includes(name) ?? false;
    names.sort((a, b) => needed(b) - needed(a));
    return el('ul', { class: 'fields' }, names.map(name => field(name, s.properties[name], needed(name))));
  }

  // field is one named value. Its own members are made when they are unfolded, so a
  // schema that contains itself is no trouble.
  function field(name, schema, required, description = look(schema).description) {
    const line = [el('code', {}, name), ' ', el('span', { class: 'type' }, typeName(schema)), ' ', required ? el('em', {}, 'required') : null];
    const text = [...prose(description), limits(schema) ? el('p', { class: 'limits' }, limits(schema)) : null];
    return inner(schema) ? el('li', {}, unfold(line, schema), text) : el('li', {}, line, text);
  }

  function unfold(summary, schema, open = false) {
    const details = el('details', { open }, el('summary', {}, summary));
    if (open) details.append(members(schema));
    else details.addEventListener('toggle', () => details.append(members(schema)), { once: true });
    return details;
  }

  // body is a whole request or response: its type, and its members if it has any.
  function body(schema, open) {
    const name = el('span', { class: 'type' }, typeName(schema));
    return inner(schema) ? unfold([name], schema, open) : el('p', {}, name);
  }

  // sample is a value that fits: examples first, else the required members, else all.
  function sample(schema, depth = 0) {
    const s = look(schema), first = s.examples?.[0] ?? s.example ?? s.default ?? s.const ?? s.enum?.[0];
    if (first !== undefined) return first;
    if (s.oneOf ?? s.anyOf) return sample((s.oneOf ?? s.anyOf)[0], depth + 1);
    const type = [s.type].flat().find(t => t !== 'null');
    if (type === 'array') return depth > 4 ? [] : [sample(s.items, depth + 1)];
    if (type === 'object') return depth > 4 ? {} : sampleObject(s, depth);
    const text = s.format === 'date-time' ? '2026-01-01T09:00:00.000Z' : 'text';
    return { integer: s.minimum ?? 1, number: s.minimum ?? 1, boolean: true, string: text }[type] ?? {};
  }

  function sampleObject(s, depth) {
    const names = Object.keys(s.properties ?? {}).filter(name => name !== '$schema');
    const wanted = names.filter(name => s.required?.includes(name) || look(s.properties[name]).examples);
    return Object.fromEntries((wanted.length ? wanted : names).map(name => [name, sample(s.properties[name], depth + 1)]));
  }

  return { look, field, body, sample };
}

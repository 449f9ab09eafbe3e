'use strict';
(() => {
  const root = document.documentElement;
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];

  // A page that was opened as a file may not be allowed to keep anything.
  const kept = {
    get(key) { try { return localStorage.getItem('nftnet.' + key); } catch { return null; } },
    set(key, value) { try { localStorage.setItem('nftnet.' + key, value); } catch { /* it is forgotten */ } },
  };

  // Before the page is drawn, so that it does not change its looks.
  root.classList.add('has-js');
  if (['light', 'dark'].includes(kept.get('theme'))) root.dataset.theme = kept.get('theme');
  if (kept.get('notes') === 'off') root.dataset.notes = 'off';

  const dark = () => (root.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
  const notesShown = () => root.dataset.notes !== 'off';

  function showState() {
    const theme = $('#theme');
    theme.textContent = dark() ? theme.dataset.light : theme.dataset.dark;
    $('#notes').setAttribute('aria-pressed', String(notesShown()));
  }

  function toggleTheme() {
    root.dataset.theme = dark() ? 'light' : 'dark';
    kept.set('theme', root.dataset.theme);
    showState();
  }

  function toggleNotes() {
    root.dataset.notes = notesShown() ? 'off' : 'on';
    kept.set('notes', root.dataset.notes);
    showState();
    search();
  }

  // What is chosen: a rule, an element, or the heading of a chain or set.
  const chosenKinds = '.r, .e, .head';
  let current = null;
  const trail = [];

  function choose(item, block = 'nearest', focus = true) {
    if (current) current.removeAttribute('aria-current');
    current = item;
    const details = item.closest('details');
    if (details) details.open = true;
    item.setAttribute('aria-current', 'true');
    item.tabIndex = -1;
    if (focus) item.focus({ preventScroll: true });
    show(item, block);
    markPlace(item);
  }

  // What the browser has not drawn yet it has only guessed the height of: where
  // the place came to be is known in the next frame.
  function show(el, block) {
    el.scrollIntoView({ block });
    requestAnimationFrame(() => requestAnimationFrame(() => el.scrollIntoView({ block })));
  }

  // markPlace shows in the contents where the reader is.
  function markPlace(item) {
    for (const a of $$('.tree [aria-current]')) a.removeAttribute('aria-current');
    const title = $('h3[id]', item.closest('.block') || item);
    const link = title && $(`.tree a[href="#${CSS.escape(title.id)}"]`);
    if (!link) return;
    link.setAttribute('aria-current', 'true');
    const tree = $('.tree');
    const top = link.offsetTop - tree.offsetTop;
    if (top < tree.scrollTop || top > tree.scrollTop + tree.clientHeight - 40) tree.scrollTop = top - tree.clientHeight / 2;
  }

  // arrive chooses what the address names.
  function arrive() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const item = target.matches(chosenKinds) ? target : target.closest('.head');
    if ((item || target).closest('[hidden]')) clearSearch();
    if (item) choose(item, item.matches('.head') ? 'start' : 'center');
    else show(target, 'start');
  }

  function go(id) {
    if (decodeURIComponent(location.hash.slice(1)) === id) arrive();
    else location.hash = id;
  }

  function leave(from) {
    if (!from) return;
    const id = from.id || $('h3[id]', from)?.id;
    if (id) trail.push(id);
  }

  function back() {
    const id = trail.pop();
    if (id) go(id);
  }

  function follow() {
    const link = $('.c a', current);
    if (!link) return;
    leave(current);
    go(link.getAttribute('href').slice(1));
  }

  const rules = () => $$('.r').filter((r) => !r.hidden && !r.closest('[hidden]'));

  // step goes to the next rule, or the one before, from wherever the reader is.
  function step(forward) {
    const list = rules();
    if (list.length === 0) return;
    let from = list.indexOf(current);
    if (from < 0) {
      const place = current && current.isConnected ? current : null;
      const after = list.findIndex((r) => place
        ? place.compareDocumentPosition(r) & Node.DOCUMENT_POSITION_FOLLOWING
        : r.getBoundingClientRect().top >= 0);
      const next = after < 0 ? list.length : after;
      from = forward ? next - 1 : next;
    }
    choose(list[Math.min(Math.max(from + (forward ? 1 : -1), 0), list.length - 1)]);
  }

  let saying = 0;
  function say(text) {
    $('#said').textContent = text;
    clearTimeout(saying);
    saying = setTimeout(() => { $('#said').textContent = ''; }, 2500);
  }

  function copyLink(item) {
    const id = item && (item.id || $('h3[id]', item)?.id);
    if (!id) return;
    const link = location.href.replace(/#.*$/, '') + '#' + id;
    const failed = () => say($('#said').dataset.link.replace('{link}', '#' + id));
    if (!navigator.clipboard) return failed();
    navigator.clipboard.writeText(link).then(() => say($('#said').dataset.copied), failed);
  }

  // The texts that are searched, read once.
  let index = null;
  function readIndex() {
    const entry = (el) => ({
      el,
      code: (el.matches('.head') ? $$('h3, pre', el) : $$('.c', el)).map((e) => e.textContent).join(' ').toLowerCase(),
      notes: $$('.x', el).map((e) => e.textContent).join(' ').toLowerCase(),
    });
    const places = new Map($$('.tree a').map((a) => [a.getAttribute('href').slice(1), a.closest('li, section')]));
    const place = (el, title) => places.get($(title, el)?.id);
    index = $$('.table').map((table) => ({
      el: table,
      place: place(table, 'h2'),
      blocks: $$('.block', table).map((block) => ({
        el: block, head: entry($('.head', block)), items: $$('.r, .e', block).map(entry),
        name: ($('.name', block)?.textContent || '').toLowerCase(), place: place(block, 'h3'),
      })),
    }));
  }

  let hits = [];
  let at = -1;
  let typing = 0;

  function search() {
    const words = $('#q').value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    if (!index) {
      if (words.length === 0) return;
      readIndex();
    }
    clearTimeout(typing);
    typing = 0;
    hits = [];
    at = -1;
    for (const table of index) searchTable(table, words);
    root.classList.toggle('searching', words.length > 0);
    if (words.length === 0) hits = [];
    else scrollTo(0, 0);
    highlight(words);
    showHits(words.length > 0);
  }

  // searchTable hides what does not hold all words. A chain that is called so
  // is shown whole.
  function searchTable(table, words) {
    const matches = (e) => words.every((w) => e.code.includes(w) || notesShown() && e.notes.includes(w));
    let some = words.length === 0;
    for (const block of table.blocks) {
      const named = words.every((w) => block.name.includes(w));
      const found = block.items.filter(matches);
      const head = matches(block.head);
      hide(block, !(head || found.length > 0));
      const shown = new Set(found);
      for (const item of block.items) item.el.hidden = !named && !shown.has(item);
      const details = $('details.elements', block.el);
      if (details && words.length > 0 && found.length > 0) details.open = true;
      if (head) hits.push(block.head.el);
      for (const item of found) hits.push(item.el);
      some = some || !block.el.hidden;
    }
    hide(table, !some);
  }

  // hide takes something from the page and from its contents.
  function hide(part, hidden) {
    part.el.hidden = hidden;
    if (part.place) part.place.hidden = hidden;
  }

  // Marks are the browser's own, so that the page stays as it is. More of them
  // than anybody reads would be slow.
  const marked = 2000;
  function highlight(words) {
    if (!window.Highlight || !CSS.highlights) return;
    CSS.highlights.delete('hit');
    if (words.length === 0) return;
    const marks = new Highlight();
    for (const el of hits) {
      if (marks.size > marked) break;
      markWords(el, words, marks);
    }
    CSS.highlights.set('hit', marks);
  }

  function markWords(el, words, marks) {
    const walker = document.createTreeWalker(el, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const text = node.data.toLowerCase();
      if (text.length !== node.data.length) continue;
      for (const word of words) {
        for (let i = text.indexOf(word); i >= 0; i = text.indexOf(word, i + word.length)) {
          const range = new Range();
          range.setStart(node, i);
          range.setEnd(node, i + word.length);
          marks.add(range);
        }
      }
    }
  }

  function showHits(searching) {
    const out = $('#hits');
    const text = !searching ? '' : hits.length === 0 ? out.dataset.none
      : at >= 0 ? out.dataset.of : hits.length === 1 ? out.dataset.one : out.dataset.many;
    out.textContent = text.replace('{i}', at + 1).replace('{n}', hits.length);
  }

  function nextHit(forward, focus = true) {
    if (hits.length === 0) return;
    at = at < 0 && !forward ? hits.length - 1 : (at + (forward ? 1 : -1) + hits.length) % hits.length;
    choose(hits[at], 'center', focus);
    showHits(true);
  }

  function clearSearch() {
    $('#q').value = '';
    search();
  }

  function endSearch() {
    const place = current;
    clearSearch();
    $('#q').blur();
    if (place) choose(place, 'center');
  }

  function searchKey(event) {
    if (typing !== 0) search();
    if (event.key === 'Enter') nextHit(!event.shiftKey, false);
    else if (event.key === 'Escape') endSearch();
    else return;
    event.preventDefault();
  }

  // The keys that answer false are left to the browser.
  const chosen = () => current !== null && document.activeElement === current;
  const keys = {
    '/': () => { $('#q').focus(); $('#q').select(); },
    '?': () => $('#help').showModal(),
    j: () => step(true),
    k: () => step(false),
    ArrowDown: () => chosen() && (step(true), true),
    ArrowUp: () => chosen() && (step(false), true),
    n: () => nextHit(true),
    N: () => nextHit(false),
    Enter: () => chosen() && (follow(), true),
    b: back,
    Backspace: back,
    c: () => copyLink(current),
    e: toggleNotes,
    t: toggleTheme,
    Escape: () => $('#q').value !== '' && (endSearch(), true),
  };

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $('#help').open) return;
    if (event.target === $('#q')) return searchKey(event);
    const action = Object.hasOwn(keys, event.key) && keys[event.key];
    if (action && action() !== false) event.preventDefault();
  }

  function onClick(event) {
    const link = event.target.closest('a[href^="#"]');
    const item = event.target.closest('.r, .e');
    if (link) {
      if (link.matches('.n')) copyLink(item);
      else leave(item || link.closest('.head'));
      if (link.getAttribute('href') === location.hash) arrive();
      return;
    }
    if (item && !event.target.closest('summary, button') && String(getSelection()) === '') choose(item);
  }

  function start() {
    showState();
    $('#q').addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(search, 80); });
    $('.search').addEventListener('submit', (event) => event.preventDefault());
    $('#theme').addEventListener('click', toggleTheme);
    $('#notes').addEventListener('click', toggleNotes);
    $('#keys').addEventListener('click', () => $('#help').showModal());
    document.addEventListener('keydown', onKey);
    document.addEventListener('click', onClick);
    addEventListener('hashchange', arrive);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', showState);
    if (location.hash) arrive();
  }
  document.addEventListener('DOMContentLoaded', start);
})();

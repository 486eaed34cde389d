// Runs in every page before the page's own scripts. Leaves no mark in the document: what it knows is kept beside it.
(() => {
  // ---- one clock, one source of chance
  const RealDate = Date, begin = RealDate.now(), start = RealDate.UTC(2016, 9, 3, 12);
  const now = () => RealDate.now() - begin + start;
  window.Date = new Proxy(RealDate, {
    construct: (target, args) => (args.length ? new target(...args) : new target(now())),
    apply: () => new RealDate(now()).toString(),
    get: (target, key) => (key === 'now' ? now : Reflect.get(target, key)),
  });
  let chance = 1; // until the page is seeded (mulberry32)
  Math.random = () => {
    chance = (chance + 0x6d2b79f5) | 0;
    let t = Math.imul(chance ^ (chance >>> 15), 1 | chance);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  window.alert = window.confirm = window.prompt = () => null; // a dialog would stop the page

  // ---- elements that listen to clicks
  const CLICKS = new Set(['click', 'mousedown', 'mouseup', 'pointerdown']);
  const listening = new WeakSet();
  const add = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function (type, ...rest) {
    if (this instanceof Element && CLICKS.has(type)) listening.add(this);
    return add.call(this ?? window, type, ...rest);
  };
  const listens = (el) => listening.has(el) || ['onclick', 'onmousedown', 'onmouseup'].some((name) => el[name]);

  // ---- the page as text
  const LEFT_OUT = new Set(['reward-display', 'sync-task-cover', 'click-canvas', 'query']);
  const SKIPPED = new Set(['SCRIPT', 'STYLE', 'LINK', 'META', 'NOSCRIPT', 'CANVAS', 'BR', 'HR', 'TEMPLATE']);
  const BARE = new Set(['wrap', 'area']);
  const VOID = new Set(['INPUT', 'IMG']);
  // no data-* (MiniWoB marks what was clicked), no tabindex, nothing of focus, hover or a pressed button
  const ATTRIBUTES = ['id', 'class', 'type', 'name', 'placeholder', 'href', 'title', 'alt', 'role', 'for', 'aria-expanded',
    'aria-selected', 'aria-checked', 'aria-valuenow', 'fill', 'stroke', 'x', 'y', 'cx', 'cy', 'r', 'x1', 'y1', 'x2', 'y2',
    'width', 'height', 'points', 'd', 'transform'];
  const PASSING = /^(ui-(state-(active|focus|hover|default)|visual-focus|corner-\w+|helper-\S+|widget\S*|icon\S*)|focus\w*|hover\w*|active|pressed)$/;
  const STYLES = ['color', 'background-color', 'left', 'top', 'width', 'height', 'text-decoration', 'font-weight', 'font-style'];
  const numbers = new WeakMap();
  let count = 0;
  const number = (el) => {
    if (!numbers.has(el)) numbers.set(el, ++count);
    return numbers.get(el);
  };
  const hidden = (el) => LEFT_OUT.has(el.id) || el.matches('.ui-helper-hidden-accessible, .ui-resizable-handle')
    || SKIPPED.has(el.tagName.toUpperCase())
    || (el.tagName !== 'OPTION' && !el.checkVisibility({ visibilityProperty: true }));
  const escaped = (text) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');
  const own = (el) => {
    const found = [];
    for (const name of ATTRIBUTES) {
      let value = el.getAttribute(name);
      if (value === null || (name === 'id' && /^ui-id-/.test(value)) || (name === 'href' && /^(#|javascript:)/.test(value))) continue;
      if (name === 'class') value = value.split(/\s+/).filter((one) => one && !PASSING.test(one)).join(' ');
      if (value !== '') found.push([name, value]);
    }
    if (el.style instanceof CSSStyleDeclaration) {
      const style = STYLES.filter((name) => el.style.getPropertyValue(name)).map((name) => `${name}:${el.style.getPropertyValue(name)}`);
      if (style.length) found.push(['style', style.join(';')]);
    }
    const box = el instanceof HTMLInputElement && ['checkbox', 'radio'].includes(el.type);
    if (el instanceof HTMLInputElement && !box && el.value) found.push(['value', el.value]);
    for (const [name, on] of [['checked', box && el.checked], ['selected', el instanceof HTMLOptionElement && el.selected],
      ['disabled', el.disabled], ['multiple', el.multiple]]) if (on === true) found.push([name, null]);
    return found;
  };
  const page = (el) => {
    const inside = el instanceof HTMLTextAreaElement ? escaped(el.value)
      : [...el.childNodes].map((node) => {
        if (node instanceof Text) return escaped(node.data.trim());
        return node instanceof Element && !hidden(node) ? page(node) : '';
      }).filter((part) => part).join(' ');
    if (el === document.body || BARE.has(el.id)) return inside;
    const tag = el.tagName.toLowerCase();
    const attributes = own(el).map(([name, value]) => (value === null ? ` ${name}` : ` ${name}="${escaped(value)}"`)).join('');
    const open = `<${tag} backend_node_id="${number(el)}"${attributes}>`;
    return VOID.has(el.tagName) ? open : `${open}${inside}</${tag}>`;
  };

  // ---- what can be done
  const TYPED = new Set(['text', 'password', 'search', 'email', 'tel', 'url', 'number']);
  const ROLES = { A: 'link', BUTTON: 'button', SELECT: 'combobox', TEXTAREA: 'textbox' };
  const role = (el) => {
    if (el instanceof HTMLInputElement) return TYPED.has(el.type) ? 'textbox' : { submit: 'button' }[el.type] ?? el.type;
    return el.getAttribute('role') ?? ROLES[el.tagName] ?? el.tagName.toLowerCase();
  };
  const named = (el) => {
    const label = el.labels?.length ? el.labels[0].innerText : '';
    const button = el instanceof HTMLInputElement && ['button', 'submit', 'reset'].includes(el.type) ? el.value : '';
    const text = el instanceof HTMLSelectElement || el instanceof HTMLTextAreaElement ? '' : el.innerText ?? el.textContent ?? '';
    const words = [label, button, text, el.getAttribute('aria-label'), el.placeholder, el.title, el.alt];
    const said = words.map((word) => (word ?? '').replace(/\s+/g, ' ').trim()).find((word) => word);
    if (said) return said.slice(0, 60);
    const id = (el.id ?? '').replace(/^ui-id-.*/, '');
    const classes = own(el).find(([name]) => name === 'class');
    return id ? `#${id}` : classes ? `.${classes[1].split(' ')[0]}` : '';
  };
  const isList = (el) => el.childElementCount > 2 && new Set([...el.children].map((child) => child.tagName)).size === 1;
  const operation = (el) => {
    if (el.disabled) return null;
    if (el instanceof HTMLSelectElement) return [...el.options].some((o) => !o.selected && !o.disabled) ? 'SELECT' : null;
    if (el instanceof HTMLTextAreaElement || (el instanceof HTMLInputElement && TYPED.has(el.type) && !el.readOnly)) return 'TYPE';
    if (el instanceof HTMLInputElement || el instanceof HTMLButtonElement || el instanceof HTMLAnchorElement) return 'CLICK';
    if (document.body === el || BARE.has(el.id)) return null;
    if (listens(el)) return isList(el) ? null : 'CLICK';
    const parent = el.parentElement;
    return parent && parent !== document.body && listens(parent) && isList(parent) ? 'CLICK' : null;
  };
  const place = (el) => {
    const box = el.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  const collect = (el, found) => {
    if (hidden(el)) return found;
    const op = operation(el);
    if (op) found.push([el, op]);
    for (const child of el.children) collect(child, found);
    return found;
  };

  window.swirl = {
    state: () => ({
      done: WOB_DONE_GLOBAL,
      page: page(document.body),
    }),
    actions: () => {
      const found = collect(document.body, []);
      const elements = new Map(found);
      const free = found.filter(([el]) => {
        let hit = document.elementFromPoint(...place(el));
        while (hit && !elements.has(hit)) hit = hit.parentElement; // what a click there would be for
        return hit === el;
      });
      const seen = new Map();
      swirl.elements = free.map(([el]) => el);
      return free.map(([el, op]) => {
        const phrase = `[${role(el)}] ${named(el)}`.trim();
        seen.set(phrase, (seen.get(phrase) ?? 0) + 1);
        const times = seen.get(phrase);
        const options = op === 'SELECT' ? [...el.options].filter((o) => !o.selected && !o.disabled).map((o) => o.text.trim()) : [];
        return { op, options, node: `${number(el)}`, name: named(el), phrase: times > 1 ? `${phrase} (${times})` : phrase };
      });
    },
    place: (index) => place(swirl.elements[index]),
    take: (index) => { // a text field, for what is typed to replace what is in it
      swirl.elements[index].focus();
      swirl.elements[index].select();
    },
    choose: (index, text) => {
      const el = swirl.elements[index];
      for (const option of el.options) option.selected = option.text.trim() === text;
      for (const type of ['input', 'change']) el.dispatchEvent(new Event(type, { bubbles: true }));
    },
  };
})();

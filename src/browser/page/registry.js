// Runs in an isolated world of every document: sees the page's DOM, is not seen by the page's scripts.
const kept = new Map();
const numbers = new WeakMap();
// Numbers of one document mean nothing in another: they start anywhere.
let next = 1 + Math.floor(Math.random() * 2e9);

const ph = {
  keep(element) {
    if (!(element instanceof Element)) throw new TypeError('ph.keep wants an element');
    let number = numbers.get(element);
    if (number === undefined) {
      number = next++;
      numbers.set(element, number);
      kept.set(number, element);
    }
    return number;
  },

  get(number) {
    const element = kept.get(number);
    return element && element.isConnected ? element : null;
  },

  // All matches in document order, those in open shadow roots included.
  deepQueryAll(css, root = document) {
    const found = [];
    const visit = (scope) => {
      for (const element of scope.querySelectorAll('*')) {
        if (element.matches(css)) found.push(element);
        if (element.shadowRoot) visit(element.shadowRoot);
      }
    };
    if (root.shadowRoot) visit(root.shadowRoot);
    visit(root);
    return found;
  },

  // A CSS selector that finds `element` and nothing else in its document; ` >>> ` steps into an open shadow root.
  css(element) {
    const root = element.getRootNode();
    const only = (css, wanted) => {
      try {
        const found = root.querySelectorAll(css);
        return found.length === 1 && found[0] === wanted;
      } catch {
        return false;
      }
    };
    const byId = (one) => {
      const css = one.id && one.id.length < 80 ? `#${CSS.escape(one.id)}` : '';
      return css && only(css, one) ? css : '';
    };
    const byName = () => {
      const name = element.getAttribute('name');
      if (!name || name.length >= 80) return '';
      const css = `${CSS.escape(element.localName)}[name="${CSS.escape(name)}"]`;
      if (only(css, element)) return css;
      const inForm = element.form && byId(element.form);
      return inForm && only(`${inForm} ${css}`, element) ? `${inForm} ${css}` : '';
    };
    const byPath = () => {
      const path = [];
      for (let at = element; at && path.length < 200; at = at.parentElement) {
        const own = at === element ? '' : byId(at);
        if (own || at === document.documentElement) {
          path.unshift(own || at.localName);
          break;
        }
        let nth = 1;
        for (let before = at.previousElementSibling; before; before = before.previousElementSibling) {
          if (before.localName === at.localName) nth++;
        }
        path.unshift(at === document.body ? at.localName : `${CSS.escape(at.localName)}:nth-of-type(${nth})`);
      }
      return path.join(' > ');
    };
    const css = byId(element) || byName() || byPath();
    return root instanceof ShadowRoot ? `${ph.css(root.host)} >>> ${css}` : css;
  },

  // Calls `look` now, on every change of the document and every 100 ms, until it gives something; null when time is over.
  async watch(look, limit) {
    const end = performance.now() + limit;
    for (;;) {
      const found = await look();
      if (found !== null && found !== undefined) return found;
      const left = end - performance.now();
      if (left <= 0) return null;
      await new Promise((resolve) => {
        const done = () => {
          observer.disconnect();
          clearTimeout(timer);
          resolve();
        };
        const observer = new MutationObserver(done);
        observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
        const timer = setTimeout(done, Math.min(100, left));
      });
    }
  },
};

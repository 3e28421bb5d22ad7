/**
 * Helpers that make and keep elements. Text becomes text nodes only, never markup.
 */

/**
 * An element with properties (`class`, `dataset`, `on…`, attributes) and children.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {{onclick?: (event: MouseEvent) => void, onsubmit?: (event: SubmitEvent) => void, [name: string]: any}} properties
 * @param {...(Node | string | null | undefined)} children
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * The element that `index.html` has under this id.
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 */
export function byId(id, kind = /** @type {new () => any} */ (HTMLElement)) {
  const element = document.getElementById(id);
  if (element instanceof kind) return element;
  throw new Error(`index.html has no ${kind.name} with the id ${id}`);
}

/**
 * Sets a text only if it changed, so that a screen reader does not announce it twice.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The nodes of a text. Each name between U+2068 and U+2069 keeps its own direction of writing. @param {string} text */
export function isolated(text) {
  const parts = text.split(/\u2068(.*?)\u2069/u);
  return parts.map((part, index) => (index % 2 === 1 ? h("bdi", {}, part) : part));
}

/** The sign beside a name that looks like the name of another; nothing without another. @param {string} [other] */
export function unlike(other) {
  return other ? h("span", { class: "unlike" }, "not ", h("bdi", {}, other)) : null;
}

/** The item that each element shows. @type {WeakMap<Element, {key: string, look: string}>} */
const shown = new WeakMap();

/** The key of the item that an element shows. @param {Element} element */
export const keyOf = (element) => shown.get(element)?.key;

/**
 * Makes the children of `parent` show `items`, in order. An item is `{key, ...}`. If the key and the
 * content of a child are unchanged, its element stays, and keeps its focus and its place.
 * @template {{key: string}} Item
 * @param {Element} parent
 * @param {Item[]} items
 * @param {(item: Item) => string} looks
 * @param {(item: Item) => Element} make
 */
export function reconcile(parent, items, looks, make) {
  const before = new Map([...parent.children].map((child) => [keyOf(child), child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const look = looks(item);
    let child = before.get(item.key);
    before.delete(item.key);
    if (!child || shown.get(child)?.look !== look) {
      const made = make(item);
      shown.set(made, { key: item.key, look });
      if (child) {
        if (child === place) place = made;
        child.replaceWith(made);
      }
      child = made;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of before.values()) child.remove();
}

/**
 * A function that runs `action` soon, or after some milliseconds, and once for all calls in between.
 * @param {() => void} action
 */
export function soon(action, after = 0) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    setTimeout(() => {
      asked = false;
      action();
    }, after);
  };
}
